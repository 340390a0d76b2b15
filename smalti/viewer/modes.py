"""What is shown of the scene: colour, depth, normals, alpha, layers, contributions, errors, the truth beside it.

`paint` makes one picture from plain values: a look, a selection and one revision of a stage. It runs within
`Stage.reading()`; no mode needs a browser, and none moves the client's camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import Drawable
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.scene.changes import EditError
from smalti.scene.palette import PALETTE, rgb
from smalti.scene.scene import Layer, Scene
from smalti.scene.selection import Selection
from smalti.viewer.fitting import Fit, fit, fitted, nearest_view, stands_at
from smalti.viewer.highlight import selected_parts, tinted
from smalti.viewer.look import Look
from smalti.viewer.shades import depth_limits, depth_normals, mapped, quantiles
from smalti.viewer.stage import Stage, Views

ERROR_FULL = 0.25
"""Mean absolute difference of the channels (0..1) that has the error map's last colour."""
AROUND = 0.1
"""Grey of what lies around a view's picture in the mode `error`."""
LEAST_ALPHA = 1.0 / 255.0
"""What absorbs less has no depth, layer or contribution to show."""


@dataclass(frozen=True, eq=False)
class Painted:
    """A picture and what one has to know to read it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    legend: dict[str, Any] = field(default_factory=dict)
    """Plain values: `mode`; `which`, `near`, `far`; `from_depth` (share); `layers` (name: colour); `least`, `most`;
    `view`, `error`, `psnr`, `full`; `truth`; `problem`."""


def draw(stage: Stage, look: Look, selected: Selection | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of `paint`.

    >>> from smalti.scene import demo_camera, demo_scene
    >>> draw(Stage(demo_scene()), Look(demo_camera(64, 48), mode="depth")).shape
    (48, 64, 3)
    """
    return paint(stage, look, selected).pixels


@torch.no_grad()
def paint(stage: Stage, look: Look, selected: Selection | None = None) -> Painted:
    """The picture of a look, at the size of its camera. The mode `color` alone gives `Scene.render`'s picture, rounded.

    Depth is drawn in turbo, near red to far blue, over `look.depth_range`, by default from the 1st to the 99th
    percentile. Normals: 0.5 + 0.5 n, world axes; of kinds without any, those of the depth. `family`: the layer of the
    primitive with the largest share of the pixel. `contribution`: that primitive's share of the whole picture's light,
    on a logarithmic scale. `error`: the nearest training view, or `look.truth_row`, at its own camera, against its
    photograph.
    """
    scene = _placed(stage)
    views, width, height = stage.views, look.camera.width, look.camera.height
    legend: dict[str, Any] = {"mode": look.mode}
    row = _compared(views, look)
    if look.mode == "error" and row is None:
        legend["problem"] = "there is no view to compare with; colours are shown"
        look = replace(look, mode="color")
    camera = look.camera
    if views is not None and row is not None:
        camera = fitted(views.cache.camera(row), width, height)  # at the view's own time
    picture = _Picture(stage, scene, camera, look)
    values = _MODES[look.mode](picture, legend, row)
    if selected is not None and look.mode != "error":
        values = _with_selection(picture, values, selected, legend)
    if views is not None and row is not None and row == look.truth_row:
        values = _beside(views, row, values, look, picture.background)
        legend["truth"] = views.dataset.views[row].camera.name
    rounded = torch.round(values.clamp(0, 1) * 255).to(torch.uint8)
    return Painted(np.ascontiguousarray(rounded.cpu().numpy()), legend)


def layer_colors(scene: Scene) -> dict[str, str]:
    """`#rrggbb` by layer, as in the mode `family`; hidden layers have theirs too, so that hiding changes no other."""
    return {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(scene.layers)}


class _Picture:
    """One camera's render, made when it is first asked for."""

    def __init__(self, stage: Stage, scene: Scene, camera: Camera, look: Look) -> None:
        self.scene, self.camera, self.look, self.stage = scene, camera, look, stage
        self.layers: list[Layer] = scene.visible_layers()
        self.drawn: list[Sequence[Drawable]] = [held.drawables(camera, camera.time) for held in self.layers]
        self.background = torch.tensor(look.background or scene.background or (0.0, 0.0, 0.0))

    def settings(self, **options: Any) -> RenderSettings:
        if self.look.order is not None:
            options["order"] = self.look.order
        return self.scene.settings(**options)

    def frame(self, **options: Any) -> Frame | None:
        """None where there is nothing to draw."""
        drawables = [drawable for part in self.drawn for drawable in part]
        if not drawables:
            return None
        background = self.background.to(drawables[0].device)
        # Another package's back end draws colours; what only ours have is asked of ours.
        backend = "auto" if options and self.stage.backend == "gsplat" else self.stage.backend
        settings = self.settings(**options)
        return render(drawables, self.camera, background=background, settings=settings, backend=backend)

    def filled(self, color: Tensor) -> Float[Tensor, "h w 3"]:
        return color.expand(self.camera.height, self.camera.width, 3).clone()

    def color(self) -> Float[Tensor, "h w 3"]:
        frame = self.frame()
        return self.filled(self.background) if frame is None else frame.color


