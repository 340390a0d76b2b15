"""Numbers of a regularity set by hand: what the level becomes, and which of its copies stay where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from smalti.scene.changes import EditError
from smalti.scene.groups.boxes import Array
from smalti.scene.groups.levels import (
    DoubleMirror,
    Grid,
    Level,
    LinearArray,
    Mirror,
    Rotation,
    Slot,
    rotation,
    triple,
)

SETTABLE = {
    "array": ("count", "spacing"),
    "grid": ("rows", "columns", "row_spacing", "column_spacing"),
    "rotation": ("count", "angle"),
    "mirror": ("offset",),
    "double_mirror": ("offsets",),
    "same_size": (),
}
"""Names that `Group.set` takes."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A level after `set`."""

    level: Level
    keeps: Callable[[Slot], bool]
    """Whether a copy stays."""
    added: list[Slot]
    shift: tuple[Array, Array]
    """What is inside moves by this isometry (with `anchor` at the middle)."""


def setting(level: Level, values: Mapping[str, object], mode: str, anchor: str) -> Setting:
    """`mode`: `extend` keeps the distance between copies, `fit` both ends. `anchor`: `base` keeps the first copy,
    `centre` the middle. EditError for names and values that do not fit.
    """
    known = SETTABLE[level.kind]
    if not values or not set(values) <= set(known):
        takes = ", ".join(known) or "nothing: use resize or retexture"
        raise EditError(f"set: a group of kind {level.kind!r} takes {takes}; got {', '.join(values) or 'nothing'}")
    if mode not in ("extend", "fit") or anchor not in ("base", "centre"):
        raise EditError(f"set: expected mode extend or fit and anchor base or centre, got {mode!r}, {anchor!r}")
    match level:
        case LinearArray():
            new: Level = _array(level, values, mode)
        case Grid():
            new = _grid(level, values, mode)
        case Rotation():
            new = _ring(level, values, mode)
        case Mirror():
            new = replace(level, offset=_number("offset", values["offset"]))
        case DoubleMirror():
            new = replace(level, offsets=_two(values["offsets"]))
        case _:
            raise EditError(f"set: a group of kind {level.kind!r} has nothing to set")
    inside = set(new.slots())
    still = (np.eye(3), np.zeros(3))
    shift = _recentred(level, new) if anchor == "centre" else still
    return Setting(new, lambda slot: slot in inside, [s for s in new.slots() if s not in set(level.slots())], shift)


def _array(level: LinearArray, values: Mapping[str, object], mode: str) -> LinearArray:
    count = _count("count", values.get("count", level.number))
    spacing = _positive("spacing", values.get("spacing", level.spacing))
    if mode == "fit":
        _require_ends(values, "spacing", level.number, count)
        spacing = level.spacing * (level.number - 1) / (count - 1)
    return replace(level, number=count, spacing=spacing)


def _grid(level: Grid, values: Mapping[str, object], mode: str) -> Grid:
    found: list[tuple[int, Array]] = []
    for name, number, step in (("row", level.rows, level.row_step), ("column", level.columns, level.column_step)):
        plural = name + "s"
        count = _count(plural, values.get(plural, number))
        vector = np.array(step)
        length = float(np.linalg.norm(vector))
        spacing = _positive(f"{name}_spacing", values.get(f"{name}_spacing", length))
        if mode == "fit" and plural in values:
            _require_ends(values, f"{name}_spacing", number, count)
            spacing = length * (number - 1) / (count - 1)
        found.append((count, vector / length * spacing))
    (rows, down), (columns, across) = found
    return Grid(rows, columns, triple(down), triple(across))


def _ring(level: Rotation, values: Mapping[str, object], mode: str) -> Rotation:
    count = _count("count", values.get("count", level.number))
    angle = _positive("angle", values.get("angle", level.angle))
    if mode == "fit":
        _require_ends(values, "angle", level.number, count)
        full = 2.0 * math.pi / count
        angle = full if level.closed else level.angle * (level.number - 1) / (count - 1)
    if count * angle > 2.0 * math.pi * (1 + 1e-9) and (count - 1) * angle > 2.0 * math.pi - 1e-9:
        raise EditError(
            f"set: {count} copies at {math.degrees(angle):.4g} degrees are more than a turn; set an angle too, or use "
            'mode="fit"'
        )
    return replace(level, number=count, angle=angle)


def _recentred(old: Level, new: Level) -> tuple[Array, Array]:
    """What keeps the middle of all copies where it was."""
    match old, new:
        case LinearArray(), LinearArray():
            shift = 0.5 * ((old.number - 1) * old.step - (new.number - 1) * new.step)
            return np.eye(3), shift
        case Grid(), Grid():
            ends = [(g.rows - 1) * np.array(g.row_step) + (g.columns - 1) * np.array(g.column_step) for g in (old, new)]
            return np.eye(3), 0.5 * (ends[0] - ends[1])
        case Rotation(), Rotation():
            more = 0.5 * ((old.number - 1) * old.angle - (new.number - 1) * new.angle)
            turn, point = rotation(more * np.array(old.axis)), np.array(old.point)
            return turn, point - turn @ point
        case _:
            raise EditError(f'set: a group of kind {old.kind!r} has no anchor; leave anchor="base"')


def _require_ends(values: Mapping[str, object], name: str, before: int, count: int) -> None:
    if name in values:
        raise EditError(f'set: with mode="fit" the {name} follows from the ends; leave it out, or use mode="extend"')
    if min(before, count) < 2:
        raise EditError(f'set: mode="fit" needs two copies or more, before and after; got {before} and {count}')


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise EditError(f"set: {name} should be a whole number, 1 or more, got {value!r}")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EditError(f"set: {name} should be a finite number, got {value!r}")
    return float(value)


def _positive(name: str, value: object) -> float:
    number = _number(name, value)
    if number <= 0:
        raise EditError(f"set: {name} should be above 0, got {number}")
    return number


def _two(value: object) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:  # pyright: ignore[reportUnknownArgumentType]
        raise EditError(f"set: offsets should be two numbers, got {value!r}")
    return _number("offsets", value[0]), _number("offsets", value[1])
