"""What mipmaps are good for, and what they cost: `python bench/mipmaps.py --json`.

Two textured meshes seen from nearer and farther, so that a pixel is half a texel to 32 texels wide: a sphere in front
of the camera and a ground that runs to the horizon, hard edges, float32. Each picture is compared with one drawn with
64 rays to the pixel without mipmaps, where both are wholly covered. Three textures of 512 x 512: a check of 4 texels,
white noise, and noise whose amplitude falls with the frequency as photographs' does.

The cost is process CPU time of forward and backward (to vertices, texture coordinates and texture), the levels made
anew each time; the jobs take turns. `--plot` draws docs/mipmaps.png from docs/mipmaps.json.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import cpu_milliseconds
from torch import Tensor

from smalti import Camera, RenderSettings, render
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.engine import library
from smalti.renderers.mipmaps import mipmaps

FOLDER = Path(__file__).resolve().parents[1] / "docs"
TEXELS = 512
WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Texels per pixel, about: where the sphere is nearest, and in the middle of the ground."""
RAYS = 8
"""To the pixel, along each side."""
SETTINGS = RenderSettings(order="ray")


# ---- textures
def check() -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(TEXELS), torch.arange(TEXELS), indexing="ij")
    light = ((rows // 4 + columns // 4) % 2)[..., None]
    return torch.where(light == 1, torch.tensor([0.95, 0.85, 0.75]), torch.tensor([0.05, 0.1, 0.2]))


def noise() -> Tensor:
    return torch.rand(TEXELS, TEXELS, 3, generator=torch.Generator().manual_seed(1))


def natural() -> Tensor:
    """Amplitude over frequency, as the mean spectrum of photographs."""
    frequencies = torch.fft.fftfreq(TEXELS)
    size = (frequencies[:, None].square() + frequencies.square()).sqrt()
    size[0, 0] = torch.inf
    waves = torch.fft.fft2(torch.randn(3, TEXELS, TEXELS, generator=torch.Generator().manual_seed(2)))
    plane = torch.fft.ifft2(waves / size).real
    return (0.5 + 0.2 * plane / plane.std()).clamp(0, 1).permute(1, 2, 0).contiguous()


TEXTURES: dict[str, Callable[[], Tensor]] = {"check": check, "noise": noise, "natural": natural}


# ---- meshes
@dataclass(frozen=True)
class Shape:
    """Corners [n, 3, 3] and texture coordinates [n, 3, 2]."""

    corners: Tensor
    uvs: Tensor

    def drawn(self, texture: Tensor, levels: Tensor | None) -> TriangleDrawable:
        ones = torch.ones(len(self.corners))
        return TriangleDrawable(self.corners, ones, texture=texture, uvs=self.uvs, mipmaps=levels, wrap=True)


def patch(place: Callable[[Tensor, Tensor], Tensor], rows: int, columns: int) -> Shape:
    """A grid over u and v, each cell two triangles; `place` gives the points."""
    v, u = torch.meshgrid(torch.linspace(0, 1, rows + 1), torch.linspace(0, 1, columns + 1), indexing="ij")
    points, uvs = place(u, v).reshape(-1, 3), torch.stack([u, v], -1).reshape(-1, 2)
    first = (torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)).reshape(-1, 1)
    down = columns + 1
    faces = torch.cat([first + torch.tensor([0, 1, down + 1]), first + torch.tensor([0, down + 1, down])])
    return Shape(points[faces], uvs[faces])


def sphere() -> Shape:
    def place(u: Tensor, v: Tensor) -> Tensor:
        around, down = 2 * math.pi * u, math.pi * v
        return torch.stack([down.sin() * around.cos(), -down.cos(), down.sin() * around.sin()], -1)

    return patch(place, 24, 48)


def ground() -> Shape:
    return patch(lambda u, v: torch.stack([6 * u - 3, torch.ones_like(u), 6 * v - 3], -1), 8, 8)


SHAPES: dict[str, Callable[[], Shape]] = {"sphere": sphere, "ground": ground}


def view(shape: str, width: float, size: int, scale: int = 1) -> Camera:
    """A pixel is about `width` texels wide; `scale` times as many pixels along a side."""
    texels_per_unit = TEXELS / math.pi if shape == "sphere" else TEXELS / 6  # of v; of u on the equator it is half
    focal = 1.2 * size
    distance = width * focal / texels_per_unit
    pixels = size * scale
    intrinsics = torch.tensor([focal * scale, focal * scale, pixels / 2, pixels / 2])
    if shape == "sphere":
        place, turn = torch.tensor([0.0, 0.0, distance + 1]), torch.eye(3)
    else:  # looking down by a sixth of a right angle
        tilt = math.pi / 12
        turn = torch.tensor([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
        place = torch.tensor([0.0, 0.0, distance]) - turn @ torch.tensor([0.0, 1.0, 0.0])
    return Camera(turn, place, intrinsics, pixels, pixels)


# ---- what is measured
def psnr(shape: str, texture: Tensor, width: float, size: int) -> dict[str, float]:
    """With and without mipmaps, dB."""
    made = SHAPES[shape]()
    fine = render([made.drawn(texture, None)], view(shape, width, size, RAYS), settings=SETTINGS)
    blocks = size, RAYS, size, RAYS
    truth = fine.color.reshape(*blocks, 3).mean((1, 3))
    covered = fine.alpha.reshape(blocks).amin((1, 3)) == 1
    found = {"covered_pixels": float(covered.sum())}
    for name, levels in (("without", None), ("with", mipmaps(texture))):
        picture = render([made.drawn(texture, levels)], view(shape, width, size), settings=SETTINGS).color
        found[name] = float(-10 * (picture - truth)[covered].square().mean().log10())
    return found


def costs(size: int, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of forward and backward; of that the levels alone."""
    texture, rows = natural().requires_grad_(), []
    for shape in SHAPES:
        made = SHAPES[shape]()
        leaves = made.corners.clone().requires_grad_(), made.uvs.clone().requires_grad_()
        for width in (0.5, 4.0):
            camera, weights = view(shape, width, size), torch.rand(size, size, 3)

            def draw(levels: int, camera: Camera = camera, shape: Shape = Shape(*leaves)) -> Tensor:
                return render([shape.drawn(texture, mipmaps(texture, levels) if levels else None)], camera).color

            def both(levels: int, weights: Tensor = weights, draw: Callable[[int], Tensor] = draw) -> None:
                draw(levels).backward(weights)

            def made_alone() -> None:
                made = mipmaps(texture)
                made.backward(torch.ones_like(made))

            jobs: dict[str, Callable[[], object]] = {
                "forward_without": lambda draw=draw: draw(0),
                "forward_with": lambda draw=draw: draw(24),
                "both_without": lambda both=both: both(0),
                "both_with": lambda both=both: both(24),
                "levels_alone": made_alone,
            }
            rows.append({"shape": shape, "texels_per_pixel": width, "size": size, **cpu_milliseconds(jobs, repeats)})
    return rows


def plot() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    report = json.loads((FOLDER / "mipmaps.json").read_text())
    figure, axes = pyplot.subplots(1, len(SHAPES), figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, shape in zip(axes, SHAPES, strict=True):
        for number, texture in enumerate(TEXTURES):
            own = [row for row in report["pictures"] if row["shape"] == shape and row["texture"] == texture]
            for name, style in (("without", "--"), ("with", "-")):
                line = [row[name] for row in own]
                across = [row["texels_per_pixel"] for row in own]
                axis.semilogx(
                    across, line, style, color=f"C{number}", marker="o", markersize=3, label=f"{texture}, {name}"
                )
        axis.set_title(shape)
        axis.set_xlabel("texels per pixel")
        axis.grid(True, alpha=0.3)
    axes[0].set_ylabel("PSNR against 64 rays per pixel, dB")
    axes[1].legend(fontsize=8)
    figure.savefig(FOLDER / "mipmaps.png", dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller pictures")
    parser.add_argument("--plot", action="store_true", help="only draw the figure from the committed numbers")
    chosen = parser.parse_args(arguments)
    if chosen.plot:
        plot()
        return
    torch.set_num_threads(1)  # waiting threads would count as work
    size, repeats, widths = (48, 1, WIDTHS[::3]) if chosen.quick else (160, 15, WIDTHS)
    pictures = [
        {"shape": shape, "texture": name, "texels_per_pixel": width, **psnr(shape, make(), width, size)}
        for shape in SHAPES
        for name, make in TEXTURES.items()
        for width in widths
    ]
    report = {"library": library.chosen(), "size": size, "pictures": pictures, "milliseconds": costs(size, repeats)}
    if chosen.json:
        print(json.dumps(report))
        return
    for row in [*pictures, *report["milliseconds"]]:
        print("  ".join(f"{key} {value:.2f}" if isinstance(value, float) else str(value) for key, value in row.items()))


if __name__ == "__main__":
    main()