def _compared(views: Views | None, look: Look) -> int | None:
    """The view whose own camera the picture is drawn with: in the mode `error`, and where truth is shown beside it."""
    if views is None:
        return None
    asked = look.truth_row
    if asked is not None and not 0 <= asked < len(views.dataset.views):
        asked = None
    if asked is not None and (look.mode == "error" or stands_at(views, asked, look.camera)):
        return asked
    return nearest_view(views, look.camera) if look.mode == "error" else None


# -- modes: (picture, legend to fill, row of the view that is drawn) -> values 0..1 ------------------------------------
def _color(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    return picture.color()


def _depth(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    median = picture.look.depth == "median"
    frame = picture.frame(depth=not median, statistics=median)
    legend["which"] = picture.look.depth
    if frame is None:
        return picture.filled(torch.zeros(3))
    depth = frame.depth_median if median else frame.depth
    assert depth is not None
    hit = (depth > 0) & (frame.alpha >= LEAST_ALPHA)
    near, far = picture.look.depth_range or depth_limits(depth, hit, frame.alpha)
    legend["near"], legend["far"] = near, far
    nearness = ((far - depth) / max(far - near, 1e-12)).clamp(0, 1)
    return mapped("turbo", nearness) * hit[..., None]


def _normal(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    frame = picture.frame(normals=True, depth=True)
    if frame is None:
        return picture.filled(torch.zeros(3))
    assert frame.normal is not None
    assert frame.depth is not None
    # The length says how much of the pixel has a normal; what else it absorbs gets that of the depth.
    share = frame.normal.norm(dim=-1, keepdim=True).clamp(max=1)
    without = (frame.alpha[..., None] - share).clamp(min=0)
    shape = depth_normals(frame.depth, frame.alpha, picture.camera)
    without = without * shape.any(dim=-1, keepdim=True)
    legend["from_depth"] = float(without.sum() / (without + share).sum().clamp(min=1e-12))
    return 0.5 * (share + without) + 0.5 * (frame.normal + without * shape)


def _alpha(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    frame = picture.frame()
    return picture.filled(torch.zeros(3)) if frame is None else frame.alpha[..., None].expand(*frame.alpha.shape, 3)


def _family(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    colors = layer_colors(picture.scene)
    legend["layers"] = {held.name: colors[held.name] for held in picture.layers}
    frame = picture.frame(statistics=True)
    if frame is None:
        return picture.filled(torch.zeros(3))
    rows = [
        torch.tensor(rgb(colors[held.name])).expand(sum(map(len, part)), 3)
        for held, part in zip(picture.layers, picture.drawn, strict=True)
    ]
    return _of_rows(frame, torch.cat(rows).to(frame.color)) * frame.alpha[..., None]


def _contribution(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    frame = picture.frame(statistics=True)
    if frame is None:
        return picture.filled(torch.zeros(3))
    assert frame.contribution_sum is not None
    totals = _by_primitive(picture, frame.contribution_sum) / (picture.camera.width * picture.camera.height)
    shown = _of_rows(frame, totals[:, None])[..., 0]
    hit = (frame.ids["dominant"] >= 0) & (frame.alpha >= LEAST_ALPHA) & (shown > 0)
    logs = torch.log10(shown.clamp(min=1e-30))
    low, high = quantiles(logs[hit], 0.01, 0.99)
    legend["least"], legend["most"] = 10.0**low, 10.0**high
    return mapped("viridis", ((logs - low) / max(high - low, 1e-6)).clamp(0, 1)) * hit[..., None]


def _error(picture: _Picture, legend: dict[str, Any], row: int | None) -> Tensor:
    views = picture.stage.views
    assert views is not None
    assert row is not None
    color = picture.color().clamp(0, 1)
    truth, counts, place = _truth(views, row, picture.camera, picture.background)
    here = _cut(place)
    difference = (color[here] - truth.to(color)).abs()
    counts = counts.to(color.device)
    error = difference.mean(dim=-1) * counts
    held = difference[counts]
    legend["view"], legend["full"] = views.dataset.views[row].camera.name, ERROR_FULL
    if held.numel():
        legend["error"] = float(held.mean())
        square = float(held.square().mean())
        legend["psnr"] = -10.0 * math.log10(square) if square > 0 else None
    values = picture.filled(torch.full((3,), AROUND)).to(color)
    values[here] = mapped("inferno", (error / ERROR_FULL).clamp(0, 1))
    return values


_MODES = {
    "color": _color,
    "depth": _depth,
    "normal": _normal,
    "alpha": _alpha,
    "family": _family,
    "contribution": _contribution,
    "error": _error,
}


# -- the truth, the selection ----------------------------------------------------------------------------------------
def _beside(views: Views, row: int, values: Tensor, look: Look, background: Tensor) -> Tensor:
    """The photograph in place of the picture, from the left up to the split; a line between."""
    truth, _, place = _truth(views, row, look.camera, background)
    column = round(min(max(look.split, 0.0), 1.0) * look.camera.width)
    until = min(max(column - place.left, 0), place.width)
    values = values.clone()
    values[place.top : place.top + place.height, place.left : place.left + until] = truth[:, :until].to(values)
    if 0 < column < look.camera.width:
        # Black and white: seen before any picture.
        values[:, column - 1], values[:, column] = 0.0, 1.0
    return values


def _truth(views: Views, row: int, camera: Camera, background: Tensor) -> tuple[Tensor, Tensor, Fit]:
    """(photograph [h, w, 3], pixels that count [h, w], where they lie on the canvas)."""
    from smalti.trainers.evaluation import target_of

    loaded = views.cache.get(row)
    place = fit(loaded.camera, camera.width, camera.height)
    truth, mask = target_of(loaded, background.cpu())
    counts = torch.ones(truth.shape[:2], dtype=torch.bool) if mask is None else mask
    size = (place.height, place.width)
    if truth.shape[:2] != size:
        planes = torch.cat([truth, counts[..., None].float()], dim=-1).permute(2, 0, 1)[None]
        smooth = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        truth, counts = smooth[..., :3].clamp(0, 1), smooth[..., 3] > 0.999
    return truth, counts, place


def _cut(place: Fit) -> tuple[slice, slice]:
    return slice(place.top, place.top + place.height), slice(place.left, place.left + place.width)


def _with_selection(picture: _Picture, values: Tensor, selected: Selection, legend: dict[str, Any]) -> Tensor:
    try:
        families = selected_parts(picture.scene, picture.stage.revision, selected)
    except (EditError, IndexError) as error:
        # A training may have removed what was selected by number.
        legend["problem"] = f"the selection fits the scene no longer ({error})"
        return values
    if not families:
        return values
    frame = picture.frame(depth=True)
    assert frame is not None
    assert frame.depth is not None
    return tinted(values, frame.depth, families, picture.camera, picture.settings(depth=True))


# -- arithmetic --------------------------------------------------------------------------------------------------------
def _of_rows(frame: Frame, table: Float[Tensor, "n c"]) -> Float[Tensor, "h w c"]:
    """The row of `table` of each pixel's dominant primitive, 0 where there is none."""
    dominant = frame.ids["dominant"].long()
    return table[dominant.clamp(min=0)] * (dominant >= 0)[..., None]


def _by_primitive(picture: _Picture, rows: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Per drawn row: the sum over all rows of its primitive (a block is drawn as many triangles)."""
    parts = rows.split([sum(map(len, part)) for part in picture.drawn])
    result: list[Tensor] = []
    for held, part in zip(picture.layers, parts, strict=True):
        owners = held.family.owners()
        if owners is not None:
            owners = owners.long()
            part = part.new_zeros(len(held.family)).index_add(0, owners, part)[owners]
        result.append(part)
    return torch.cat(result)


# -- layers that are placed by a similarity ----------------------------------------------------------------------------
_FLAT: WeakKeyDictionary[Stage, tuple[int, Scene]] = WeakKeyDictionary()


def _placed(stage: Stage) -> Scene:
    """The stage's scene, or a copy with its layers' similarities applied; kept until the next revision."""
    if all(held.similarity.is_identity for held in stage.scene):
        return stage.scene
    known = _FLAT.get(stage)
    if known is None or known[0] != stage.revision:
        known = _FLAT[stage] = (stage.revision, stage.scene.flattened())
    return known[1]
