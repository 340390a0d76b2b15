"""Many small boxes against few large ones at an equal number of voxels: 1 x 32^3, 8 x 16^3, 64 x 8^3, 512 x 4^3 (after
Lombardi et al. 2021, figure 1), with ablations. `python bench/boxes.py --json` prints one object.

Scene: a painted ball of radius 0.5 with 60 thin strands that arch up to 0.1 above it, drawn without our renderer:
opaque balls, exact rays, 36 per pixel, diffuse light, black background. 64 x 64 pixels, 24 views to train and 8 held
out. The strands are about 1.2 pixels wide.

Fit: no decoder; the family `boxes`, Adam, payloads and places of the boxes trained directly, MVP's additive
accumulation and window; step 0.02; rates fall to a tenth. Boxes start spread evenly over a sphere of radius 0.54 (a
guide that the fit is given, as in the paper), 1.4 times the family's own size there, one box alone around everything;
all grey. Every iteration draws 1,024 rays of one view, one from each 2 x 2 pixels. Loss: mean squared error in units of
(25/255)^2 plus lambda times the volume prior (sum of products of half extents, in units of 0.8^3); lambda is 0.01 but
for its ablation. Rates of the payload and the size at the start were set after a first look at 300 iterations (the
family's default rates are for longer runs; a regular grid of texture coordinates leaves gaps at 64 boxes), for all
sizes alike.

Reported on the held-out views: PSNR; lookups of voxels per ray; occupancy, the share of the march steps inside a box
that absorb more than 0.01; volume of all boxes; seconds of the fit.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.primitives.boxes import Boxes
from smalti.primitives.surface import Surface, icosphere
from smalti.renderers.engine import set_threads
from smalti.renderers.render import render

RADIUS, STRAND = 0.5, 0.012
"""Of the ball and of a strand."""
HALF = 0.8
"""Half side of the cube that holds everything: the single box, and the unit of the volume prior."""
VOXELS = {1: 32, 8: 16, 64: 8, 512: 4}
"""Boxes -> voxels per side: 32,768 voxels each."""
STEP = 0.02
PIXELS, DISTANCE, FOCAL = 64, 2.6, 125.0
IMAGE_UNIT = (25.0 / 255.0) ** 2
PAYLOAD_RATES = {"colors": 0.03, "raw_densities": 0.3}
GUIDE, LARGER = 0.54, 1.4


@dataclass(frozen=True)
class Case:
    """One fit."""

    boxes: int
    seed: int
    ablation: str = "none"
    fade: float = 8.0
    prior: float = 0.01
    frozen: bool = False


# -- truth ------------------------------------------------------------------------------------------------------------
def camera_matrix(index: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera rotation and the position, on a Fibonacci sphere; every fourth is held out."""
    height = 0.95 * (2 * (index + 0.5) / count - 1)
    angle, ring = index * math.pi * (3 - math.sqrt(5)), math.sqrt(1 - height * height)
    position = DISTANCE * np.array([ring * math.cos(angle), ring * math.sin(angle), height])
    forward = -position / DISTANCE
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward]), position


def strands() -> tuple[np.ndarray, np.ndarray]:
    """(positions, colours) of the balls that 60 strands are made of."""
    generator = np.random.default_rng(7)
    t = np.linspace(0, 1, 90)[:, None]
    positions, colors = [], []
    for _ in range(60):
        root, side = generator.standard_normal((2, 3))
        root /= np.linalg.norm(root)
        side -= root * (side @ root)
        side /= np.linalg.norm(side)
        across = np.cross(root, side)
        angle = 0.9 * t
        sway = generator.uniform(-0.25, 0.25) * np.sin(2 * np.pi * t)
        direction = np.cos(angle) * root + np.sin(angle) * side + sway * across
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        positions.append(direction * (RADIUS + 0.10 * np.sin(np.pi * t)))
        first, last = generator.uniform(0.2, 1.0, (2, 3))
        colors.append(first + t * (last - first))
    return np.concatenate(positions), np.concatenate(colors)


