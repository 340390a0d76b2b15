"""Edits of what is selected, in place: moves, and edits of your own. Every one can be undone, and returns how many
primitives it touched; one that fails changes nothing. Colours are in `smalti.scene.looks`, what makes or removes
primitives in `smalti.scene.structure`.

A mesh's faces share vertices: where a part of a connected mesh is moved or recoloured, the faces around it follow with
the corners that they share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family
from smalti.primitives.rows import RowMap
from smalti.scene.changes import EditError, LayerChange, shallow
from smalti.scene.history import Changed
from smalti.scene.selection import Selection, positions
from smalti.scene.vectors import Point, direction, vector

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene


# -- moves ------------------------------------------------------------------------------------------------------------
def transform(scene: Scene, selection: Selection, similarity: Similarity) -> int:
    """Move, turn and scale at once: `scene_from_scene`. Colours that depend on the viewing direction turn too.

    >>> from smalti.cameras.similarity import Similarity
    >>> from smalti.scene import demo_scene, layer, transform
    >>> transform(demo_scene(), layer("chair"), Similarity(scale=2.0))
    8
    """
    return _transformed(scene, selection, similarity, "transform")


def move(scene: Scene, selection: Selection, offset: Point) -> int:
    """Move by `offset`, world units.

    >>> from smalti.scene import demo_scene, layer, move
    >>> move(demo_scene(), layer("chair"), [0, 0, 1])
    8
    """
    return _transformed(scene, selection, Similarity(translation=vector(offset, "move: offset")), "move")


def rotate(scene: Scene, selection: Selection, axis: Point, degrees: float, pivot: Point | None = None) -> int:
    """Turn about `axis` by the right-hand rule, about `pivot` (by default `middle` of the selection).

    >>> from smalti.scene import demo_scene, layer, rotate
    >>> rotate(demo_scene(), layer("chair"), [0, 1, 0], 90.0)
    8
    """
    angle = vector([degrees, 0, 0], "rotate: degrees").deg2rad()[0]
    turn = so3_exp(direction(axis, "rotate: axis") * angle)
    return _transformed(scene, selection, _about(_pivot(scene, selection, pivot), Similarity(rotation=turn)), "rotate")


def scale(scene: Scene, selection: Selection, factor: float, pivot: Point | None = None) -> int:
    """Scale about `pivot` (by default `middle` of the selection).

    >>> from smalti.scene import demo_scene, layer, scale
    >>> scale(demo_scene(), layer("chair"), 0.5, pivot=[0, 0, 0])
    8
    """
    about = _about(_pivot(scene, selection, pivot), Similarity(scale=float(factor)))
    return _transformed(scene, selection, about, "scale")


def mirror(scene: Scene, selection: Selection, normal: Point, offset: float = 0.0) -> int:
    """Reflect at the plane `normal . x = offset` (the normal made unit). FamilyError for families that have no mirror
    image.

    >>> from smalti.scene import demo_scene, layer, mirror
    >>> mirror(demo_scene(), layer("chair"), [1, 0, 0])
    8
    """
    unit = direction(normal, "mirror: normal")

    def change(held: Layer, part: Family) -> None:
        place = held.similarity
        distance = (offset - float(unit @ place.translation.double())) / place.scale
        part.mirror(torch.cat([place.rotation.double().T @ unit, unit.new_tensor([distance])]))

    return apply_to(scene, selection, "mirror", change)


def middle(scene: Scene, selection: Selection) -> Float[Tensor, "3"]:
    """The middle of the axis-aligned box around the selected centres; EditError where nothing is selected.

    >>> from smalti.scene import demo_scene, layer, middle
    >>> middle(demo_scene(), layer("chair")).tolist()
    [0.0, 0.0, 0.0]
    """
    masks = selection.masks(scene)
    points = torch.cat([positions(held)[masks[held.name]].cpu() for held in scene] or [torch.zeros(0, 3)])
    if not len(points):
        raise EditError(f"{selection.words}: nothing is selected, so it has no middle")
    return 0.5 * (points.amin(dim=0) + points.amax(dim=0))


# -- how --------------------------------------------------------------------------------------------------------------
def apply_to(scene: Scene, selection: Selection, name: str, change: Callable[[Layer, Family], None]) -> int:
    """An edit of your own: `change` gets a layer and a family of the selected primitives alone, and changes the family
    (with new tensors, as `Family.transform` does), not the number of its primitives.

    >>> from smalti.scene import apply_to, demo_scene, layer
    >>> def widen(held, part):
    ...     part.replace({"log_scales": part.parameters["log_scales"] + 0.1})
    >>> apply_to(demo_scene(), layer("chair"), "widen", widen)
    8
    """
    masks = selected(scene, selection, name)
    steps: list[Changed] = []
    for held in (scene.layers[key] for key in masks):
        others = any(each is not held and type(each.family) is type(held.family) and len(each.family) for each in scene)
        new = edited(held.family, masks[held.name], lambda part, held=held: change(held, part), others)
        _require_same_shapes(name, held, new)
        difference = LayerChange.between(held.name, held.family, new)
        _require_finite(name, difference)
        if not difference.is_empty:
            steps.append(Changed(difference))
    if steps:
        scene.history.perform(scene, name, steps)
    return sum(int(mask.sum()) for mask in masks.values())


def selected(scene: Scene, selection: Selection, name: str) -> dict[str, Bool[Tensor, "n"]]:
    """Masks of the layers of which something is selected; EditError where one of these is locked.

    >>> from smalti.scene import demo_scene, index
    >>> from smalti.scene.edits import selected
    >>> list(selected(demo_scene(), index("cloud", [1]), "move"))
    ['cloud']
    """
    masks = {key: mask for key, mask in selection.masks(scene).items() if bool(mask.any())}
    locked = [key for key in masks if scene.layers[key].locked]
    if locked:
        raise EditError(
            f"{name}: layer {locked[0]!r} is locked; set scene[{locked[0]!r}].locked = False, or leave it out with "
            f"& ~layer({locked[0]!r})"
        )
    return masks


def edited(family: Family, mask: Bool[Tensor, "n"], change: Callable[[Family], None], others: bool) -> Family:
    """A shallow copy in which the rows in `mask` went through `change`. `others`: whether there are more layers of the
    family, with which it has to agree in `common_metadata`.
    """
    result = shallow(family)
    if bool(mask.all()):
        change(result)
        if others and result.common_metadata():
            kept = {key: family.metadata[key] for key in result.common_metadata()}
            result.adopt({**result.metadata, **kept})
        return result
    part = shallow(family)
    maps = part.rearrange(RowMap.keep(mask))
    textures = {key: value for key, value in part.parameters.items() if key not in maps}
    change(part)
    part.adopt(family.metadata)
    _require_own(part, textures)
    for key, rows in maps.items():
        value = result.parameters[key].detach().clone()
        value[rows.source] = part.parameters[key].detach()
        result.parameters[key] = value
    targets = part.references()
    for key, value in part.constants.items():
        if len(value) == int(mask.sum()) and len(family.constants[key]) == len(mask):
            numbers = maps[targets[key]].source[value.long()].to(value) if key in targets else value
            held = result.constants[key].clone()
            held[mask] = numbers
            result.constants[key] = held
    return result


def _require_same_shapes(name: str, held: Layer, new: Family) -> None:
    for key, value in held.family.parameters.items():
        if new.parameters[key].shape != value.shape or new.parameters[key].dtype != value.dtype:
            raise EditError(
                f"{name}: layer {held.name!r}: {key} should stay {value.dtype} {tuple(value.shape)}, it became "
                f"{new.parameters[key].dtype} {tuple(new.parameters[key].shape)}"
            )


def _require_finite(name: str, difference: LayerChange) -> None:
    """What was not finite before may stay so."""
    for key, change in difference.tensors.items():
        if bool((change.before.isfinite() & ~change.after.isfinite()).any()):
            raise EditError(f"{name}: layer {difference.layer!r}: {key} would become NaN or infinite")


def _require_own(part: Family, before: dict[str, Tensor]) -> None:
    for key, value in before.items():
        if not torch.equal(part.parameters[key].detach(), value.detach()):
            raise EditError(
                f"layer of {part.name}: {key} belongs to all of its primitives together, so a part of them cannot be "
                "changed; split the part into a layer of its own first"
            )


def _transformed(scene: Scene, selection: Selection, move: Similarity, name: str) -> int:
    def change(held: Layer, part: Family) -> None:
        part.transform(in_layer(held, move))

    return apply_to(scene, selection, name, change)


def in_layer(held: Layer, move: Similarity) -> Similarity:
    """The scene's `move` as a move in the layer's own axes."""
    return move if held.similarity.is_identity else held.similarity.inverse @ move @ held.similarity


def _about(pivot: Float[Tensor, "3"], move: Similarity) -> Similarity:
    return Similarity(translation=pivot) @ move @ Similarity(translation=-pivot)


def _pivot(scene: Scene, selection: Selection, pivot: Point | None) -> Float[Tensor, "3"]:
    if pivot is not None:
        return vector(pivot, "pivot")
    return middle(scene, selection) if any(selection.counts(scene).values()) else torch.zeros(3, dtype=torch.float64)
