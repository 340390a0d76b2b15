"""Separate parts: primitives that are solids of their own (`Family.separate_parts`), each as a layer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.similarity import Similarity
from smalti.primitives.rows import RowMap
from smalti.scene.changes import EditError, shallow
from smalti.scene.explode import displacements
from smalti.scene.history import Added, Removed, Step
from smalti.scene.palette import flat_color
from smalti.scene.selection import named

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene


class NoParts(ValueError):
    """Nothing in the scene comes in separate parts; the message says what there is instead."""


def split_parts(scene: Scene, name: str, stem: str = "") -> list[str]:
    """Put every primitive of a layer that is drawn into a layer of its own, `STEM-NN` by its row, in place of that
    layer; returns their names. The picture stays. Primitives that are not drawn are left out.

    `stem` is by default what the family calls them, or else the layer's name where such names are taken. EditError
    where the layer is locked, NoParts where its primitives are no solids of their own. `merge` joins them again.

    >>> import torch
    >>> from smalti.primitives.family import find_family
    >>> from smalti.scene import Scene, duplicate, layer, move, recolor, split_parts
    >>> generator = torch.Generator().manual_seed(0)
    >>> bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> scene = Scene(order="ray")
    >>> held = scene.add("toy", find_family("superquadrics").at_random(bounds, 3, generator, {"texture_size": 4}))
    >>> split_parts(scene, "toy")
    ['block-00', 'block-01', 'block-02']
    >>> move(scene, layer("block-01"), [0, -1, 0]), duplicate(scene, layer("block-02"), [1, 0, 0])
    (1, 1)
    >>> recolor(scene, layer("block-00"), lambda colors: torch.ones_like(colors) * torch.tensor([0.9, 0.2, 0.1]))
    1
    >>> scene.counts(), [scene.undo() for _ in range(4)], scene.counts()
    ({'block-00': 1, 'block-01': 1, 'block-02': 2}, ['recolor', 'duplicate', 'move', 'split parts'], {'toy': 3})
    """
    held = named(scene, name)
    if held.locked:
        raise EditError(f"split parts: layer {name!r} is locked; set scene[{name!r}].locked = False first")
    if held.family.separate_parts() is None:
        raise NoParts(f"split parts: layer {name!r} has none: {_why(held)}")
    made = _taken_apart(held, _names(held, stem, {each for each in scene.layers if each != name}))
    if not made:
        raise NoParts(f"split parts: none of the {len(held.family)} primitives of layer {name!r} is drawn")
    place = list(scene.layers).index(name)
    steps: list[Step] = [Removed(held, place)]
    steps += [Added(each, place + k) for k, each in enumerate(made)]
    scene.history.perform(scene, "split parts", steps)
    return [each.name for each in made]


@dataclass(frozen=True, eq=False)
class Part:
    """One solid of a scene."""

    name: str
    """Of its layer in `Parts.scene`."""
    number: int
    """What its name ends with; its colour goes by it, whatever other parts there are."""
    box: Float[Tensor, "2 3"]
    """(low, high) in the scene, float64."""
    outline: Float[Tensor, "q 3"]
    """Points in the scene whose hull holds the part: the corners of its triangles where it has some, else its box."""

    opacity: float
    """0..1."""

    @property
    def is_solid(self) -> bool:
        """Whether it hides more than it lets through; after a training that ended all are."""
        return self.opacity >= 0.5

    @property
    def color(self) -> tuple[float, float, float]:
        """Flat, 0..1."""
        return flat_color(self.number)


@dataclass(frozen=True, eq=False)
class Parts:
    """A scene taken apart; the scene that it was made of stays as it is."""

    scene: Scene
    """With a layer for each part, and the other visible layers as they are."""
    parts: tuple[Part, ...]
    left_out: int
    """Primitives of the same layers that are not drawn."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts' layers."""
        return tuple(part.name for part in self.parts)

    @property
    def count(self) -> str:
        """How many, in words."""
        return f"{len(self.parts)} parts" if len(self.parts) != 1 else "one part"

    @property
    def boxes(self) -> Float[Tensor, "p 2 3"]:
        """(low, high) of each, in the scene."""
        return torch.stack([part.box for part in self.parts])

    @property
    def alone(self) -> Scene:
        """Without the layers that have no parts."""
        return self._with([torch.zeros(3, dtype=torch.float64)] * len(self.parts), alone=True)

    def exploded(self, amount: float = 1.0, alone: bool = True) -> Scene:
        """The parts moved outwards from their common centre; at 1 and above their boxes do not overlap, at 0 they stand
        where they are (`smalti.scene.explode`). `alone`: without the other layers.
        """
        return self._with(list(amount * self.moves()), alone)

    def moves(self) -> Float[Tensor, "p 3"]:
        """How far each goes in `exploded(1)`."""
        return displacements(self.boxes)

    def _with(self, moves: list[Tensor], alone: bool) -> Scene:
        from smalti.scene.scene import Layer

        result = self.scene.like()
        moved = dict(zip(self.names, moves, strict=True))
        for held in self.scene:
            if held.name not in moved and alone:
                continue
            place = held.similarity
            if held.name in moved and bool(moved[held.name].any()):
                place = Similarity(translation=moved[held.name]) @ place
            result.layers[held.name] = Layer(held.name, held.family, similarity=place)
        return result