def paint(points: np.ndarray) -> np.ndarray:
    """The ball's colour at points on it: a wavy check in four colours."""
    x, y, z = points.T / RADIUS
    first = np.sin(7 * x + 2 * np.sin(3 * y)) > 0
    second = np.sin(8 * z + 2 * np.sin(4 * x + y)) > 0
    table = np.array([[[0.85, 0.30, 0.20], [0.95, 0.85, 0.55]], [[0.15, 0.40, 0.70], [0.30, 0.65, 0.35]]])
    return table[first.astype(int), second.astype(int)]


def picture(index: int, count: int, across: int = 6) -> np.ndarray:
    """[h, w, 3]: `across`^2 rays per pixel, the nearest of ball and strands, diffuse light from above."""
    rotation, position = camera_matrix(index, count)
    side = PIXELS * across
    place = ((np.arange(side) + 0.5) / across - 0.5 * PIXELS) / FOCAL
    u, v = np.meshgrid(place, place)
    rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    color, depth = np.zeros((side * side, 3)), np.full(side * side, np.inf)
    light = rotation @ np.array([0.3, 0.2, 0.93])

    def meet(centre: np.ndarray, radius: float, rows: np.ndarray, shade: Any) -> None:
        along = rays[rows] @ centre
        inside = along**2 - centre @ centre + radius**2
        distance = along - np.sqrt(np.maximum(inside, 0))
        won = (inside > 0) & (distance < depth[rows])
        rows, distance = rows[won], distance[won]
        points = rays[rows] * distance[:, None]
        normals = (points - centre) / radius
        depth[rows] = distance
        color[rows] = shade(points) * (0.55 + 0.45 * np.maximum(normals @ light, 0))[:, None]

    middle = -rotation @ position
    meet(middle, RADIUS, np.arange(side * side), lambda points: paint((points - middle) @ rotation))
    for centre, shade in zip(*strands(), strict=True):
        local = rotation @ centre + middle
        reach = FOCAL * across * STRAND / local[2] + 1
        x, y = (FOCAL * local[:2] / local[2] + 0.5 * PIXELS) * across
        columns = np.arange(max(0, int(x - reach)), min(side, int(x + reach) + 1))
        lines = np.arange(max(0, int(y - reach)), min(side, int(y + reach) + 1))
        rows = (lines[:, None] * side + columns[None, :]).ravel()
        meet(local, STRAND, rows, lambda points, shade=shade: np.broadcast_to(shade, points.shape))
    return color.reshape(PIXELS, across, PIXELS, across, 3).mean((1, 3)).clip(0, 1)


def camera(index: int, count: int) -> Camera:
    """Ours, of the same view."""
    rotation, position = camera_matrix(index, count)
    intrinsics = torch.tensor([FOCAL, FOCAL, 0.5 * PIXELS, 0.5 * PIXELS])
    return Camera(
        torch.from_numpy(rotation).float(), torch.from_numpy(-rotation @ position).float(), intrinsics, PIXELS, PIXELS
    )


