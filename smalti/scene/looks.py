"""Edits of how primitives look: colours, opacities, textures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.rotations import so3_exp
from smalti.primitives.editing import ColorFunction
from smalti.scene.edits import apply_to
from smalti.scene.selection import Selection, layer
from smalti.scene.vectors import Point, vector

if TYPE_CHECKING:
    from smalti.scene.scene import Scene

BRIGHTNESS = (0.2126, 0.7152, 0.0722)


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


def hue(scene: Scene, selection: Selection, degrees: float) -> int:
    """Turn colours about the grey axis: 120 makes red green, green blue and blue red. Greys stay, and so does the mean
    of red, green and blue.

    The map is linear, so splats follow from every viewing direction. What leaves 0..1 is cut off where it is drawn (or,
    of colours that are held before a sigmoid, where it is held).

    >>> from smalti.scene import demo_scene, hue, layer
    >>> hue(demo_scene(), layer("chair"), 30.0)
    8
    """
    angle = vector([degrees, 0, 0], "hue: degrees").deg2rad()[0]
    grey = torch.full((3,), 3.0**-0.5, dtype=torch.float64)
    return _mixed(scene, selection, so3_exp(grey * angle), "hue")


def saturate(scene: Scene, selection: Selection, factor: float) -> int:
    """Scale how far colours are from the grey of their brightness (Rec. 709 weights, of values as they are stored): 0
    makes grey, 1 changes nothing. Linear as `hue` is.

    >>> from smalti.scene import demo_scene, layer, saturate
    >>> saturate(demo_scene(), layer("chair"), 0.0)
    8
    """
    if not 0 <= factor < float("inf"):
        raise ValueError(f"saturate: expected a factor of 0 or more, got {factor}")
    grey = torch.tensor(BRIGHTNESS, dtype=torch.float64).expand(3, 3)
    return _mixed(scene, selection, torch.lerp(grey, torch.eye(3, dtype=torch.float64), factor), "saturate")


def replace_texture(scene: Scene, name: str, picture: Tensor | np.ndarray[Any, Any] | Path | str) -> int:
    """Give a layer another texture; of a layer of blocks, each of them. Returns how many primitives it has.

    `picture`: [h, w, 3 or 4], 0..1 or whole numbers 0..255, or the path of a picture file; its first, upper row is at
    v = 0. It is resampled to the size that the texture has; a fourth channel is heeded where the texture has one.
    FamilyError where the layer has no texture.

    >>> import torch
    >>> from smalti.primitives.meshes import Meshes
    >>> from smalti.scene import Scene, replace_texture
    >>> scene = Scene(order="ray")
    >>> ball = scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, {"level": 1, "texture_size": 64}))
    >>> replace_texture(scene, "ball", torch.rand(16, 16, 3))
    80
    """
    colors = checked_picture(picture, "replace_texture")
    return apply_to(scene, layer(name), "replace texture", lambda held, part: part.set_texture(colors))


def checked_picture(given: Tensor | np.ndarray[Any, Any] | Path | str, name: str) -> Float[Tensor, "h w c"]:
    """What `replace_texture` takes, as values 0..1. ValueError for what is no picture, with the edit's `name`."""
    if isinstance(given, str | Path):
        from smalti.datasets.decode import decode_picture

        given = decode_picture(Path(given))
    found = torch.as_tensor(given).detach()
    colors = found.float() if found.is_floating_point() else found.float() / 255.0
    if colors.dim() != 3 or colors.shape[2] not in (3, 4) or 0 in colors.shape or not bool(colors.isfinite().all()):
        raise ValueError(f"{name}: expected a finite picture [h, w, 3 or 4], got {tuple(colors.shape)}")
    return colors


def _mixed(scene: Scene, selection: Selection, matrix: Float[Tensor, "3 3"], name: str) -> int:
    """Colours times a matrix that leaves grey alone."""
    return apply_to(
        scene, selection, name, lambda held, part: part.recolor(lambda colors: colors @ matrix.T.to(colors), True)
    )


def _gained(scene: Scene, selection: Selection, gain: Float[Tensor, "3"], name: str) -> int:
    if bool((gain < 0).any()):
        raise ValueError(f"{name}: factors should not be negative, got {gain.tolist()}")
    return apply_to(scene, selection, name, lambda held, part: part.recolor(lambda c: c * gain.to(c), True))
