"""Part (a) of `bench/blocks.py`: three cuboids, the complete method, its ablations, and three weights of parsimony.

Scene: `bench/blocks_scene.py`; 12 views of 64 x 48, all trained on; aligned by the cameras alone. K = 6 blocks with
textures of 32 x 32, ground and dome of 128 x 128 (with 32 x 32 texels over the whole ground its checks cannot be
painted, and a block under the ground takes their place), 1,500 steps of 2 views, overlap at 1,000 points per block and
colours that do not move blocks, as published; everything else is the preset's. Its perceptual term is a substitute in
closed form (`gradients`) at 6 times LPIPS' weight, on whole pictures: on pictures of this scene, half fitted and
nearly fitted, LPIPS-VGG is 4.8 to 5.9 times as large, 6.7 times on grey.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blocks_measures import (
    block_chamfer,
    counts,
    flat_picture,
    hardened,
    measured_pictures,
    supersampled,
)
from blocks_scene import true_surface, write_capture

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import resolve, validated
from smalti.configs.stretch import stretched
from smalti.scene.scene import Scene
from smalti.testing.chamfer import sampled
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

BLOCKS, TEXTURE, STEPS, VIEWS_PER_STEP = 6, 32, 1500, 2
PERCEPTUAL, PERCEPTUAL_LPIPS = 0.6, 0.1
BACKDROP_TEXTURE = 128
WIDTH, VIEWS = 64, 12
SPACING = 0.02
"""Of the samples of true and fitted surfaces, world units; the cuboids' edges are 0.26 to 0.84 long."""
SHOWN = (2, 7)
"""Views in the figure."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One change of the complete method."""

    name: str
    change: Callable[[Values], None]
    """Of the plain values of its configuration, in place."""


def layers_of(values: Values, family: str = "") -> list[Values]:
    """The configured layers, of one family or all."""
    return [layer for layer in values["scene"] if family in ("", layer["family"])]


def _regularizer(name: str, weight: float, family: str = "superquadrics") -> Callable[[Values], None]:
    def change(values: Values) -> None:
        for layer in layers_of(values, family):
            layer["regularizers"][name] = weight

    return change


def _no_curriculum(values: Values) -> None:
    for layer in layers_of(values):
        layer["metadata"]["pooled_until"] = 0.0


def _no_noise(values: Values) -> None:
    for layer in layers_of(values, "superquadrics"):
        layer["metadata"]["noise"] = 0.0


def _no_variation(values: Values) -> None:
    for layer in layers_of(values):
        layer["regularizers"]["total_variation"] = 0.0


def _no_perceptual(values: Values) -> None:
    values["loss"]["perceptual"] = 0.0


def _lpips(crop: int) -> Callable[[Values], None]:
    """The published term: LPIPS-VGG, at its own weight, in whole pictures or in random squares."""

    def change(values: Values) -> None:
        values["loss"] |= {"perceptual": PERCEPTUAL_LPIPS, "perceptual_kind": "lpips", "perceptual_crop": crop}

    return change


def _colors_move(values: Values) -> None:
    """Not the paper's: what the preset does."""
    for layer in layers_of(values, "superquadrics"):
        layer["metadata"]["detach_barycentrics"] = False


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("complete", lambda values: None),
        Variant("no parsimony", _regularizer("parsimony", 0.0)),
        Variant("no noise", _no_noise),
        Variant("parsimony 0.1", _regularizer("parsimony", 0.1)),
        Variant("parsimony 0.001", _regularizer("parsimony", 0.001)),
        Variant("no overlap", _regularizer("overlap", 0.0)),
        Variant("no curriculum", _no_curriculum),
        Variant("no TV", _no_variation),
        Variant("no perceptual", _no_perceptual),
        Variant("colours move", _colors_move),
    )
}
"""In the order in which they are run: the most telling first."""
LPIPS = {
    variant.name: variant for variant in (Variant("LPIPS", _lpips(0)), Variant("LPIPS in squares of 32", _lpips(32)))
}
"""Where its weights are on the machine; run where they are named, since they take four and two times as long."""
EVERY = VARIANTS | LPIPS
PUBLISHED = {
    "complete": (4.60, 3.63, 20.5), "no parsimony": (8.86, 3.65, 20.6), "no overlap": (4.38, 3.80, 20.4),
    "no curriculum": (4.66, 3.99, 20.4), "no noise": (3.60, 4.13, 20.0), "no TV": (4.04, 4.58, 19.7),
    "no perceptual": (3.22, 4.80, 19.7), "parsimony 0.001": (7.44, 3.61, None), "parsimony 0.1": (1.30, 6.88, None),
}  # fmt: skip
"""(blocks of 10, Chamfer in mm, PSNR): means over ten scans of DTU and five runs of each (Monnier et al. 2023, tables 2
and 3).
"""


def configuration(variant: str, seed: int, folder: Path, steps: int, preset: str = "blocks") -> TrainConfig:
    """The preset with this experiment's size and the variant's change."""
    values = resolve(preset).model_dump()
    values["data"] |= {"path": str(folder), "split": "none", "points": "frustum"}
    values["loss"] |= {"perceptual": PERCEPTUAL, "perceptual_kind": "gradients", "perceptual_every": 1}
    values["loss"]["perceptual_crop"] = 0
    values["schedule"] |= {"batch": VIEWS_PER_STEP, "resolution": []}
    # The preset's schedule is in steps or in shares; the former follow its length.
    values["run"] |= {"seed": seed, "stretch": steps / values["run"]["steps"], "finish": []}
    for layer in layers_of(values):
        layer["metadata"]["texture_size"] = TEXTURE if layer["family"] == "superquadrics" else BACKDROP_TEXTURE
    for layer in layers_of(values, "superquadrics"):
        layer["settings"]["count"] = BLOCKS
        for name in ("overlap_samples", "detach_barycentrics"):
            layer["metadata"].pop(name, None)  # the family's own: as published
    EVERY[variant].change(values)
    return stretched(validated(values, "bench/blocks.py"))


