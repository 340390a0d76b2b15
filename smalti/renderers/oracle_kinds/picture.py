"""The frame of any mix of kinds, and the events of one pixel for tests."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import (
    BoxDrawable,
    Drawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.oracle_kinds.accumulate import Result, additive, exponential
from smalti.renderers.oracle_kinds.box import BoxKind
from smalti.renderers.oracle_kinds.events import Events, Kind, View
from smalti.renderers.oracle_kinds.gaussian import GaussianKind
from smalti.renderers.oracle_kinds.gaussian_ray import RayGaussianKind
from smalti.renderers.oracle_kinds.neural import NeuralKind
from smalti.renderers.oracle_kinds.order import BEGIN, END, THIN, EventList, Sequence, along_the_ray, by_centre
from smalti.renderers.oracle_kinds.outside import OutsideEvents
from smalti.renderers.oracle_kinds.statistics import Statistics, summarise
from smalti.renderers.oracle_kinds.surfel import SurfelKind
from smalti.renderers.oracle_kinds.triangle import TriangleKind
from smalti.renderers.outside import OutsideDrawable
from smalti.renderers.settings import DEPTH_WEIGHT_MIN, RenderSettings

BAND = 2_000_000
"""Pairs of pixels and primitives that are looked at together."""


def render_mix(drawables: Many[Drawable], camera: Camera, background: Tensor | None, settings: RenderSettings) -> Frame:
    """Composite any kinds over `background`; arguments and gradients as in `smalti.render`, which checks them."""
    scene = Mix(drawables, camera, settings)
    bands = [scene.composite(band) for band in scene.pixels.split(max(BAND // max(scene.count, 1), 1))]
    height, width = camera.height, camera.width

    def picture(planes: list[Tensor]) -> Tensor:
        whole = torch.cat(planes)
        return whole.reshape(height, width, *whole.shape[1:])

    channels = picture([band.result.channels for band in bands])
    transmittance = picture([band.result.transmittance for band in bands])
    color, features, normal = channels.split([3, scene.features, channels.shape[-1] - 3 - scene.features], dim=-1)
    if background is not None:
        color = color + transmittance[..., None] * background.to(color)
    frame = Frame(color, 1 - transmittance, scene.visibility(bands))
    frame = replace(frame, features=features if scene.features else None, normal=normal if settings.normals else None)
    if settings.depth:
        depth, weight = (picture([getattr(band.result, name) for band in bands]) for name in ("depth", "weight"))
        hit = weight > DEPTH_WEIGHT_MIN
        frame = replace(frame, depth=torch.where(hit, depth / torch.where(hit, weight, 1), 0))
    if not settings.statistics:
        return frame
    found = [band.statistics for band in bands if band.statistics is not None]
    sums, largest = scene.contributions(bands)
    return replace(
        frame,
        depth_median=picture([each.depth_median for each in found]),
        depth_first=picture([each.depth_first for each in found]),
        ids={name: picture([each.ids[name] for each in found]) for name in ("first", "median", "dominant")},
        contribution_sum=sums,
        contribution_max=largest,
    )


@dataclass(frozen=True)
class PixelEvent:
    """One begin, end or thin event of a ray."""

    point: str
    """`thin`, `begin` or `end`."""
    z: float
    value: float
    """alpha of a thin event; the whole optical depth of a segment."""
    primitive: int
    """Numbered through all drawables."""


def pixel_events(
    drawables: Many[Drawable], camera: Camera, settings: RenderSettings, column: int, row: int
) -> list[PixelEvent]:
    """What happens to the ray of one pixel, in the order in which it is composited. Not differentiable."""
    with torch.no_grad():
        scene = Mix(drawables, camera, settings)
        band = scene.composite(scene.pixels[row * camera.width + column][None])
    names = {THIN: "thin", BEGIN: "begin", END: "end"}
    found: list[PixelEvent] = []
    for event, point, z in zip(band.sequence.event, band.sequence.point, band.sequence.stop, strict=True):
        value, primitive = float(band.events.value[event]), int(band.events.primitive[event])
        found.append(PixelEvent(names[int(point)], float(z), value, primitive))
    return found


@dataclass(frozen=True, eq=False)
class Band:
    """Some pixels, composited."""

    pixels: Float[Tensor, "p 2"]
    events: EventList
    sequence: Sequence
    result: Result
    statistics: Statistics | None


class Mix:
    """All drawables as seen by the camera; primitives are numbered through them."""

    def __init__(self, drawables: Many[Drawable], camera: Camera, settings: RenderSettings) -> None:
        self.settings = settings
        self.count = sum(len(drawable) for drawable in drawables)
        self.features = max(drawable.feature_count for drawable in drawables)
        self.additive = all(isinstance(d, BoxDrawable) and d.accumulation == "additive" for d in drawables)
        self.like = torch.zeros(0, dtype=drawables[0].dtype, device=drawables[0].device)
        names = ("rotation", "translation", "intrinsics")
        self.camera = replace(camera, **{name: getattr(camera, name).to(self.like) for name in names})
        x, y = (torch.arange(n, device=self.like.device) for n in (camera.width, camera.height))
        self.pixels = torch.cartesian_prod(y, x).flip(-1).to(self.like.dtype) + 0.5

        wanted = ["sum", "absolute"] if settings.absolute_gradient else ["sum"]
        self.screen = {name: self.like.new_zeros(self.count, 2) for name in wanted}
        self.kinds: list[Kind] = []
        self.first_rows: list[int] = []
        first = 0
        for drawable in drawables:
            rows = slice(first, first + len(drawable))
            screen = {name: value[rows] for name, value in self.screen.items()}
            self.kinds.append(_kind_of(drawable, self.camera, settings, screen))
            self.first_rows.append(first)
            first = rows.stop
        self.keys = torch.cat([kind.keys for kind in self.kinds]).detach()

    def composite(self, pixels: Float[Tensor, "p 2"]) -> Band:
        """Everything that happens to the rays of `pixels`."""
        view = View.of(self.camera, self.settings, pixels)
        found = [
            self._listed(kind.events(view), first) for kind, first in zip(self.kinds, self.first_rows, strict=True)
        ]
        names = vars(found[0])
        events = EventList(**{name: torch.cat([getattr(each, name) for each in found]) for name in names})
        # Additive accumulation knows no thin events, and is along the ray in any order.
        if self.settings.order == "ray" or self.additive:
            sequence = along_the_ray(events, len(pixels))
        else:
            events, sequence = by_centre(events, self.keys, len(pixels))
        if self.additive:
            result = additive(events, sequence, len(pixels))
        else:
            result = exponential(events, sequence, len(pixels), self.settings.transmittance_min)
        statistics = None
        if self.settings.statistics:
            statistics = summarise(events, sequence, result, len(pixels), self.additive)
        return Band(pixels, events, sequence, result, statistics)

    def _listed(self, events: Events, first: int) -> EventList:
        """With all channels of the picture: colour, features, normal; 0 where the kind has none."""
        rows = len(events.pixel)
        channels = [events.color]
        given = 0
        if events.features is not None:
            channels.append(events.features)
            given = events.features.shape[1]
        channels.append(self.like.new_zeros(rows, self.features - given))
        if self.settings.normals:
            channels.append(self.like.new_zeros(rows, 3) if events.normal is None else events.normal)
        z1 = events.z0 if events.z1 is None else events.z1
        thick = torch.full((rows,), events.z1 is not None, device=self.like.device)
        z0 = events.z0
        return EventList(
            events.pixel, events.primitive + first, z0, z1, events.value, thick, torch.cat(channels, dim=1)
        )

    def visibility(self, bands: list[Band]) -> Visibility:
        """Visible: has an event in a pixel. Radius: half the larger side of the box around all its pixels."""
        primitive = torch.cat([band.events.primitive for band in bands])
        at = torch.cat([band.pixels[band.events.pixel] for band in bands])
        visible = torch.zeros(self.count, dtype=torch.bool, device=primitive.device)
        visible[primitive] = True
        row = primitive[:, None].expand(-1, 2)
        low, high = (
            self.like.new_zeros(self.count, 2).scatter_reduce(0, row, at, how, include_self=False)
            for how in ("amin", "amax")
        )
        radii = torch.where(visible, 0.5 * ((high - low).amax(-1) + 1), 0)
        skipped = sum(kind.skipped for kind in self.kinds)
        return Visibility(visible, radii, self.keys, skipped, len(primitive), self.screen)

    def contributions(self, bands: list[Band]) -> tuple[Tensor, Tensor]:
        """Per primitive: the sum and the largest of what its events (of a box: its segments) contributed."""
        primitive = torch.cat([band.events.primitive for band in bands])
        weight = torch.cat([band.result.event_weight.detach() for band in bands])
        nothing = self.like.new_zeros(self.count)
        return nothing.index_add(0, primitive, weight), nothing.scatter_reduce(0, primitive, weight, "amax")


def _kind_of(drawable: Drawable, camera: Camera, settings: RenderSettings, screen: dict[str, Tensor]) -> Kind:
    match drawable:
        case GaussianDrawable():
            return GaussianKind(drawable, camera, settings, screen)
        case RayGaussianDrawable():
            return RayGaussianKind(drawable, camera)
        case SurfelDrawable():
            return SurfelKind(drawable, camera)
        case NeuralDrawable():
            return NeuralKind(drawable, camera)
        case TriangleDrawable():
            return TriangleKind(drawable, camera, settings.near)
        case BoxDrawable():
            return BoxKind(drawable, camera)
        case OutsideDrawable():
            return OutsideEvents(drawable, camera)
        case _:
            raise ValueError(f"the oracle does not know the kind {drawable.kind!r}; it draws the built-in kinds")
