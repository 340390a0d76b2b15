"""Figures of `bench/blocks.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from blocks_synthetic import BLOCKS, EVERY, PUBLISHED, SHOWN

WEIGHTS = {"parsimony 0.001": 1e-3, "complete": 1e-2, "parsimony 0.1": 1e-1}


def synthetic_figure(rows: Sequence[Mapping[str, Any]], work: Path, target: Path) -> None:
    """Above: truth and every variant (first seed), as drawn and in flat colours. Below: blocks and Chamfer of every
    run, and blocks against the weight of parsimony.
    """
    pyplot = _pyplot()
    names = [name for name in EVERY if any(row["variant"] == name for row in rows)]
    first = min(row["seed"] for row in rows)
    drawing = pyplot.figure(figsize=(1.3 * (len(names) + 1), 7.6))
    grid = drawing.add_gridspec(2, 1, height_ratios=[1.5, 1.0], hspace=0.12)
    above = grid[0].subgridspec(2 * len(SHOWN), len(names) + 1, wspace=0.04, hspace=0.04)
    for column, name in enumerate(["truth", *names]):
        arrays = np.load(work / f"{(name if column else names[0]).replace(' ', '-')}-{first}.npz")
        for view in range(len(SHOWN)):
            shown = (arrays["images"] if column else arrays["truths"])[view]
            for row, picture in ((2 * view, shown), (2 * view + 1, arrays["flat"][view] if column else None)):
                axis = drawing.add_subplot(above[row, column])
                axis.axis("off")
                if picture is not None:
                    axis.imshow(picture.clip(0, 1), interpolation="nearest")
                if row == 0:
                    found = next((each for each in rows if (each["variant"], each["seed"]) == (name, first)), None)
                    extra = f"\n{found['blocks']} blocks, {found['psnr']:.1f} dB" if found else ""
                    axis.set_title(name + extra, fontsize=7)
    below = grid[1].subgridspec(1, 3, width_ratios=[1.0, 1.0, 0.8], wspace=0.28)
    _dots(drawing.add_subplot(below[0]), rows, names, "blocks", f"blocks of {BLOCKS} (true: 3)", 3.0)
    _dots(drawing.add_subplot(below[1]), rows, names, "chamfer", "Chamfer of the blocks, world units", None)
    _sweep(drawing.add_subplot(below[2]), rows)
    _save(drawing, target)


def _dots(axis: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, title: str, true: Any) -> None:
    for place, name in enumerate(names):
        values = [row[key] for row in rows if row["variant"] == name and row[key] is not None]
        offsets = 0.12 * (np.arange(len(values)) - 0.5 * (len(values) - 1))
        axis.plot(place + offsets, values, "o", ms=4, color="#0072b2")
        if values:
            axis.hlines(np.mean(values), place - 0.3, place + 0.3, color="#d55e00", lw=1.5)
    if true is not None:
        axis.axhline(true, color="0.6", lw=0.8, ls="--")
    axis.set_ylim(bottom=0)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(title, fontsize=8)


def _sweep(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for name, weight in WEIGHTS.items():
        values = [row["blocks"] for row in rows if row["variant"] == name]
        axis.plot([weight] * len(values), values, "o", ms=4, color="#0072b2")
    means = [(weight, np.mean([row["blocks"] for row in rows if row["variant"] == name]))
             for name, weight in WEIGHTS.items() if any(row["variant"] == name for row in rows)]  # fmt: skip
    if means:
        axis.plot(*zip(*means, strict=True), "-", color="#d55e00", label="here, of 6 (true: 3)")
    axis.plot(list(WEIGHTS.values()), [PUBLISHED[name][0] for name in WEIGHTS], "--", color="0.5", label="paper, of 10")
    axis.axhline(3.0, color="0.6", lw=0.8, ls=":")
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=6)
    axis.set_title("blocks against the weight of parsimony", fontsize=8)


def capture_figure(columns: Sequence[Mapping[str, np.ndarray]], titles: Sequence[str], target: Path) -> None:
    """One column per view: the pictures by name of row, all over all columns."""
    pyplot = _pyplot()
    names = list(columns[0])
    height, width = columns[0][names[0]].shape[:2]
    size = (2.2 * len(columns), 2.2 * len(names) * height / width + 0.3)
    drawing, axes = pyplot.subplots(len(names), len(columns), squeeze=False, figsize=size)
    for column, pictures in enumerate(columns):
        for row, name in enumerate(names):
            axis = axes[row, column]
            axis.imshow(pictures[name].clip(0, 1))
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if column == 0:
                axis.set_ylabel(name, fontsize=8)
            if row == 0:
                axis.set_title(titles[column], fontsize=8)
    drawing.tight_layout(pad=0.3)
    _save(drawing, target)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(drawing: Any, target: Path) -> None:
    """Small: JPEG where the name says so, else a palette of 256 colours."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    drawing.savefig(buffer, dpi=120, bbox_inches="tight", pad_inches=0.05)
    image = Image.open(buffer).convert("RGB")
    if target.suffix == ".jpg":
        image.save(target, quality=88, optimize=True)
    else:
        image.quantize(256).save(target, optimize=True)
