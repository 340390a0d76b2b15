"""Pictures of a scene's separate parts: turned about, moved apart, in flat colours over the photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.framing import framed, front, side_view, turntable
from smalti.datasets.images import ImageCache
from smalti.scene.parts import Part, Parts
from smalti.scene.scene import Scene
from smalti.trainers.evaluation import draw, target_of
from smalti.trainers.sheets import new_figure, reduced, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = (0.92, 0.92, 0.92)
"""Behind parts that stand alone: what is white shows on it, and what is dark."""
SIZE = (640, 480)
"""Pixels of turntables and exploded views."""
FINE = 2
"""Pictures are drawn this much larger and averaged down: hard edges come out smooth."""
FLAT_SHARE = 0.6
"""Of a part's flat colour over the photograph."""
LEAST_LABELLED = 0.004
"""Share of a picture from which a part's number is written on it."""
LEAST_SIDE = 320
"""Pixels along the longer side of a picture on the sheet."""
LEGEND_COLUMNS = 6
OUT_AND_BACK = 96
"""Frames of the video in which the parts move apart and together again."""


@dataclass(frozen=True, eq=False)
class Stand:
    """From where parts are looked at."""

    direction: Float[Tensor, "3"]
    """From their middle to the camera."""
    up: Float[Tensor, "3"]


def stand_of(parts: Parts, cameras: Sequence[Camera]) -> Stand:
    """From the side that the cameras looked at, upright by the scene's canonical frame or else by the cameras; without
    cameras, from a corner of the front.
    """
    known = parts.scene.canonical_from_scene
    # Without a frame: right, up and front of a scene whose y axis points down.
    axes = torch.diag(torch.tensor([1.0, -1.0, -1.0])) if known is None else known.rotation
    right, up, ahead = axes.double().unbind(0)
    if not cameras:
        return Stand(ahead + 0.5 * right + 0.4 * up, up)
    direction, above = front(cameras, outlines(parts))
    return Stand(direction, above if known is None else up)


def outlines(parts: Parts, amount: float = 0.0) -> Float[Tensor, "q 3"]:
    """Points that hold all parts, moved apart by `amount`."""
    moves = amount * parts.moves()
    return torch.cat([part.outline + move for part, move in zip(parts.parts, moves, strict=True)])


# -- turned about, moved apart ----------------------------------------------------------------------------------------
def turntable_cameras(parts: Parts, stand: Stand, frames: int) -> list[Camera]:
    """A circle about the parts, all of them in every picture."""
    return turntable(outlines(parts), frames, stand.up, stand.direction, SIZE)


def exploded_camera(parts: Parts, stand: Stand, amount: float) -> Camera:
    """Shows the parts whole when they are moved apart by `amount` (and on their way there)."""
    points = torch.cat([outlines(parts), outlines(parts, amount)])
    return framed(points, side_view(stand.direction, stand.up), stand.up, SIZE)


def smooth_picture(
    scene: Scene, camera: Camera, background: tuple[float, float, float] = PAPER, backend: str = "auto"
) -> Float[np.ndarray, "h w 3"]:
    """The picture (0..1), averaged from one of `FINE` times the size."""
    large = camera.to(torch.float32).scaled_to(FINE * camera.width, FINE * camera.height)
    color = draw(scene, large, torch.tensor(background), backend=backend).color
    return _smaller(color).clamp(0, 1).cpu().numpy()


