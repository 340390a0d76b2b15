"""Points that keep their distance, chosen from too many."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.primitives.neighbours import nearest_rows

NEIGHBOURS = 24
"""Within the radius of a thinning to a quarter there are nine others in the mean."""
HALVINGS = 10


@torch.no_grad()
def thinned(points: Float[Tensor, "n 3"], count: int, area: float, generator: torch.Generator) -> Int[Tensor, "count"]:
    """Ascending rows of `count` of the points, spread over their surface of `area` with hardly two nearer to each other
    than a common radius, which is bisected until it leaves about `count` of them (a maximal Poisson-disk sample: a
    maximal independent set of the graph of near pairs, Luby 1986).
    """
    if count >= len(points):
        return torch.arange(len(points))
    neighbours = min(NEIGHBOURS, len(points) - 1)
    rows = nearest_rows(points, neighbours)
    distances = (points[rows] - points[:, None]).norm(dim=2)
    rank = torch.randperm(len(points), generator=generator)
    # Hexagonally packed disks would leave `count` at the greatest radius.
    low, high = 0.0, math.sqrt(2.0 / math.sqrt(3.0) * area / count)
    best = torch.arange(len(points))
    for _ in range(HALVINGS):
        radius = 0.5 * (low + high)
        kept = torch.nonzero(_independent(rows, distances < radius, rank)).squeeze(1)
        if len(kept) >= count:
            low, best = radius, kept
        else:
            high = radius
        if len(kept) == count:
            break
    chosen = torch.randperm(len(best), generator=generator)[:count]
    return best[chosen].sort().values


def _independent(rows: Int[Tensor, "n k"], near: Bool[Tensor, "n k"], rank: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """A maximal set without near pairs: in rounds, whoever ranks before all near ones still in question is in."""
    inside = torch.zeros(len(rows), dtype=torch.bool)
    open_ = torch.ones_like(inside)
    last = len(rank)
    while bool(open_.any()):
        asked = torch.nonzero(open_).squeeze(1)
        around = rows[asked]
        others = torch.where(near[asked] & open_[around], rank[around], last).amin(dim=1)
        chosen = asked[rank[asked] < others]
        inside[chosen] = True
        open_[chosen] = False
        open_[rows[chosen][near[chosen]]] = False
        asked = torch.nonzero(open_).squeeze(1)  # lists are cut off at k, so nearness is not always mutual
        open_[asked[(near[asked] & inside[rows[asked]]).any(dim=1)]] = False
    return inside
