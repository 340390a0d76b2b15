"""Least squares: the part and the numbers of its regularities from all members together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes, Match, compare
from smalti.scene.groups.levels import (
    CHOICE,
    ERROR,
    FREE,
    FUNCTION,
    Level,
    SameSize,
    Slot,
    chained,
    rotation,
)

SEPARATE = 14.0
"""A block of its own: a size (function, three numbers) and a place (the same)."""
UNION = FUNCTION
"""What joins two things."""
MISSING = FUNCTION + CHOICE
"""A copy that is not there: a function and its number."""


@dataclass(frozen=True, eq=False)
class Model:
    """A part (one box) and a chain of regularities."""

    levels: tuple[Level, ...]
    """Outermost first."""
    base: Boxes

    @property
    def count(self) -> int:
        """Copies, missing ones too."""
        return int(np.prod([level.count for level in self.levels]))

    def place(self, slots: Sequence[tuple[Slot, ...]]) -> Boxes:
        """Where it says that these copies are."""
        matrices, shifts = chained(self.levels, slots)
        return self.base.take([0] * len(slots)).mapped(matrices, shifts)


@dataclass(frozen=True, eq=False)
class Fit:
    """A model and its members."""

    model: Model
    rows: tuple[int, ...]
    """Of the boxes that were looked at."""
    slots: tuple[tuple[Slot, ...], ...]
    match: Match
    unit: float
    """The scene's extent: errors are measured in it."""

    @cached_property
    def cost(self) -> float:
        """Of the group's program, the error term included."""
        return price(self.model, len(self.rows)) + ERROR * float(self.match.distances.mean()) / self.unit

    @cached_property
    def gain(self) -> float:
        """Cost of the members as separate blocks, less the group's."""
        return separate_cost(len(self.rows)) - self.cost

    @cached_property
    def worst(self) -> float:
        """Largest distance of a member."""
        return float(self.match.distances.max())


def separate_cost(count: int) -> float:
    """Of blocks without any regularity: 15 n - 1."""
    return SEPARATE * count + UNION * (count - 1) if count else 0.0


def price(model: Model, members: int) -> float:
    """Without the error term: 15.5 for a mirrored pair, 17 for a double mirror, 18 for an array of any length."""
    if any(isinstance(level, SameSize) for level in model.levels):
        # One definition (a size); every member a call of it with a place.
        return (FUNCTION + 3 * FREE) + members * (FUNCTION + FUNCTION + 3 * FREE) + UNION * (members - 1)
    return SEPARATE + sum(level.price for level in model.levels) + MISSING * (model.count - members)


def averaged(levels: tuple[Level, ...], slots: Sequence[tuple[Slot, ...]], members: Boxes, tolerance: float) -> Boxes:
    """The part that lies best on all members for given regularities: means of what each member says it is."""
    matrices, shifts = chained(levels, slots)
    back = matrices.transpose(0, 2, 1)
    homed = members.mapped(back, -np.einsum("nij,nj->ni", back, shifts))
    # Compared with one member: that nearest the middle.
    middle = homed.centres.mean(axis=0)
    first = int(np.linalg.norm(homed.centres - middle, axis=1).argmin())
    match = compare(homed.take([first] * len(homed)), homed, max(tolerance, 1e-12) * 4)
    rotations = homed.rotations @ match.frames.transpose(0, 2, 1)
    left, _, right = np.linalg.svd(rotations.mean(axis=0))
    turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    halves = np.zeros((len(homed), 3))
    np.put_along_axis(halves, match.orders, homed.halves, axis=1)
    return Boxes(middle[None], turn[None], halves.mean(axis=0)[None], homed.exponents.mean(axis=0)[None])


def fitted(
    levels: tuple[Level, ...],
    rows: Sequence[int],
    slots: Sequence[tuple[Slot, ...]],
    boxes: Boxes,
    limits: tuple[float, float],
) -> Fit:
    """The members' mean part under given regularities. `limits`: tolerance, the scene's extent."""
    members = boxes.take(list(rows))
    model = Model(levels, averaged(levels, slots, members, limits[0]))
    return Fit(model, tuple(rows), tuple(slots), compare(model.place(slots), members, limits[0]), limits[1])


def refit(fit: Fit, boxes: Boxes, tolerance: float, rounds: int = 8) -> Fit:
    """Gauss-Newton on all numbers together: part and regularities minimise the members' squared corner distances. Never
    worse than what is given.
    """
    levels = fit.model.levels
    if any(isinstance(level, SameSize) for level in levels):
        return fit
    members = boxes.take(list(fit.rows))
    spokes = members.rotations * members.halves[:, None, :]
    target = np.concatenate([members.centres[:, None], spokes.transpose(0, 2, 1)], axis=1)  # [n, 4, 3]
    # The eight corners of one box are 8 times its centre and 8 times its half axes, at right angles: the same squares.
    middle = members.centres.mean(axis=0)
    scale = np.concatenate([np.full(3, fit.unit), np.ones(3), np.full(3, fit.unit)])
    scale = np.concatenate([scale, *(_scales(level, fit.unit) for level in levels)])

    def moved(model: Model, step: Array) -> Model:
        base = model.base
        turned = rotation(step[3:6]) @ base.rotations[0]
        # Half extents stay above nothing.
        halves = np.maximum(base.halves + step[6:9], 1e-3 * base.halves)
        box = Boxes(base.centres + step[:3], turned[None], halves, base.exponents)
        changed, at = list[Level](), 9
        for level in model.levels:
            changed.append(level.moved(step[at : at + level.freedom], middle))
            at += level.freedom
        return Model(tuple(changed), box)

    def residual(model: Model) -> Array:
        said = model.place(fit.slots)
        axes = said.rotations @ fit.match.frames
        halves = np.take_along_axis(said.halves, fit.match.orders, axis=1)
        own = (axes * halves[:, None, :]).transpose(0, 2, 1)
        return (np.concatenate([said.centres[:, None], own], axis=1) - target).reshape(-1)

    best, error = fit.model, residual(fit.model)
    damping = 1e-9
    for _ in range(rounds):
        tiny = 1e-6
        columns = [(residual(moved(best, tiny * scale * line)) - error) / tiny for line in np.eye(len(scale))]
        jacobian = np.stack(columns, axis=1)
        normal = jacobian.T @ jacobian
        normal += damping * (np.trace(normal) / len(normal)) * np.eye(len(normal))
        step = -np.linalg.solve(normal, jacobian.T @ error)
        tried = moved(best, step * scale)
        after = residual(tried)
        if after @ after >= (1.0 - 1e-12) * (error @ error):
            break
        best, error = tried, after
    match = compare(best.place(fit.slots), members, tolerance)
    return replace(fit, model=best, match=match)


def _scales(level: Level, unit: float) -> Array:
    """What a step of 1 is for each free number: radians as they are, lengths in the scene's extent."""
    per_kind = {
        "mirror": [1.0, 1.0, unit],
        "double_mirror": [1.0, 1.0, 1.0, unit, unit],
        "array": [unit] * 3,
        "grid": [unit] * 6,
        "rotation": [1.0, 1.0, unit, unit, 1.0],
    }
    return np.array(per_kind[level.kind])
