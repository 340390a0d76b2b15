"""Selections by what a primitive is like: `where`, in physical units."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.primitives.family import FamilyError
from smalti.scene.changes import EditError
from smalti.scene.selection import Selection, each_layer, positions

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene

COMPARISONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt},
    **{">=": operator.ge, "==": operator.eq, "!=": operator.ne},
}


class Values(Mapping[str, Tensor]):
    """What can be asked of a layer's primitives, computed when it is asked, in the scene's units.

    `opacity` 0..1; `position` [n, 3] and `x`, `y`, `z`; `size` (the longest of the primitive's own lengths), `thinness`
    (shortest over longest); `volume`, `area`; `color` [n, 3] and `red`, `green`, `blue`, 0..1; and every raw parameter
    of the family that has a row per primitive, by its name, as it is held.

    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.values import Values
    >>> values = Values(demo_scene().layers["chair"])
    >>> bool((values["opacity"] <= 1).all()), "red" in values, values["color"].shape[1]
    (True, True, 3)
    """

    def __init__(self, held: Layer) -> None:
        family, scale = held.family, held.similarity.scale
        self._layer = held
        self._known: dict[str, Callable[[], Tensor]] = {
            "opacity": lambda: family.opacities().detach(),
            "position": lambda: positions(held),
            "size": lambda: family.sizes().detach().amax(dim=1) * scale,
            "thinness": lambda: family.sizes().detach().amin(dim=1) / family.sizes().detach().amax(dim=1),
            "volume": lambda: family.volumes() * scale**3,
            "area": lambda: family.areas() * scale**2,
            "color": family.base_colors,
        }
        for number, name in enumerate("xyz"):
            self._known[name] = lambda number=number: positions(held)[:, number]
        for number, name in enumerate(("red", "green", "blue")):
            self._known[name] = lambda number=number: family.base_colors()[:, number]
        rows = {key: value for key, value in family.parameters.items() if len(value) == len(family)}
        for name, value in rows.items():
            self._known.setdefault(name, value.detach)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._known:
            raise EditError(f"layer {self._layer.name!r} has no value {name!r}; it has {', '.join(self._known)}")
        return self._known[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: object) -> bool:
        return name in self._known


def where(what: str | Callable[[Values], Tensor], comparison: str = "", bound: float = 0.0) -> Selection:
    """Primitives whose value compares so, or for which a function of `Values` gives True.

    Layers that do not have the value have nothing selected; EditError where no layer has it.

    >>> from smalti.scene import demo_scene, where
    >>> scene = demo_scene()
    >>> where("opacity", ">", 0.1).counts(scene)
    {'chair': 8, 'cloud': 12}
    >>> where(lambda values: (values["opacity"] < 0.1) | (values["size"] > 100)).counts(scene)
    {'chair': 0, 'cloud': 0}
    """
    if callable(what):
        function = what
        return each_layer(lambda held: _asked(held, function), "where(a function)")
    if comparison not in COMPARISONS:
        raise ValueError(f"where: {comparison!r} is no comparison; there are {', '.join(COMPARISONS)}")

    def rule(held: Layer) -> Tensor:
        return _asked(held, lambda values: COMPARISONS[comparison](values[what], bound))

    base = each_layer(lambda held: rule(held) if _has(held, what) else _nothing(held), "")

    def recipe(scene: Scene) -> Mapping[str, Tensor]:
        if scene.layers and not any(_has(held, what) for held in scene):
            Values(next(iter(scene)))[what]
        return base.recipe(scene)

    return Selection(recipe, f"where({what!r}, {comparison!r}, {bound})")


def _has(held: Layer, what: str) -> bool:
    return what in Values(held)


def _nothing(held: Layer) -> Tensor:
    return torch.zeros(len(held.family), dtype=torch.bool)


def _asked(held: Layer, function: Callable[[Values], Tensor]) -> Tensor:
    if len(held.family) == 0:
        return _nothing(held)
    try:
        mask = function(Values(held))
    except FamilyError as error:
        raise EditError(f"where: layer {held.name!r}: {error}") from error
    if mask.dtype != torch.bool or tuple(mask.shape) != (len(held.family),):
        raise EditError(
            f"where: layer {held.name!r}: expected a boolean per primitive [{len(held.family)}], got {mask.dtype} "
            f"{tuple(mask.shape)}; compare single numbers, such as values['x'] or values['color'][:, 0]"
        )
    return mask
