"""The regularities: each says, by a few numbers, where the copies of a part lie. A group is a part and a chain of them,
the outermost first (an array of mirrored pairs: an array of a mirror of a block).

A copy has a slot, a tuple of whole numbers; slot 0 is the part itself. Prices are those of Jones et al. 2023
(ShapeCoder): 1 for a function, 2 for a free number, 0.5 for a constant, a count or an axis. Planes and axes are of the
scene, as the coordinate axes are there: one of them costs what an axis costs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np

from smalti.scene.groups.boxes import Array

Slot = tuple[int, ...]
"""Of one level."""
Vector = tuple[float, float, float]
FUNCTION, FREE, CONSTANT, CHOICE, OPERATOR, ERROR = 1.0, 2.0, 0.5, 0.5, 0.1, 10.0
"""Prices of a function, a free number, a constant, a count or axis, a float operator, and a unit of mean error."""


class Level(ABC):
    """One regularity."""

    kind: ClassVar[str]
    price: ClassVar[float]
    """Of the function and its arguments."""
    freedom: ClassVar[int]
    """Free numbers as `moved` counts them."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Copies, the part itself included, missing ones too."""

    @property
    @abstractmethod
    def free(self) -> int:
        """Numbers that a person could set, of those in `to_plain`."""

    @abstractmethod
    def slots(self) -> list[Slot]:
        """All of them."""

    @abstractmethod
    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        """(matrices [n, 3, 3], shifts [n, 3]) from the part to its copies."""

    @abstractmethod
    def moved(self, step: Array, middle: Array) -> Self:
        """A neighbour: `freedom` small numbers, rotations about `middle`. For fitting."""

    @abstractmethod
    def carried(self, matrix: Array, shift: Array) -> Self:
        """The same regularity after an isometry of the scene."""

    @abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """Numbers and lists, for JSON."""


@dataclass(frozen=True)
class Mirror(Level):
    """The part and its image at the plane `normal . x = offset`."""

    normal: Vector
    offset: float
    kind: ClassVar[str] = "mirror"
    price: ClassVar[float] = FUNCTION + CHOICE
    freedom: ClassVar[int] = 3

    @property
    def count(self) -> int:
        return 2

    @property
    def free(self) -> int:
        return 3

    def slots(self) -> list[Slot]:
        return [(0,), (1,)]

    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        image, still = reflection(self.normal, self.offset), (np.eye(3), np.zeros(3))
        return stacked([image if slot[0] else still for slot in slots])

    def moved(self, step: Array, middle: Array) -> Self:
        normal = unit(np.array(self.normal) + perpendicular(self.normal) @ step[:2])
        drift = float(middle @ (normal - np.array(self.normal)))
        return replace(self, normal=triple(normal), offset=self.offset + drift + float(step[2]))

    def carried(self, matrix: Array, shift: Array) -> Self:
        normal = matrix @ np.array(self.normal)
        return replace(self, normal=triple(normal), offset=self.offset + float(normal @ shift))

    def to_plain(self) -> dict[str, Any]:
        return {"plane": {"n": list(self.normal), "o": self.offset}}


@dataclass(frozen=True)
class DoubleMirror(Level):
    """Four copies by two planes at right angles to each other."""

    normals: tuple[Vector, Vector]
    offsets: tuple[float, float]
    kind: ClassVar[str] = "double_mirror"
    price: ClassVar[float] = 2 * (FUNCTION + CHOICE)
    freedom: ClassVar[int] = 5

    @property
    def count(self) -> int:
        return 4

    @property
    def free(self) -> int:
        return 5

    def slots(self) -> list[Slot]:
        return [(0, 0), (1, 0), (0, 1), (1, 1)]

    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        first, second = (reflection(n, o) for n, o in zip(self.normals, self.offsets, strict=True))
        still = (np.eye(3), np.zeros(3))
        found: list[tuple[Array, Array]] = []
        for slot in slots:
            one, two = first if slot[0] else still, second if slot[1] else still
            found.append((two[0] @ one[0], two[0] @ one[1] + two[1]))
        return stacked(found)

    def moved(self, step: Array, middle: Array) -> Self:
        turn = rotation(step[:3])
        normals = [turn @ np.array(each) for each in self.normals]
        drift = [float(middle @ (n - np.array(m))) for n, m in zip(normals, self.normals, strict=True)]
        offsets = (self.offsets[0] + drift[0] + float(step[3]), self.offsets[1] + drift[1] + float(step[4]))
        return replace(self, normals=(triple(normals[0]), triple(normals[1])), offsets=offsets)

    def carried(self, matrix: Array, shift: Array) -> Self:
        normals = [matrix @ np.array(each) for each in self.normals]
        offsets = [o + float(n @ shift) for o, n in zip(self.offsets, normals, strict=True)]
        return replace(self, normals=(triple(normals[0]), triple(normals[1])), offsets=(offsets[0], offsets[1]))

    def to_plain(self) -> dict[str, Any]:
        planes = zip(self.normals, self.offsets, strict=True)
        return {"planes": [{"n": list(normal), "o": offset} for normal, offset in planes]}


