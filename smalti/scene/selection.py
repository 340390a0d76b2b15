"""Which primitives: lazy boolean expressions over a scene, made of parts that know nothing of each other.

    faint = where("opacity", "<", 0.1) & ~layer("glass")

A selection is a recipe: it looks at the scene when it is asked for masks, not before. All positions are in the scene's
axes and units, centres decide. Layers are seen whether they are visible or not; what is chosen on the screen
(`smalti.scene.screen`) is chosen among visible layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.scene.changes import EditError
from smalti.scene.vectors import Point, direction, vector

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene

Masks = dict[str, Tensor]
"""A boolean per primitive, by layer name."""


@dataclass(frozen=True, eq=False)
class Selection:
    """A recipe for masks; see the module.

    >>> from smalti.scene import demo_scene, everything, layer
    >>> scene = demo_scene()
    >>> (everything() & ~layer("chair")).counts(scene)
    {'chair': 0, 'cloud': 12}
    """

    recipe: Callable[[Scene], Mapping[str, Tensor]]
    """Layers that it leaves out have nothing selected."""
    words: str
    """For messages."""

    def masks(self, scene: Scene) -> Masks:
        """A boolean per primitive for every layer, on the layer's device.

        >>> from smalti.scene import demo_scene, index
        >>> index("chair", [0, 2]).masks(demo_scene())["chair"].tolist()[:4]
        [True, False, True, False]
        """
        with torch.no_grad():
            found = self.recipe(scene)
        masks: Masks = {}
        for layer in scene:
            empty = torch.zeros(len(layer.family), dtype=torch.bool, device=layer.family.device)
            masks[layer.name] = found.get(layer.name, empty)
        return masks

    def counts(self, scene: Scene) -> dict[str, int]:
        """Selected primitives by layer.

        >>> from smalti.scene import demo_scene, everything
        >>> everything().counts(demo_scene())
        {'chair': 8, 'cloud': 12}
        """
        return {name: int(mask.sum()) for name, mask in self.masks(scene).items()}

    def __and__(self, other: Selection) -> Selection:
        return _combined(self, other, torch.logical_and, "&")

    def __or__(self, other: Selection) -> Selection:
        return _combined(self, other, torch.logical_or, "|")

    def __invert__(self) -> Selection:
        return Selection(lambda scene: {name: ~mask for name, mask in self.masks(scene).items()}, f"~{self.words}")

    def __repr__(self) -> str:
        return f"Selection({self.words})"


def _combined(first: Selection, second: Selection, rule: Callable[[Tensor, Tensor], Tensor], sign: str) -> Selection:
    def recipe(scene: Scene) -> Masks:
        one, two = first.masks(scene), second.masks(scene)
        return {name: rule(mask, two[name]) for name, mask in one.items()}

    return Selection(recipe, f"({first.words} {sign} {second.words})")


def everything() -> Selection:
    """All primitives of all layers.

    >>> from smalti.scene import demo_scene, everything
    >>> sum(everything().counts(demo_scene()).values())
    20
    """
    return each_layer(lambda held: torch.ones(len(held.family), dtype=torch.bool), "everything()")


def visible() -> Selection:
    """All primitives of visible layers.

    >>> from smalti.scene import demo_scene, visible
    >>> scene = demo_scene()
    >>> scene["cloud"].visible = False
    >>> visible().counts(scene)
    {'chair': 8, 'cloud': 0}
    """
    return each_layer(lambda held: torch.full((len(held.family),), held.visible), "visible()")


def layer(name: str) -> Selection:
    """All primitives of one layer; EditError where there is none of that name when it is asked.

    >>> from smalti.scene import demo_scene, layer
    >>> layer("cloud").counts(demo_scene())
    {'chair': 0, 'cloud': 12}
    """

    def recipe(scene: Scene) -> Masks:
        family = named(scene, name).family
        return {name: torch.ones(len(family), dtype=torch.bool, device=family.device)}

    return Selection(recipe, f"layer({name!r})")


def index(name: str, rows: Sequence[int] | Tensor) -> Selection:
    """Primitives of a layer by number, negative ones from the end; EditError for numbers that it does not have.

    >>> from smalti.scene import demo_scene, index
    >>> index("cloud", [0, 5, -1]).counts(demo_scene())
    {'chair': 0, 'cloud': 3}
    """
    numbers = torch.as_tensor(rows, dtype=torch.int64).reshape(-1)

    def recipe(scene: Scene) -> Masks:
        family = named(scene, name).family
        count = len(family)
        if len(numbers) and not -count <= int(numbers.min()) <= int(numbers.max()) < count:
            raise EditError(f"index({name!r}, ...): the layer has {count} primitives, there is no such row")
        mask = torch.zeros(count, dtype=torch.bool)
        mask[numbers.cpu()] = True
        return {name: mask.to(family.device)}

    return Selection(recipe, f"index({name!r}, {len(numbers)} rows)")


def box(low: Point, high: Point, rotation: Float[Tensor, "3 3"] | None = None) -> Selection:
    """Centres in the box from `low` to `high`, borders included; `rotation` turns the box about its middle.

    >>> from smalti.scene import box, demo_scene
    >>> box([-10, -10, -10], [10, 10, 10]).counts(demo_scene())
    {'chair': 8, 'cloud': 12}
    """
    first, last = vector(low, "box: low"), vector(high, "box: high")
    if not bool((first <= last).all()):
        raise ValueError(f"box: low {first.tolist()} should not exceed high {last.tolist()}")
    turn = torch.eye(3, dtype=torch.float64) if rotation is None else rotation.detach().double().cpu()
    middle, half = 0.5 * (first + last), 0.5 * (last - first)

    def inside(points: Tensor) -> Tensor:
        if rotation is None:
            return ((points >= first.to(points)) & (points <= last.to(points))).all(dim=1)
        return (((points - middle.to(points)) @ turn.to(points)).abs() <= half.to(points)).all(dim=1)

    return of_positions(inside, f"box({first.tolist()}, {last.tolist()})")


def sphere(centre: Point, radius: float) -> Selection:
    """Centres at most `radius` away.

    >>> from smalti.scene import demo_scene, sphere
    >>> sphere([0, 0, 0], 100.0).counts(demo_scene())
    {'chair': 8, 'cloud': 12}
    """
    middle = vector(centre, "sphere: centre")
    if not radius >= 0:
        raise ValueError(f"sphere: radius should not be negative, got {radius}")
    return of_positions(
        lambda points: (points - middle.to(points)).norm(dim=1) <= radius, f"sphere({middle.tolist()}, {radius})"
    )


def half_space(normal: Point, offset: float) -> Selection:
    """Centres with `normal . x >= offset`, the normal made unit.

    >>> from smalti.scene import demo_scene, half_space
    >>> half_space([0, 1, 0], -100.0).counts(demo_scene())
    {'chair': 8, 'cloud': 12}
    """
    unit = direction(normal, "half_space: normal")
    return of_positions(lambda points: points @ unit.to(points) >= offset, f"half_space({unit.tolist()}, {offset})")


# -- what other selections are made with ----------------------------------------------------------------------------
def each_layer(rule: Callable[[Layer], Bool[Tensor, "n"]], words: str) -> Selection:
    """A selection by a rule on one layer at a time.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.selection import each_layer
    >>> each_layer(lambda layer: layer.family.opacities() > 2, "none").counts(demo_scene())
    {'chair': 0, 'cloud': 0}
    """
    return Selection(lambda scene: {held.name: rule(held).to(held.family.device) for held in scene}, words)


def of_positions(rule: Callable[[Float[Tensor, "n 3"]], Bool[Tensor, "n"]], words: str) -> Selection:
    """A selection by a rule on centres (float64, the scene's axes).

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.selection import of_positions
    >>> of_positions(lambda points: points[:, 0] > 100, "far").counts(demo_scene())
    {'chair': 0, 'cloud': 0}
    """
    return each_layer(lambda held: rule(positions(held)), words)


@torch.no_grad()
def positions(held: Layer) -> Float[Tensor, "n 3"]:
    """Centres in the scene's axes, float64.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.selection import positions
    >>> tuple(positions(demo_scene().layers["chair"]).shape)
    (8, 3)
    """
    return held.similarity.apply(held.family.positions().detach().double())


def named(scene: Scene, name: str) -> Layer:
    """The layer of that name; an EditError lists those that there are.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.selection import named
    >>> named(demo_scene(), "chair").name
    'chair'
    """
    if name not in scene.layers:
        there = ", ".join(scene.layers) or "none"
        raise EditError(f"there is no layer {name!r}; there are: {there}")
    return scene.layers[name]
