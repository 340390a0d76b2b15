"""What a group is at a moment, and how it follows the scene's history: undone edits, rows that went, layers renamed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from smalti.scene.changes import left_over
from smalti.scene.following import change_of_primitives
from smalti.scene.groups.boxes import Array, Boxes, Match, compare, compare_sizes
from smalti.scene.groups.fit import Model
from smalti.scene.groups.levels import SameSize, Slot, rotation
from smalti.scene.groups.members import Exact, PartId, read, renumbered
from smalti.scene.history import Added, Changed, Removed, Renamed, Step

if TYPE_CHECKING:
    from smalti.scene.scene import Scene


@dataclass(frozen=True, eq=False)
class Member:
    """A block and which copy it is."""

    part: PartId
    slot: tuple[Slot, ...]
    synthesised: bool = False
    """Made by an edit: its texture is that of the nearest member."""
    exact: Exact | None = None
    """Set while it is snapped to the model."""


@dataclass(frozen=True, eq=False)
class State:
    """A model, who belongs to it, and how well."""

    model: Model
    members: tuple[Member, ...]
    tolerance: float
    gain: float
    residual: tuple[float, float]
    """Mean and largest corner distance when the group was found, or as the last edit left it; scene units."""
    locked: tuple[bool, ...]
    """Per level."""

    @property
    def parts(self) -> list[PartId]:
        """Of the members."""
        return [member.part for member in self.members]

    @property
    def slots(self) -> list[tuple[Slot, ...]]:
        """Of the members."""
        return [member.slot for member in self.members]


@dataclass(eq=False)
class Held:
    """What the levels of a group share, and steps of the history refer to."""

    book: Book
    name: str
    state: State

    @property
    def scene(self) -> Scene:
        """Where its members are."""
        return self.book.scene

    def settle(self) -> None:
        """Members of one size lie where they lie: wherever other edits put them is their place."""
        if self.state.members:
            self.state = settled(self.state, read(self.scene, self.state.parts))

    def become(self, state: State) -> None:
        """What it is by the history; what is locked is not in that."""
        self.state = replace(state, locked=self.state.locked)


@dataclass(frozen=True, eq=False)
class Restated:
    """A step of the history: what a group is."""

    held: Held
    before: State
    after: State
    bytes: int = 0

    def apply(self, scene: Scene) -> None:
        self.held.become(self.after)

    def revert(self, scene: Scene) -> None:
        self.held.become(self.before)


class Book:
    """The groups that were found together; it lives as long as one of them does."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.held = scene, list[Held]()
        self._lost: weakref.WeakKeyDictionary[Step, list[tuple[Held, State]]] = weakref.WeakKeyDictionary()
        listeners, listener = scene.history.listeners, _weakly(weakref.ref(self))
        listeners.append(listener)
        weakref.finalize(self, lambda: listeners.remove(listener) if listener in listeners else None)

    def free_name(self, name: str) -> str:
        """Like `name`, and no group's."""
        taken = {held.name for held in self.held}
        return next(f"{name}-{number}" for number in count(2) if f"{name}-{number}" not in taken)

    def note(self, step: Step, forwards: bool) -> None:
        """A step was made or taken back."""
        if step in self._lost:
            for held, state in self._lost.pop(step):
                held.become(state)
            return
        match step:
            case Changed(change) if change.layer in self.scene.layers:
                rows = change_of_primitives(self.scene.layers[change.layer].family, change)
                if rows is None or not (len(rows.removed) or len(rows.appended)):
                    return
                # Taken back, an edit from before the groups were found puts rows in between.
                stay = np.flatnonzero(left_over(rows.rows, rows.removed).cpu().numpy())
                self._follow(step, lambda part: renumbered(part, change.layer, stay, forwards))
            case Renamed(before, after):
                old, new = (before, after) if forwards else (after, before)
                self._follow(None, lambda part: replace(part, layer=new) if part.layer == old else part)
            case Added(layer) | Removed(layer) if isinstance(step, Removed) == forwards:
                self._follow(step, lambda part: None if part.layer == layer.name else part)
            case _:
                pass

    def _follow(self, step: Step | None, where: Callable[[PartId], PartId | None]) -> None:
        before = list[tuple[Held, State]]()
        for held in self.held:
            found = [(member, where(member.part)) for member in held.state.members]
            if any(part != member.part for member, part in found):
                before.append((held, held.state))
                members = tuple(replace(member, part=part) for member, part in found if part is not None)
                held.state = replace(held.state, members=members)
        if step is not None and before:
            self._lost[step] = before


def _weakly(book: weakref.ref[Book]) -> Callable[[Step, bool], None]:
    def note(step: Step, forwards: bool) -> None:
        there = book()
        if there is not None:
            there.note(step, forwards)

    return note


@dataclass(frozen=True, eq=False)
class Placed:
    """Where members are, against where their model says."""

    match: Match
    offsets: Array
    """[n, 9]; see `Exact`."""


def placed(state: State, boxes: Boxes) -> Placed:
    """`boxes`: of the members, as they are."""
    said = state.model.place(state.slots)
    match = compare(said, boxes, max(state.tolerance, 1e-9))
    axes = said.rotations @ match.frames
    halves = np.take_along_axis(said.halves, match.orders, axis=1)
    offsets = np.zeros((len(boxes), 9))
    for row in range(len(boxes)):
        offsets[row, :3] = axes[row].T @ (boxes.centres[row] - said.centres[row])
        offsets[row, 3:6] = rotation_vector(axes[row].T @ boxes.rotations[row])
    offsets[:, 6:] = np.log(boxes.halves / halves)
    return Placed(match, offsets)


def displaced(model: Model, slots: Sequence[tuple[Slot, ...]], match: Match, offsets: Array) -> Boxes:
    """Where the model says, with each member's own offset kept."""
    said = model.place(slots)
    axes = said.rotations @ match.frames
    halves = np.take_along_axis(said.halves, match.orders, axis=1)
    turns = np.stack([rotation(offset[3:6]) for offset in offsets])
    centres = said.centres + np.einsum("nij,nj->ni", axes, offsets[:, :3])
    return Boxes(centres, axes @ turns, halves * np.exp(offsets[:, 6:]), said.exponents)


def settled(state: State, boxes: Boxes) -> State:
    """The state with its members' places as they are, where it says nothing of them but that they are of one size."""
    level, base = state.model.levels[0], state.model.base
    if not isinstance(level, SameSize):
        return state
    match = compare_sizes(base.take([0] * len(boxes)), boxes, max(state.tolerance, 1e-9))
    now = SameSize.of(
        base.rotations[0], base.centres[0], boxes.rotations @ match.frames.transpose(0, 2, 1), boxes.centres
    )
    places = list(level.places)
    for slot, place in zip(state.slots, now.places, strict=True):
        places[slot[0][0]] = place
    return replace(state, model=Model((SameSize(tuple(places)),), base))


def rotation_vector(matrix: Array) -> Array:
    """Axis times angle of a rotation matrix."""
    import torch

    from smalti.cameras.rotations import so3_log

    return so3_log(torch.from_numpy(np.ascontiguousarray(matrix))).numpy()


def measured(state: State) -> Callable[[Scene], State]:
    """The state with the residual that its members have in a scene now."""

    def look(scene: Scene) -> State:
        if not state.members:
            return replace(state, residual=(0.0, 0.0))
        distances = placed(state, read(scene, state.parts)).match.distances
        return replace(state, residual=(float(distances.mean()), float(distances.max())))

    return look
