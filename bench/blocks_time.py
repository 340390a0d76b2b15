"""Part (d) of `bench/blocks.py`: what a step of the preset `blocks` is made of, in processor milliseconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from timing import cpu_milliseconds
from torch import Tensor

from smalti.configs.resolve import full_name, parse_value, resolve
from smalti.renderers.render import render
from smalti.trainers.losses import family_loss, image_loss
from smalti.trainers.perceptual import KINDS
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer
from smalti.trainers.views import TrainingView

WARM = 10
"""Steps before the first measurement."""


def times(data: Path | None, run: Path | None, options: Sequence[str], repeats: int) -> dict[str, Any]:
    """Milliseconds per step by part, at the start of a run on `data`; where a finished `run` is given, also with its
    blocks, hard and decided.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if run is None:
            changes = {
                full_name(name): parse_value(text) for name, _, text in (each.partition("=") for each in options)
            }
            config = resolve("blocks", {"data.path": str(data), "data.split": "none", **changes})
            trainer = Trainer(Run.planned(Path(folder) / "run", config))
        else:
            values = Run.open(run).config
            trainer = Trainer(Run.planned(Path(folder) / "run", values))
        found["start"] = of_trainer(trainer, 0.0, repeats)
        if run is not None:
            ended = Trainer(Run.open(run), resume=True)
            found["end"] = of_trainer(ended, 0.999, repeats)
    config = trainer.config
    found |= {"steps": config.run.steps, "batch": config.schedule.batch, "threads": torch.get_num_threads()}
    view = trainer.source.get(0, 1, trainer.generator, trainer.device)
    found |= {"width": view.camera.width, "height": view.camera.height, "views": len(trainer.source)}
    steps = [found[name]["whole step"] for name in ("start", "end") if name in found]
    found["cpu_minutes_of_a_run_at_this_pace"] = round(max(steps) * config.run.steps / 60_000, 1)
    return found


def of_trainer(trainer: Trainer, share: float, repeats: int) -> dict[str, Any]:
    """By part, with the families as they are when `share` of the run is over; `whole step` is `Trainer.step`."""
    whole = 0.0
    if share == 0.0:
        for _ in range(WARM):
            trainer.step()
        whole = cpu_milliseconds({"step": trainer.step}, max(3 * repeats, 5))["step"]
    for layer in trainer.scene:
        layer.family.begin_step(share, trainer.generator)
    view = trainer.source.get(0, 1, trainer.generator, trainer.device)
    jobs, batch = jobs_of(trainer, view, repeats > 2), trainer.config.schedule.batch
    one = cpu_milliseconds(jobs, repeats)
    for layer in trainer.scene:
        layer.family.end_step()
    parts = {
        "drawables": batch * one["drawables"],
        "render": batch * (one["render"] - one["drawables"]),
        "backward of these": batch * (one["backward"] - one["render"]),
        "pixels": batch * one["pixels"],
        "regularizers": one["regularizers"],
    }
    if "perceptual" in one:
        parts["perceptual, where it is evaluated"] = batch * one["perceptual"]
    if "lpips" in one:
        parts["for comparison: LPIPS-VGG of whole pictures"] = batch * one["lpips"]
    if whole:
        parts["whole step"] = whole
    return {name: round(value, 2) for name, value in parts.items()}


def jobs_of(trainer: Trainer, view: TrainingView, compared: bool) -> dict[str, Callable[[], object]]:
    """What is timed, for one view; every job but the first two also differentiates. `compared`: LPIPS too, where its
    weights are.
    """
    scene, camera, options = trainer.scene, view.camera, trainer.options
    shown = torch.rand(camera.height, camera.width, 3, generator=torch.Generator().manual_seed(0))

    def draw() -> Tensor:
        return render(scene.drawables(camera), camera, background=view.background, settings=scene.settings()).color

    def pixels() -> None:
        image_loss(shown.clone().requires_grad_(), view.target, view.mask, options.image).backward()

    def regularizers() -> None:
        for layer in scene:
            loss = family_loss(layer.family, options.weights.get(layer.name, {}), options.context)  # pyright: ignore[reportArgumentType]
            differentiated(loss)

    jobs: dict[str, Callable[[], object]] = {
        "drawables": lambda: scene.drawables(camera),
        "render": draw,
        "backward": lambda: draw().backward(shown),
        "pixels": pixels,
        "regularizers": regularizers,
    }
    term = options.perceptual
    if term is not None:
        jobs["perceptual"] = lambda: differentiated(term(shown.clone().requires_grad_(), view.target, view.mask, 0))
    if compared and KINDS["lpips"].is_here():
        lpips = KINDS["lpips"].make()
        jobs["lpips"] = lambda: differentiated(lpips(shown.clone().requires_grad_(), view.target, view.mask))
    return jobs


def differentiated(loss: Tensor | None) -> None:
    """Nothing, where there is nothing."""
    if loss is not None and loss.requires_grad:
        loss.backward()
