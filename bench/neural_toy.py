"""How many primitives a sharp solid needs: neural splats against Gaussians that are integrated as exactly.

Part `toy` of `bench/neural_splats.py`. Data: `bench/neural_solids.py`, three solids of one colour on black; 32 views of
64 x 64 pixels to train on, 8 held out, never looked at but for the report.
Models: N = 1 to 64 of
- `neural`: the family `neural_splats`, colour of degree 0, as published but for its rates (below): the field in the
  world's axes, no gradient for rays of negative density. It starts in the publication's mode for toys: offset + 1.
- `gaussian`: `ray_gaussians` by their exact line integral, the peak free: alpha = 1 - exp(-integral). So neither the
  projection nor the compositor differs from the neural ones. Besides: as many as have the parameters of 1, 4 and 16
  neural splats, colours of degree 3.
- `ellipsoid`: `neural` without its waves (amplitudes 0, not trained): what the sharp bound does alone.
Variants, of 8: `neural-local`, `neural-leak`, `neural-local-leak`: the field in the primitive's own axes; a tenth of
the gradient for rays of negative density; both. `neural-published`: all rates as published.
Seed 0; and two more where the expectation below is decided: 4 and 8 neural splats, 16 Gaussians.
Alike for all: the compositor (exact order, alpha capped at 0.99), 0.8 L1 + 0.2 (1 - SSIM) without regularisers, Adam
of epsilon 1e-15, one view a step, 3,000 steps with rates that rise over the first tenth (without that all models of one
primitive, and two Gaussians, turned black at once and stayed so), no change of their number, the starting places: the
means of N clusters of points inside the solid, by the seed. Ellipsoids and Gaussians start as balls with the second
moments of their cluster, and an integral of 2 through the middle. The last state is judged, drawn as it was trained
(`psnr`), and besides by the mean of 4 x 4 rays a pixel, as the truth is made (`psnr_fine`).
Rates were chosen by the training loss of 8 primitives on the crescent leaf, seed 0, for each model apart: of 16 trials
for Gaussians (rates of the peak from 0.05 to 10, the others halved to threefold, constant and falling), 17 for neural
splats (the network's from once to sixfold, the others once to tenfold, constant and falling), 6 for ellipsoids.
Counted: numbers per primitive with colours of degree 3 (99, 59) and as trained, of degree 0 (54, 14).
Expected, by the issue: at the PSNR of 16 Gaussians, neural splats need a third as many primitives at most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neural_solids import SOLIDS, Views, points_inside, views_of
from neural_toy_report import MEASURES, NUMBERS, curves_of, equal_numbers, rows_of, sixteen_gaussians
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import Family
from smalti.primitives.neural_splats import NeuralSplats
from smalti.primitives.ray_gaussians import RayGaussians
from smalti.primitives.softplus import inverse_softplus
from smalti.renderers.engine import set_threads
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.losses import ImageLossWeights, image_loss, psnr_of
from smalti.trainers.schedules import decay, warm_up

COUNTS = (1, 2, 4, 8, 16, 32, 64)
STEPS, SEEDS = 3000, (0, 1, 2)
VARIANT_COUNT = 8
"""At which the variants are tried."""
SHARED_RATES = {"means": 3.2e-4, "log_scales": 1.0e-2, "quaternions": 2.0e-3, "sh_dc": 5.0e-3}
NETWORK_RATES = {"frequencies": 6.0e-3, "phases": 6.0e-3, "amplitudes": 1.5e-2, "offsets": 0.15}
PEAK_RATE = {"logit_opacities": 3.0}
PUBLISHED_RATES = {
    "means": 1.6e-4, "log_scales": 5.0e-3, "quaternions": 1.0e-3, "sh_dc": 2.5e-3, "frequencies": 1.0e-3,
    "phases": 1.0e-3, "amplitudes": 1.0e-3, "offsets": 1.0e-3,
}  # fmt: skip
FINAL = 0.1
"""All rates of neural splats and ellipsoids decay to this share; those of Gaussians, and published ones, stay."""
WARM_UP = 0.1
"""Share of the steps over which all rates rise from 0."""
EQUAL = {1: 1, 4: 6, 16: 26}
"""Neural splats -> Gaussians with no more numbers than they, colours of degree 3."""
VARIANTS = ("neural-leak", "neural-local", "neural-local-leak", "neural-published")
REPEATED = (("neural", 4), ("neural", 8), ("gaussian", 16))
"""What decides about the expectation, and is done with seeds beyond the first."""
RAYS = 4
"""Per pixel and direction, where a held-out view is drawn as finely as the truth."""
BALL, DEPTH = 5.0, 2.0
"""Squared radius of a full ball over its variance along an axis; optical depth through the middle at the start."""


@dataclass(frozen=True)
class Run:
    """One training."""

    solid: str
    model: str
    count: int
    seed: int

    @property
    def group(self) -> tuple[str, str, int]:
        """All but the seed."""
        return self.solid, self.model, self.count

    def file(self, cache: Path) -> Path:
        """Where its figures are kept."""
        return cache / f"{self.solid}-{self.model}-{self.count}-{self.seed}.json".replace(" ", "_")


def all_runs(quick: bool) -> list[Run]:
    """In the order in which they are done: a whole picture of every solid early."""
    if quick:
        return [Run("half torus", model, count, 0) for model in NUMBERS for count in (1, 2)]
    counts = sorted({*COUNTS, *EQUAL.values()})
    runs = [
        Run(solid, model, count, 0)
        for solid in SOLIDS
        for count in counts
        for model in NUMBERS
        if count in COUNTS or model == "gaussian"
    ]
    runs += [Run(solid, model, VARIANT_COUNT, 0) for solid, model in product(SOLIDS, VARIANTS)]
    again = product(SEEDS[1:], SOLIDS, REPEATED)
    return runs + [Run(solid, model, count, seed) for seed, solid, (model, count) in again]


def clusters(solid: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places [n, 3], and variances [n] along an axis, of `count` clusters of points inside the solid (Lloyd)."""
    points = points_inside(solid, 2000, seed)
    centres = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:count]]
    for _ in range(20):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        centres = torch.stack([points[nearest == row].mean(dim=0) for row in range(count)])
    nearest = torch.cdist(points, centres).argmin(dim=1)
    spread = [(points[nearest == row] - centres[row]).square().mean() for row in range(count)]
    return centres, torch.stack(spread)