def every_second(whole: Camera, right: int, down: int) -> Camera:
    """The rays of pixels (right + 2 i, down + 2 j)."""
    fx, fy, cx, cy = whole.intrinsics.tolist()
    middle = [0.5 + 0.5 * (c - offset - 0.5) for c, offset in ((cx, right), (cy, down))]
    intrinsics = torch.tensor([0.5 * fx, 0.5 * fy, *middle])
    return replace(whole, intrinsics=intrinsics, width=whole.width // 2, height=whole.height // 2)


# -- fit --------------------------------------------------------------------------------------------------------------
def start(case: Case) -> Boxes:
    """The boxes before the fit."""
    metadata = {
        "voxels": VOXELS[case.boxes], "step": STEP, "accumulation": "additive", "fade_scale": case.fade,
    }  # fmt: skip
    if case.boxes == 1:
        return Boxes.on_grid(torch.tensor([[-HALF] * 3, [HALF] * 3]), (1, 1, 1), metadata)
    ball = icosphere(4)
    guide = Surface(GUIDE * ball.vertices.float(), ball.faces)
    generator = torch.Generator().manual_seed(case.seed)
    return Boxes.from_surface(guide, case.boxes, generator, {**metadata, "initial_scale": LARGER})


def fit(case: Case, views: list[Camera], pictures: torch.Tensor, iterations: int) -> Boxes:
    """Adam on everything, rates falling to a tenth over the run."""
    boxes = start(case)
    generator = torch.Generator().manual_seed(case.seed)
    moved = {"centres", "quaternions", "log_half_extents"} if not case.frozen else set()
    rates = {**Boxes.default_learning_rates(), **PAYLOAD_RATES}
    rates = {name: rate for name, rate in rates.items() if name in boxes.parameters}
    trained = [name for name in rates if name in moved or name in ("colors", "raw_densities")]
    groups = [{"params": [boxes.parameters[name]], "lr": rates[name]} for name in trained]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / iterations))
    for _ in range(iterations):
        row, right, down = (int(torch.randint(0, most, (), generator=generator)) for most in (len(views), 2, 2))
        frame = render(boxes.drawables(views[row]), every_second(views[row], right, down))
        error = (frame.color - pictures[row, down::2, right::2]).square().mean() / IMAGE_UNIT
        if case.prior > 0 and not case.frozen:
            error = error + case.prior * (boxes.sizes() / HALF).prod(dim=1).sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        falling.step()
    return boxes


@torch.no_grad()
def occupancy(boxes: Boxes, view: Camera) -> float:
    """Of the march steps inside at least one box, on 16 x 16 rays of a view, the share that absorb more than 0.01."""
    place = (torch.arange(16) * 4 + 2.5 - 0.5 * PIXELS) / FOCAL
    v, u = torch.meshgrid(place, place, indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], -1).reshape(-1, 3) @ view.rotation
    rays = torch.nn.functional.normalize(rays, dim=1)
    reach = (torch.arange(int((DISTANCE - 1.4) / STEP), int((DISTANCE + 1.4) / STEP)) + 0.5) * STEP
    points = (view.centre + rays[:, None] * reach[:, None]).reshape(-1, 3)
    inside, depth = torch.zeros(len(points), dtype=torch.bool), torch.zeros(len(points))
    turns, sizes, densities = matrix_from_quaternion(boxes.parameters["quaternions"]), boxes.sizes(), boxes.densities()
    for row in range(len(boxes)):
        local = (points - boxes.parameters["centres"][row]) @ turns[row] / sizes[row]
        hit = torch.nonzero((local.abs() < 1).all(1)).squeeze(1)
        at = local[hit]
        field = densities[row][None, None]
        found = torch.nn.functional.grid_sample(field, at[None, None, None], align_corners=True).flatten()
        window = torch.exp(-float(boxes.metadata["fade_scale"]) * at.abs().pow(8).sum(1))
        inside[hit] = True
        depth[hit] += found * window * STEP
    return float((depth > 0.01).sum() / inside.sum().clamp_min(1))


def run(case: Case, data: tuple[list[Camera], torch.Tensor], iterations: int) -> tuple[dict[str, Any], torch.Tensor]:
    """The figures of one fit, and its held-out pictures."""
    views, pictures = data
    held = [row for row in range(len(views)) if row % 4 == 2]
    kept = [row for row in range(len(views)) if row % 4 != 2]
    begin, wall = time.process_time(), time.perf_counter()
    boxes = fit(case, [views[row] for row in kept], pictures[kept], iterations)
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    with torch.no_grad():
        frames = [render(boxes.drawables(views[row]), views[row]) for row in held]
    drawn = torch.stack([frame.color.clamp(0, 1) for frame in frames])
    scores = -10 * (drawn - pictures[held]).double().square().flatten(1).mean(1).log10()
    return {
        "boxes": len(boxes), "voxels_per_side": VOXELS[case.boxes], "ablation": case.ablation, "seed": case.seed,
        "psnr": float(scores.mean()),
        "lookups_per_ray": sum(frame.visibility.lookups for frame in frames) / (len(frames) * PIXELS**2),
        "occupancy": statistics.fmean(occupancy(boxes, views[row]) for row in held[:2]),
        "volume": float(boxes.volumes().sum()), "volume_at_start": float(start(case).volumes().sum()),
        "cpu_seconds": round(cpu, 2), "wall_seconds": round(wall, 2),
    }, drawn  # fmt: skip


