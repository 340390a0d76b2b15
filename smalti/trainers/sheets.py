"""Pictures about a run: the comparison sheet of held-out views and the learning curves, as PNG files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.datasets.images import ImageCache
from smalti.scene.scene import Scene
from smalti.trainers.evaluation import Comparison, Evaluation, ViewScore, compare, format_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_PIXELS = 640
"""Longest side of a picture on a sheet; larger ones are reduced by averaging."""
_DOTS_PER_INCH = 120
_PANEL_INCHES = 3.2


@dataclass(frozen=True)
class SheetRow:
    """One view on the sheet, with its figures and how it ranks."""

    pair: Comparison
    score: ViewScore
    rank: str


def comparison_sheet(
    path: Path, scene: Scene, images: ImageCache, evaluation: Evaluation, *, limit: int = 4, backend: str = "auto"
) -> list[str]:
    """Write truth, render and error of up to `limit` evaluated views, from the worst to the best; returns their names.

    The pictures are those that were measured (same protocol); masked pixels are grey in the error map.
    """
    rows = {view.camera.name: row for row, view in enumerate(images.dataset.views)}
    sheet = []
    for score, rank in spread(evaluation, limit):
        pair = compare(scene, images, rows[score.name], evaluation.protocol, backend=backend)
        sheet.append(SheetRow(pair, score, rank))
    draw_sheet(path, sheet, str(evaluation.protocol))
    return [row.score.name for row in sheet]


def spread(evaluation: Evaluation, limit: int) -> list[tuple[ViewScore, str]]:
    """Views at equal distances in the ranking, the worst first and the best last, each with its place in words."""
    ranked = evaluation.worst(len(evaluation.views))
    count = min(limit, len(ranked))
    places = sorted({round(k * (len(ranked) - 1) / max(count - 1, 1)) for k in range(count)})

    def words(place: int) -> str:
        if len(ranked) == 1:
            return "the only view"
        ends = {0: f"worst of {len(ranked)}", len(ranked) - 1: f"best of {len(ranked)}"}
        return ends.get(place, f"{len(ranked) - place} of {len(ranked)}")

    return [(ranked[place], words(place)) for place in places]


def draw_sheet(path: Path, rows: Sequence[SheetRow], protocol: str) -> None:
    """Write the sheet of `rows` to `path`. The error scale is one for all rows and ends at the 99.5th percentile."""
    if not rows:
        raise ValueError("draw_sheet: there is no view to show")
    panels = [_panels(row.pair) for row in rows]
    finite = np.concatenate([error[np.isfinite(error)] for _, _, error in panels])
    top = max(float(np.quantile(finite, 0.995)), 1 / 255)
    height, width = panels[0][0].shape[:2]
    row_height = _PANEL_INCHES * height / width + 0.35
    figure = new_figure(3 * _PANEL_INCHES + 0.9, len(rows) * row_height + 0.75)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    bar = None
    for axes, row, (truth, image, error) in zip(grid, rows, panels, strict=True):
        axes[0].imshow(truth, vmin=0, vmax=1)
        axes[1].imshow(image, vmin=0, vmax=1)
        bar = axes[2].imshow(error, cmap=_error_colors(), vmin=0, vmax=top)
        axes[0].set_title(row.score.name, fontsize=9, loc="left")
        axes[1].set_title(format_scores(row.score.values), fontsize=9, loc="left")
        axes[2].set_title(row.rank, fontsize=9, loc="left")
        for axis in axes:
            axis.set_axis_off()
    for axis, text in zip(grid[0], ("truth", "render", "absolute error"), strict=True):
        axis.annotate(text, (0.5, 1.0), (0, 20), xycoords="axes fraction", textcoords="offset points", ha="center")
    assert bar is not None
    scale = figure.colorbar(bar, ax=grid[:, 2].tolist(), extend="max", fraction=0.06, pad=0.03, aspect=30)
    scale.set_label("mean over channels, 0..1", fontsize=8)
    scale.ax.tick_params(labelsize=8)
    figure.supxlabel(_wrapped(protocol, 150), fontsize=7, color="0.35")
    save_figure(figure, path)


def draw_curves(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write loss, PSNR, primitives and memory over steps and over processor seconds, from the records of metrics.jsonl.

    Raises ValueError where there is no training record.
    """
    records = list(records)
    train = [record for record in records if record.get("kind") == "train"]
    held_out = [record for record in records if record.get("kind") == "evaluation"]
    if not train:
        raise ValueError("draw_curves: metrics.jsonl has no training record yet; train at least `run.log_every` steps")
    figure = new_figure(11.0, 10.5)
    grid = figure.subplots(4, 2, sharex="col", sharey="row")
    for column, key, label in ((0, "step", "step"), (1, "cpu_seconds", "processor seconds of training")):
        loss, quality, count, memory = grid[:, column]
        _line(loss, train, key, "loss", alpha=0.25)
        _line(loss, train, key, "loss", smooth=True)
        loss.set_yscale("log")
        _line(quality, train, key, "psnr", alpha=0.25, label="training views")
        _line(quality, train, key, "preview_psnr", color="C2", label="fixed view")
        _line(quality, held_out, key, "psnr", color="C3", marker="o", label="held-out views (mean)")
        _line(count, train, key, "primitives")
        _line(memory, train, key, "bytes", factor=1e-6)
        memory.set_xlabel(label)
    for axis in grid[2:, 0]:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])  # what hardly changes would lie on the frame
    for axis, label in zip(grid[:, 0], ("loss", "PSNR, dB", "primitives", "memory counted, MB"), strict=True):
        axis.set_ylabel(label)
    last = next((record for record in reversed(held_out) if _number(record.get("psnr"))), None)
    if last is not None:
        figure.suptitle(f"held-out PSNR {last['psnr']:.2f} dB at step {last['step']}", fontsize=11)
    if grid[1, 0].get_legend_handles_labels()[0]:
        grid[1, 0].legend(fontsize=8, loc="best")
    for column, key in ((0, "step"), (1, "cpu_seconds")):
        _mark_resolutions(list(grid[:, column]), train, key)
    for axis in grid.flat:
        axis.grid(alpha=0.25)
    figure.align_ylabels(grid[:, 0])
    save_figure(figure, path)


