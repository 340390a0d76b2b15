"""Edits that make, remove or regroup primitives: delete, crop, duplicate, array, split into a layer, merge layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family
from smalti.primitives.rows import RowMap
from smalti.scene.changes import EditError, LayerChange, shallow
from smalti.scene.edits import edited, in_layer, selected
from smalti.scene.history import Added, Changed, Removed, Step
from smalti.scene.selection import Selection, named
from smalti.scene.vectors import Point, vector

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene


def delete(scene: Scene, selection: Selection) -> int:
    """Remove what is selected; layers stay, even empty. Returns how many primitives went.

    >>> from smalti.scene import delete, demo_scene, where
    >>> scene = demo_scene()
    >>> delete(scene, where("y", ">", 0.0)), len(scene) < 20
    (10, True)
    """
    return _deleted(scene, selection, "delete")


def crop(scene: Scene, selection: Selection) -> int:
    """Remove what is not selected. Returns how many primitives went.

    >>> from smalti.scene import crop, demo_scene, layer
    >>> crop(demo_scene(), layer("chair"))
    12
    """
    return _deleted(scene, ~selection, "crop")


def duplicate(scene: Scene, selection: Selection, offset: Point = (0.0, 0.0, 0.0)) -> int:
    """A copy of what is selected, moved by `offset`, behind the other primitives of the same layers. Returns how many
    primitives came.

    >>> from smalti.scene import demo_scene, duplicate, layer
    >>> scene = demo_scene()
    >>> duplicate(scene, layer("chair"), [3, 0, 0]), scene.counts()
    (8, {'chair': 16, 'cloud': 12})
    """
    return _repeated(scene, selection, 1, Similarity(translation=vector(offset, "duplicate: offset")), "duplicate")


def array(scene: Scene, selection: Selection, copies: int, step: Point | Similarity) -> int:
    """`copies` copies of what is selected, each moved by `step` from the one before. Returns how many primitives came.

    >>> from smalti.scene import array, demo_scene, layer
    >>> scene = demo_scene()
    >>> array(scene, layer("chair"), 3, [2, 0, 0]), scene.counts()
    (24, {'chair': 32, 'cloud': 12})
    """
    if copies < 1:
        raise ValueError(f"array: expected one copy or more, got {copies}")
    move = step if isinstance(step, Similarity) else Similarity(translation=vector(step, "array: step"))
    return _repeated(scene, selection, copies, move, "array")


def split(scene: Scene, selection: Selection, name: str) -> list[str]:
    """Move what is selected into a layer of its own, `name`; from several layers, into `name-LAYER` each. Returns the
    names of the new layers, which come right after those that they are of.

    >>> from smalti.scene import demo_scene, index, split
    >>> scene = demo_scene()
    >>> split(scene, index("chair", [0, 1]), "leg"), scene.counts()
    (['leg'], {'chair': 6, 'leg': 2, 'cloud': 12})
    """
    masks = selected(scene, selection, "split")
    names = {held: name if len(masks) == 1 else f"{name}-{held}" for held in masks}
    for new in names.values():
        scene.require_free(new)
    steps: list[Step] = []
    order = list(scene.layers)
    for held in (scene.layers[key] for key in masks):
        mask = masks[held.name]
        part = shallow(held.family)
        part.rearrange(RowMap.keep(mask))
        # What the part has not of its own (a texture) it gets of its own: `copy`.
        layer = type(held)(names[held.name], part.copy(), visible=held.visible, similarity=held.similarity)
        place = order.index(held.name) + 1
        order.insert(place, layer.name)
        steps += [_removal(held, mask), Added(layer, place)]
    if steps:
        scene.history.perform(scene, "split", steps)
    return list(names.values())


def merge(scene: Scene, names: Sequence[str]) -> str:
    """Put the primitives of all these layers behind those of the first, and remove the others. Returns the first's
    name. EditError or FamilyError where the families, or what they draw with, differ.

    >>> from smalti.scene import demo_scene, index, merge, split
    >>> scene = demo_scene()
    >>> parts = split(scene, index("chair", [0, 1]), "leg")
    >>> merge(scene, ["chair", "leg"]), scene.counts()
    ('chair', {'chair': 8, 'cloud': 12})
    """
    layers = [named(scene, name) for name in names]
    if len(layers) < 2 or len(set(names)) < len(names):
        raise EditError(f"merge: expected two layers or more, each once, got {', '.join(names) or 'none'}")
    for held in layers:
        if held.locked:
            raise EditError(f"merge: layer {held.name!r} is locked; set scene[{held.name!r}].locked = False first")
    first = layers[0]
    joined = shallow(first.family)
    for other in layers[1:]:
        _join(joined, first, other)
    steps: list[Step] = [Changed(LayerChange.between(first.name, first.family, joined, _grown(first.family, joined)))]
    order = list(scene.layers)
    for other in layers[1:]:
        steps.append(Removed(other, order.index(other.name)))
        order.remove(other.name)
    scene.history.perform(scene, "merge", steps)
    return first.name


def append_rows(target: Layer, source: Layer) -> Changed:
    """The step that puts the primitives of `source` behind those of `target`, where they lie in the scene. EditError or
    FamilyError where the families, or what they draw with, differ.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.structure import append_rows
    >>> scene, other = demo_scene(), demo_scene()
    >>> scene.history.perform(scene, "twice", [append_rows(scene.layers["chair"], other.layers["chair"])])
    >>> scene.counts()
    {'chair': 16, 'cloud': 12}
    """
    joined = shallow(target.family)
    _join(joined, target, source)
    return Changed(LayerChange.between(target.name, target.family, joined, _grown(target.family, joined)))


def _deleted(scene: Scene, selection: Selection, name: str) -> int:
    masks = selected(scene, selection, name)
    if masks:
        scene.history.perform(scene, name, [_removal(scene.layers[key], mask) for key, mask in masks.items()])
    return sum(int(mask.sum()) for mask in masks.values())


def _removal(held: Layer, mask: Tensor) -> Changed:
    rows, left = RowMap.keep(~mask), shallow(held.family)
    maps = left.rearrange(rows)
    return Changed(LayerChange.between(held.name, held.family, left, {**maps, "": rows}))


def _repeated(scene: Scene, selection: Selection, copies: int, move: Similarity, name: str) -> int:
    masks = selected(scene, selection, name)
    steps = [_copies(scene.layers[key], mask, copies, move) for key, mask in masks.items()]
    if steps:
        scene.history.perform(scene, name, steps)
    return copies * sum(int(mask.sum()) for mask in masks.values())


def _copies(held: Layer, mask: Tensor, copies: int, move: Similarity) -> Changed:
    rows, step = torch.nonzero(mask).squeeze(1), in_layer(held, move)
    result, maps, place = shallow(held.family), dict[str, RowMap](), step
    for _ in range(copies):
        count = len(result)
        appended = RowMap.append(count, rows)
        now = {**result.rearrange(appended), "": appended}
        maps = {key: maps[key].then(later) if maps else later for key, later in now.items()}
        if not place.is_identity:
            result = edited(result, appended.fresh, lambda part, place=place: part.transform(place), False)
        place = step @ place
    return Changed(LayerChange.between(held.name, held.family, result, maps))


def _join(joined: Family, first: Layer, other: Layer) -> None:
    """Append another layer's primitives to `joined`, which is `first` with what was joined before."""
    if type(other.family) is not type(joined):
        raise EditError(
            f"merge: layer {other.name!r} is of family {other.family.name!r}, {first.name!r} of {joined.name!r}; "
            "layers of one family can be merged"
        )
    part = shallow(other.family)
    move = first.similarity.inverse @ other.similarity
    rows = part.rearrange(RowMap.keep(torch.ones(len(part), dtype=torch.bool, device=part.device)))
    if not move.is_identity:
        part.transform(move)
    part.adopt(joined.metadata)
    held, parameters, constants = joined.parameters, dict(joined.parameters), dict(joined.constants)
    for kind, mine, theirs in (("parameters", held, part.parameters), ("constants", constants, part.constants)):
        if mine.keys() != theirs.keys():
            raise EditError(
                f"merge: layers {first.name!r} and {other.name!r} differ in their {kind}: {sorted(mine)}, "
                f"{sorted(theirs)}"
            )
    for key, value in part.parameters.items():
        if key in rows:
            parameters[key] = _stacked(key, held[key].detach(), value.detach(), (first, other))
        elif not torch.equal(value.detach(), held[key].detach()):
            raise EditError(f"merge: layers {first.name!r} and {other.name!r} each have a {key} of their own")
    for key, value in part.constants.items():
        target = part.references().get(key)
        moved = value if target is None else value + len(held[target])
        constants[key] = _stacked(key, constants[key], moved, (first, other))
    joined.constants = constants
    joined.replace(parameters)


def _stacked(key: str, first: Tensor, second: Tensor, layers: tuple[Layer, Layer]) -> Tensor:
    one, two = ((tuple(value.shape[1:]), value.dtype, value.device) for value in (first, second))
    if one != two:
        raise EditError(
            f"merge: layers {layers[0].name!r} and {layers[1].name!r} differ in {key}: rows of {one}, and of {two}"
        )
    return torch.cat([first, second])


def _grown(old: Family, new: Family) -> dict[str, RowMap]:
    """What became of the rows where some were appended."""

    def more(before: int, after: int) -> RowMap:
        return RowMap.append(before, torch.zeros(after - before, dtype=torch.int64, device=old.device))

    maps = {key: more(len(old.parameters[key]), len(value)) for key, value in new.parameters.items()}
    primitives = {len(value): len(new.constants[key]) for key, value in old.constants.items()}
    return {**maps, "": more(*next(iter(primitives.items())))} if primitives else maps
