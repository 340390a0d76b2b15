"""Blocks of a scene by layer and row: read as boxes in the scene's axes, written back by edits that can be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from smalti.primitives.posed import Posed, Poses
from smalti.scene.changes import EditError
from smalti.scene.edits import apply_to
from smalti.scene.groups.boxes import Array, Boxes, Rows, joined
from smalti.scene.selection import Selection, index

if TYPE_CHECKING:
    from smalti.cameras.similarity import Similarity
    from smalti.primitives.family import Family
    from smalti.scene.scene import Layer, Scene

NONE = Boxes(np.zeros((0, 3)), np.zeros((0, 3, 3)), np.zeros((0, 3)), np.zeros((0, 2)))


@dataclass(frozen=True, order=True)
class PartId:
    """A primitive of a scene."""

    layer: str
    row: int

    def __repr__(self) -> str:
        return f"{self.layer}:{self.row}"


@dataclass(frozen=True, eq=False)
class Exact:
    """How a member was before it was snapped to its model."""

    offset: Array
    """[9]: shift in the model's axes, rotation vector, logarithms of the half extents' ratios."""
    rows: Mapping[str, Tensor] | None = None
    """Its rows of the family's pose parameters; None where they are not known any more."""
    written: Mapping[str, Tensor] | None = None
    """What they became."""


def posed(held: Layer) -> Posed | None:
    """The layer's family, where its primitives are parts that have a pose."""
    family: object = held.family
    return family if isinstance(family, Posed) else None


def read_all(scene: Scene) -> tuple[list[PartId], Boxes]:
    """All blocks that are drawn: those of visible layers of families that say of their parts where they are. What is
    NaN or infinite is not drawn.
    """
    parts, boxes = list[PartId](), list[Boxes]()
    for held in scene.visible_layers():
        family, rows = posed(held), held.family.separate_parts()
        if family is not None and rows is not None and len(rows):
            placed = _in_scene(family.poses(), held.similarity)
            usable = np.isfinite(np.concatenate([each.reshape(len(placed), -1) for each in vars(placed).values()], 1))
            numbers = [int(row) for row in rows.tolist() if usable[row].all()]
            parts += [PartId(held.name, row) for row in numbers]
            boxes.append(placed.take(numbers))
    return parts, joined(boxes) if boxes else NONE


def read(scene: Scene, parts: Sequence[PartId]) -> Boxes:
    """These blocks. EditError where one is not there."""
    if not parts:
        return NONE
    layers: dict[str, Boxes] = {}
    for part in parts:
        if part.layer not in layers:
            held = scene.layers.get(part.layer)
            family = None if held is None else posed(held)
            if held is None or family is None:
                raise EditError(f"{part}: there is no layer of that name whose primitives are posed parts")
            layers[part.layer] = _in_scene(family.poses(), held.similarity)
        if not 0 <= part.row < len(layers[part.layer]):
            raise EditError(f"{part}: the layer has {len(layers[part.layer])} primitives; find the groups again")
    return joined([layers[part.layer].take([part.row]) for part in parts])


def write(scene: Scene, name: str, parts: Sequence[PartId], boxes: Boxes) -> None:
    """Give these blocks other poses. EditError where a layer is locked, FamilyError for what it cannot hold."""
    for layer in sorted({part.layer for part in parts}):
        mine = sorted((part.row, number) for number, part in enumerate(parts) if part.layer == layer)
        wanted = boxes.take([number for _, number in mine])

        def change(held: Layer, part: Family, wanted: Boxes = wanted) -> None:
            family: object = part
            assert isinstance(family, Posed)
            family.set_poses(torch.arange(len(wanted)), _in_layer(wanted, held.similarity))

        apply_to(scene, index(layer, [row for row, _ in mine]), name, change)


def raw_rows(scene: Scene, part: PartId) -> dict[str, Tensor]:
    """Its numbers as they are held."""
    family = scene.layers[part.layer].family
    names = family.pose_parameters if isinstance(family, Posed) else ()
    return {name: family.parameters[name].detach()[part.row].clone() for name in names}


def write_raw(scene: Scene, name: str, part: PartId, rows: Mapping[str, Tensor]) -> None:
    """Give it these numbers, to the byte."""

    def change(_: Layer, family: Family) -> None:
        family.replace({key: value[None].to(family.parameters[key]) for key, value in rows.items()})

    apply_to(scene, index(part.layer, [part.row]), name, change)


def chosen(parts: Sequence[PartId]) -> Selection:
    """As a selection, for the edits of `smalti.scene`. EditError for none."""
    if not parts:
        raise EditError("the group has no members any more")
    found: Selection | None = None
    for layer in sorted({part.layer for part in parts}):
        rows = index(layer, sorted(part.row for part in parts if part.layer == layer))
        found = rows if found is None else found | rows
    assert found is not None
    return found


def renumbered(part: PartId, layer: str, stay: Rows, forwards: bool) -> PartId | None:
    """The same primitive after all rows of a layer but those that `stay` (ascending) went, or came back; None where it
    is gone.
    """
    if part.layer != layer:
        return part
    if not forwards:
        return replace(part, row=int(stay[part.row])) if part.row < len(stay) else None
    place = int(np.searchsorted(stay, part.row))
    return replace(part, row=place) if place < len(stay) and stay[place] == part.row else None


def _in_scene(poses: Poses, place: Similarity) -> Boxes:
    turn, shift = place.rotation.double().numpy(), place.translation.double().numpy()
    with np.errstate(invalid="ignore"):  # what is infinite is left out later
        return Boxes(
            place.scale * poses.centres.numpy() @ turn.T + shift,
            turn @ poses.rotations.numpy(),
            place.scale * poses.half_extents.numpy(),
            poses.exponents.numpy(),
        )


def _in_layer(boxes: Boxes, place: Similarity) -> Poses:
    turn, shift = place.rotation.double().numpy(), place.translation.double().numpy()
    return Poses(
        torch.from_numpy((boxes.centres - shift) @ turn / place.scale),
        torch.from_numpy(turn.T @ boxes.rotations),
        torch.from_numpy(boxes.halves / place.scale),
        torch.from_numpy(boxes.exponents.copy()),
    )
