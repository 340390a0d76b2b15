"""Edits of how primitives look: colours and opacities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.primitives.editing import ColorFunction
from smalti.scene.edits import apply_to
from smalti.scene.selection import Selection
from smalti.scene.vectors import Point, vector

if TYPE_CHECKING:
    from smalti.scene.scene import Scene


def recolor(scene: Scene, selection: Selection, function: ColorFunction) -> int:
    """Map colours [m, 3] (0..1, splats' may exceed it) by a function; what depends on the viewing direction stays.

    >>> from smalti.scene import demo_scene, layer, recolor
    >>> recolor(demo_scene(), layer("chair"), lambda colors: colors.mean(dim=1, keepdim=True).expand(-1, 3))
    8
    """
    return apply_to(scene, selection, "recolor", lambda held, part: part.recolor(function, False))


def tint(scene: Scene, selection: Selection, color: Point) -> int:
    """Multiply red, green and blue, not negative; from every direction alike.

    >>> from smalti.scene import demo_scene, layer, tint
    >>> tint(demo_scene(), layer("chair"), [1.0, 0.5, 0.5])
    8
    """
    return _gained(scene, selection, vector(color, "tint: color"), "tint")


def expose(scene: Scene, selection: Selection, stops: float) -> int:
    """Multiply colours by two to the power of `stops`.

    >>> from smalti.scene import demo_scene, expose, layer
    >>> expose(demo_scene(), layer("chair"), -1.0)
    8
    """
    return _gained(scene, selection, vector([2.0**stops] * 3, "expose: 2 ** stops"), "expose")


def set_opacity(scene: Scene, selection: Selection, opacity: float) -> int:
    """Give all selected primitives this opacity, 0..1 (to within 1e-6 of the ends).

    >>> from smalti.scene import demo_scene, layer, set_opacity
    >>> scene = demo_scene()
    >>> set_opacity(scene, layer("chair"), 0.25), round(scene["chair"].opacity, 3)
    (8, 0.25)
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"set_opacity: expected 0 to 1, got {opacity}")
    return apply_to(
        scene,
        selection,
        "opacity",
        lambda held, part: part.set_opacities(torch.full_like(part.opacities().detach(), opacity)),
    )


def fade(scene: Scene, selection: Selection, factor: float) -> int:
    """Multiply opacities by a factor that is not negative; they end at 1.

    >>> from smalti.scene import demo_scene, fade, layer
    >>> fade(demo_scene(), layer("chair"), 0.5)
    8
    """
    if not 0 <= factor < float("inf"):
        raise ValueError(f"fade: expected a factor of 0 or more, got {factor}")
    return apply_to(
        scene,
        selection,
        "fade",
        lambda held, part: part.set_opacities((part.opacities().detach() * factor).clamp(0, 1)),
    )


def _gained(scene: Scene, selection: Selection, gain: Float[Tensor, "3"], name: str) -> int:
    if bool((gain < 0).any()):
        raise ValueError(f"{name}: factors should not be negative, got {gain.tolist()}")
    return apply_to(scene, selection, name, lambda held, part: part.recolor(lambda c: c * gain.to(c), True))
