"""Folders of several seeds without their processes: who is the best, what is written, what the boards show."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import ConfigError, resolve
from smalti.renderers.render import render
from smalti.trainers import seed_board
from smalti.trainers.losses import image_loss
from smalti.trainers.perceptual import gradient_distance
from smalti.trainers.run import Run
from smalti.trainers.seed_board import LiveBoard, PlainBoard, make_board
from smalti.trainers.seed_processes import sensible_jobs
from smalti.trainers.seeds import Seed, Seeds, chosen_run, is_seeds
from smalti.trainers.trainer import Trainer
from smalti.trainers.training_loss import training_loss

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def fared(seed: int, status: Any, loss: float | None) -> Seed:
    return Seed(seed, status, "", 10, 5, loss, 20.0, 60.0)


def folder(path: Path, *seeds: Seed) -> Seeds:
    made = Seeds.create(path, resolve("gaussians-fast", {"data.path": "demo", "seed": seeds[0].seed}), len(seeds))
    made.seeds = list(seeds)
    made.write()
    return made


def test_the_best_came_to_its_end_with_the_lowest_loss(tmp_path: Path) -> None:
    """Neither what died, nor what is lost, nor NaN; of equal ones the lower seed."""
    seeds = [
        fared(3, "finished", 0.3), fared(4, "finished", 0.2), fared(5, "stopped", 0.2), fared(6, "lost", 0.1),
        fared(7, "failed", 0.05), fared(8, "interrupted", None), fared(9, "finished", math.nan),
    ]  # fmt: skip
    made = folder(tmp_path / "a", *seeds)
    assert made.best is seeds[1]
    assert (made.path / "best").read_text() == "seed-4\n"
    written = json.loads((made.path / "seeds.json").read_text(), parse_constant=pytest.fail)
    assert written["best"] == "seed-4"
    assert written["seeds"][6]["training_loss"] is None
    assert [each["folder"] for each in written["seeds"]] == [f"seed-{each.seed}" for each in seeds]
    again = Seeds.open(made.path)
    assert [(each.seed, each.status) for each in again.seeds] == [(each.seed, each.status) for each in seeds]
    assert again.config == made.config
    assert [each.is_done for each in again.seeds] == [True, True, False, True, False, False, True]
    lines = list(again.table())
    assert [line[0] for line in lines[:7]] == [" ", "*", " ", " ", " ", " ", " "]
    assert "no held-out view" in lines[7]
    again.seeds[1].contents = "10 blocks (6 drawn), ground 1"
    assert "  5 primitives  " in lines[0]
    assert "  10 blocks (6 drawn), ground 1  1.0 min" in list(again.table())[1]


def test_commands_on_the_folder_use_the_best(tmp_path: Path) -> None:
    assert chosen_run(tmp_path) == tmp_path
    made = folder(tmp_path / "a", fared(0, "finished", 0.3), fared(1, "waiting", None))
    assert is_seeds(made.path)
    assert chosen_run(made.path) == made.path / "seed-0"
    made.seeds[0].status = "interrupted"
    made.write()
    with pytest.raises(FileNotFoundError, match=r"none of its seeds has come to its end.*--resume"):
        Run.open(made.path)
    (made.path / "seeds.json").write_text("{")
    with pytest.raises(ConfigError, match=r"seeds.json: cannot be read.*--resume .*seed-0"):
        Run.open(made.path)


def test_a_folder_is_not_overwritten_and_one_where_nothing_began_goes(tmp_path: Path) -> None:
    made = Seeds.create(tmp_path / "a", resolve("gaussians-fast", {"data.path": "demo", "seed": 5}), 3)
    assert [made.config_of(each).run.seed for each in made.seeds] == [5, 6, 7]
    assert made.config.run.seed == 5
    with pytest.raises(FileExistsError, match="holds a run already"):
        Seeds.create(tmp_path / "a", made.config, 2)
    assert not made.anything_began
    made.run_path(made.seeds[0]).mkdir()
    made.log_path(made.seeds[0]).write_text("why\n")
    (made.path / "mine.txt").write_text("somebody's")
    made.remove()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["mine.txt"]


def test_processes_and_threads_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.renderers.engine.get_threads", lambda: 8)
    assert sensible_jobs(5, "cpu") == (5, 1)
    assert sensible_jobs(3, "cpu") == (3, 2)
    assert sensible_jobs(20, "cpu") == (8, 1)
    assert sensible_jobs(20, "cpu", jobs=16) == (16, 1)
    assert sensible_jobs(5, "cpu", jobs=2) == (2, 4)
    assert sensible_jobs(5, "cuda:0") == (1, 8)


def test_boards_show_every_seed_and_say_things_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [fared(0, "running", None), fared(1, "waiting", None), fared(2, "running", None)]
    status = {"step": 5, "steps": 9, "loss": 0.25, "preview": None, "primitives": 1234, "left": "0:00:07"}
    plain = make_board(seeds, "here")
    assert isinstance(plain, PlainBoard)
    assert not isinstance(plain, LiveBoard)
    plain.seconds = 0.0
    with plain:
        plain.refresh()
        assert capsys.readouterr().out == "seed 0 preparing; seed 1 waiting; seed 2 preparing\n"
        plain.update(seeds[0], status)
        plain.refresh()
        for seed in seeds:
            plain.say("note: something", seed)
        plain.update(seeds[0], {**status, "step": 9, "left": "0:00:00"})
        plain.finishing(seeds[0], "video")
        plain.finishing(seeds[2], "evaluation")  # of a run that is continued at its end no step is seen
        plain.refresh()
        seeds[2].status = "finished"
        plain.refresh()
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == [
        "seed 0 finishing (video); seed 1 waiting; seed 2 finishing (evaluation)",
        "seed 0 finishing (video); seed 1 waiting; seed 2 finished",
    ]
    seeds[2].status = "running"
    assert said[:2] == [
        "seed 0 5/9 loss 0.2500 left 0:00:07; seed 1 waiting; seed 2 preparing",
        "seed 0: note: something",
    ]
    monkeypatch.setattr(seed_board.sys.stdout, "isatty", lambda: True, raising=False)
    live = make_board(seeds, "here")
    assert isinstance(live, LiveBoard)
    with live:
        live.update(seeds[0], {**status, "step": 9, "preview": 21.5, "left": "0:00:00"})
        live.finishing(seeds[0], "turntable")
        live.say("a line that stays")
        live.console.print(live.table())
    shown = capsys.readouterr().out
    for part in ("here", "9/9", "finishing", "turntable", "21.50 dB", "1,234", "waiting", "a line that stays"):
        assert part in shown
    assert "0:00:00" not in shown


def small(**options: Any) -> TrainConfig:
    common: dict[str, Any] = {
        "data.path": "demo", "data.downscale": 8, "data.points": "frustum", "data.sampled_points": 100,
        "schedule.resolution": [[99, 2]], "run.finish": [], "run.steps": 3, "data.background": "random",
    }  # fmt: skip
    return resolve("gaussians-fast", {**common, **{key.replace("__", "."): value for key, value in options.items()}})


def test_the_training_loss_is_the_mean_over_training_views_of_what_is_minimised(tmp_path: Path) -> None:
    """At full resolution, with the last step's weights, whole pictures for the perceptual term, refined exposures; and
    it draws no random number.
    """
    config = small(
        loss__perceptual=2.0, loss__perceptual_kind="gradients", loss__perceptual_crop=32, loss__perceptual_every=3,
        schedule__weights=[[1, "dssim", 0.5], [2, "perceptual", 0.25], [3, "perceptual", 0.0]], refine__exposure=0.01,
        split="every:10",
    )  # fmt: skip
    trainer = Trainer(Run.create(tmp_path / "run", config))
    for _ in range(3):
        trainer.step()
    before = trainer.generator.get_state()
    measured = training_loss(trainer)
    assert torch.equal(trainer.generator.get_state(), before)
    total = 0.0
    weights = replace(trainer.options.image, dssim=0.5 * config.loss.dssim)
    for index, row in enumerate(trainer.train_rows):
        loaded = trainer.cache.get(row)
        assert loaded.alpha is not None
        alpha, background = loaded.alpha.float()[..., None] / 255, trainer.source.color
        truth = loaded.image.float() / 255 * alpha + (1 - alpha) * background
        settings = trainer.scene.settings()
        drawn = render(trainer.scene.drawables(loaded.camera), loaded.camera, background=background, settings=settings)
        color = trainer.refinement.exposed(drawn.color, index).detach()
        assert trainer.refinement.tables["exposure"][index].shape == (3, 4)
        total += float(image_loss(color, truth, None, weights)) + 0.5 * float(gradient_distance(color, truth, None))
    assert measured.loss == pytest.approx(total / len(trainer.train_rows), rel=1e-5)
    assert len(trainer.train_rows) < len(trainer.dataset.views)
    assert 5 < measured.psnr < 40