def start(run: Run) -> tuple[Family, dict[str, float]]:
    """The primitives of a run, and their rates."""
    positions, variances = clusters(run.solid, run.count, run.seed)
    colors = torch.full_like(positions, 0.5)
    rates = dict(SHARED_RATES)
    if run.model.startswith("gaussian"):
        family: Family = RayGaussians.from_points(positions, colors, {"sh_degree": 0, "response": "integral"})
        depth = inverse_softplus(torch.full((run.count,), DEPTH))
        family.replace({"log_scales": 0.5 * variances.log()[:, None].repeat(1, 3), "logit_opacities": depth})
        return family, {**rates, **PEAK_RATE}
    metadata: dict[str, Any] = {"sh_degree": 0, "initial_offset": 0.5 * DEPTH, "initial_seed": run.seed}
    metadata |= {"frame": "local" if "local" in run.model else "world", "leak": 0.1 if "leak" in run.model else 0.0}
    family = NeuralSplats.from_points(positions, colors, metadata)
    family.replace({"log_scales": 0.5 * (BALL * variances).log()[:, None].repeat(1, 3)})
    rates = dict(PUBLISHED_RATES) if run.model == "neural-published" else rates | NETWORK_RATES
    if run.model == "ellipsoid":
        family.replace({"amplitudes": torch.zeros_like(family.parameters["amplitudes"]),
                        "offsets": torch.full((run.count,), 0.5 * DEPTH)})  # fmt: skip
        rates |= {"amplitudes": 0.0, "frequencies": 0.0, "phases": 0.0}
    return family, rates


