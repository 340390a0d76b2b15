"""Groups as JSON, and back with every field checked. One entry for each level; a group in a group names its parent.

    {id, kind, members: [[layer, row], ...], slots: [[[...], ...], ...], base: [layer, row], params, tol, residual_mean,
     residual_max, gain, parent: id or null, exact_offsets: [[9 numbers], ...], applied, locked, part: {centre, axes,
     half_extents, exponents}}

`params`: {plane: {n, o}}, {planes: [two]}, {dir, count, spacing}, {rows, cols, du, dv}, {axis, point, count, angle}, or
{places}. Scene units and radians; n, dir and axis have length 1; o is n . x on the plane; counts include the part
itself and copies that are missing, `slots` says which are there. `part` (of the outermost level) is the block that the
regularities repeat, `axes` its axes one after the other; what is written without one is fitted to the members. An
offset is a shift in the model's axes, a rotation vector, and the logarithms of the lengths' ratios (six numbers: these
are not known).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes, compare
from smalti.scene.groups.find import Groups, state_of
from smalti.scene.groups.fit import Model, fitted
from smalti.scene.groups.group import Group
from smalti.scene.groups.levels import (
    DoubleMirror,
    Grid,
    Level,
    LinearArray,
    Mirror,
    Rotation,
    SameSize,
    Slot,
    Vector,
)
from smalti.scene.groups.members import Exact, PartId, read, read_all
from smalti.scene.groups.state import Book, Held, placed

if TYPE_CHECKING:
    from smalti.scene.scene import Scene


class GroupError(ValueError):
    """Groups that cannot be read. The message says which and why."""


def to_plain(group: Group) -> list[dict[str, Any]]:
    """Of a group and those in it."""
    held = group._held  # pyright: ignore[reportPrivateUsage]
    held.settle()
    state = held.state
    lie = placed(state, read(held.scene, state.parts))
    exact = [
        m.exact.offset if m.exact is not None else offset for m, offset in zip(state.members, lie.offsets, strict=True)
    ]
    offsets = {member.part: offset for member, offset in zip(state.members, exact, strict=True)}
    lines, each = list[dict[str, Any]](), cast(Group | None, group)
    while each is not None:
        members = each.members
        lines.append(
            {
                "id": each.id,
                "kind": each.kind,
                "members": [[part.layer, part.row] for part in members],
                "slots": [[list(level) for level in slot] for slot in each.slots],
                "base": [members[0].layer, members[0].row],
                "params": each.parameters.to_plain(),
                # An edit that makes members larger makes what they are off larger too.
                "tol": max(each.tolerance, each.residual[1]),
                "residual_mean": each.residual[0],
                "residual_max": each.residual[1],
                "gain": each.gain,
                "parent": None if each.parent is None else each.parent.id,
                "exact_offsets": [offsets[part].tolist() for part in members],
                "applied": each.applied,
                "locked": each.locked,
            }
        )
        each = each.inner
    lines[0]["part"] = _part_to_plain(state.model.base)
    return lines


def from_plain(scene: Scene, plain: Sequence[Mapping[str, Any]]) -> Groups:
    """Groups on the blocks that are there; see the module. GroupError for what does not fit."""
    given = cast(object, plain)  # who reads JSON may have read anything
    if not isinstance(given, list | tuple) or not all(isinstance(each, Mapping) for each in cast(list[object], given)):
        raise GroupError("groups: expected a list of groups, as `Groups.to_plain` makes it")
    book, tolerance = Book(scene), 0.0
    children = {line["parent"]: line for line in plain if line.get("parent") is not None}
    names, unit = {line.get("id") for line in plain}, read_all(scene)[1].extent() or 1.0
    orphan = next((line for line in children.values() if line["parent"] not in names), None)
    if orphan is not None:
        raise GroupError(f"group {orphan.get('id')!r}: there is no group {orphan['parent']!r} for it to be in")
    owned: dict[PartId, str] = {}
    for line in plain:
        if line.get("parent") is not None:
            continue
        held = _held(book, line, children, unit)
        for part in held.state.parts:
            if part in owned:
                raise GroupError(f"group {held.name!r}: its member {part} is in group {owned[part]!r} already")
            owned[part] = held.name
        tolerance = max(tolerance, held.state.tolerance)
        book.held.append(held)
    return Groups(scene, book, tolerance)


def _held(book: Book, line: Mapping[str, Any], children: Mapping[Any, Mapping[str, Any]], unit: float) -> Held:
    name = _field(line, "id", str, "?")
    levels, locked, each = list[Level](), list[bool](), cast(Mapping[str, Any] | None, line)
    while each is not None:
        levels.append(level_of(_field(each, "kind", str, name), _field(each, "params", dict, name), name))
        locked.append(_field(each, "locked", bool, name))
        each = children.get(each["id"])
    parts = [_part(pair, name) for pair in _field(line, "members", list, name)]
    slots = [_slot(slot, levels, name) for slot in _field(line, "slots", list, name)]
    tolerance, worst = (_number(line, key, name) for key in ("tol", "residual_max"))
    if len(parts) != len(slots) or len(parts) < 2:
        raise GroupError(
            f"group {name!r}: expected two members or more and a slot each, got {len(parts)}, {len(slots)}"
        )
    if len(set(parts)) < len(parts) or len(set(slots)) < len(slots):
        raise GroupError(f"group {name!r}: a member or a slot is there twice")
    if worst > tolerance and not _field(line, "applied", bool, name):
        raise GroupError(f"group {name!r}: residual_max {worst:.4g} is above the tolerance {tolerance:.4g}")
    try:
        boxes = read(book.scene, parts)
    except ValueError as error:
        raise GroupError(f"group {name!r}: {error}") from error
    fit = fitted(tuple(levels), list(range(len(parts))), slots, boxes, (tolerance, unit))
    if "part" in line:
        model = Model(tuple(levels), _part_from_plain(_field(line, "part", dict, name), name))
        fit = replace(fit, model=model, match=compare(model.place(slots), boxes, tolerance))
    state = replace(state_of(fit, parts, tolerance), gain=_number(line, "gain", name), locked=tuple(locked))
    if not state.residual[1] <= tolerance * (1.0 + 1e-6):
        raise GroupError(
            f"group {name!r}: its members are no longer where it says (off by {state.residual[1]:.4g}, "
            f"{tolerance:.4g} allowed); find the groups again"
        )
    if _field(line, "applied", bool, name):
        lists = _field(line, "exact_offsets", list, name)
        if len(lists) != len(parts):
            raise GroupError(f"group {name!r}: expected {len(parts)} exact_offsets, got {len(lists)}")
        offsets = {part: _offset(each, name) for part, each in zip(parts, lists, strict=True)}
        members = [replace(m, exact=Exact(offsets[m.part])) for m in state.members]
        state = replace(state, members=tuple(members))
    return Held(book, name, state)


def _part_to_plain(base: Boxes) -> dict[str, Any]:
    return {
        "centre": base.centres[0].tolist(),
        "axes": base.rotations[0].T.tolist(),
        "half_extents": base.halves[0].tolist(),
        "exponents": base.exponents[0].tolist(),
    }


def _part_from_plain(part: Mapping[str, Any], name: str) -> Boxes:
    try:
        axes = np.array([_unit(axis, name) for axis in part["axes"]]).T
        centre, halves, exponents = (
            np.array([_numbers(part[key], count, name)])
            for key, count in (("centre", 3), ("half_extents", 3), ("exponents", 2))
        )
    except (KeyError, TypeError) as error:
        raise GroupError(f"group {name!r}: its part is not complete: {error}") from error
    if axes.shape != (3, 3) or not np.allclose(axes.T @ axes, np.eye(3), atol=1e-6) or np.linalg.det(axes) < 0:
        raise GroupError(f"group {name!r}: the axes of its part should be three at right angles, right-handed")
    if not (halves > 0).all():
        raise GroupError(f"group {name!r}: the half extents of its part should be above 0, got {halves[0].tolist()}")
    return Boxes(centre, axes[None], halves, exponents)


def _offset(value: object, name: str) -> Array:
    count = len(cast(list[Any], value)) if isinstance(value, list) else 0
    return np.array(_numbers(value, 9 if count == 9 else 6, name) + [0.0] * (0 if count == 9 else 3))


def level_of(kind: str, params: Mapping[str, Any], name: str) -> Level:
    """A regularity from its `params`; `name` is that of the group, for messages."""
    makers: dict[str, Callable[[], Level]] = {
        "mirror": lambda: Mirror(*_plane(params["plane"], name)),
        "double_mirror": lambda: _double(params, name),
        "array": lambda: LinearArray(
            _unit(params["dir"], name), _positive(params, "spacing", name), _count(params, "count", name)
        ),
        "grid": lambda: Grid(
            _count(params, "rows", name),
            _count(params, "cols", name),
            *(_triple(params[k], name) for k in ("du", "dv")),
        ),
        "rotation": lambda: Rotation(
            _unit(params["axis"], name),
            _triple(params["point"], name),
            _count(params, "count", name),
            _positive(params, "angle", name),
        ),
        "same_size": lambda: SameSize(tuple(tuple(_numbers(place, 12, name)) for place in params["places"])),
    }
    if kind not in makers:
        raise GroupError(f"group {name!r}: there is no kind {kind!r}; there are {', '.join(makers)}")
    try:
        return makers[kind]()
    except (KeyError, TypeError) as error:
        raise GroupError(
            f"group {name!r}: its params do not say what a group of kind {kind!r} needs: {error}"
        ) from error


def _double(params: Mapping[str, Any], name: str) -> DoubleMirror:
    planes = [_plane(plane, name) for plane in params["planes"]]
    if len(planes) != 2:
        raise GroupError(f"group {name!r}: expected two planes, got {len(planes)}")
    across = float(np.dot(planes[0][0], planes[1][0]))
    if abs(across) > 1e-4:
        raise GroupError(f"group {name!r}: its planes should stand at right angles (n1 . n2 is {across:.4g})")
    return DoubleMirror((planes[0][0], planes[1][0]), (planes[0][1], planes[1][1]))


def _plane(plane: Mapping[str, Any], name: str) -> tuple[Vector, float]:
    return _unit(plane["n"], name), _number(plane, "o", name)


def _unit(value: object, name: str) -> Vector:
    found = _triple(value, name)
    length = math.sqrt(sum(each * each for each in found))
    if abs(length - 1.0) > 1e-4:
        raise GroupError(f"group {name!r}: a direction should have length 1, {list(found)} has {length:.4g}")
    return (found[0] / length, found[1] / length, found[2] / length)


def _triple(value: object, name: str) -> Vector:
    x, y, z = _numbers(value, 3, name)
    return x, y, z


def _numbers(value: object, count: int, name: str) -> list[float]:
    found = cast(list[Any], value) if isinstance(value, list | tuple) else []
    if len(found) != count or not all(isinstance(each, int | float) and math.isfinite(each) for each in found):
        raise GroupError(f"group {name!r}: expected {count} finite numbers, got {value!r}")
    return [float(each) for each in found]


def _number(line: Mapping[str, Any], key: str, name: str) -> float:
    return _numbers([line[key]] if key in line else None, 1, name)[0]


def _positive(line: Mapping[str, Any], key: str, name: str) -> float:
    value = _number(line, key, name)
    if value <= 0:
        raise GroupError(f"group {name!r}: {key} should be above 0, got {value}")
    return value


def _count(line: Mapping[str, Any], key: str, name: str) -> int:
    value = line[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise GroupError(f"group {name!r}: {key} should be a whole number, 1 or more, got {value!r}")
    return value


def _part(pair: object, name: str) -> PartId:
    found = cast(list[Any], pair) if isinstance(pair, list | tuple) else []
    if len(found) != 2 or not isinstance(found[0], str) or not isinstance(found[1], int):
        raise GroupError(f"group {name!r}: a member should be [layer, row], got {pair!r}")
    return PartId(found[0], found[1])


def _slot(value: object, levels: Sequence[Level], name: str) -> tuple[Slot, ...]:
    found = cast(list[list[int]], value) if isinstance(value, list) else []
    slot = tuple(tuple(each) for each in found)
    if len(slot) != len(levels) or any(each not in level.slots() for each, level in zip(slot, levels, strict=True)):
        raise GroupError(f"group {name!r}: there is no copy {value!r}; its count is {[e.count for e in levels]}")
    return slot


def _field(line: Mapping[str, Any], key: str, wanted: type[Any], name: str) -> Any:
    value = line.get(key)
    if not isinstance(value, wanted):
        raise GroupError(f"group {name!r}: {key} should be a {wanted.__name__}, got {value!r}")
    return value
