"""How far parts have to move outwards so that their boxes are apart, in closed form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SPREAD = 0.5
"""Every part moves by at least this share of its distance from the common centre."""
GAP = 0.06
"""Free space between the boxes, as a share of the parts' mean edge."""
CENTRAL = 1e-3
"""Nearer to the centre than this share of the extent, a part has no direction of its own."""


def displacements(boxes: Float[Tensor, "p 2 3"]) -> Float[Tensor, "p 3"]:
    """How far each part moves straight away from the common centre, so that no two axis-aligned boxes (low, high)
    overlap.

    The innermost stays. The others follow from the inside outwards, each as little as it may: while a box moves along
    a line, it overlaps a standing one on one interval of the path, whose ends are the slabs' (the standing box widened
    by the moving one's half edges); it stops at the least distance, of `SPREAD` times its own from the centre or more,
    that lies in none of the intervals. Parts at the very centre get directions spread over the sphere. Float64. Not
    differentiable.

    >>> import torch
    >>> from smalti.scene.explode import displacements
    >>> unit = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> two = torch.stack([unit, unit + torch.tensor([1.0, 0.0, 0.0])])
    >>> [round(x, 2) for x in displacements(two)[:, 0].tolist()]
    [0.0, 1.12]
    """
    boxes = boxes.detach().double().cpu()
    middles, halves = boxes.mean(dim=1), 0.5 * (boxes[:, 1] - boxes[:, 0])
    weights = halves.prod(dim=1) + 1e-12 * float(halves.max()) ** 3
    centre = (weights[:, None] * middles).sum(dim=0) / weights.sum()
    away = middles - centre
    distances = away.norm(dim=1)
    extent = float((boxes[:, 1].amax(dim=0) - boxes[:, 0].amin(dim=0)).max())
    gap = GAP * float((2.0 * halves).mean())
    result = torch.zeros_like(middles)
    standing: list[int] = []
    for row in distances.argsort(stable=True).tolist():
        if standing:
            central = float(distances[row]) <= CENTRAL * extent
            direction = _spread_over_sphere(len(standing)) if central else away[row] / distances[row]
            reach = halves[standing] + halves[row] + gap
            far = _clearance(middles[row], direction, (middles + result)[standing], reach)
            result[row] = _least_free(far, SPREAD * float(distances[row])) * direction
        standing.append(row)
    return result


def _clearance(
    start: Float[Tensor, "3"], direction: Float[Tensor, "3"], centres: Float[Tensor, "s 3"], reach: Float[Tensor, "s 3"]
) -> list[tuple[float, float]]:
    """Open intervals of t in which start + t direction lies inside the boxes of half edges `reach`."""
    offset = centres - start
    still = direction == 0
    safe = torch.where(still, torch.ones_like(direction), direction)
    ends = torch.stack([(offset - reach) / safe, (offset + reach) / safe])
    low, high = ends.amin(dim=0), ends.amax(dim=0)
    # Along an axis on which it does not move, it is between the slabs always or never.
    inside = offset.abs() < reach
    low = torch.where(still, torch.where(inside, -math.inf, math.inf), low).amax(dim=1)
    high = torch.where(still, torch.where(inside, math.inf, -math.inf), high).amin(dim=1)
    return [(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True) if a < b]


def _least_free(taken: list[tuple[float, float]], least: float) -> float:
    """The smallest number, `least` or more, inside none of the open intervals."""
    for low, high in sorted(taken):
        if low < least < high:
            least = high
    return least


def _spread_over_sphere(number: int) -> Float[Tensor, "3"]:
    """Directions of a spiral with the golden angle, none of them near another."""
    height = 1.0 - 2.0 * ((number * 0.6180339887498949) % 1.0)
    angle = number * math.pi * (3.0 - math.sqrt(5.0))
    flat = math.sqrt(max(0.0, 1.0 - height * height))
    return torch.tensor([flat * math.cos(angle), height, flat * math.sin(angle)], dtype=torch.float64)
