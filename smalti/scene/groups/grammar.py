"""What the functions of a program take (`smalti.scene.groups.program`), so that one that was written by hand, or by
another program, is refused in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

UNIT = 1e-6
"""By how much the length of a direction may differ from 1."""


def require_program(tree: object) -> None:
    """ValueError where this is no program, with what was expected and what is there."""
    if not isinstance(tree, Mapping) or "fn" not in tree or "args" not in tree:
        raise ValueError(f"program: expected a tree with fn and args, got {_short(tree)}")
    held = cast(Mapping[str, Any], tree)
    name, args = held["fn"], held["args"]
    if not isinstance(name, str) or (name != "Union" and name not in GRAMMAR):
        raise ValueError(f"program: there is no function {name!r}; there are Union, {', '.join(GRAMMAR)}")
    if not isinstance(args, list | tuple):
        raise ValueError(f"program: args of {name} should be a list, got {_short(args)}")
    values = cast(list[Any], args)
    if name == "Union":
        for each in values:
            require_program(each)
        return
    wanted = GRAMMAR[name]
    if len(values) != len(wanted):
        raise ValueError(f"program: {name} takes {', '.join(wanted)}; got {len(values)} arguments")
    for value, kind in zip(values, wanted, strict=True):
        if kind == "a tree":
            require_program(value)
        elif not KINDS[kind](value):
            raise ValueError(f"program: {name} takes {', '.join(wanted)}; {_short(value)} is not {kind}")
    if name == "Cuboid":
        _require_look(held)


def _require_look(tree: Mapping[str, Any]) -> None:
    """What stands beside the sizes of a cuboid."""
    exponents, part = tree.get("exponents", [1, 1]), tree.get("part", ["", 0])
    if not (_numbers(exponents, 2) and all(value > 0 for value in exponents)):
        raise ValueError(f"program: exponents of a Cuboid should be two numbers above 0, got {_short(exponents)}")
    if not (isinstance(part, list | tuple) and len(cast(list[Any], part)) == 2 and isinstance(part[0], str)):
        raise ValueError(f"program: part of a Cuboid should be [layer, row], got {_short(part)}")
    if not _whole(cast(list[Any], part)[1], 0):
        raise ValueError(f"program: part of a Cuboid should be [layer, row], got {_short(part)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, list | tuple) and len(cast(list[Any], value)) == count and all(map(_number, value))


def _direction(value: Any) -> bool:
    return _numbers(value, 3) and abs(math.hypot(*value) - 1.0) <= UNIT


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _fields(value: Any, fields: Mapping[str, Callable[[Any], bool]]) -> bool:
    return isinstance(value, Mapping) and all(name in value and check(value[name]) for name, check in fields.items())


def _all(value: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(check, cast(list[Any], value)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


KINDS: dict[str, Callable[[Any], bool]] = {
    "a number": _number,
    "a length above 0": lambda value: _number(value) and value > 0,
    "three numbers": lambda value: _numbers(value, 3),
    "a direction of length 1": _direction,
    "a whole number from 1 on": lambda value: _whole(value, 1),
    "a plane {n, o}": lambda value: _fields(value, {"n": _direction, "o": _number}),
    "an axis {axis, point}": lambda value: _fields(value, {"axis": _direction, "point": lambda p: _numbers(p, 3)}),
    "places of six numbers": lambda value: _all(value, lambda place: _numbers(place, 6)),
    "numbers of copies": lambda value: _all(value, lambda number: _whole(number, 0)),
}
"""What an argument may be, by how it is said."""
GRAMMAR: dict[str, tuple[str, ...]] = {
    "Cuboid": ("a length above 0",) * 3,
    "Rotate": ("a tree", "three numbers"),
    "Move": ("a tree", "a number", "a number", "a number"),
    "SymRef": ("a tree", "a plane {n, o}"),
    "SymTrans": ("a tree", "a direction of length 1", "a whole number from 1 on", "a number"),
    "SymRot": ("a tree", "an axis {axis, point}", "a whole number from 1 on", "a number"),
    "SameSize": ("a tree", "places of six numbers"),
    "Except": ("a tree", "numbers of copies"),
}
"""Arguments of every function but `Union`, which takes trees."""
