"""The preset `blocks`, cut anywhere in its curriculum, ends in the same bytes; and a scene in which no block is left
is a scene like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.cli.main import main
from smalti.configs.resolve import resolve
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene.scene import Scene
from smalti.trainers import loop
from smalti.trainers.display import PlainDisplay
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    **{"data.path": "demo", "data.downscale": 16, "data.split": "none", "data.points": "hull"},
    **{"data.sampled_points": 200, "run.stretch": 0.002, "run.finish": [], "run.preview_every": 1000},
    **{f"scene.{name}.metadata.texture_size": 8 for name in ("blocks", "ground", "dome")},
    **{"scene.blocks.settings.count": 3, "loss.perceptual_kind": "gradients", "run.keep": 9},
}


def blocks_of(scene: Scene) -> Superquadrics:
    family = scene.layers["blocks"].family
    assert isinstance(family, Superquadrics)
    return family


@pytest.mark.parametrize("batch", [1, 2])
def test_wherever_it_is_cut_it_ends_in_the_same_bytes(batch: int, tmp_path: Path) -> None:
    """While textures are coarse, while opacities are noisy, once blocks are opaque."""
    config = resolve("blocks", {**SMALL, "schedule.batch": batch, "run.checkpoint_every": 3})
    run = Run.create(tmp_path / "run", config)
    loop.train(Trainer(run), PlainDisplay(seconds=99))
    end = run.path / f"checkpoints/{config.run.steps:06d}"

    def held() -> list[bytes]:
        return [(end / f"{name}.safetensors").read_bytes() for name in ("scene", "trainer")]

    wanted, steps = held(), run.steps()
    assert {3, 9, 18} < set(steps)
    for step in (3, 9, 18):
        trainer = Trainer(run, resume=True)
        trainer.load(step)
        assert blocks_of(trainer.scene).metadata["binary"] == (step > 16)
        loop.train(trainer, PlainDisplay(seconds=99))
        assert held() == wanted, step


def test_a_scene_whose_blocks_have_all_died_trains_on_and_is_read_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish = ["evaluation", "export", "parts", "turntable", "exploded", "flat"]
    config = resolve("blocks", {**SMALL, "run.finish": finish})
    run = Run.planned(tmp_path / "run", config)
    trainer = Trainer(run)
    dying = blocks_of(trainer.scene).parameters["logit_opacities"]
    dying.data[:] = -6.0
    before = {key: value.detach().clone() for key, value in blocks_of(trainer.scene).parameters.items()}
    for _ in range(3):
        assert trainer.step().problems == []
    for key, value in blocks_of(trainer.scene).parameters.items():
        assert torch.equal(value, before[key]), key
    run.begin()
    trainer.save()
    assert main(["train", "--resume", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert said.count("not made: the scene has no separate parts. 'blocks': none of its 3 blocks is drawn") == 4
    assert Scene.load(run.path / "scene").counts() == {"blocks": 3, "ground": 1, "dome": 1}
    assert main(["eval", str(run.path), "--views", "train", "--json"]) == 0
    assert main(["export", str(run.path), str(tmp_path / "all.glb")]) == 0
    view = run.dataset().views[0].camera.name
    assert main(["render", str(run.path), "--view", view, "--out", str(tmp_path / "one.png")]) == 0
    capsys.readouterr()
    for command in (
        ["export", str(run.path), str(tmp_path / "parts"), "--parts"],
        ["export", str(run.path), str(tmp_path / "assembly.json"), "--layers", "blocks"],
        ["render", str(run.path), "--exploded", "1", "--out", str(tmp_path / "two.png")],
        ["render", str(run.path), "--flat", "--out", str(tmp_path / "three.png")],
    ):
        code = main(command)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        assert code in (0, 2), command
        assert code == 0 or "blocks" in told.err, command
    assert len(Scene.load(run.path / "scene").find_groups()) == 0