@dataclass(frozen=True)
class LinearArray(Level):
    """Copies at equal distances along a direction."""

    direction: Vector
    spacing: float
    number: int
    """Copies, the part itself included."""
    kind: ClassVar[str] = "array"
    price: ClassVar[float] = FUNCTION + CHOICE + CHOICE + FREE
    freedom: ClassVar[int] = 3

    @property
    def step(self) -> Array:
        """From a copy to the next."""
        return self.spacing * np.array(self.direction)

    @staticmethod
    def of(step: Array, number: int) -> LinearArray:
        """The array with this step."""
        length = float(np.linalg.norm(step))
        return LinearArray(triple(step / length), length, number)

    @property
    def count(self) -> int:
        return self.number

    @property
    def free(self) -> int:
        return 3

    def slots(self) -> list[Slot]:
        return [(number,) for number in range(self.number)]

    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        shifts = np.array([[slot[0]] for slot in slots], dtype=np.float64) * self.step
        return np.broadcast_to(np.eye(3), (len(slots), 3, 3)), shifts

    def moved(self, step: Array, middle: Array) -> Self:
        return replace(self, **vars(LinearArray.of(self.step + step, self.number)))

    def carried(self, matrix: Array, shift: Array) -> Self:
        return replace(self, direction=triple(matrix @ np.array(self.direction)))

    def to_plain(self) -> dict[str, Any]:
        return {"dir": list(self.direction), "count": self.number, "spacing": self.spacing}


@dataclass(frozen=True)
class Grid(Level):
    """Rows and columns; slot (row, column)."""

    rows: int
    columns: int
    row_step: Vector
    column_step: Vector
    kind: ClassVar[str] = "grid"
    price: ClassVar[float] = 2 * LinearArray.price
    freedom: ClassVar[int] = 6

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def free(self) -> int:
        return 6

    def slots(self) -> list[Slot]:
        return list(product(range(self.rows), range(self.columns)))

    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        steps = np.array([self.row_step, self.column_step])
        return np.broadcast_to(np.eye(3), (len(slots), 3, 3)), np.array(slots, dtype=np.float64) @ steps

    def moved(self, step: Array, middle: Array) -> Self:
        rows, columns = np.array(self.row_step) + step[:3], np.array(self.column_step) + step[3:]
        return replace(self, row_step=triple(rows), column_step=triple(columns))

    def carried(self, matrix: Array, shift: Array) -> Self:
        rows, columns = matrix @ np.array(self.row_step), matrix @ np.array(self.column_step)
        return replace(self, row_step=triple(rows), column_step=triple(columns))

    def to_plain(self) -> dict[str, Any]:
        steps = {"du": list(self.row_step), "dv": list(self.column_step)}
        return {"rows": self.rows, "cols": self.columns, **steps}


@dataclass(frozen=True)
class Rotation(Level):
    """Copies at equal angles about an axis."""

    axis: Vector
    point: Vector
    """Of the axis."""
    number: int
    angle: float
    """Radians, from a copy to the next."""
    kind: ClassVar[str] = "rotation"
    price: ClassVar[float] = FUNCTION + CHOICE + CHOICE + FREE
    freedom: ClassVar[int] = 5

    @property
    def closed(self) -> bool:
        """Whether the copies are spread over a full turn."""
        return abs(self.number * abs(self.angle) - 2 * math.pi) < 1e-9

    @property
    def count(self) -> int:
        return self.number

    @property
    def free(self) -> int:
        """The axis (four); the angle where it is not that of a full turn."""
        return 4 if self.closed else 5

    def slots(self) -> list[Slot]:
        return [(number,) for number in range(self.number)]

    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        point = np.array(self.point)
        turns = [rotation(slot[0] * self.angle * np.array(self.axis)) for slot in slots]
        return stacked([(turn, point - turn @ point) for turn in turns])

    def moved(self, step: Array, middle: Array) -> Self:
        sides = perpendicular(self.axis)
        point = np.array(self.point) + sides @ step[2:4]
        axis = unit(np.array(self.axis) + sides @ step[:2])
        # The foot of `middle` on the axis stays: tilting the axis does not sweep the copies away.
        foot = point + np.array(self.axis) * float(np.array(self.axis) @ (middle - point))
        angle = self.angle if self.closed else self.angle + float(step[4])
        return replace(self, axis=triple(axis), point=triple(foot), angle=angle)

    def carried(self, matrix: Array, shift: Array) -> Self:
        sign = 1.0 if np.linalg.det(matrix) > 0 else -1.0
        axis, point = sign * matrix @ np.array(self.axis), matrix @ np.array(self.point) + shift
        return replace(self, axis=triple(axis), point=triple(point))

    def to_plain(self) -> dict[str, Any]:
        return {"axis": list(self.axis), "point": list(self.point), "count": self.number, "angle": self.angle}


