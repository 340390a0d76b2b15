"""What conversions look at: a family or a whole scene, its pictures, and cameras around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import Family
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.scene.scene import Scene

Source = Family | Scene
"""What is converted. Of a scene, what is visible, with the layers' similarities applied."""
GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


def families(source: Source) -> list[Family]:
    """Those that are drawn, in the order of the layers; a family is its own only one."""
    if isinstance(source, Family):
        return [source]
    return [layer.family for layer in source.flattened().visible_layers()]


NEAR = 0.01
"""Of the diagonal of the source: the near plane of what is so small that the usual one would cut it away."""


@torch.no_grad()
def near_plane(source: Source) -> float:
    """The usual near plane (of a scene its own), or a nearer one where the whole source is hardly larger than that."""
    usual = RenderSettings().near if isinstance(source, Family) else source.near
    try:
        low, high = extent(source).double().unbind(0)
    except ValueError:  # nothing to look at
        return usual
    size = float((high - low).norm())
    return min(usual, NEAR * size) if 0 < size < math.inf else usual


def draw(source: Source, camera: Camera, near: float | None = None, **options: bool) -> Frame:
    """Its picture on black: of a family in its own default order, of a scene whose layers have no similarities.
    `near` is by default `near_plane`, `options` are those of `RenderSettings`. Differentiable.
    """
    near = near_plane(source) if near is None else near
    if isinstance(source, Family):
        settings = RenderSettings(order=source.default_order, near=near, **options)
        return render(source.drawables(camera, camera.time), camera, settings=settings)
    black = torch.zeros(3, device=source.visible_layers()[0].family.device)
    return source.render(camera, background=black, settings=replace(source.settings(**options), near=near))


@dataclass(frozen=True, eq=False)
class Picture:
    """One view of a source, on the CPU."""

    camera: Camera
    color: Float[Tensor, "h w 3"]
    """On black (premultiplied)."""
    alpha: Float[Tensor, "h w"]
    depth: Float[Tensor, "h w"] | None = None
    """Camera z; 0 where there is none."""


@torch.no_grad()
def pictures(source: Source, cameras: Sequence[Camera], depth: str = "") -> list[Picture]:
    """What the cameras see; `depth` is `median`, `expected`, or nothing for none."""
    shown = []
    source = source if isinstance(source, Family) else source.flattened()
    near = near_plane(source)
    for camera in cameras:
        frame = draw(source, camera, near, depth=depth == "expected", statistics=depth == "median")
        held = frame.depth_median if depth == "median" else frame.depth if depth else None
        shown.append(
            Picture(camera, frame.color.cpu(), frame.alpha.cpu(), None if held is None else held.cpu().float())
        )
    return shown


STRAY = 0.005
"""Share of the area of primitives without a surface of their own that may lie outside, on each side of the box."""


@torch.no_grad()
def extent(source: Source) -> Float[Tensor, "2 3"]:
    """The box (low, high) around all surfaces, and around the other primitives but for the outermost strays. Primitives
    of opacity 0.05 or less do not count.
    """
    lows, highs = [], []
    for part in families(source):
        solid = part.opacities() > 0.05
        boxes = part.bounds()[solid].detach().cpu()
        if not len(boxes):
            continue
        areas = part.areas()[solid].detach().cpu().double().clamp_min(1e-30)
        stray = 0.0 if part.surface() is not None else STRAY
        lows.append(_outermost(boxes[:, 0], areas, stray))
        highs.append(-_outermost(-boxes[:, 1], areas, stray))
    if not lows:
        raise ValueError("convert: there is nothing to look at; no primitive has an opacity above 0.05")
    return torch.stack([torch.stack(lows).amin(dim=0), torch.stack(highs).amax(dim=0)]).float()


def _outermost(values: Float[Tensor, "n 3"], weights: Float[Tensor, "n"], share: float) -> Float[Tensor, "3"]:
    """Per column the least value after the lowest ones that together weigh no more than `share` of all."""
    ordered, rows = values.sort(dim=0)
    passed = weights[rows].cumsum(dim=0) <= share * weights.sum()
    return ordered.gather(0, passed.sum(dim=0, keepdim=True).clamp_max(len(values) - 1))[0]


def cameras_around(
    bounds: Float[Tensor, "2 3"], count: int = 24, size: tuple[int, int] = (160, 160), turn: float = 0.0
) -> list[Camera]:
    """`count` cameras spread evenly over a sphere, all of which see the whole box (low, high); `turn` (radians) turns
    them about y, so that another set looks from in between. The field of view is 0.7 rad across.

    >>> import torch
    >>> from smalti.scene.conversions import cameras_around
    >>> len(cameras_around(torch.tensor([[-1.0] * 3, [1.0] * 3]), 12))
    12
    """
    low, high = bounds.double().unbind(0)
    middle, radius = 0.5 * (low + high), 0.5 * float((high - low).norm())
    field = 0.7
    narrow = math.atan(math.tan(0.5 * field) * min(1.0, size[1] / size[0]))
    distance = 1.02 * (radius or 1.0) / math.sin(narrow)
    cameras = []
    for k in range(count):
        height = 1.0 - (2.0 * k + 1.0) / count
        ring, angle = math.sqrt(1.0 - height * height), k * GOLDEN_ANGLE + turn
        offset = torch.tensor([ring * math.cos(angle), height, ring * math.sin(angle)], dtype=torch.float64)
        up = torch.tensor([0.0, -1.0, 0.0] if abs(height) < 0.9 else [0.0, 0.0, 1.0], dtype=torch.float64)
        camera = Camera.look_at(middle + distance * offset, middle, up, field, size).to(torch.float32)
        cameras.append(replace(camera, name=f"around-{k}"))
    return cameras
