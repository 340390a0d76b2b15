"""What is selected, shown in the picture: tinted, outlined, and faintly also where something stands in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import Drawable, Family
from smalti.primitives.rows import RowMap
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.scene.changes import shallow
from smalti.scene.scene import Scene
from smalti.scene.selection import Selection

TINT = (1.0, 0.1, 0.8)
SEEN, HIDDEN = 0.55, 0.2
"""Share of the tint where the selection is the nearest thing, and where it lies behind something."""
OUTLINE = 0.9
"""Share of the tint along the border of what is selected."""
GAIN = 3.0
"""Faint primitives are what one selects to be rid of: an opacity of a third is tinted in full."""
BEHIND = 1.02
"""Ratio of depths from which the selection counts as hidden."""


@dataclass(frozen=True, eq=False)
class _Parts:
    """The selected primitives as families of their own, at one revision."""

    revision: int
    scene: Scene
    families: list[Family]


_PARTS: WeakKeyDictionary[Selection, _Parts] = WeakKeyDictionary()


@torch.no_grad()
def selected_parts(scene: Scene, revision: int, selection: Selection) -> list[Family]:
    """The selected primitives of visible layers, by layer; kept until the scene's next revision. EditError where the
    recipe does not fit the scene any longer.
    """
    known = _PARTS.get(selection)
    if known is None or known.revision != revision or known.scene is not scene:
        masks = selection.masks(scene)
        families: list[Family] = []
        for held in scene.visible_layers():
            mask = masks.get(held.name)
            if mask is None or not bool(mask.any()):
                continue
            part = shallow(held.family)
            if not bool(mask.all()):
                part.rearrange(RowMap.keep(mask))
            families.append(part)
        known = _PARTS[selection] = _Parts(revision, scene, families)
    return known.families


def drawables_of(families: list[Family], camera: Camera) -> list[Drawable]:
    """What the families draw."""
    return [drawable for family in families for drawable in family.drawables(camera, camera.time)]


@torch.no_grad()
def tinted(
    pixels: Float[Tensor, "h w 3"],
    depth: Float[Tensor, "h w"],
    families: list[Family],
    camera: Camera,
    settings: RenderSettings,
    backend: str = "auto",
) -> Float[Tensor, "h w 3"]:
    """`pixels` with the families' primitives tinted; `depth` is that of the whole scene, 0 where nothing is."""
    drawables = drawables_of(families, camera)
    if not drawables:
        return pixels
    frame = render(drawables, camera, settings=settings, backend=backend)
    assert frame.depth is not None
    there = (GAIN * frame.alpha).clamp(0, 1)
    seen = (depth <= 0) | (frame.depth <= BEHIND * depth)
    weight = torch.where(seen, SEEN, HIDDEN) * there
    inside = frame.alpha > 0.1
    weight = torch.where(inside & ~_shrunk(inside), torch.where(seen, OUTLINE, SEEN), weight)[..., None]
    return torch.lerp(pixels, pixels.new_tensor(TINT).expand_as(pixels), weight)


def _shrunk(mask: Tensor) -> Tensor:
    """Without its border of one pixel; beyond the picture it is thought to go on."""
    outside = torch.nn.functional.pad((~mask).float()[None, None], (1, 1, 1, 1))
    return torch.nn.functional.max_pool2d(outside, 3, stride=1)[0, 0] == 0
