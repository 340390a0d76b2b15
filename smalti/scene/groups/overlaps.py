"""Which blocks came to overlap by an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes
from smalti.scene.groups.members import PartId

LEAST = 0.05
"""Of the smaller one's volume."""
SIDE = 9
"""Points per axis with which the volume is measured."""
_GRID: Array = (np.array(list(product(range(SIDE), repeat=3)), dtype=np.float64) + 0.5) / SIDE * 2.0 - 1.0


@dataclass(frozen=True)
class Overlap:
    """Two blocks, and how much of the smaller one lies in the other."""

    first: PartId
    second: PartId
    share: float


def new_overlaps(
    before: tuple[Sequence[PartId | None], Boxes], after: tuple[Sequence[PartId], Boxes]
) -> tuple[Overlap, ...]:
    """Pairs that overlap by more than `LEAST` and did not before. `before` holds the parts by their names of after."""
    old = {part: row for row, part in enumerate(before[0]) if part is not None}
    names, boxes = after
    touched = [_moved(old, before[1], part, boxes.take([row])) for row, part in enumerate(names)]
    reach = np.linalg.norm(boxes.halves, axis=1)
    found = list[Overlap]()
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            if not (touched[i] or touched[j]):
                continue
            if np.linalg.norm(boxes.centres[i] - boxes.centres[j]) > reach[i] + reach[j]:
                continue
            now = shared(boxes, i, j)
            if now > LEAST:
                one, two = old.get(names[i]), old.get(names[j])
                if one is None or two is None or shared(before[1], one, two) <= LEAST:
                    found.append(Overlap(names[i], names[j], round(now, 4)))
    return tuple(found)


def shared(boxes: Boxes, first: int, second: int) -> float:
    """Share (0..1) of the smaller block that lies in the other one; by `SIDE`^3 points."""
    small, large = sorted((first, second), key=lambda row: float(boxes.halves[row].prod()))
    local = _GRID[_inside(_GRID, boxes.exponents[small])]
    points = (local * boxes.halves[small]) @ boxes.rotations[small].T + boxes.centres[small]
    other = ((points - boxes.centres[large]) @ boxes.rotations[large]) / boxes.halves[large]
    return float(_inside(other, boxes.exponents[large]).mean())


def _inside(points: Array, exponents: Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """In a superquadric of unit half extents (Barr 1981)."""
    e1, e2 = np.maximum(exponents, 0.05)
    x, y, z = np.abs(points).clip(1e-9, 5.0).T
    large, small = np.maximum(x, z), np.minimum(x, z)
    ring = large * (1.0 + (small / large) ** (2.0 / e2)) ** (0.5 * e2)
    outer, inner = np.maximum(ring, y), np.minimum(ring, y)
    return outer * (1.0 + (inner / outer) ** (2.0 / e1)) ** (0.5 * e1) <= 1.0


def _moved(old: dict[PartId, int], before: Boxes, part: PartId, box: Boxes) -> bool:
    row = old.get(part)
    if row is None:
        return True
    values = ((before.centres, box.centres), (before.rotations, box.rotations), (before.halves, box.halves))
    return any(not np.array_equal(one[row], two[0]) for one, two in values)
