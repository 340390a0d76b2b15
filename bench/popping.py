"""Popping: how much a picture changes when the camera turns by a little. `python bench/popping.py --json`

A cloud of large, long, overlapping Gaussians, evaluated on the ray, is seen from a camera that goes around it in small
steps. By one key per primitive (`order="centre"`, what 3DGS does) two primitives change places in all of their pixels
at once, however small the step was. Along the ray (`order="ray"`) they cross on a curve, which moves on with the
camera: what the eye sees (the mean of 16 x 16 pixels) changes by less the smaller the step. Single pixels still change
when that curve runs through them, because a thin event is either before or behind another; segments (neural splats of
the same place and size) are mixed where they overlap, and change smoothly in every pixel.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti import Camera, RenderSettings, render
from smalti.renderers.drawables import Drawable, NeuralDrawable, RayGaussianDrawable

ROOT = Path(__file__).resolve().parent.parent
COUNT, SIZE, BLOCK = 25, 128, 16
STEPS = (0.4, 0.2, 0.1, 0.05, 0.025, 0.0125)
"""Degrees."""
ARC = 3.0
"""Degrees that are gone through by steps of every length, so that all have the same occasions to jump."""
SERIES = (0.1, 120)
"""Step and steps of the series that is shown."""


def cloud(seed: int = 3) -> tuple[RayGaussianDrawable, NeuralDrawable]:
    """The same places, sizes and colours as Gaussians and as balls of constant density."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    means, quaternions = 0.5 * normal(COUNT, 3), normal(COUNT, 4)
    scales = 0.5 * torch.exp(0.4 * normal(COUNT, 3))
    colors = 1.2 * normal(COUNT, 3)
    gaussians = RayGaussianDrawable(means, quaternions, scales, torch.full((COUNT,), 0.9), colors)
    none = torch.zeros(COUNT, 8, 3)
    density = torch.full((COUNT,), 1.5)
    balls = NeuralDrawable(means, quaternions, 2 * scales, none, none[..., 0], none[..., 0], density, colors, cap=False)
    return gaussians, balls


def camera_at(degrees: float) -> Camera:
    angle = math.radians(degrees)
    position = torch.tensor([4.5 * math.sin(angle), -0.6, -4.5 * math.cos(angle)], dtype=torch.float64)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    return Camera.look_at(position, torch.zeros(3, dtype=torch.float64), up, 0.7, (SIZE, SIZE))


@torch.no_grad()
def changes(drawable: Drawable, order: Any, step: float, count: int) -> dict[str, list[float]]:
    """Largest change of a colour per step: of one pixel, and of the mean of a block of pixels."""
    found: dict[str, list[float]] = {"pixel": [], "block": []}
    before: Tensor | None = None
    settings = RenderSettings(order=order)
    for k in range(count + 1):
        color = render([drawable], camera_at(k * step), settings=settings, backend="cpu").color
        if before is not None:
            difference = (color - before).movedim(-1, 0)[None]
            found["pixel"].append(float(difference.abs().max()))
            found["block"].append(float(torch.nn.functional.avg_pool2d(difference, BLOCK).abs().max()))
        before = color
    return found


def measure() -> dict[str, Any]:
    """Per order and step length: the largest change of any step; and the series of the step 0.05."""
    gaussians, balls = cloud()
    result: dict[str, Any] = {"steps": STEPS, "largest": {}, "series": {}, "series_step": SERIES[0]}
    cases = (("centre", gaussians, "centre"), ("ray", gaussians, "ray"), ("segments", balls, "ray"))
    for name, drawable, order in cases:
        rows = []
        for step in STEPS:
            series = changes(drawable, order, step, round(ARC / step))
            rows.append({kind: max(values) for kind, values in series.items()})
        result["series"][name] = changes(drawable, order, *SERIES)["block"]
        result["largest"][name] = {kind: [row[kind] for row in rows] for kind in ("pixel", "block")}
    return result


def draw_figure(result: dict[str, Any], path: Path) -> None:
    """Two panels: the series, and the largest change over the step length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    names = {"centre": "centre, Gaussians", "ray": "ray, Gaussians", "segments": "ray, neural splats (segments)"}
    colors = {"centre": "tab:red", "ray": "tab:blue", "segments": "tab:green"}
    step = result["series_step"]
    for name in ("centre", "ray"):
        series = result["series"][name]
        left.plot([step * (k + 1) for k in range(len(series))], series, color=colors[name], label=names[name])
    left.set_xlabel("camera angle (degrees)")
    left.set_ylabel(f"largest change of {BLOCK} x {BLOCK} pixels")
    left.set_title(f"Steps of {step} degrees")
    left.legend()
    for name, largest in result["largest"].items():
        right.loglog(result["steps"], largest["block"], "o-", color=colors[name], label=f"{names[name]}: blocks")
        right.loglog(result["steps"], largest["pixel"], "x:", color=colors[name], label=f"{names[name]}: pixels")
    right.set_xticks(result["steps"], [f"{step:g}" for step in result["steps"]])
    right.minorticks_off()
    right.set_xlabel("step (degrees)")
    right.set_ylabel("largest change of a colour in one step")
    right.set_title("Smaller steps")
    right.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Print the numbers and draw the figure; 0 if `ray` follows the step and `centre` does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "popping.png", help="where the figure goes")
    options = parser.parse_args(arguments)
    result = measure()
    draw_figure(result, options.figure)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        for name, largest in result["largest"].items():
            for kind, values in largest.items():
                print(
                    f"{name:9} {kind:6}", " ".join(f"{step:g}: {v:.4f}" for step, v in zip(STEPS, values, strict=True))
                )
    blocks = {name: largest["block"] for name, largest in result["largest"].items()}
    # From the largest to the smallest step: 32 times smaller.
    passed = blocks["ray"][-1] < blocks["ray"][0] / 4 and blocks["centre"][-1] > blocks["centre"][0] / 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