def picture_frames(
    scene: Scene, cameras: Sequence[Camera], background: tuple[float, float, float] = PAPER, backend: str = "auto"
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Smooth pictures for a video, drawn as they are asked for."""
    for camera in cameras:
        yield _levels(smooth_picture(scene, camera, background, backend))


def exploding_frames(
    parts: Parts, stand: Stand, amount: float = 1.0, backend: str = "auto"
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The parts move apart, stay a while, and come together again, before one camera."""
    camera, drawn = exploded_camera(parts, stand, amount), dict[float, UInt8[np.ndarray, "h w 3"]]()
    for phase in np.arange(OUT_AND_BACK) / OUT_AND_BACK:
        # Out in the first third, apart for a sixth, back in a third, together for a sixth: a third of it is drawn.
        share = round(float(np.clip(min(3 * phase, 2.5 - 3 * phase), 0, 1)), 6)
        if share not in drawn:
            eased = share * share * (3 - 2 * share)
            drawn[share] = _levels(smooth_picture(parts.exploded(amount * eased), camera, backend=backend))
        yield drawn[share]


def draw_exploded(path: Path, parts: Parts, stand: Stand, amount: float = 1.0, backend: str = "auto") -> None:
    """Write a picture of the parts together and one of them moved apart, with their numbers in their flat colours; of
    one part alone the first.
    """
    panels = [(parts.exploded(0.0), exploded_camera(parts, stand, 0.0), _count_of(parts))]
    if len(parts.parts) > 1:
        panels.append((parts.exploded(amount), exploded_camera(parts, stand, amount), "moved apart"))
    width, height = SIZE
    figure = new_figure(len(panels) * width / 100, (height + 40) / 100)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (scene, camera, title) in zip(grid, panels, strict=True):
        _shown(axis, smooth_picture(scene, camera, backend=backend), title)
    scene, camera, _ = panels[-1]
    _label(grid[-1], parts.parts, _part_numbers(parts, scene, camera, backend), (height, width))
    save_figure(figure, path)


# -- in flat colours --------------------------------------------------------------------------------------------------
def draw_flat(
    path: Path, scene: Scene, parts: Parts, images: ImageCache, rows: Sequence[int], backend: str = "auto"
) -> None:
    """Write a sheet: for each view (row of the data set) the photograph, the render, and the parts in flat colours over
    the photograph, with a legend.
    """
    if not rows:
        raise ValueError("draw_flat: there is no view to show")
    sheets = [flat_row(scene, parts, images, row, backend) for row in rows]
    height, width = sheets[0].photograph.shape[:2]
    panel = 3.6
    solid = max(sum(part.is_solid for part in parts.parts), 1)
    legend_rows = -(-solid // LEGEND_COLUMNS)
    columns = -(-solid // legend_rows)
    tall = len(rows) * (panel * height / width + 0.08) + 0.45 + 0.24 * (legend_rows + 1)
    figure = new_figure(3 * panel, tall)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, sheet in zip(grid, sheets, strict=True):
        for axis, picture in zip(axes, (sheet.photograph, sheet.render, sheet.flat), strict=True):
            _shown(axis, picture, "")
        _label(axes[2], parts.parts, sheet.numbers, sheet.flat.shape[:2])
    for axis, text in zip(grid[0], ("photograph", "render", "parts over the photograph"), strict=True):
        axis.set_title(text, fontsize=10)
    shares = np.mean([[np.mean(sheet.numbers == k) for k in range(len(parts.parts))] for sheet in sheets], axis=0)
    _legend(figure, parts, shares, columns)
    save_figure(figure, path)


def flat_over(
    parts: Parts, camera: Camera, photograph: Float[Tensor, "h w 3"], backend: str = "auto"
) -> tuple[Float[np.ndarray, "h w 3"], Int[np.ndarray, "a b"]]:
    """The solid parts in flat colours over a photograph, each with a line around it; and the number in `parts.parts` of
    what is seen (-1: none of them), at `FINE` times the size.
    """
    numbers = _part_numbers(parts, parts.scene, camera, backend)
    clear = [place for place, part in enumerate(parts.parts) if not part.is_solid]
    numbers[np.isin(numbers, clear)] = -1
    colors = torch.tensor([part.color for part in parts.parts])
    seen = torch.from_numpy(numbers)
    flat, covered = colors[seen.clamp(min=0)], (seen >= 0).float()[..., None]
    rim = _rim(seen)[..., None]
    flat = torch.where(rim, 0.45 * flat, flat)
    weight = torch.where(rim, torch.ones_like(covered), FLAT_SHARE * covered)
    over = _smaller(flat * weight), _smaller(weight)
    values = over[0] + (1 - over[1]) * photograph.cpu()
    return values.clamp(0, 1).numpy(), numbers


def chosen_views(rows: Sequence[int], count: int = 3) -> list[int]:
    """Some of the rows, evenly spread."""
    places = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False)
    return [rows[int(place)] for place in places]


@dataclass(frozen=True, eq=False)
class FlatRow:
    """What the sheet shows of one view, of one size."""

    photograph: Float[np.ndarray, "h w 3"]
    render: Float[np.ndarray, "h w 3"]
    flat: Float[np.ndarray, "h w 3"]
    """The parts over the photograph."""
    numbers: Int[np.ndarray, "a b"]
    """Of the parts that are seen, in `Parts.parts`; -1: none. At `FINE` times the size."""


def flat_row(scene: Scene, parts: Parts, images: ImageCache, row: int, backend: str) -> FlatRow:
    """One view at the size that a sheet shows: reduced, or of a small photograph several pixels for each of its own, so
    that lines are thin. What is masked is left as it was photographed.
    """
    view, background = images.get(row), scene.background or (0.0, 0.0, 0.0)
    photograph = reduced(target_of(view, torch.tensor(background))[0])
    height, width = photograph.shape[:2]
    factor = view.camera.width // width
    larger = -(-LEAST_SIDE // max(width, height))
    photograph = photograph.repeat(larger, axis=0).repeat(larger, axis=1)
    camera = view.camera.cropped(0, 0, factor * width, factor * height).scaled_to(larger * width, larger * height)
    render = smooth_picture(scene, camera, background, backend)
    flat, numbers = flat_over(parts, camera, torch.from_numpy(photograph), backend)
    return FlatRow(photograph, render, flat, numbers)


@torch.no_grad()
def _part_numbers(parts: Parts, scene: Scene, camera: Camera, backend: str) -> Int[np.ndarray, "a b"]:
    """Which part has the largest share of each pixel, by its place in `parts.parts`; -1 for none."""
    large = camera.to(torch.float32).scaled_to(FINE * camera.width, FINE * camera.height)
    # Another package's back end draws colours; which primitive is seen is asked of ours.
    asked = "auto" if backend == "gsplat" else backend
    frame = scene.render(large, settings=scene.settings(statistics=True), backend=asked)
    places = {name: k for k, name in enumerate(parts.names)}
    held = scene.visible_layers()
    counts = torch.tensor([sum(len(each) for each in layer.drawables(large, large.time)) for layer in held])
    owner = torch.tensor([places.get(layer.name, -1) for layer in held]).repeat_interleave(counts)
    dominant = frame.ids["dominant"].cpu().long()
    seen = (dominant >= 0) & (frame.alpha.cpu() >= 0.5)
    return torch.where(seen, owner[dominant.clamp(min=0)], torch.full_like(dominant, -1)).numpy()


def _rim(seen: Int[Tensor, "a b"]) -> Tensor:
    """Pixels of parts beside pixels of something else: a line `FINE` pixels wide within each part."""
    rim = torch.zeros_like(seen, dtype=torch.bool)
    for steps in range(1, FINE + 1):
        for dim in (0, 1):
            first, second = (
                seen.narrow(dim, steps, seen.shape[dim] - steps),
                seen.narrow(dim, 0, seen.shape[dim] - steps),
            )
            differ = first != second
            rim.narrow(dim, steps, seen.shape[dim] - steps).logical_or_(differ)
            rim.narrow(dim, 0, seen.shape[dim] - steps).logical_or_(differ)
    return rim & (seen >= 0)


# -- marks ------------------------------------------------------------------------------------------------------------
def _shown(axis: Axes, picture: np.ndarray, title: str) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="antialiased")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def _label(axis: Axes, parts: Sequence[Part], numbers: np.ndarray, shape: Sequence[int]) -> None:
    """Each part's number on the middle of its widest piece, where it is large enough to bear one."""
    scale = shape[0] / numbers.shape[0]
    for place, part in enumerate(parts):
        mask = numbers == place
        if mask.mean() < LEAST_LABELLED:
            continue
        row, column = innermost(mask)
        chip: dict[str, Any] = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": part.color}
        style: dict[str, Any] = {"fontsize": 7, "ha": "center", "va": "center", "color": "black"}
        axis.text(scale * column, scale * row, str(part.number), bbox={**chip, "linewidth": 1.4}, **style)


def innermost(mask: np.ndarray) -> tuple[float, float]:
    """(row, column) of the pixel of a mask that is farthest from its rim, as the last that is left when it shrinks."""
    reduction = -(-max(mask.shape) // 160)
    left = torch.from_numpy(mask.copy()).float()[None, None]
    left = torch.nn.functional.avg_pool2d(left, reduction, ceil_mode=True, count_include_pad=False)
    left = (left >= 0.5).float() if bool((left >= 0.5).any()) else (left >= left.max()).float()
    padded = torch.nn.functional.pad
    while True:
        shrunk = -torch.nn.functional.max_pool2d(-padded(left, (1, 1, 1, 1)), 3, stride=1)
        if not bool(shrunk.any()):
            break
        left = shrunk
    places = torch.nonzero(left[0, 0]).double()
    nearest = places[int((places - places.mean(dim=0)).norm(dim=1).argmin())]
    row, column = ((nearest + 0.5) * reduction).tolist()
    return row, column


def _count_of(parts: Parts) -> str:
    count, clear = len(parts.parts), sum(not part.is_solid for part in parts.parts)
    also = f", {clear} of them more transparent than not" if clear else ""
    if parts.left_out:
        return f"{count} of {count + parts.left_out} parts {'are' if count > 1 else 'is'} drawn{also}"
    return parts.count + also


def _legend(figure: Any, parts: Parts, shares: np.ndarray, columns: int) -> None:
    from matplotlib.patches import Patch

    marks = [
        Patch(facecolor=part.color, edgecolor="0.3", label=f"{part.name}  {share:.1%}")
        for part, share in zip(parts.parts, shares, strict=True)
        if part.is_solid
    ]
    title = f"{_count_of(parts)}; share of these pictures"
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        title=title,
        title_fontsize=8,
        frameon=False,
    )


def _smaller(values: Float[Tensor, "a b c"]) -> Float[Tensor, "h w c"]:
    """Averaged over squares of `FINE` pixels."""
    # Sums of strided views: ten times as fast as a mean over two of five dimensions.
    total = sum(values[row::FINE, column::FINE] for row in range(FINE) for column in range(FINE))
    assert isinstance(total, Tensor)
    return total / FINE**2


def _levels(values: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.rint(255 * values).astype(np.uint8)
