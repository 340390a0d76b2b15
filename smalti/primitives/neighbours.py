"""Distances to nearest neighbours: exact, without a tree library, memory flat in the number of points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAF = 64
"""Points per leaf of the median-split tree."""


@torch.no_grad()
def neighbour_distances(points: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "n"]:
    """Root mean square distance from each point to its `count` nearest others (fewer where there are fewer)."""
    n = points.shape[0]
    count = min(count, n - 1)
    if count < 1:
        return torch.ones(n, dtype=torch.float32, device=points.device)
    result = torch.empty(n, dtype=torch.float64)
    for leaf, distances, _ in _nearest_by_leaf(points, count):
        result[leaf] = distances.square().mean(1).sqrt()
    return result.to(points.device, torch.float32)


@torch.no_grad()
def nearest_rows(points: Float[Tensor, "n 3"], count: int) -> Int[Tensor, "n count"]:
    """The `count` nearest others of each point, nearest first; needs more points than that."""
    if not 0 < count < len(points):
        raise ValueError(f"nearest_rows: {len(points)} points have no {count} neighbours each")
    result = torch.empty(len(points), count, dtype=torch.int64)
    for leaf, _, rows in _nearest_by_leaf(points, count):
        result[leaf] = rows
    return result.to(points.device)


@torch.no_grad()
def nearest_of(points: Float[Tensor, "n 3"], others: Float[Tensor, "m 3"]) -> Int[Tensor, "n"]:
    """The row of the nearest of `others`, of which there is at least one, for each of `points`."""
    values, targets = points.detach().cpu().double(), others.detach().cpu().double()
    leaves = _leaves(targets, LEAF)
    low = torch.stack([targets[leaf].amin(0) for leaf in leaves])
    high = torch.stack([targets[leaf].amax(0) for leaf in leaves])
    result = torch.empty(len(values), dtype=torch.int64)
    for leaf in _leaves(values, LEAF) if len(values) else []:
        own = values[leaf]
        gap = ((low - own.amax(0)).clamp_min(0) + (own.amin(0) - high).clamp_min(0)).square().sum(1)
        first = leaves[int(gap.argmin())]
        bound = _distances(own, targets[first]).amin(1).amax()
        near = torch.cat([leaves[k] for k in torch.nonzero(gap <= bound.square()).squeeze(1).tolist()])
        result[leaf] = near[_distances(own, targets[near]).argmin(1)]
    return result.to(points.device)


def _distances(points: Float[Tensor, "n 3"], others: Float[Tensor, "m 3"]) -> Float[Tensor, "n m"]:
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _nearest_by_leaf(points: Float[Tensor, "n 3"], count: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(rows of a leaf, distances, rows of the nearest others).

    Points are split at medians into leaves; a leaf is compared with itself, which bounds how far its points need to
    look, and then with every leaf whose box is nearer than that bound.
    """
    values = points.detach().cpu().double()
    leaves = _leaves(values, max(LEAF, count + 1))
    low = torch.stack([values[leaf].amin(0) for leaf in leaves])
    high = torch.stack([values[leaf].amax(0) for leaf in leaves])
    for number, leaf in enumerate(leaves):
        bound = _nearest(values, leaf, leaf, count)[0][:, -1].amax()
        gap = (low - high[number]).clamp_min(0) + (low[number] - high).clamp_min(0)
        near = torch.nonzero(gap.square().sum(1) <= bound.square()).squeeze(1).tolist()
        others = torch.cat([leaves[other] for other in near])
        yield leaf, *_nearest(values, leaf, others, count)


def _nearest(
    points: Float[Tensor, "n 3"], rows: Int[Tensor, "p"], others: Int[Tensor, "q"], count: int
) -> tuple[Float[Tensor, "p count"], Int[Tensor, "p count"]]:
    """Distances to the `count` nearest of `others`, which hold `rows` themselves (left out), and which they are."""
    distance = _distances(points[rows], points[others])
    distance[rows[:, None] == others[None]] = torch.inf
    nearest = distance.topk(count, dim=1, largest=False)
    return nearest.values, others[nearest.indices]


def _leaves(points: Float[Tensor, "n 3"], size: int) -> list[Int[Tensor, "m"]]:
    """Row numbers, split at medians along the widest axis until at most `2 * size` remain together."""
    pending, leaves = [torch.arange(len(points))], []
    while pending:
        rows = pending.pop()
        if len(rows) <= 2 * size:
            leaves.append(rows)
            continue
        part = points[rows]
        axis = int((part.amax(0) - part.amin(0)).argmax())
        order = torch.argsort(part[:, axis], stable=True)
        half = len(rows) // 2
        pending += [rows[order[:half]], rows[order[half:]]]
    return leaves
