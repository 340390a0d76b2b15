"""How far two surfaces are from each other: the protocol of DTU (Jensen et al. 2014; Aanæs et al. 2016), as Monnier et
al. 2023 use it for blocks: the surface is sampled evenly and thinned, the truth are points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.primitives.surface import Surface

BLOCK = 1 << 22
"""Distances that are held at a time."""
DENSE = 4.0
"""Samples per square of `spacing`, before they are thinned."""


@dataclass(frozen=True)
class Chamfer:
    """Mean distances, in the points' unit."""

    accuracy: float
    """From the samples to the truth; NaN where none counts."""
    completeness: float
    """From the truth to the samples; NaN where none counts."""
    samples: int
    """Samples that count towards `accuracy`."""
    truths: int
    """Points of the truth that count towards `completeness`."""

    @property
    def mean(self) -> float:
        """Half of their sum: the figure that is called Chamfer distance."""
        return 0.5 * (self.accuracy + self.completeness)


def chamfer(
    samples: Float[Tensor, "n 3"],
    truth: Float[Tensor, "m 3"],
    *,
    limit: float = math.inf,
    within: Bool[Tensor, "n"] | None = None,
) -> Chamfer:
    """Both directions. Not differentiable.

    `limit`: distances of that much or more are left out of either mean (20 mm on DTU). `within`: the samples that are
    judged (those inside the observed volume); all of them complete the truth. Raises ValueError where there are no
    samples or no points.
    """
    if not len(samples) or not len(truth):
        raise ValueError(f"chamfer: {len(samples)} samples against {len(truth)} points; both must be there")
    forward, backward = nearest_distances(samples, truth), nearest_distances(truth, samples)
    forward = forward[forward < limit] if within is None else forward[within & (forward < limit)]
    backward = backward[backward < limit]
    return Chamfer(_mean(forward), _mean(backward), len(forward), len(backward))


def nearest_distances(points: Float[Tensor, "n 3"], others: Float[Tensor, "m 3"]) -> Float[Tensor, "n"]:
    """The distance of every point to the nearest of `others`, float64: all are compared, in blocks."""
    known = others.detach().cpu().double()
    parts = points.detach().cpu().double().split(max(1, BLOCK // max(len(known), 1)))
    # Differences, not the expanded square: that loses the digits of small distances.
    exact = "donot_use_mm_for_euclid_dist"
    found = [torch.cdist(part, known, compute_mode=exact).amin(dim=1) for part in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def sampled(surface: Surface, spacing: float, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Points of the surface that are at least `spacing` apart and nowhere much further: `DENSE` random ones per square
    of it, thinned. Empty for a surface without area.
    """
    if not spacing > 0:
        raise ValueError(f"sampled: the spacing must be positive, got {spacing}")
    area = float(surface.areas().double().sum()) if len(surface.faces) else 0.0
    if not area > 0:
        return surface.vertices.new_zeros(0, 3)
    points = surface.sample(math.ceil(DENSE * area / spacing**2), generator).positions
    return points[thinned(points, spacing, generator)]


def thinned(points: Float[Tensor, "n 3"], radius: float, generator: torch.Generator) -> Int[Tensor, "k"]:
    """Rows that are left when, in random order, every point removes those nearer than `radius` (rising)."""
    order = torch.randperm(len(points), generator=generator).tolist()
    # Cells of this edge: no two kept points share one, so every cell holds at most one.
    edge = radius / math.sqrt(3.0)
    places: list[tuple[float, float, float]] = [tuple(row) for row in points.detach().cpu().double().tolist()]
    cells: list[tuple[int, int, int]] = [tuple(math.floor(x / edge) for x in place) for place in places]  # pyright: ignore[reportAssignmentType]
    kept: dict[tuple[int, int, int], int] = {}
    square = radius * radius
    for row in order:
        near = (kept.get(cell) for cell in _around(cells[row]))
        if all(other is None or _squared(places[row], places[other]) >= square for other in near):
            kept[cells[row]] = row
    return torch.tensor(sorted(kept.values()), dtype=torch.int64)


_OFFSETS = sorted(product((-2, -1, 0, 1, 2), repeat=3), key=lambda cell: sum(abs(step) for step in cell))
"""Nearest first: most points go by a neighbour close by."""


def _around(cell: tuple[int, int, int]) -> Iterable[tuple[int, int, int]]:
    x, y, z = cell
    return ((x + i, y + j, z + k) for i, j, k in _OFFSETS)


def _squared(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan
