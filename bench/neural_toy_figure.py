"""The figures of the toy experiment (`neural_toy.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from neural_solids import SOLIDS, views_of
from neural_toy_report import NUMBERS, Curves

if TYPE_CHECKING:
    from neural_toy import Run

COLORS = {"neural": "#c2410c", "gaussian": "#1d4ed8", "ellipsoid": "#6b7280"}
NAMES = {"neural": "neural splats", "gaussian": "Gaussians, exact integral", "ellipsoid": "ellipsoids (no waves)"}
SHOWN = (2, 4, 8, 16)


COLUMNS = (
    ("psnr", 0, "primitives"),
    ("psnr_fine", 0, "primitives, judged with 4 x 4 rays a pixel"),
    ("psnr", 1, "parameters, colours of degree 3"),
    ("psnr", 2, "parameters, colours of degree 0"),
)
"""Measure, what is counted (primitives, then the columns of `NUMBERS`), title."""


def draw_curves(curves: dict[str, Curves], file: Path) -> None:
    """A row per solid: PSNR against primitives, and against parameters by both counts; the range over the seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(SOLIDS), len(COLUMNS), figsize=(14, 9), sharey="row", layout="constrained")
    for row, solid in enumerate(SOLIDS):
        for axis, (measure, counted, title) in zip(axes[row], COLUMNS, strict=True):
            for model, color in COLORS.items():
                points = curves[measure].get((solid, model))
                if not points:
                    continue
                each = (1, *NUMBERS[model])[counted]
                across = [each * count for count in points]
                mean, least, most = np.array(list(points.values())).T
                axis.fill_between(across, least, most, color=color, alpha=0.2, linewidth=0)
                axis.plot(across, mean, color=color, marker="o", markersize=3, label=NAMES[model])
            axis.set_xscale("log", base=10 if counted else 2)
            axis.grid(alpha=0.3)
            if row == len(SOLIDS) - 1:
                axis.set_xlabel(title)
        axes[row, 0].set_ylabel(f"{solid}: held-out PSNR, dB")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def draw_pictures(runs: dict[Run, Any], cache: Path, file: Path, quick: bool) -> None:
    """A held-out view per solid: the truth, and 2 to 16 neural splats and Gaussians."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shape = (8, 2, 32) if quick else (32, 8, 64)
    kept = {run.group: np.load(run.file(cache).with_suffix(".npy")) for run in runs if run.seed == 0}
    figure, axes = plt.subplots(len(SOLIDS), 1 + 2 * len(SHOWN), figsize=(12, 4.4), layout="constrained")
    for row, solid in enumerate(SOLIDS):
        pictures = {"truth": views_of(solid, *shape).held_pictures[1].numpy()}
        for model, name in (("neural", "neural"), ("gaussian", "Gaussians")):
            for count in SHOWN:
                held = kept.get((solid, model, count))
                pictures[f"{count} {name}"] = np.zeros((*shape[2:] * 2, 3)) if held is None else held[1]
        for axis, (title, picture) in zip(axes[row], pictures.items(), strict=True):
            axis.imshow(picture.clip(0, 1), interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, fontsize=9)
    figure.savefig(file, dpi=80)
    plt.close(figure)
