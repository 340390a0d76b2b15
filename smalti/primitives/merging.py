"""Fewer splats that show nearly the same: neighbours become one by the moments of the two.

Rounds: of all edges to the nearest neighbours those that are the cheapest of both their ends are merged, the cheaper
half of them at a time. The cost of an edge is w1 w2 / (w1 + w2) of its weights times how much shape and colour differ:
Bhattacharyya's distance of the two normal distributions, and the squared difference of their colours. The new mean and
covariance are those of the weighted mixture, colours are mixed by weight, and opacity times area is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.rotations import matrix_from_quaternion, quaternion_from_matrix
from smalti.primitives.neighbours import nearest_rows
from smalti.primitives.spherical_harmonics import SH_0

NEIGHBOURS = 6
EDGES = 1 << 18
"""Compared at once: some 100 MB."""
COLOR_WEIGHT = 10.0
SHAPE_WEIGHT = 0.1
MOST_OPACITY = 0.99


@dataclass(eq=False)
class Merged:
    """Splats after merging, float64."""

    values: dict[str, Tensor]
    source: Int[Tensor, "m"]
    """The row that each came from; of a merged one, that of its heaviest part."""
    fresh: Bool[Tensor, "m"]
    """Merged of several."""


@torch.no_grad()
def merged(values: Mapping[str, Tensor], weights: Float[Tensor, "n"], count: int) -> Merged:
    """At most `count` splats of those of positive weight (`means`, `log_scales`, `quaternions`, `logit_opacities` and
    colours that are linear), fewer than there are. Those that nothing was merged into keep their rows and numbers;
    those with a number that is not finite, which are drawn nowhere, go.
    """
    usable = torch.stack([value.detach().isfinite().reshape(len(value), -1).all(1) for value in values.values()]).all(0)
    weights = torch.where(usable, weights, -torch.ones_like(weights))
    rows = torch.nonzero(weights > 0).squeeze(1)
    if len(rows) <= count or count == 0:
        rows = weights.argsort(descending=True, stable=True)[:count]
        rows = rows[weights[rows] >= 0].sort().values
    now = Merged(
        {key: value.detach().double()[rows] for key, value in values.items()},
        rows,
        torch.zeros(len(rows), dtype=torch.bool, device=rows.device),
    )
    held = weights.double()[rows].clamp_min(1e-300)
    while len(held) > count:
        first, second = _pairs(now.values, held, min(NEIGHBOURS, len(held) - 1))
        # The cheaper half, so that what was merged may look around again.
        most = min(len(held) - count, (len(first) + 1) // 2)
        held = _merge(now, held, first[:most], second[:most])
    return now


def _pairs(
    values: Mapping[str, Tensor], weights: Float[Tensor, "n"], neighbours: int
) -> tuple[Int[Tensor, "p"], Int[Tensor, "p"]]:
    """Disjoint pairs, cheapest first; at least one."""
    near = nearest_rows(values["means"], neighbours)
    own = torch.arange(len(near), device=near.device)[:, None].expand_as(near)
    edges = torch.stack([torch.minimum(own, near), torch.maximum(own, near)], dim=2).reshape(-1, 2)
    first, second = torch.unique(edges, dim=0).unbind(1)
    order = _costs(values, weights, first, second).argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    best = torch.full_like(weights, len(order), dtype=torch.int64)
    best = best.scatter_reduce(0, first, rank, "amin").scatter_reduce(0, second, rank, "amin")
    mutual = (best[first] == rank) & (best[second] == rank)
    chosen = order[mutual[order]]
    return first[chosen], second[chosen]


def _costs(
    values: Mapping[str, Tensor], weights: Float[Tensor, "n"], first: Int[Tensor, "e"], second: Int[Tensor, "e"]
) -> Float[Tensor, "e"]:
    spread = _covariances(values)
    # Flat splats get a hundredth of their size as thickness, or two in one plane would be infinitely far apart.
    size = spread.diagonal(dim1=1, dim2=2).sum(dim=1)
    eye = torch.eye(3, dtype=spread.dtype, device=spread.device)
    spread = spread + 1e-4 * size[:, None, None] * eye
    logs = torch.logdet(spread)

    def cost(one: Tensor, two: Tensor) -> Tensor:
        both = 0.5 * (spread[one] + spread[two])
        apart = values["means"][one] - values["means"][two]
        away = (apart * torch.linalg.solve(both, apart)).sum(dim=1)
        shape = away + 4.0 * (torch.logdet(both) - 0.5 * (logs[one] + logs[two]))
        color = (SH_0 * (values["sh_dc"][one] - values["sh_dc"][two])).square().sum(dim=1)
        lost = weights[one] * weights[two] / (weights[one] + weights[two])
        return (lost * (SHAPE_WEIGHT * shape + COLOR_WEIGHT * color)).nan_to_num(torch.inf)

    return torch.cat([cost(*part) for part in zip(first.split(EDGES), second.split(EDGES), strict=True)])


def _merge(now: Merged, weights: Float[Tensor, "n"], first: Int[Tensor, "p"], second: Int[Tensor, "p"]) -> Tensor:
    """Replace the pairs by what they become, at the end; the new weights."""
    values = now.values
    share = weights[first] / (weights[first] + weights[second])

    def mixed(value: Tensor) -> Tensor:
        part = share.reshape(-1, *[1] * (value.dim() - 1))
        return part * value[first] + (1.0 - part) * value[second]

    spread, middle = _covariances(values), mixed(values["means"])
    outer = torch.zeros_like(spread[first])
    for rows, part in ((first, share), (second, 1.0 - share)):
        away = values["means"][rows] - middle
        outer += part[:, None, None] * (spread[rows] + away[:, :, None] * away[:, None, :])
    lengths, frames = torch.linalg.eigh(outer)
    # Longest first: of a disk the two that it has, and its normal last.
    lengths, frames = lengths.flip(1).clamp_min(1e-40).sqrt(), frames.flip(2)
    frames = torch.cat([frames[..., :2], frames[..., 2:] * torch.linalg.det(frames).sign()[:, None, None]], dim=2)
    axes = values["log_scales"].shape[1]
    new = {
        "means": middle,
        "log_scales": lengths[:, :axes].log(),
        "quaternions": quaternion_from_matrix(frames),
        "logit_opacities": _opacities(values, first, second, lengths[:, 0] * lengths[:, 1]),
    }
    keep = torch.ones(len(weights), dtype=torch.bool, device=weights.device)
    keep[first] = keep[second] = False
    for key, value in values.items():
        values[key] = torch.cat([value[keep], new[key] if key in new else mixed(value)])
    heavier = torch.where(share >= 0.5, first, second)
    now.source = torch.cat([now.source[keep], now.source[heavier]])
    now.fresh = torch.cat([now.fresh[keep], torch.ones_like(first, dtype=torch.bool)])
    return torch.cat([weights[keep], weights[first] + weights[second]])


def _opacities(
    values: Mapping[str, Tensor], first: Int[Tensor, "p"], second: Int[Tensor, "p"], areas: Float[Tensor, "p"]
) -> Float[Tensor, "p"]:
    """Logits; opacity times the product of the two longest axes is kept where it can be."""
    sizes = values["log_scales"].exp().sort(dim=1, descending=True).values
    mass = values["logit_opacities"].sigmoid() * sizes[:, 0] * sizes[:, 1]
    return torch.logit(((mass[first] + mass[second]) / areas).clamp(1e-4, MOST_OPACITY))


def _covariances(values: Mapping[str, Tensor]) -> Float[Tensor, "n 3 3"]:
    frames = matrix_from_quaternion(values["quaternions"])
    lengths = torch.nn.functional.pad(values["log_scales"].exp(), (0, 3 - values["log_scales"].shape[1]))
    turned = frames * lengths[:, None, :]
    return turned @ turned.mT