def fingerprint(config: TrainConfig) -> str:
    """Tells configurations apart, wherever their data lie."""
    values = config.model_dump(exclude_defaults=True)
    values["data"]["path"] = ""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def outcome(variant: str, seed: int, work: Path, steps: int) -> dict[str, Any] | None:
    """The figures of one run, from its file where the same configuration was run before; None where it was not."""
    kept = work / f"{variant.replace(' ', '-')}-{seed}.json"
    if not kept.is_file():
        return None
    row = json.loads(kept.read_text())
    return row if row["fingerprint"] == fingerprint(configuration(variant, seed, work / "capture", steps)) else None


def train(variant: str, seed: int, work: Path, steps: int) -> dict[str, Any]:
    """One run and its figures, kept in `work`."""
    write_capture(work / "capture", WIDTH, VIEWS)
    config = configuration(variant, seed, work / "capture", steps)
    name = f"{variant.replace(' ', '-')}-{seed}"
    trainer = Trainer(Run.planned(work / name, config))
    begin, loss = time.process_time(), 0.0
    for _ in range(config.run.steps):
        loss = trainer.step().loss
    seconds = time.process_time() - begin
    truth = sampled(true_surface(), SPACING, torch.Generator().manual_seed(0))
    scene, rows = trainer.scene, trainer.train_rows
    distance = block_chamfer(scene, truth, SPACING)
    pictures = measured_pictures(scene, trainer.cache, rows)
    row = {
        "variant": variant, "seed": seed, "steps": config.run.steps, **counts(scene),
        "chamfer": None if distance is None else distance.mean,
        "accuracy": None if distance is None else distance.accuracy,
        "completeness": None if distance is None else distance.completeness,
        **asdict(pictures), "loss": loss, "cpu_seconds": round(seconds, 1), "fingerprint": fingerprint(config),
    }  # fmt: skip
    keep_pictures(scene, trainer, work / f"{name}.npz")
    trainer.cache.close()
    (work / f"{name}.json").write_text(json.dumps(row))
    return row


def keep_pictures(scene: Scene, trainer: Trainer, target: Path) -> None:
    """Of the views that are shown: truth, hard picture, and the blocks in flat colours over the greyed truth."""
    hard = hardened(scene)
    truths, images, flat = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for place in SHOWN:
        view = trainer.cache.get(trainer.train_rows[place % len(trainer.train_rows)])
        truth = view.image.float() / 255.0
        grey = 0.5 + 0.5 * truth.mean(dim=-1, keepdim=True).expand(-1, -1, 3)
        truths.append(truth.numpy())
        images.append(supersampled(hard, view.camera, torch.zeros(3)).numpy())
        flat.append(flat_picture(scene, view.camera, grey).numpy())
    np.savez_compressed(target, truths=np.stack(truths), images=np.stack(images), flat=np.stack(flat))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over seeds of every variant, in the order of `EVERY`."""
    found: dict[str, Any] = {}
    for name in EVERY:
        same = [row for row in rows if row["variant"] == name]
        if same:
            found[name] = {"seeds": len(same), **{key: _spread(same, key) for key in (
                "blocks", "undecided", "chamfer", "accuracy", "completeness", "psnr", "psnr_of_batches", "ssim",
                "cpu_seconds")}}  # fmt: skip
    return found


def _spread(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    values = [row[key] for row in rows if row[key] is not None]
    return {
        "mean": statistics.fmean(values) if values else None,
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": [row[key] for row in rows],
    }


def claims(found: Mapping[str, Any]) -> dict[str, bool | None]:
    """What section 9 of the paper's retelling expects, each true, false or (where runs are missing) unknown."""

    def mean(name: str, key: str) -> float | None:
        return found[name][key]["mean"] if name in found else None

    def compare(*values: float | None, judge: Callable[..., bool]) -> bool | None:
        return None if any(value is None for value in values) else judge(*values)

    complete, free = (mean(name, "blocks") for name in ("complete", "no parsimony"))
    sweep = [mean(name, "blocks") for name in ("parsimony 0.001", "complete", "parsimony 0.1")]
    order = ("complete", "no overlap", "no curriculum", "no noise", "no TV", "no perceptual")
    return {
        "complete is within one block of three": compare(complete, judge=lambda a: abs(a - 3.0) <= 1.0),
        "fewer blocks than without parsimony": compare(complete, free, judge=lambda a, b: a < b),
        "Chamfer within 10 % of that without parsimony": compare(
            mean("complete", "chamfer"), mean("no parsimony", "chamfer"), judge=lambda a, b: abs(a - b) <= 0.1 * b
        ),
        "blocks fall with the weight of parsimony": compare(*sweep, judge=lambda a, b, c: a > b > c),
        "without noise more blocks are undecided": compare(
            mean("complete", "undecided"), mean("no noise", "undecided"), judge=lambda a, b: a < b
        ),
        "without noise Chamfer is worse": compare(
            mean("complete", "chamfer"), mean("no noise", "chamfer"), judge=lambda a, b: a < b
        ),
        "Chamfer of the ablations in the published order": compare(
            *(mean(name, "chamfer") for name in order), judge=lambda *values: list(values) == sorted(values)
        ),
    }
