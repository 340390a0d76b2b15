"""Real captures of `bench/blocks.py`: finished runs are reported seed by seed, and drawn."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blocks_figures import capture_figure
from blocks_measures import counts, flat_picture, hardened, measured_pictures, supersampled

from smalti.configs.config import parse_bytes
from smalti.datasets.images import ImageCache
from smalti.scene.scene import Scene
from smalti.trainers.perceptual import KINDS
from smalti.trainers.run import Run
from smalti.trainers.seeds import Seeds, chosen_run, is_seeds
from smalti.trainers.views import stated_background

PUBLISHED_SCANS = {
    "psnr_of_batches": 20.5, "ssim": 0.735, "lpips_vgg": 0.239, "blocks": 4.6, "of": 10,
    "what": "mean of ten DTU scans, 400 x 300",
}  # fmt: skip
SHOWN = 4
"""Views of a capture in its figure, spread over all."""
COMPARED = 3
"""Views in the figure that compares runs."""
SPREAD = ("blocks", "undecided", "psnr", "psnr_of_batches", "ssim", "lpips_vgg", "cpu_seconds", "wall_seconds")
"""What of several seeds is given as mean and deviation."""


def capture(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """The figures of one run on real pictures, or of several seeds; the picture is of the one with the lowest loss."""
    folder: Path = arguments.run[0]
    if not arguments.collect and not finished(folder):
        trained(arguments, folder, arguments.seeds if arguments.part == "dtu" else 0)
    rows = [measured(Run.open(path)) for path in paths_of(folder)]
    shown = Run.open(chosen_run(folder))
    if arguments.out:
        with Drawn(shown) as drawn:
            views = drawn.spread(SHOWN)
            columns = [{"as drawn": drawn.picture(row), "its blocks": drawn.flat(row)} for row in views]
            capture_figure(columns, [drawn.title(row) for row in views], arguments.out / f"blocks-{name}.jpg")
    losses = training_losses(folder)
    return {
        **of_all(shown), "shown": shown.config.run.seed, "seeds": summary(rows),
        "runs": [{**row, "training_loss": losses.get(row["seed"])} for row in rows],
        **({"published": PUBLISHED_SCANS} if arguments.part == "dtu" else {}),
    }  # fmt: skip


def compared(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs that differ in their perceptual term, side by side."""
    runs = [Run.open(path) for path in arguments.run]
    rows = [{**measured(run), "loss": term_of(run)} for run in runs]
    if arguments.out:
        drawings = [Drawn(run) for run in runs]
        views = drawings[0].spread(COMPARED)
        columns: list[Mapping[str, np.ndarray]] = []
        for view in views:
            column: dict[str, np.ndarray] = {}
            for drawn, row in zip(drawings, rows, strict=True):
                name = str(row["perceptual"])
                column[name] = drawn.picture(view)
                column[f"{name}: its blocks"] = drawn.flat(view)
            columns.append(column)
        capture_figure(columns, [drawings[0].title(row) for row in views], arguments.out / "blocks-perceptual.jpg")
        for drawn in drawings:
            drawn.close()
    return {**of_all(runs[0]), "runs": rows}