@dataclass(frozen=True)
class SameSize(Level):
    """Parts of one size wherever they lie: one definition and a pose for each."""

    places: tuple[tuple[float, ...], ...]
    """Rotation (nine numbers, by rows) and shift of each copy."""
    kind: ClassVar[str] = "same_size"
    price: ClassVar[float] = 0.0
    freedom: ClassVar[int] = 0

    @staticmethod
    def of(rotation: Array, centre: Array, frames: Array, centres: Array) -> SameSize:
        """What takes a part (its axes, its centre) to each of [n, 3, 3] axes and [n, 3] centres."""
        turns = frames @ rotation.T
        shifts = centres - np.einsum("nij,j->ni", turns, centre)
        numbers = np.concatenate([turns.reshape(-1, 9), shifts], axis=1)
        return SameSize(tuple(tuple(float(x) for x in line) for line in numbers))

    @property
    def count(self) -> int:
        return len(self.places)

    @property
    def free(self) -> int:
        return 6 * (len(self.places) - 1)

    def slots(self) -> list[Slot]:
        return [(number,) for number in range(self.count)]

    def transforms(self, slots: Sequence[Slot]) -> tuple[Array, Array]:
        numbers = np.array([self.places[slot[0]] for slot in slots])
        return numbers[:, :9].reshape(-1, 3, 3), numbers[:, 9:]

    def moved(self, step: Array, middle: Array) -> Self:
        return self

    def carried(self, matrix: Array, shift: Array) -> Self:
        back, undo = matrix.T, -matrix.T @ shift
        found: list[tuple[float, ...]] = []
        for turn, place in zip(*self.transforms(self.slots()), strict=True):
            whole = matrix @ turn @ back
            found.append((*whole.reshape(-1).tolist(), *(matrix @ (turn @ undo + place) + shift).tolist()))
        return replace(self, places=tuple(found))

    def to_plain(self) -> dict[str, Any]:
        return {"places": [list(place) for place in self.places]}


def chained(levels: Sequence[Level], slots: Sequence[tuple[Slot, ...]]) -> tuple[Array, Array]:
    """Of a chain, the outermost level first; slots hold one per level."""
    if not levels:
        return np.tile(np.eye(3), (len(slots), 1, 1)), np.zeros((len(slots), 3))
    matrices, shifts = levels[-1].transforms([slot[-1] for slot in slots])
    for depth in reversed(range(len(levels) - 1)):
        outer, place = levels[depth].transforms([slot[depth] for slot in slots])
        shifts = np.einsum("nij,nj->ni", outer, shifts) + place
        matrices = outer @ matrices
    return matrices, shifts


def reflection(normal: Vector | Array, offset: float) -> tuple[Array, Array]:
    """(matrix, shift) of the mirror image at a plane."""
    direction = np.array(normal)
    return np.eye(3) - 2.0 * np.outer(direction, direction), 2.0 * offset * direction


def rotation(vector: Array) -> Array:
    """Matrix of a rotation vector (axis times angle; Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-300:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + 2.0 * math.sin(0.5 * angle) ** 2 * cross @ cross


def perpendicular(direction: Vector | Array) -> Array:
    """[3, 2]: two unit vectors at right angles to a unit vector and to each other."""
    vector = np.array(direction)
    first = np.cross(vector, np.eye(3)[int(np.abs(vector).argmin())])
    first = unit(first)
    return np.stack([first, np.cross(vector, first)], axis=1)


def unit(vector: Array) -> Array:
    """Of length 1."""
    return vector / np.linalg.norm(vector)


def triple(vector: Array) -> Vector:
    """As plain numbers."""
    return (float(vector[0]), float(vector[1]), float(vector[2]))


def stacked(found: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Matrices and shifts in an array each."""
    if not found:
        return np.zeros((0, 3, 3)), np.zeros((0, 3))
    return np.stack([matrix for matrix, _ in found]), np.stack([shift for _, shift in found])