def train(run: Run, views: Views, steps: int) -> tuple[Family, float]:
    """The family after `steps`, and the mean loss of the last pass over the views."""
    family, rates = start(run)
    adam, generator = Adam(AdamSettings()), torch.Generator().manual_seed(run.seed)
    final = 1.0 if run.model.startswith("gaussian") or run.model == "neural-published" else FINAL
    order, losses = torch.zeros(0, dtype=torch.int64), []
    for step in range(steps):
        if len(order) == 0:
            order = torch.randperm(len(views.cameras), generator=generator)
        row, order = int(order[0]), order[1:]
        for parameter in family.parameters.values():
            parameter.grad = None
        loss = image_loss(drawn(family, views.cameras[row]), views.pictures[row], None, ImageLossWeights(0.2))
        loss.backward()
        share = decay(step, steps, final) * warm_up(step, int(WARM_UP * steps))
        adam.step(family.parameters, {name: share * rate for name, rate in rates.items()})
        losses.append(float(loss.detach()))
    return family, statistics.fmean(losses[-len(views.cameras) :])


def drawn(family: Family, camera: Camera) -> Tensor:
    """The picture over black."""
    return render(list(family.drawables(camera)), camera, settings=RenderSettings(order="ray")).color


def averaged(family: Family, camera: Camera, rays: int) -> Tensor:
    """The picture by the mean of `rays` x `rays` rays a pixel."""
    fine = drawn(family, camera.scaled_to(rays * camera.width, rays * camera.height))
    return fine.reshape(camera.height, rays, camera.width, rays, 3).mean(dim=(1, 3))


def judged(run: Run, views: Views, steps: int, file: Path) -> dict[str, float]:
    """Trains, looks at the held-out views once, and keeps two of them beside."""
    begin = time.process_time()
    family, loss = train(run, views, steps)
    seconds = time.process_time() - begin
    with torch.no_grad():
        pictures = [drawn(family, camera) for camera in views.held_cameras]
        fine = [averaged(family, camera, RAYS) for camera in views.held_cameras]
    quality, fine_quality = (
        [psnr_of(found, truth) for found, truth in zip(each, views.held_pictures, strict=True)]
        for each in (pictures, fine)
    )
    np.save(file.with_suffix(".npy"), torch.stack(pictures[:2]).numpy())
    return {
        "psnr": statistics.fmean(quality),
        "psnr_fine": statistics.fmean(fine_quality),
        "training_loss": loss,
        "cpu_seconds": round(seconds, 2),
    }


def gather(cache: Path, seconds: float, quick: bool = False) -> dict[Run, dict[str, float]]:
    """All runs that the cache folder holds, and as many more as begin within `seconds`: one JSON file per run."""
    torch.set_num_threads(1)
    set_threads(1)
    cache.mkdir(parents=True, exist_ok=True)
    begin, held, found = time.monotonic(), dict[str, Views](), dict[Run, dict[str, float]]()
    for run in all_runs(quick):
        kept = run.file(cache)
        if kept.is_file():
            found[run] = json.loads(kept.read_text())
        elif time.monotonic() - begin < seconds:
            if run.solid not in held:
                held[run.solid] = views_of(run.solid, *((8, 2, 32) if quick else (32, 8, 64)))
            found[run] = judged(run, held[run.solid], 60 if quick else STEPS, kept)
            kept.write_text(json.dumps(found[run]))
    set_threads(0)
    return found


# ---------------------------------------------------------------- what is reported
def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Mean and range over the seeds, the criterion, and equal numbers of parameters; the figures."""
    runs = gather(arguments.cache, arguments.seconds, arguments.quick)
    rows = rows_of((run.group, values) for run, values in runs.items())
    curves = {measure: curves_of(rows, measure) for measure in MEASURES}
    found: dict[str, Any] = {
        "steps": 60 if arguments.quick else STEPS, "missing_runs": len(all_runs(arguments.quick)) - len(runs),
        "rows": rows,
        "sixteen_gaussians": [row for measure in MEASURES for row in sixteen_gaussians(curves[measure], measure)],
        "equal_numbers": [row for measure in MEASURES for row in equal_numbers(curves[measure], EQUAL, measure)],
    }  # fmt: skip
    if arguments.out:
        from neural_toy_figure import draw_curves, draw_pictures

        draw_curves(curves, arguments.out / "neural-toy.png")
        draw_pictures(runs, arguments.cache, arguments.out / "neural-toy-pictures.png", arguments.quick)
    return found
