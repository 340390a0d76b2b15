"""The separate parts of a scene in flat colours over the photographs that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.datasets.images import ImageCache
from smalti.scene.parts import Parts
from smalti.scene.scene import Scene
from smalti.trainers.evaluation import target_of
from smalti.trainers.part_marks import FINE, count_of, label, part_numbers, shown, smaller, smooth_picture
from smalti.trainers.sheets import new_figure, reduced, save_figure

FLAT_SHARE = 0.6
"""Of a part's flat colour over the photograph."""
LEAST_SIDE = 320
"""Pixels along the longer side of a picture on the sheet."""
LEGEND_COLUMNS = 6
LONGEST_NAME = 48
"""Characters of a view's name; of a longer one the end is shown."""


def draw_flat(
    path: Path, scene: Scene, parts: Parts, images: ImageCache, rows: Sequence[int], backend: str = "auto"
) -> None:
    """Write a sheet: for each view (row of the data set), under its name, the photograph, the render, and the parts in
    flat colours over the photograph, with a legend.
    """
    if not rows:
        raise ValueError("draw_flat: there is no view to show")
    sheets = [flat_row(scene, parts, images, row, backend) for row in rows]
    height, width = sheets[0].photograph.shape[:2]
    panel = 3.6
    solid = max(sum(part.is_solid for part in parts.parts), 1)
    legend_rows = -(-solid // LEGEND_COLUMNS)
    columns = -(-solid // legend_rows)
    tall = len(rows) * (panel * height / width + 0.28) + 0.45 + 0.24 * (legend_rows + 1)
    figure = new_figure(3 * panel, tall)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes, sheet in zip(grid, sheets, strict=True):
        for axis, picture in zip(axes, (sheet.photograph, sheet.render, sheet.flat), strict=True):
            shown(axis, picture, "")
        axes[0].set_title(ending(sheet.name), fontsize=8, loc="left")
        label(axes[2], parts.parts, sheet.numbers, sheet.flat.shape[:2])
    for axis, text in zip(grid[0], ("photograph", "render", "parts over the photograph"), strict=True):
        axis.annotate(text, (0.5, 1.0), (0, 18), xycoords="axes fraction", textcoords="offset points", ha="center")
    shares = np.mean([[np.mean(sheet.numbers == k) for k in range(len(parts.parts))] for sheet in sheets], axis=0)
    _legend(figure, parts, shares, columns)
    save_figure(figure, path)


def flat_over(
    parts: Parts, camera: Camera, photograph: Float[Tensor, "h w 3"], backend: str = "auto"
) -> tuple[Float[np.ndarray, "h w 3"], Int[np.ndarray, "a b"]]:
    """The solid parts in flat colours over a photograph, each with a line around it; and the number in `parts.parts` of
    what is seen (-1: none of them), at `FINE` times the size.
    """
    numbers = part_numbers(parts, parts.scene, camera, backend)
    clear = [place for place, part in enumerate(parts.parts) if not part.is_solid]
    numbers[np.isin(numbers, clear)] = -1
    colors = torch.tensor([part.color for part in parts.parts])
    seen = torch.from_numpy(numbers)
    flat, covered = colors[seen.clamp(min=0)], (seen >= 0).float()[..., None]
    rim = _rim(seen)[..., None]
    flat = torch.where(rim, 0.45 * flat, flat)
    weight = torch.where(rim, torch.ones_like(covered), FLAT_SHARE * covered)
    over = smaller(flat * weight), smaller(weight)
    values = over[0] + (1 - over[1]) * photograph.cpu()
    return values.clamp(0, 1).numpy(), numbers


def ending(name: str) -> str:
    """A view's name as far as there is room for it: its end tells views apart."""
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def chosen_views(rows: Sequence[int], count: int = 3) -> list[int]:
    """Some of the rows, evenly spread."""
    places = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False)
    return [rows[int(place)] for place in places]


@dataclass(frozen=True, eq=False)
class FlatRow:
    """What the sheet shows of one view, of one size."""

    name: str
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
    return FlatRow(view.camera.name, photograph, render, flat, numbers)


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


def _legend(figure: Any, parts: Parts, shares: np.ndarray, columns: int) -> None:
    from matplotlib.patches import Patch

    marks = [
        Patch(facecolor=part.color, edgecolor="0.3", label=f"{part.name}  {share:.1%}")
        for part, share in zip(parts.parts, shares, strict=True)
        if part.is_solid
    ]
    title = f"{count_of(parts)}; share of these pictures"
    figure.legend(
        handles=marks,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        title=title,
        title_fontsize=8,
        frameon=False,
    )