def cases(seeds: int) -> list[Case]:
    """The four sizes for every seed, then the ablations of the first, many boxes before few."""
    found = [Case(count, seed) for seed in range(seeds) for count in VOXELS]
    for count in reversed(VOXELS):
        found += [
            Case(count, 0, "no window", fade=0.0),
            Case(count, 0, "prior 0", prior=0.0),
            Case(count, 0, "prior 0.1", prior=0.1),
            Case(count, 0, "frozen places", frozen=True),
        ]
    return found


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds of every (boxes, ablation)."""
    keys = list(dict.fromkeys((row["boxes"], row["ablation"]) for row in rows))
    numbers = ("psnr", "lookups_per_ray", "occupancy", "volume", "cpu_seconds")
    found = []
    for key in keys:
        same = [row for row in rows if (row["boxes"], row["ablation"]) == key]
        means: dict[str, Any] = {name: statistics.fmean(row[name] for row in same) for name in numbers}
        if len(same) > 1:
            means["psnr_deviation"] = statistics.stdev(row["psnr"] for row in same)
        found.append({"boxes": key[0], "ablation": key[1], "seeds": len(same), **means})
    return found


def figure(pictures: dict[str, np.ndarray], target: Path) -> None:
    """Truth and the four sizes, in two held-out views, with their errors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    drawing, axes = pyplot.subplots(4, len(pictures), figsize=(1.7 * len(pictures), 7.0), squeeze=False)
    truth = pictures["truth"]
    for column, (name, images) in enumerate(pictures.items()):
        axes[0, column].set_title(name, fontsize=8)
        for row, view in enumerate((1, 5)):
            axes[2 * row, column].imshow(images[view])
            axes[2 * row + 1, column].imshow(np.abs(images[view] - truth[view]).mean(-1), vmin=0, vmax=0.3)
    for axis in axes.flat:
        axis.axis("off")
    drawing.tight_layout(pad=0.3)
    drawing.savefig(target, dpi=110)
    Image.open(target).convert("RGB").quantize(256).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="a few iterations of every case: does it run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--out", type=Path, help="folder for boxes.json and boxes.png")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.iterations = 1, 5
    torch.set_num_threads(1)
    set_threads(1)
    count = 8 if arguments.quick else 32
    views = [camera(row, count) for row in range(count)]
    made = np.stack([picture(row, count, 2 if arguments.quick else 6) for row in range(count)])
    pictures = torch.from_numpy(made).float()
    rows: list[dict[str, Any]] = []
    shown = {"truth": pictures[2::4].numpy()}
    report: dict[str, Any] = {"iterations": arguments.iterations, "rays": 1024}
    for case in cases(arguments.seeds):
        row, drawn = run(case, (views, pictures), arguments.iterations)
        rows.append(row)
        if case.ablation == "none" and case.seed == 0 and not arguments.quick:
            shown[f"{case.boxes} x {VOXELS[case.boxes]}^3\n{row['psnr']:.2f} dB"] = drawn.numpy()
        report |= {"summary": summary(rows), "runs": rows}
        if not arguments.json:
            print(json.dumps(row), flush=True)
        if arguments.out:
            (arguments.out / "boxes.json").write_text(json.dumps(report, indent=1) + "\n")
            if len(shown) == len(VOXELS) + 1 and len(rows) == len(VOXELS):
                figure(shown, arguments.out / "boxes.png")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