def _line(
    axis: Axes, records: list[dict[str, Any]], x: str, y: str, smooth: bool = False, factor: float = 1.0, **style: Any
) -> None:
    """The finite values of one column; `smooth` is a running mean over a twentieth of the run."""
    pairs = [(record[x], factor * record[y]) for record in records if _number(record.get(x)) and _number(record.get(y))]
    if not pairs:
        return
    places, values = np.array(pairs, np.float64).T
    if smooth:
        half = max(len(values) // 40, 1)
        total = np.concatenate([[0.0], values.cumsum()])
        low = np.maximum(np.arange(len(values)) - half, 0)
        high = np.minimum(np.arange(len(values)) + half + 1, len(values))
        values = (total[high] - total[low]) / (high - low)
    look: dict[str, Any] = {"color": "C0", "linewidth": 1.2, **style}
    axis.plot(places, values, **look)


def _mark_resolutions(axes: Sequence[Axes], records: list[dict[str, Any]], x: str) -> None:
    """A dotted line where training goes on with larger pictures: loss and training PSNR jump there by design."""
    changes = [
        after[x]
        for before, after in pairwise(records)
        if before.get("reduction") != after.get("reduction") and _number(after.get(x))
    ]
    for row, place in enumerate(changes):
        for axis in axes:
            axis.axvline(place, color="0.4", linestyle=":", linewidth=1.0)
        style: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 7}
        axes[0].annotate("larger pictures", (place, 1.0), (3, -10 - 9 * (row % 3)), color="0.4", **style)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and np.isfinite(value)


def _panels(pair: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(truth, render, error), reduced to panel size; the error is NaN where masked."""
    error = (pair.image - pair.truth).abs().mean(dim=-1)
    if pair.mask is not None:
        error = torch.where(pair.mask, error, torch.full_like(error, torch.nan))
    return reduced(pair.truth), reduced(pair.image), reduced(error)


def reduced(picture: Float[Tensor, "h w *c"]) -> np.ndarray:
    """At most PANEL_PIXELS along the longer side, by averaging whole blocks."""
    array = picture.detach().float().cpu().numpy()
    block = -(-max(array.shape[:2]) // PANEL_PIXELS)
    if block == 1:
        return array
    height, width = (size // block for size in array.shape[:2])
    blocks = array[: height * block, : width * block].reshape(height, block, width, block, *array.shape[2:])
    return blocks.mean(axis=(1, 3))


def _error_colors() -> Any:
    from matplotlib import colormaps

    return colormaps["inferno"].with_extremes(bad="0.6")


def new_figure(width: float, height: float) -> Figure:
    """A figure on the Agg canvas; pyplot and its global state are not touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        figure.savefig(scratch, format="png")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
