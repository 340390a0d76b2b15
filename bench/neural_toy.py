"""How many primitives a sharp solid needs: neural splats against Gaussians that are integrated as exactly.

Part `toy` of `bench/neural_splats.py`. Data: `bench/neural_solids.py`, three solids of one colour on black; 32 views of
64 x 64 pixels to train on, 8 held out, never looked at but for the report.
Models: N = 1 to 64 of
- `neural`: the family `neural_splats`, colour of degree 0, as published but for its rates (below): the field in the
  world's axes, no gradient for rays of negative density. It starts in the publication's mode for toys: offset + 1.
- `gaussian`: `ray_gaussians` by their exact line integral, the peak free: alpha = 1 - exp(-integral). So neither the
  projection nor the compositor differs from the neural ones.
- `ellipsoid`: `neural` without its waves (amplitudes 0, not trained): what the sharp bound does alone.
- `neural-local`, `neural-leak`, `neural-local-leak`: the field in the primitive's own axes; a tenth of the gradient for
  rays of negative density; both.
Alike for all: the compositor (exact order, alpha capped at 0.99), 0.8 L1 + 0.2 (1 - SSIM) without regularisers, Adam
of epsilon 1e-15, one view a step, 3,000 steps, no change of their number, the starting places: the means of N clusters
of points inside the solid, by the seed. Ellipsoids and Gaussians start with the second moments of their cluster's mean
size, and an integral of 2 through the middle. The last state is judged.
Counted: numbers per primitive with colours of degree 3 (99, 59) and as trained, of degree 0 (54, 14).
Expected, by the issue: at the PSNR of 16 Gaussians, neural splats need a third as many primitives at most.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from neural_solids import SOLIDS, Views, points_inside, views_of
from torch import Tensor

from smalti.primitives.family import Family
from smalti.primitives.neural_splats import NeuralSplats
from smalti.primitives.ray_gaussians import RayGaussians
from smalti.primitives.softplus import inverse_softplus
from smalti.renderers.engine import set_threads
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.losses import ImageLossWeights, image_loss, psnr_of
from smalti.trainers.schedules import decay

COUNTS = (1, 2, 4, 8, 16, 32, 64)
STEPS, SEEDS = 3000, (0, 1, 2)
VARIANT_COUNTS = (4, 16)
"""At which the variants are tried."""
SHARED_RATES = {"means": 3.2e-4, "log_scales": 1.0e-2, "quaternions": 2.0e-3, "sh_dc": 5.0e-3}
NETWORK_RATES = {"frequencies": 2.0e-3, "phases": 2.0e-3, "amplitudes": 5.0e-3, "offsets": 5.0e-2}
PEAK_RATE = {"logit_opacities": 5.0e-2}
FINAL = 0.1
"""All rates decay to this share of them."""
NUMBERS = {"neural": (99, 54), "gaussian": (59, 14), "ellipsoid": (59, 14)}
"""Per primitive, with colours of degree 3 and 0."""
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
    def key(self) -> str:
        return f"{self.solid}/{self.model}/{self.count}/{self.seed}"


def all_runs(quick: bool) -> list[Run]:
    """In the order in which they are done: a whole picture of every solid early."""
    if quick:
        return [Run("half torus", model, count, 0) for model in ("neural", "gaussian", "ellipsoid") for count in (1, 2)]
    main = [
        Run(solid, model, count, seed)
        for seed in SEEDS
        for solid in SOLIDS
        for count in COUNTS
        for model in NUMBERS
    ]  # fmt: skip
    variants = [
        Run(solid, model, count, seed)
        for seed in SEEDS
        for solid in SOLIDS
        for count in VARIANT_COUNTS
        for model in ("neural-leak", "neural-local", "neural-local-leak")
    ]
    return [*main[: len(main) // 3], *variants[: len(variants) // 3], *main[len(main) // 3 :],
            *variants[len(variants) // 3 :]]  # fmt: skip


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
    if run.model == "gaussian":
        family: Family = RayGaussians.from_points(positions, colors, {"sh_degree": 0, "response": "integral"})
        depth = inverse_softplus(torch.full((run.count,), DEPTH))
        family.replace({"log_scales": 0.5 * variances.log()[:, None].repeat(1, 3), "logit_opacities": depth})
        return family, {**rates, **PEAK_RATE}
    metadata: dict[str, Any] = {"sh_degree": 0, "initial_offset": 0.5 * DEPTH, "initial_seed": run.seed}
    metadata |= {"frame": "local" if "local" in run.model else "world", "leak": 0.1 if "leak" in run.model else 0.0}
    family = NeuralSplats.from_points(positions, colors, metadata)
    family.replace({"log_scales": 0.5 * (BALL * variances).log()[:, None].repeat(1, 3)})
    rates |= NETWORK_RATES
    if run.model == "ellipsoid":
        family.replace({"amplitudes": torch.zeros_like(family.parameters["amplitudes"]),
                        "offsets": torch.full((run.count,), 0.5 * DEPTH)})  # fmt: skip
        rates |= {"amplitudes": 0.0, "frequencies": 0.0, "phases": 0.0}
    return family, rates


def train(run: Run, views: Views, steps: int) -> tuple[Family, float]:
    """The family after `steps`, and the mean loss of the last pass over the views."""
    family, rates = start(run)
    adam, generator = Adam(AdamSettings()), torch.Generator().manual_seed(run.seed)
    order, losses = torch.zeros(0, dtype=torch.int64), []
    for step in range(steps):
        if len(order) == 0:
            order = torch.randperm(len(views.cameras), generator=generator)
        row, order = int(order[0]), order[1:]
        for parameter in family.parameters.values():
            parameter.grad = None
        loss = image_loss(drawn(family, views.cameras[row]), views.pictures[row], None, ImageLossWeights(0.2))
        loss.backward()
        share = decay(step, steps, FINAL)
        adam.step(family.parameters, {name: share * rate for name, rate in rates.items()})
        losses.append(float(loss.detach()))
    return family, statistics.fmean(losses[-len(views.cameras) :])


def drawn(family: Family, camera: Any) -> Tensor:
    """The picture over black."""
    return render(list(family.drawables(camera)), camera, settings=RenderSettings(order="ray")).color


def judged(run: Run, views: Views, steps: int) -> dict[str, Any]:
    """Trains, and looks at the held-out views once."""
    begin = time.process_time()
    family, loss = train(run, views, steps)
    seconds = time.process_time() - begin
    with torch.no_grad():
        pictures = [drawn(family, camera) for camera in views.held_cameras]
    quality = [psnr_of(found, truth) for found, truth in zip(pictures, views.held_pictures, strict=True)]
    strip = [(255 * picture.clamp(0, 1)).byte().tolist() for picture in pictures[:2]]
    return {"psnr": statistics.fmean(quality), "training_loss": loss, "cpu_seconds": round(seconds, 2),
            "pictures": strip}  # fmt: skip


def gather(cache: Path, seconds: float, quick: bool = False) -> dict[str, Any]:
    """All runs that the cache folder holds, and as many more as begin within `seconds`: one JSON file per run."""
    torch.set_num_threads(1)
    set_threads(1)
    cache.mkdir(parents=True, exist_ok=True)
    begin, held, found = time.monotonic(), dict[str, Views](), dict[str, Any]()
    steps = 60 if quick else STEPS
    for run in all_runs(quick):
        kept = cache / f"{run.key.replace('/', '-').replace(' ', '_')}.json"
        if kept.is_file():
            found[run.key] = json.loads(kept.read_text())
        elif time.monotonic() - begin < seconds:
            if run.solid not in held:
                held[run.solid] = views_of(run.solid, *((8, 2, 32) if quick else (32, 8, 64)))
            found[run.key] = judged(run, held[run.solid], steps)
            kept.write_text(json.dumps(found[run.key]))
    return found
