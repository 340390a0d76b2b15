"""Forms of the neural splats on a capture: the published one and ours, the field's axes, rays of negative density.

Part `forms` of `bench/neural_splats.py`. Data: `chair_blender` at an eighth of its size (100 x 100), over black as
published for synthetic captures; 100 training views, 13 held out, looked at once, at the end.
`ours`: preset `neural-splats`. `published`: preset `neural-splats-paper`, in its form for a fixed number: no growth.
Of either the field in the world's or in the primitive's own axes, and a gradient of 0 or a tenth for rays of negative
density. 500 primitives on the visual hull; `published, growing`: a quarter of these, and growth by the networks'
gradients, with the thresholds of the synthetic captures, until there are as many. 1,000 steps: a quarter of ours, a
hundredth of the published length. `run.stretch` makes the schedules so short; rates stay; growth comes every 20 steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch

from smalti.configs.resolve import resolve
from smalti.renderers.engine import set_threads
from smalti.trainers.evaluation import evaluate, protocol_for
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

SEEDS, COUNT, STEPS = (0,), 500, 1000
LENGTHS = {"neural-splats": 4000, "neural-splats-paper": 100_000}
FIXED: dict[str, Any] = {"density.max_primitives": COUNT}
GROWING: dict[str, Any] = {
    "density.start": 1200, "density.stop": 19_800, "density.every": 20, "gradient.threshold": 1e-5,
    "gradient.prune_pull": 1e-6, "density.max_primitives": COUNT,
}  # fmt: skip
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("neural-splats", FIXED),
    "ours, no leak": ("neural-splats", {**FIXED, "metadata.leak": 0.0}),
    "ours, own axes": ("neural-splats", {**FIXED, "metadata.frame": "local"}),
    "ours, own axes, no leak": ("neural-splats", {**FIXED, "metadata.frame": "local", "metadata.leak": 0.0}),
    "published": ("neural-splats-paper", {"density.rule": "none"}),
    "published, leak": ("neural-splats-paper", {"density.rule": "none", "metadata.leak": 0.1}),
    "published, own axes": ("neural-splats-paper", {"density.rule": "none", "metadata.frame": "local"}),
    "published, growing": ("neural-splats-paper", GROWING),
}
"""Preset and what is changed."""


def train(form: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run; the last state on the held-out views."""
    preset, changes = FORMS[form]
    steps, count = (30, 60) if arguments.quick else (STEPS, COUNT)
    options: dict[str, Any] = {
        "data.path": "demo" if arguments.quick else str(arguments.data / "chair_blender"), "data.downscale": 8,
        "data.background": "black", "data.points": "frustum" if arguments.quick else "hull",
        "data.sampled_points": 10 * count,
        "settings.count": count // 4 if changes is GROWING else count, "run.seed": seed,
        "run.stretch": steps / LENGTHS[preset], **changes,
    }  # fmt: skip
    if arguments.quick and changes is GROWING:
        options["density.every"] = 2
    config = resolve(preset, options)
    trainer = Trainer(Run.planned(arguments.cache / "run", config))
    begin = time.process_time()
    for _ in range(steps):
        trainer.step()
    seconds = time.process_time() - begin
    found = evaluate(trainer.scene, trainer.cache, trainer.test_rows, protocol_for(config.data, trainer.dataset))
    (family,) = [layer.family for layer in trainer.scene]
    return {"psnr": found.mean["psnr"], "ssim": found.mean["ssim"], "primitives": len(family),
            "bytes": family.bytes, "cpu_seconds": round(seconds, 1)}  # fmt: skip


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Mean and range over the seeds of every form whose runs are there."""
    torch.set_num_threads(1)
    set_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    begin, found = time.monotonic(), dict[str, list[dict[str, Any]]]()
    for seed, form in product(SEEDS[:1] if arguments.quick else SEEDS, FORMS):
        kept = Path(arguments.cache) / f"{form}-{seed}.json".replace(" ", "_").replace(",", "")
        if not kept.is_file() and time.monotonic() - begin < arguments.seconds:
            kept.write_text(json.dumps(train(form, seed, arguments)))
        if kept.is_file():
            found.setdefault(form, []).append(json.loads(kept.read_text()))
    rows = [
        {
            "form": form, "seeds": len(runs),
            **{name: round(statistics.fmean(run[name] for run in runs), 3) for name in runs[0]},
            "psnr_range": [round(end(run["psnr"] for run in runs), 3) for end in (min, max)],
        }
        for form, runs in found.items()
    ]  # fmt: skip
    return {"steps": 30 if arguments.quick else STEPS, "rows": rows}
