"""Filling a region of a scene with what another scene has there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family
from smalti.primitives.registry import FamilyError
from smalti.primitives.rows import RowMap
from smalti.scene.changes import EditError, shallow
from smalti.scene.history import Added, Step
from smalti.scene.selection import Selection
from smalti.scene.structure import append_rows, delete

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene


def fill(
    scene: Scene, region: Selection, other: Scene, place: Similarity | None = None, clear: bool = False
) -> dict[str, int]:
    """Copy what another scene has in a region of this one. Returns how many primitives came, by layer of this scene.

    `region` is asked of the other scene, as it lies here: `place` is scene_from_other. It may be any selection that
    does not name layers of this scene alone (a box, a sphere, a lasso, `where`). With `clear` what this scene has in
    the region goes first. The copies join the unlocked layer of their family, of the same name before others; where
    there is none, or where it draws in another way, they become a layer of their own. One edit; the other scene stays
    as it is.

    >>> from smalti.scene import box, crop, demo_scene, fill
    >>> scene, corner = demo_scene(), box([0, 0, 0], [1, 1, 1])
    >>> gone = crop(scene, ~corner)
    >>> scene.counts(), fill(scene, corner, demo_scene()), scene.counts()
    ({'chair': 7, 'cloud': 12}, {'chair': 1}, {'chair': 8, 'cloud': 12})
    """
    placed = _placed(other, place or Similarity())
    masks = region.masks(placed)
    came: dict[str, int] = {}
    with scene.edit("fill"):
        if clear:
            delete(scene, region)
        for held in placed:
            mask = masks[held.name]
            count = int(mask.sum())
            if count:
                name = _joined(scene, held, RowMap.keep(mask))
                came[name] = came.get(name, 0) + count
    return came


def _placed(other: Scene, place: Similarity) -> Scene:
    """The other scene's layers as they lie here, with the same tensors."""
    result = type(other)(order=other.order, near=other.near, background=other.background)
    for held in other:
        result.layers[held.name] = replace(held, family=shallow(held.family), similarity=place @ held.similarity)
    return result


def _joined(scene: Scene, held: Layer, rows: RowMap) -> str:
    """Put `rows` of a placed layer into the scene; the name of the layer that took them."""
    part = shallow(held.family)
    part.rearrange(rows)
    part.to(next((each.family.device for each in scene), part.device))
    fitting = [each for each in scene if type(each.family) is type(part) and not each.locked]
    fitting.sort(key=lambda each: each.name != held.name)
    source = replace(held, family=part)
    for target in fitting:
        try:
            step = append_rows(target, source)
        except (EditError, FamilyError):
            continue  # it draws in another way: other degrees, another filter, a texture of its own
        scene.history.perform(scene, "fill", [step])
        return target.name
    name, number = held.name, 2
    while name in scene.layers:
        name, number = f"{held.name}-{number}", number + 1
    copy = part.copy()
    _agree(scene, copy)
    added: list[Step] = [Added(replace(source, name=name, family=copy, visible=True, locked=False), len(scene.layers))]
    scene.history.perform(scene, "fill", added)
    return name


def _agree(scene: Scene, family: Family) -> None:
    """All layers of a picture have some values in common (the boxes' step)."""
    for held in scene:
        if type(held.family) is type(family) and family.common_metadata():
            family.adopt({**family.metadata, **{key: held.family.metadata[key] for key in family.common_metadata()}})
            return