@torch.no_grad()
def parts_of(scene: Scene) -> Parts:
    """The visible layers taken apart where their primitives are separate solids, without an edit. NoParts where none
    is.

    >>> import torch
    >>> from smalti.primitives.family import find_family
    >>> from smalti.scene import Scene, parts_of
    >>> scene, generator = Scene(order="ray"), torch.Generator().manual_seed(0)
    >>> bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> held = scene.add("toy", find_family("superquadrics").at_random(bounds, 2, generator, {"texture_size": 4}))
    >>> parts_of(scene).names, list(scene.layers)
    (('block-00', 'block-01'), ['toy'])
    """
    result = scene.like()
    visible, parts, left_out = scene.visible_layers(), list[Part](), 0
    names = part_names(scene)
    for held in visible:
        if held.name not in names:
            result.layers[held.name] = held
            continue
        made = _taken_apart(held, names[held.name])
        result.layers.update({each.name: each for each in made})
        left_out += len(held.family) - len(made)
        for each in made:
            opacity = float(each.family.opacities()[0].detach())
            parts.append(Part(each.name, _number(each.name, parts), *_extent(each), opacity))
    if not parts:
        there = "; ".join(f"{held.name!r}: {_why(held)}" for held in visible) or "no visible layer has a primitive"
        raise NoParts(f"the scene has no separate parts. {there}")
    return Parts(result, tuple(parts), left_out)


def part_names(scene: Scene) -> dict[str, dict[int, str]]:
    """What the parts of a scene are called, by layer and row: those of visible layers that are drawn. The same wherever
    they appear, in `parts_of`, pictures and files.
    """
    found, taken = dict[str, dict[int, str]](), set(scene.layers)
    for held in scene.visible_layers():
        if held.family.separate_parts() is not None:
            found[held.name] = _names(held, "", taken - {held.name})
            taken |= set(found[held.name].values())
    return found


def _why(held: Layer) -> str:
    if held.family.separate_parts() is not None:
        return f"none of its {len(held.family)} {held.family.part_noun}s is drawn"
    return f"primitives of family {held.family.name!r} are no solids of their own"


def _taken_apart(held: Layer, names: Mapping[int, str]) -> list[Layer]:
    """A layer for each of these rows."""
    from smalti.scene.scene import Layer

    made: list[Layer] = []
    for row, name in names.items():
        part = shallow(held.family)
        part.rearrange(RowMap.keep(torch.arange(len(held.family), device=part.positions().device) == row))
        made.append(Layer(name, part.copy(), visible=held.visible, similarity=held.similarity))
    return made


def _names(held: Layer, stem: str, taken: set[str]) -> dict[int, str]:
    """A free name for each solid that is drawn, by its row; a layer of one primitive keeps its name."""
    drawn = held.family.separate_parts()
    rows = [] if drawn is None else drawn.tolist()
    if len(held.family) == 1 and not stem:
        return dict.fromkeys(rows, held.name)
    stems = (f"{held.name}-{k}" if k else held.name for k in itertools.count())
    for tried in [stem] if stem else itertools.chain([held.family.part_noun], stems):
        names = {row: f"{tried}-{row:02d}" for row in rows}
        if stem or not taken & set(names.values()):
            return names
    raise AssertionError("there is always a free name")


def _number(name: str, before: list[Part]) -> int:
    digits = re.search(r"(\d{1,6})$", name)
    number, used = int(digits[1]) if digits else 0, {part.number for part in before}
    while number in used:
        number += 1
    return number


def _extent(held: Layer) -> tuple[Float[Tensor, "2 3"], Float[Tensor, "q 3"]]:
    """(box, outline) of a layer of one part, in the scene."""
    family = held.family
    if not held.similarity.is_identity:
        family = family.copy()
        family.transform(held.similarity)
    box, surface = family.bounds()[0].detach().double().cpu(), family.surface()
    if surface is not None and len(surface.vertices):
        return box, surface.vertices.detach().double().cpu()
    picks = torch.cartesian_prod(*[torch.arange(2)] * 3)
    return box, box[picks, torch.arange(3)]
