"""What is left of a group when one of its members goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from smalti.scene.groups.fit import Model
from smalti.scene.groups.levels import Level, LinearArray, Rotation, SameSize
from smalti.scene.groups.state import Member, State


def broken(state: State, row: int) -> list[State]:
    """Groups of two members or more: what came before the member, what comes after; the one where it is only missing.

    A row or an arc is cut there; a ring is opened; of mirrors, grids and groups in groups the rest stays one group with
    a copy less.
    """
    left = tuple(member for number, member in enumerate(state.members) if number != row)
    level = state.model.levels[0]
    if len(state.model.levels) == 1 and isinstance(level, LinearArray | Rotation):
        at = state.slots[row][0][0]
        if isinstance(level, Rotation) and level.closed:
            opened = _cut(state, left, lambda number: (number - at - 1) % level.number)
            parts = [opened] if opened is not None else []
        else:
            sides = [[m for m in left if (m.slot[0][0] < at) == before] for before in (True, False)]
            parts = [_cut(state, tuple(side), lambda number: number) for side in sides]
        return [part for part in parts if part is not None]
    if isinstance(level, SameSize):
        places = [level.places[member.slot[0][0]] for member in left]
        renamed = tuple(replace(member, slot=((number,),)) for number, member in enumerate(left))
        model = Model((SameSize(tuple(places)),), state.model.base)
        return [replace(state, model=model, members=renamed)] if len(left) > 1 else []
    return [replace(state, members=left)] if len(left) > 1 else []


def _cut(state: State, members: tuple[Member, ...], number_of: Callable[[int], int]) -> State | None:
    """Some of the copies, counted anew from 0; the part is the first of them."""
    if len(members) < 2:
        return None
    level = state.model.levels[0]
    numbers = [number_of(member.slot[0][0]) for member in members]
    low, high = min(numbers), max(numbers)
    first = members[int(np.argmin(numbers))].slot
    base = state.model.place([first])
    count = high - low + 1
    new: Level = level
    if isinstance(level, LinearArray | Rotation):
        new = replace(level, number=count)
    renamed = tuple(
        replace(member, slot=((number - low,),)) for member, number in sorted(_pairs(members, numbers), key=_second)
    )
    return replace(state, model=Model((new,), base), members=renamed)


def _pairs(members: tuple[Member, ...], numbers: list[int]) -> list[tuple[Member, int]]:
    return list(zip(members, numbers, strict=True))


def _second(pair: tuple[Member, int]) -> int:
    return pair[1]
