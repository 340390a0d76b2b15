"""Distances to nearest neighbours: exact, without a tree library, memory flat in the number of points."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAF = 64
"""Points per leaf of the median-split tree."""


@torch.no_grad()
def neighbour_distances(points: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "n"]:
    """Root mean square distance from each point to its `count` nearest others (fewer where there are fewer).

    Points are split at medians into leaves; a leaf is compared with itself, which bounds how far its points need to
    look, and then with every leaf whose box is nearer than that bound.
    """
    n = points.shape[0]
    count = min(count, n - 1)
    if count < 1:
        return torch.ones(n, dtype=torch.float32, device=points.device)
    values = points.detach().cpu().double()
    leaves = _leaves(values, max(LEAF, count + 1))
    low = torch.stack([values[leaf].amin(0) for leaf in leaves])
    high = torch.stack([values[leaf].amax(0) for leaf in leaves])
    result = torch.empty(n, dtype=torch.float64)
    for number, leaf in enumerate(leaves):
        own = values[leaf]
        bound = _nearest(own, own, count)[:, -1].amax()
        gap = (low - high[number]).clamp_min(0) + (low[number] - high).clamp_min(0)
        near = torch.nonzero(gap.square().sum(1) <= bound.square()).squeeze(1).tolist()
        others = values[torch.cat([leaves[other] for other in near])]
        result[leaf] = _nearest(own, others, count).square().mean(1).sqrt()
    return result.to(points.device, torch.float32)


def _nearest(points: Float[Tensor, "p 3"], others: Float[Tensor, "q 3"], count: int) -> Float[Tensor, "p count"]:
    """Distances to the `count` nearest of `others`, which hold the points themselves (left out)."""
    distance = torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.topk(count + 1, dim=1, largest=False).values[:, 1:]


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
