"""Oriented boxes as arrays, and how far one is from another up to the symmetries that a box has.

A box turned into itself by one of its 24 rotations is the same box with its half extents exchanged. A part that is
rounded by exponents has all of them only where both exponents agree; else those 8 that keep its own y axis; one that is
round about an axis may be turned about it by any angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

SIGNS: Array = np.array(list(product((-1.0, 1.0), repeat=3)))
"""Corners of the unit box [8, 3]."""
ROUNDING = 0.35
"""How far the surface moves per unit of an exponent, in half extents: of 2^(-e/2), at 45 degrees, at most."""

ROUND = 1.0 / math.cos(math.pi / 8) - 1.0
"""By this share of its half width a section may bulge and be round: a regular octagon's corners do as much (0.082;
exponents 0.77 to 1.25)."""


def _symmetries() -> Array:
    found = [np.eye(3)[:, list(order)] * signs for order in permutations(range(3)) for signs in SIGNS]
    return np.stack([each for each in found if np.linalg.det(each) > 0])


SYMMETRIES: Array = _symmetries()
"""The 24 rotations of a box [24, 3, 3]: signed permutations."""
POLAR: Mask = np.abs(SYMMETRIES[:, 1, 1]) == 1
"""Those that keep the y axis: 8."""
ORDERS: Rows = np.abs(SYMMETRIES).argmax(axis=1)
"""Which half extent each axis has after the rotation [24, 3]."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """`n` boxes in scene units."""

    centres: Array
    rotations: Array
    """[n, 3, 3]; columns are the axes."""
    halves: Array
    """Half extents along them."""
    exponents: Array
    """[n, 2]; see `smalti.primitives.posed`."""

    def __len__(self) -> int:
        return len(self.centres)

    def take(self, rows: Rows | list[int]) -> Boxes:
        """Some of them."""
        index = np.asarray(rows, dtype=np.int64)
        return Boxes(self.centres[index], self.rotations[index], self.halves[index], self.exponents[index])

    def corners(self) -> Array:
        """[n, 8, 3]."""
        return self.centres[:, None] + (SIGNS * self.halves[:, None]) @ self.rotations.transpose(0, 2, 1)

    def volumes(self) -> Array:
        """Of the boxes."""
        return 8.0 * self.halves.prod(axis=1)

    def diagonal(self) -> float:
        """Of the axis-aligned box around all corners; 0 for none."""
        if not len(self):
            return 0.0
        corners = self.corners().reshape(-1, 3)
        return float(np.linalg.norm(corners.max(axis=0) - corners.min(axis=0)))

    def extent(self) -> float:
        """Largest distance between two corners: does not hang on how the scene is turned. 0 for none."""
        if not len(self):
            return 0.0
        corners = self.corners().reshape(-1, 3)
        farthest = 0.0
        for start in range(0, len(corners), 256):
            between = corners[start : start + 256, None] - corners[None]
            farthest = max(farthest, float((between**2).sum(axis=2).max()))
        return float(np.sqrt(farthest))

    def mapped(self, matrices: Array, shifts: Array) -> Boxes:
        """Under isometries, one per box or one for all ([3, 3], [3]). A mirror image gets its third axis reversed, so
        that the axes are a rotation again; the solid is the same.
        """
        matrices = np.broadcast_to(matrices, (len(self), 3, 3))
        centres = np.einsum("nij,nj->ni", matrices, self.centres) + shifts
        rotations = matrices @ self.rotations
        rotations = rotations * np.where(np.linalg.det(matrices) < 0, -1.0, 1.0)[:, None, None] ** np.array([0, 0, 1])
        return Boxes(centres, rotations, self.halves, self.exponents)


def joined(parts: list[Boxes]) -> Boxes:
    """One after the other."""
    return Boxes(
        np.concatenate([part.centres for part in parts]),
        np.concatenate([part.rotations for part in parts]),
        np.concatenate([part.halves for part in parts]),
        np.concatenate([part.exponents for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class Match:
    """How `n` boxes lie on the boxes that a model says."""

    distances: Array
    """Largest distance between corners that belong together, scene units; infinite where the shapes differ."""
    frames: Array
    """[n, 3, 3]: a member's axes are the model's axes times this."""
    orders: Rows
    """[n, 3]: the model's half extent that each of the member's axes has."""

    def take(self, rows: list[int]) -> Match:
        """Some of them."""
        return Match(self.distances[rows], self.frames[rows], self.orders[rows])


def compare(model: Boxes, members: Boxes, tolerance: float) -> Match:
    """Row by row, over all rotations that leave the shape as it is. Zero on itself, invariant to these rotations, and
    the same both ways round up to the roundness of the part that is asked about.
    """
    count = len(members)
    if not count:
        return Match(np.zeros(0), np.zeros((0, 3, 3)), np.zeros((0, 3), dtype=np.int64))
    halves = model.halves[:, ORDERS]  # [n, 24, 3]
    turned = np.einsum("nij,sjk->nsik", model.rotations, SYMMETRIES)
    spokes = turned * halves[:, :, None, :] - (members.rotations * members.halves[:, None, :])[:, None]
    offsets = (model.centres - members.centres)[:, None, None]
    # |o + B s| for all eight signs s.
    distances = np.linalg.norm(offsets + SIGNS @ spokes.transpose(0, 1, 3, 2), axis=-1).max(axis=-1)
    distances = np.where(_exchangeable(model, tolerance)[:, None] | POLAR, distances, np.inf)
    best = distances.argmin(axis=1)
    rows = np.arange(count)
    match = Match(distances[rows, best], SYMMETRIES[best].copy(), ORDERS[best].copy())
    _turn_round_ones(model, members, tolerance, match)
    match.distances[_rounding(model, members) > tolerance] = np.inf
    return match


def compare_sizes(model: Boxes, members: Boxes, tolerance: float) -> Match:
    """As `compare`, of the sizes and shapes alone: centres and directions do not count."""
    distances = np.linalg.norm(model.halves[:, ORDERS] - members.halves[:, None], axis=2)
    distances = np.where(_exchangeable(model, tolerance)[:, None] | POLAR, distances, np.inf)
    best = distances.argmin(axis=1)
    match = Match(distances[np.arange(len(members)), best], SYMMETRIES[best].copy(), ORDERS[best].copy())
    match.distances[_rounding(model, members) > tolerance] = np.inf
    return match


def _exchangeable(boxes: Boxes, tolerance: float) -> Mask:
    """Whether the pole is like the other axes."""
    return ROUNDING * np.abs(np.diff(boxes.exponents, axis=1))[:, 0] * boxes.halves.max(axis=1) <= tolerance


def _rounding(model: Boxes, members: Boxes) -> Array:
    """How far surfaces are apart because of the exponents."""
    return ROUNDING * np.abs(model.exponents - members.exponents).max(axis=1) * members.halves.max(axis=1)


def _turn_round_ones(model: Boxes, members: Boxes, tolerance: float, match: Match) -> None:
    """Parts that are round about an axis: the member's own turn about it does not count, and stays what it is.

    Round is a section that no turn moves by more than the tolerance (what passes for a cylinder among thin legs is a
    rounded square as a table's top), and that is `ROUND` by itself (a small cube is none however large the tolerance).
    A superellipse of exponent e is 2^((1 - e) / 2) half extents wide at 45 degrees, and 1 along its axes (Barr 1981).
    """
    bulge = np.abs(2.0 ** (0.5 * (1.0 - members.exponents)) - 1.0)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        even = np.abs(members.halves[:, first] - members.halves[:, second]) <= tolerance
        shares = bulge[:, 1] if axis == 1 else bulge.max(axis=1)
        moved = shares * members.halves[:, [first, second]].max(axis=1)
        rows = np.flatnonzero(even & (shares <= ROUND) & (moved <= tolerance))
        for row in rows:
            own, said = members.rotations[row], model.rotations[row]
            pole = own[:, axis] * (1.0 if own[:, axis] @ said[:, axis] >= 0 else -1.0)
            aside = said[:, first] - pole * (pole @ said[:, first])
            length = float(np.linalg.norm(aside))
            if length < 1e-6:
                continue
            aligned = np.empty((3, 3))
            aligned[:, axis], aligned[:, first] = pole, aside / length
            aligned[:, second] = np.cross(aligned[:, axis], aligned[:, first])
            spokes = said * model.halves[row] - aligned * members.halves[row]
            offset = model.centres[row] - members.centres[row]
            distance = float(np.linalg.norm(offset + SIGNS @ spokes.T, axis=1).max())
            if distance < match.distances[row] - 1e-12:
                match.distances[row], match.frames[row] = distance, aligned.T @ own
                match.orders[row] = (0, 1, 2)


def assign(model: Boxes, members: Boxes, tolerance: float) -> tuple[list[int], float] | None:
    """For each member the row of `model` that it lies on, each row taken once at most, and the largest distance; None
    where one lies on none within `tolerance`. The result does not hang on the order.
    """
    count, total = len(members), len(model)
    if count > total:
        return None
    pairs = [(i, j) for i in range(count) for j in range(total)]
    between = np.linalg.norm(members.centres[:, None] - model.centres[None], axis=2)
    pairs = [(i, j) for i, j in pairs if between[i, j] <= tolerance]
    if not pairs:
        return None
    match = compare(model.take([j for _, j in pairs]), members.take([i for i, _ in pairs]), tolerance)
    ranked = sorted(zip(match.distances.tolist(), pairs, strict=True))
    found: dict[int, int] = {}
    taken, worst = set[int](), 0.0
    for distance, (i, j) in ranked:
        if distance <= tolerance and i not in found and j not in taken:
            found[i] = j
            taken.add(j)
            worst = max(worst, distance)
    return ([found[i] for i in range(count)], worst) if len(found) == count else None