class Drawn:
    """A finished run as it is judged: hard edges, blocks above one half."""

    def __init__(self, run: Run) -> None:
        self.scene, self.cache, self.rows, background = opened(run)
        self.hard, self.background = hardened(self.scene), torch.tensor(background)

    def __enter__(self) -> Drawn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Its pictures are not needed any more."""
        self.cache.close()

    def spread(self, count: int) -> list[int]:
        """So many training views, spread over all."""
        return [self.rows[place * len(self.rows) // count] for place in range(count)]

    def title(self, row: int) -> str:
        """Name of a view."""
        return self.cache.get(row).camera.name

    def picture(self, row: int) -> np.ndarray:
        """As drawn."""
        return supersampled(self.hard, self.cache.get(row).camera, self.background).numpy()

    def flat(self, row: int) -> np.ndarray:
        """Its blocks in flat colours, over what is drawn in grey."""
        drawn = torch.from_numpy(self.picture(row))
        grey = 0.35 + 0.65 * drawn.mean(dim=-1, keepdim=True).expand(-1, -1, 3)
        return flat_picture(self.scene, self.cache.get(row).camera, grey).numpy()


def opened(run: Run) -> tuple[Scene, ImageCache, list[int], tuple[float, float, float]]:
    """(scene, pictures, training rows, background)"""
    dataset, data = run.dataset(), run.config.data
    cache = ImageCache(dataset, downscale=data.downscale, bytes=parse_bytes(data.cache))
    return run.load_scene(), cache, run.split(dataset)[0], stated_background(dataset, data.background) or (0, 0, 0)


def measured(run: Run) -> dict[str, Any]:
    """One run: its blocks, its training pictures, its time."""
    scene, cache, rows, background = opened(run)
    pictures = measured_pictures(scene, cache, rows, background, with_lpips=KINDS["lpips"].is_here())
    cache.close()
    records = [record for record in run.metrics() if record["kind"] == "train"]
    last = records[-1] if records else {}
    return {
        "seed": run.config.run.seed, "step": run.latest_step(), **counts(scene), **asdict(pictures),
        **{key: last.get(key) for key in ("perceptual", "cpu_seconds", "wall_seconds")},
    }  # fmt: skip


def of_all(run: Run) -> dict[str, Any]:
    """What the seeds have in common."""
    dataset = run.dataset()
    rows, held = run.split(dataset)
    with ImageCache(dataset, downscale=run.config.data.downscale) as cache:
        camera = cache.camera(rows[0])
    return {
        "data": dataset.root.name, "width": camera.width, "height": camera.height, "views": len(rows),
        "held_out": len(held), "steps": run.config.run.steps, "batch": run.config.schedule.batch,
    }  # fmt: skip


def term_of(run: Run) -> dict[str, Any]:
    """How the perceptual term was configured."""
    loss = run.config.loss
    return {
        "weight": loss.perceptual, "kind": loss.perceptual_kind, "every": loss.perceptual_every,
        "crop": loss.perceptual_crop,
    }  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over the runs, of what all of them have."""
    found: dict[str, Any] = {}
    for key in SPREAD:
        values = [row[key] for row in rows]
        if None not in values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[key] = {"mean": statistics.fmean(values), "deviation": deviation}
    return found


def paths_of(folder: Path) -> list[Path]:
    """The run folders: those of a folder of several seeds that are finished, or the one itself."""
    if not is_seeds(folder):
        return [folder]
    seeds = Seeds.open(folder)
    return [seeds.run_path(seed) for seed in seeds.seeds if seed.status == "finished"]


def training_losses(folder: Path) -> dict[int, float | None]:
    """Seed -> what the best is chosen by."""
    return {each.seed: each.training_loss for each in Seeds.open(folder).seeds} if is_seeds(folder) else {}


def finished(folder: Path) -> bool:
    """Whether a run is there and has come to its end; of several seeds, all of them."""
    if is_seeds(folder):
        return all(seed.is_done for seed in Seeds.open(folder).seeds)
    if not (folder / "config.yaml").is_file():
        return False
    run = Run.open(folder)
    return bool(run.steps()) and run.latest_step() >= run.config.run.steps


def trained(arguments: argparse.Namespace, folder: Path, seeds: int) -> None:
    """Start the run, or `seeds` of them, or go on with it; SystemExit where it does not end well."""
    from smalti.cli.main import main as smalti

    if (folder / "config.yaml").is_file():
        words = ["train", "--resume", str(folder)]
    else:
        words = ["train", arguments.preset, "--data", str(arguments.data), "--out", str(folder)]
        words += ["--data.split", "none", *(["--seeds", str(seeds)] if seeds else [])]
        words += [word for each in arguments.set for word in ("--set", each)]
    code = smalti(words)
    if code:
        raise SystemExit(code)
    if not finished(folder):
        raise SystemExit(f"blocks: {folder} is not at its end yet; give the same command again")
