"""Every preset trains the built-in scene, small and short: the held-out views become more alike than at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from smalti.configs.resolve import preset_names, resolve
from smalti.trainers.evaluation import evaluate, protocol_for
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL = {
    "data.path": "demo", "data.downscale": 8, "data.points": "hull", "data.sampled_points": 500,
    "data.split": "every:8", "run.stretch": 0.01, "density.pixels_per_primitive": 0, "density.max_primitives": 600,
}  # fmt: skip
LESS = {
    "gaussians": {"gradient.reset_every": 0},  # it takes longer than this to recover from one
    "blocks": {
        "scene.blocks.settings.count": 4,
        "scene.blocks.metadata.texture_size": 16,
        "scene.ground.metadata.texture_size": 32,
        "scene.dome.metadata.texture_size": 32,
        "loss.perceptual_kind": "gradients",
    },
    "boxes": {"metadata.count": 27, "metadata.voxels": 4},
    "meshes": {"settings.faces": 400},
    "mixed": {"scene.surface.settings.faces": 300, "scene.fuzz.settings.count": 200},
    "neural-splats": {"settings.count": 100},
    "superquadrics": {"metadata.count": 6, "metadata.texture_size": 16},
}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_trains_the_demo(name: str, tmp_path: Path) -> None:
    config = resolve(name, {**SMALL, **LESS.get(name, {}), "run.steps": 4000})
    run = Run.create(tmp_path / "run", config)
    trainer = Trainer(run)
    protocol = protocol_for(config.data, trainer.dataset)

    def quality() -> float:
        return evaluate(trainer.scene, trainer.cache, trainer.test_rows, protocol).mean["psnr"]

    before = quality()
    reports = [trainer.step() for _ in range(config.run.steps)]
    assert [report.problems for report in reports if report.problems] == []
    assert quality() > before + 0.5
    trainer.save()
    assert run.load_scene().counts() == trainer.scene.counts()
