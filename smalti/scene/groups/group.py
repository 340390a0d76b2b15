"""A group of blocks that one finds, sets, moves and takes apart: `scene.find_groups()[0]`. Every edit is in the scene's
history.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from smalti.scene.changes import EditError
from smalti.scene.edits import apply_to
from smalti.scene.groups.changing import Edited, change, require_members, restate, snap, unsnap
from smalti.scene.groups.fit import Model
from smalti.scene.groups.levels import Grid, Level, LinearArray, Rotation, SameSize, Slot, chained
from smalti.scene.groups.members import PartId, chosen, read
from smalti.scene.groups.settings import setting
from smalti.scene.groups.state import Held, State
from smalti.scene.looks import checked_picture
from smalti.scene.vectors import Point, vector

if TYPE_CHECKING:
    from smalti.scene.selection import Selection


class Group:
    """Blocks that follow from one of them. `kind`, `members`, `parameters`, `gain`, `residual`, `tolerance`.

    Groups can hold groups (a row of mirrored pairs): then `inner` is what is repeated, and an edit of it changes every
    copy. Before an edit members may lie a little beside the model, and keep doing so; `apply` snaps them to it.
    """

    def __init__(self, held: Held, depth: int = 0) -> None:
        self._held, self._depth = held, depth

    def __repr__(self) -> str:
        inside = f" of {self.inner!r}" if self.inner is not None else ""
        return f"<{self.kind} {', '.join(map(repr, self.members))}{inside}>"

    # -- what it is ---------------------------------------------------------------------------------------------------
    @property
    def _state(self) -> State:
        return self._held.state

    @property
    def id(self) -> str:
        """Its name among the groups that were found together."""
        return self._held.name + ".1" * self._depth

    @property
    def kind(self) -> str:
        """mirror, double_mirror, array, grid, rotation or same_size."""
        return self.parameters.kind

    @property
    def parameters(self) -> Level:
        """Its numbers, scene units."""
        return self._state.model.levels[self._depth]

    @property
    def inner(self) -> Group | None:
        """What is repeated, where that is a group itself."""
        return Group(self._held, self._depth + 1) if self._depth + 1 < len(self._state.model.levels) else None

    @property
    def parent(self) -> Group | None:
        """What repeats it, where something does."""
        return Group(self._held, self._depth - 1) if self._depth else None

    @property
    def members(self) -> list[PartId]:
        """Layers and rows of its blocks; of an inner group those of the first copy. They follow edits of the scene."""
        return [self._state.parts[row] for row in self._rows()]

    @property
    def slots(self) -> list[tuple[Slot, ...]]:
        """Which copy each member is, per level."""
        return [self._state.slots[row][self._depth :] for row in self._rows()]

    @property
    def synthesised(self) -> list[PartId]:
        """Members that an edit made."""
        return [member.part for member in self._state.members if member.synthesised]

    @property
    def missing(self) -> int:
        """Copies that are not there."""
        return self._state.model.count - len(self._state.members)

    @property
    def gain(self) -> float:
        """By how much it shortened the scene's description when it was found."""
        return self._state.gain

    @property
    def residual(self) -> tuple[float, float]:
        """Mean and largest distance of a member's corners from the model, scene units."""
        return self._state.residual

    @property
    def tolerance(self) -> float:
        """What `residual` was allowed to be."""
        return self._state.tolerance

    @property
    def applied(self) -> bool:
        """Whether its members are snapped to the model."""
        return any(member.exact is not None for member in self._state.members)

    @property
    def locked(self) -> bool:
        """Whether its edits are refused, and those of groups in it. Not in the history."""
        return self._state.locked[self._depth]

    @locked.setter
    def locked(self, value: bool) -> None:
        flags = tuple(bool(value) if n == self._depth else flag for n, flag in enumerate(self._state.locked))
        self._held.state = replace(self._state, locked=flags)

    def select(self) -> Selection:
        """Its members, for the edits of `smalti.scene`."""
        return chosen(self.members)

    # -- edits --------------------------------------------------------------------------------------------------------
    def apply(self) -> Edited:
        """Snap the members to the model. How they lay is kept: `release` restores it."""
        self._require_unlocked()
        return snap(self._held)

    def release(self) -> Edited:
        """Take `apply` back, whatever was edited since: members that did not move since get their very bytes again,
        others lie as far from the model as they did.
        """
        self._require_unlocked()
        return unsnap(self._held)

    def move(self, delta: Point, member: int = 0) -> Edited:
        """Move a member by `delta` (world units); all others follow as the regularity says: a mirror image goes the
        other way across the plane, copies in a row go along. EditError for a group of one size: where one of its
        members lies says nothing of the others.
        """
        row, step = self._row(member), vector(delta, "move: delta").numpy()
        self._require_unlocked()
        state, model = self._state, self._state.model
        if isinstance(model.levels[0], SameSize):
            part = self.members[member]
            raise EditError(
                f"{self.id} (same_size): its members share a size, nothing ties their places, and none would follow; "
                f"move them all with move(scene, group.select(), delta), or this one with move(scene, "
                f"index({part.layer!r}, [{part.row}]), delta), both of smalti.scene"
            )
        matrix = chained(model.levels, [state.slots[row]])[0][0]
        base = replace(model.base, centres=model.base.centres + matrix.T @ step)
        return change(self._held, "move", Model(model.levels, base), state.slots)

    def resize(self, size: Point, member: int = 0) -> Edited:
        """Give a member these full lengths along its own axes, and every other member with it."""
        row, wanted = self._row(member), vector(size, "resize: size").numpy()
        self._require_unlocked()
        if not bool((wanted > 0).all()):
            raise EditError(f"resize: expected three lengths above 0, got {wanted.tolist()}")
        from smalti.scene.groups.state import placed

        require_members(self._held)
        state = self._state
        lie = placed(state, read(self._held.scene, state.parts))
        halves = state.model.base.halves.copy()
        halves[0, lie.match.orders[row]] = 0.5 * wanted / np.exp(lie.offsets[row, 6:])
        model = Model(state.model.levels, replace(state.model.base, halves=halves))
        return change(self._held, "resize", model, state.slots)

    def retexture(self, picture: Tensor | np.ndarray[Any, Any] | Path | str) -> Edited:
        """Give every member these colours, resampled to the texture that it has; `picture` as in
        `smalti.scene.replace_texture`.
        """
        self._require_unlocked()
        require_members(self._held)
        parts, colors = self._state.parts, checked_picture(picture, "retexture")
        apply_to(self._held.scene, chosen(parts), "retexture", lambda _, part: part.set_texture(colors))
        return Edited(tuple(parts))

    def set(self, *, mode: str = "extend", anchor: str = "base", **values: object) -> Edited:
        """Set numbers of the regularity: `count`, `spacing` of an array; `rows`, `columns`, `row_spacing`,
        `column_spacing` of a grid; `count`, `angle` (radians) of a rotation; `offset` of a mirror, `offsets` of a
        double one.

        Another count keeps the distance between copies (mode `extend`) or both ends (`fit`). The first copy stays, or,
        with `anchor="centre"`, the middle. New copies have the look of their nearest neighbour; those that are too many
        are deleted, until the edit is undone.
        """
        self._require_unlocked()
        return self._become(setting(self.parameters, values, mode, anchor), "set")

    def extend(self, number: int = 1, side: str = "columns") -> Edited:
        """`number` more copies at the far end, at the same distance; fewer where it is negative. A grid grows by `side`
        (rows or columns).
        """
        level = self.parameters
        match level:
            case LinearArray() | Rotation():
                return self.set(count=level.number + number)
            case Grid() if side in ("rows", "columns"):
                return self.set(**{side: getattr(level, side) + number})
            case Grid():
                raise EditError(f"extend: a grid grows by its rows or its columns, not by {side!r}")
            case _:
                raise EditError(f"extend: a group of kind {self.kind!r} has as many copies as it has")

    def complete(self) -> Edited:
        """Make the copies that are missing."""
        self._require_unlocked()
        state = self._state
        there = set(state.slots)
        every = [tuple(slot) for slot in product(*(level.slots() for level in state.model.levels))]
        return change(self._held, "complete", state.model, state.slots, [slot for slot in every if slot not in there])

    def break_member(self, member: int) -> list[Group]:
        """Let a member go: it becomes a block on its own, where it lies. A row in which it was not at an end becomes
        two; returns the groups that there are now (this one first), those of one block not counted.
        """
        from smalti.scene.groups.breaking import broken

        row = self._row(member)
        self._require_unlocked()
        require_members(self._held)
        states = broken(self._state, row)
        with self._held.scene.edit("break_member"):
            first, *others = states or [replace(self._state, members=())]
            restate(self._held, "break_member", first)
            groups: list[Group] = [self] if first.members else []
            for state in others:
                # Without members it is not there: before this edit, and when it is undone.
                held = Held(self._held.book, self._held.book.free_name(self._held.name), replace(state, members=()))
                self._held.book.held.append(held)
                restate(held, "break_member", state)
                groups.append(Group(held))
        return groups

    # -- how ----------------------------------------------------------------------------------------------------------
    def _rows(self) -> list[int]:
        zero = [tuple(0 for _ in slot) for slot in self._state.slots[0][: self._depth]] if self._state.members else []
        rows = range(len(self._state.members))
        return [row for row in rows if list(self._state.slots[row][: self._depth]) == zero]

    def _row(self, member: int) -> int:
        rows = self._rows()
        if not -len(rows) <= member < len(rows):
            raise EditError(f"{self.id}: there is no member {member}; it has {len(rows)}")
        return rows[member]

    def _require_unlocked(self) -> None:
        for depth, flag in enumerate(self._state.locked):
            if flag:
                other = Group(self._held, depth)
                where = f"{other.id} ({other.kind}) is locked; set its `locked` to False first"
                raise EditError(f"{self.id} ({self.kind}) cannot be edited: {where}")

    def _become(self, wanted: object, name: str) -> Edited:
        from smalti.scene.groups.settings import Setting

        assert isinstance(wanted, Setting)
        state, depth = self._state, self._depth
        matrix, shift = wanted.shift
        inner = [level.carried(matrix, shift) for level in state.model.levels[depth + 1 :]]
        base = state.model.base.mapped(matrix, shift)
        levels = (*state.model.levels[:depth], wanted.level, *inner)
        slots = [slot if wanted.keeps(slot[depth]) else None for slot in state.slots]
        every = product(*(wanted.added if n == depth else level.slots() for n, level in enumerate(levels)))
        return change(self._held, name, Model(levels, base), slots, [tuple(slot) for slot in every])
