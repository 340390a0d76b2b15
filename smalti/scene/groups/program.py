"""A scene of blocks as a program: a tree {"fn": name, "args": [...]} whose execution gives the blocks, and whose cost
is the scene's description length (Jones et al. 2023, ShapeCoder, with free planes and axes).

| fn | args |
| --- | --- |
| Union | two trees or more |
| Cuboid | width, height, depth (full sizes); `exponents` and `part` beside them |
| Rotate | tree, rotation vector (a block's own frame: it has no price, as no block's direction has) |
| Move | tree, x, y, z |
| SymRef | tree, {n, o}: the tree and its mirror image |
| SymTrans | tree, direction, K, D: K copies more, the last at distance D |
| SymRot | tree, {axis, point}, K, angle: K copies more, each turned by the angle |
| SameSize | Cuboid, [[rotation vector, x, y, z], ...]: one size in several places |
| Except | tree, [numbers of copies that are not there] |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes, joined
from smalti.scene.groups.fit import MISSING, Model
from smalti.scene.groups.grammar import require_program
from smalti.scene.groups.levels import (
    CHOICE,
    CONSTANT,
    FREE,
    FUNCTION,
    DoubleMirror,
    Grid,
    Level,
    LinearArray,
    Mirror,
    Rotation,
    SameSize,
    Slot,
    reflection,
    rotation,
    stacked,
    unit,
)
from smalti.scene.groups.members import NONE, PartId, chosen, read_all, write
from smalti.scene.groups.state import rotation_vector

if TYPE_CHECKING:
    from smalti.scene.groups.find import Groups
    from smalti.scene.scene import Scene

Tree = dict[str, Any]
Parts = list[tuple[PartId | None, Boxes]]
"""Blocks, and whose look each has."""


def program(scene: Scene, groups: Groups | None = None) -> Tree:
    """See `Scene.program`."""
    from smalti.scene.groups.find import find_groups

    found = find_groups(scene) if groups is None else groups
    trees = list[Tree]()
    for group in found:
        held = group._held  # pyright: ignore[reportPrivateUsage]
        held.settle()
        state = held.state
        trees.append(_of_group(state.model, state.slots, state.parts))
    parts, boxes = read_all(scene)
    owned = {part for group in found for part in group.members}
    trees += [_block(boxes.take([row]), part) for row, part in enumerate(parts) if part not in owned]
    return trees[0] if len(trees) == 1 else {"fn": "Union", "args": trees}


def execute(tree: Tree) -> Boxes:
    """The blocks that a program makes. ValueError for what is no program."""
    require_program(tree)
    made = _executed(tree)
    return joined([box for _, box in made]) if made else NONE


def cost(tree: Tree) -> float:
    """1 per function, 2 per free number, 0.5 per constant, count or axis. A union of n things is n - 1 functions.
    ValueError for what is no program.
    """
    require_program(tree)
    return _cost(tree)


def _cost(tree: Tree) -> float:
    name, args = tree["fn"], tree["args"]
    match name:
        case "Union":
            return sum(_cost(each) for each in args) + FUNCTION * max(len(args) - 1, 0)
        case "Cuboid":
            return FUNCTION + 3 * FREE
        case "Move":
            return _cost(args[0]) + FUNCTION + 3 * FREE
        case "Rotate":
            return _cost(args[0])
        case "SymRef":
            return _cost(args[0]) + FUNCTION + CHOICE
        case "SymTrans" | "SymRot":
            return _cost(args[0]) + FUNCTION + CHOICE + CONSTANT + FREE
        case "Except":
            return _cost(args[0]) + MISSING * len(args[1])
        case _:  # SameSize
            places = len(args[1])
            return _cost(args[0]) + places * (2 * FUNCTION + 3 * FREE) + FUNCTION * (places - 1)


def rebuilt(scene: Scene, tree: Tree) -> Scene:
    """See `Scene.from_program`."""
    from smalti.scene.structure import delete, duplicate

    require_program(tree)
    made = _executed(tree)
    result = scene.like()
    sources = [part if part is not None else PartId("", -1) for part, _ in made]
    known = set(read_all(scene)[0])
    missing = [part for part in sources if part not in known]
    if PartId("", -1) in missing:
        raise ValueError("from_program: a Cuboid does not say whose look it has; write part, [layer, row], beside args")
    if missing:
        raise ValueError(f"from_program: block {missing[0]} is not in this scene; its look is not known")
    for layer in [held.name for held in scene if any(part.layer == held.name for part in sources)]:
        held = scene.layers[layer]
        result.add(layer, held.family.copy(), visible=held.visible, similarity=held.similarity)
        count, mine = len(held.family), [row for row, part in enumerate(sources) if part.layer == layer]
        for row in mine:
            duplicate(result, chosen([sources[row]]))
        parts = [PartId(layer, count + number) for number in range(len(mine))]
        write(result, "from_program", parts, joined([made[row][1] for row in mine]))
        delete(result, chosen([PartId(layer, row) for row in range(count)]))
    result.history.clear()
    return result


# -- writing ----------------------------------------------------------------------------------------------------------
def _block(box: Boxes, part: PartId) -> Tree:
    size = (2.0 * box.halves[0]).tolist()
    body: Tree = {"fn": "Cuboid", "args": size, "exponents": box.exponents[0].tolist(), "part": [part.layer, part.row]}
    turned: Tree = {"fn": "Rotate", "args": [body, rotation_vector(box.rotations[0]).tolist()]}
    return {"fn": "Move", "args": [turned, *box.centres[0].tolist()]}


def _of_group(model: Model, slots: Sequence[tuple[Slot, ...]], parts: Sequence[PartId]) -> Tree:
    outer = model.levels[0]
    if isinstance(outer, SameSize):
        moved, _ = outer.transforms([slot[0] for slot in slots])
        said = model.place(slots)
        places = [
            [*rotation_vector(turn @ model.base.rotations[0]).tolist(), *centre.tolist()]
            for turn, centre in zip(moved, said.centres, strict=True)
        ]
        return {"fn": "SameSize", "args": [_block(model.base, parts[0])["args"][0]["args"][0], places]}
    # Its own member's look where there is one.
    tree = _block(model.base, parts[0])
    for level in reversed(model.levels):
        tree = _wrapped(level, tree)
    there = set(slots)
    order = [tuple(slot) for slot in product(*(_ordered(level) for level in model.levels))]
    gone = [number for number, slot in enumerate(order) if slot not in there]
    return {"fn": "Except", "args": [tree, gone]} if gone else tree


def _ordered(level: Level) -> list[Slot]:
    """Slots in the order in which execution makes the copies: outermost first."""
    if isinstance(level, Grid):
        return [(row, column) for row in range(level.rows) for column in range(level.columns)]
    if isinstance(level, DoubleMirror):
        return [(0, 0), (1, 0), (0, 1), (1, 1)]
    return level.slots()


def _wrapped(level: Level, tree: Tree) -> Tree:
    match level:
        case Mirror():
            return {"fn": "SymRef", "args": [tree, level.to_plain()["plane"]]}
        case DoubleMirror():
            first, second = level.to_plain()["planes"]
            return {"fn": "SymRef", "args": [{"fn": "SymRef", "args": [tree, first]}, second]}
        case LinearArray():
            return _translated(tree, level.step, level.number)
        case Grid():
            return _translated(
                _translated(tree, np.array(level.column_step), level.columns), np.array(level.row_step), level.rows
            )
        case Rotation():
            axis = {"axis": list(level.axis), "point": list(level.point)}
            return {"fn": "SymRot", "args": [tree, axis, level.number - 1, level.angle]}
        case _:
            raise ValueError(f"program: no function for {level.kind!r}")


def _translated(tree: Tree, step: Array, number: int) -> Tree:
    if number < 2:
        return tree
    distance = float(np.linalg.norm(step)) * (number - 1)
    return {"fn": "SymTrans", "args": [tree, unit(step).tolist(), number - 1, distance]}


# -- executing --------------------------------------------------------------------------------------------------------
def _executed(tree: Tree) -> Parts:
    name, args = cast(str, tree["fn"]), cast(list[Any], tree["args"])
    makers: Mapping[str, Callable[[], Parts]] = {
        "Union": lambda: [part for each in args for part in _executed(each)],
        "Cuboid": lambda: [_cuboid(tree)],
        "Rotate": lambda: _carried(_executed(args[0]), rotation(np.array(args[1])), np.zeros(3)),
        "Move": lambda: _carried(_executed(args[0]), np.eye(3), np.array(args[1:4], dtype=np.float64)),
        "SymRef": lambda: _copies(args[0], [reflection(args[1]["n"], args[1]["o"])]),
        "SymTrans": lambda: _copies(args[0], _steps(args[1:])),
        "SymRot": lambda: _copies(args[0], _turns(args[1:])),
        "SameSize": lambda: _same_sizes(args),
        "Except": lambda: [part for number, part in enumerate(_executed(args[0])) if number not in set(args[1])],
    }
    return makers[name]()


def _cuboid(tree: Tree) -> tuple[PartId | None, Boxes]:
    half = 0.5 * np.array(tree["args"], dtype=np.float64)
    exponents = np.array(tree.get("exponents", [0.1, 0.1]), dtype=np.float64)
    part = PartId(*tree["part"]) if "part" in tree else None
    return part, Boxes(np.zeros((1, 3)), np.eye(3)[None], half[None], exponents[None])


def _carried(parts: Parts, matrix: Array, shift: Array) -> Parts:
    return [(part, box.mapped(matrix, shift)) for part, box in parts]


def _copies(inside: Tree, moves: Sequence[tuple[Array, Array]]) -> Parts:
    """The tree itself and then its images."""
    parts = _executed(inside)
    return parts + [each for move in moves for each in _carried(parts, *move)]


def _steps(args: Sequence[Any]) -> list[tuple[Array, Array]]:
    direction, copies, distance = np.array(args[0], dtype=np.float64), int(args[1]), float(args[2])
    return [(np.eye(3), direction * (k * distance / copies)) for k in range(1, copies + 1)]


def _turns(args: Sequence[Any]) -> list[tuple[Array, Array]]:
    axis, point = np.array(args[0]["axis"], dtype=np.float64), np.array(args[0]["point"], dtype=np.float64)
    turns = [rotation(k * float(args[2]) * axis) for k in range(1, int(args[1]) + 1)]
    return list(zip(*stacked([(turn, point - turn @ point) for turn in turns]), strict=True))


def _same_sizes(args: Sequence[Any]) -> Parts:
    parts = _executed(args[0])
    if len(parts) != 1:
        raise ValueError(f"program: SameSize takes one block in several places, got {len(parts)}")
    (part, box), found = parts[0], list[tuple[PartId | None, Boxes]]()
    for place in np.array(args[1], dtype=np.float64):
        turned = replace(box, rotations=rotation(place[:3])[None], centres=place[None, 3:])
        found.append((part, turned))
    return found
