"""A twin goes on as the run would, without it; the division of bytes with which it does best is followed, and kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from smalti.configs.resolve import resolve
from smalti.trainers import race
from smalti.trainers.density.population import Population
from smalti.trainers.race import raced, twin_of
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.sampled_points": 400, "schedule.resolution": [],
    "density.pixels_per_primitive": 0, "density.start": 2, "density.every": 4, "density.model": "40KB",
    "exchange.every": 2, "exchange.views": 3, "exchange.share": 0.1, "exchange.race": 4, "run.finish": [],
    "run.steps": 12, "run.checkpoint_every": 0,
}  # fmt: skip
FLAT = {"name": "flat", "family": "ray_gaussians", "settings": {"count": 300}, "metadata": {"sh_degree": 0}}
BENT = {"name": "bent", "family": "neural_splats", "settings": {"count": 80}, "metadata": {"sh_degree": 1}}
STILL = dict.fromkeys(("means", "log_scales", "quaternions", "logit_opacities", "sh_dc"), 0.0)
ABLE = {**FLAT, "name": "able", "settings": {"count": 200}, "metadata": {"sh_degree": 0, "initial_opacity": 0.3}}
IDLE = {**ABLE, "name": "idle", "learning_rates": STILL, "metadata": {"sh_degree": 0, "initial_opacity": 0.02}}


def trainer_of(folder: Path, layers: list[dict[str, Any]], **options: Any) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "layers.yaml"
    file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers}))
    given = {key.replace("__", "."): value for key, value in options.items()}
    return Trainer(Run.create(folder / "run", resolve(str(file), {**SMALL, **given})))


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything that decides the future, but what is plain."""
    found = {f"scene/{key}": value for key, value in trainer.scene.state()[0].items()}
    found |= {f"adam/{key}": value for key, value in trainer.adam.state()[0].items()}
    found |= {f"refine/{key}": value for key, value in trainer.refinement.state().items()}
    for population in trainer.populations:
        found |= {f"{population.layer.name}/{key}": value for key, value in population.state().items()}
    found["order"], found["generator"] = torch.tensor(trainer.order.pending), trainer.generator.get_state()
    return {key: value.detach().clone() for key, value in found.items()}


@pytest.mark.parametrize(
    "options",
    [{}, {"density.rule": "gradient", "refine.poses": 1e-3, "data.background": "random"}, {"loss.perceptual": 0.1}],
)
def test_a_twin_does_what_the_run_would_and_leaves_it_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    trainer = trainer_of(tmp_path, [FLAT, BENT], exchange__race=0, **options)
    for _ in range(3):
        trainer.step()
    before, twin = state_of(trainer), twin_of(trainer)
    ahead = [twin.step() for _ in range(5)]
    after = state_of(trainer)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert trainer.step_number == 3
    assert trainer.edited.follower.taken() == []
    behind = [trainer.step() for _ in range(5)]
    assert [(each.loss, each.changes) for each in ahead] == [(each.loss, each.changes) for each in behind]
    assert any("moved" in each.changes for each in ahead)
    first, second = state_of(twin), state_of(trainer)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("layers", [[ABLE, IDLE], [IDLE, ABLE]])
def test_a_layer_that_learns_nothing_is_left_one_primitive(tmp_path: Path, layers: list[dict[str, Any]]) -> None:
    trainer = trainer_of(tmp_path, layers, exchange__race=30, density__model="22400B")
    held = trainer.budget.model_used(trainer.populations)
    for _ in range(2):
        trainer.step()
    assert trainer.exchange.choice == "able"
    for _ in range(8):
        trainer.step()
    assert trainer.scene.counts() == {"able": 399, "idle": 1}
    assert trainer.exchange.is_settled(trainer.active)
    assert trainer.budget.model_used(trainer.populations) == held
    assert trainer.exchange.worth == {}  # nothing is left to try


def test_what_does_best_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tmp_path, [FLAT, BENT])
    asked: list[str] = []

    class Told:
        def __init__(self) -> None:
            self.exchange = SimpleNamespace(choice=None, is_settled=lambda _: self.exchange.choice != late)
            self.active: list[Population] = []
            self.steps = 0

        def move_bytes(self) -> None:
            asked.append(str(self.exchange.choice))

        def step(self) -> None:
            self.steps += 1

        def loss_of(self, rows: list[int]) -> float:
            assert self.steps == 4
            assert rows == list(range(len(trainer.source))) or len(set(rows)) == 12
            return losses[str(self.exchange.choice)]

    monkeypatch.setattr(race, "twin_of", lambda _: Told())
    late = "bent"
    losses = {"": 0.3, "flat": 0.2, "bent": 0.1}
    assert raced(trainer) == "flat"  # the other has not come to where it would be judged
    late = "nobody"
    losses |= {"bent": 0.4}
    assert raced(trainer) == "flat"
    losses |= {"flat": float("nan")}
    assert raced(trainer) == ""
    losses |= {"": 0.5}
    assert raced(trainer) == "bent"
    losses |= {"": 0.4}
    assert raced(trainer) == ""  # where nothing is gained, nothing is given away
    assert asked == ["", "flat", "bent"] * 5


def test_few_that_cannot_take_all_in_time_are_not_followed(tmp_path: Path) -> None:
    few = {**ABLE, "name": "few", "settings": {"count": 4}}
    trainer = trainer_of(tmp_path, [{**IDLE, "settings": {"count": 396}}, few], density__model="22400B")
    trainer.step()
    twin = twin_of(trainer)
    twin.exchange.choice = "few"
    assert not twin.exchange.is_settled(twin.active)
    for _ in range(5):
        twin.step()
    assert 4 < len(twin.scene["few"].family) < 400
    assert not twin.exchange.is_settled(twin.active)
    trainer.step()
    assert trainer.exchange.choice != "few"


def test_layers_race_once_and_only_where_there_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def told(trainer: Trainer) -> str:
        asked.append(trainer.step_number)
        return ""

    monkeypatch.setattr("smalti.trainers.trainer.raced", told)
    trainer = trainer_of(tmp_path / "two", [FLAT, BENT])
    for _ in range(8):
        trainer.step()
    assert asked == [2]
    assert trainer.exchange.choice == ""
    assert set(trainer.exchange.worth) == {"flat", "bent"}  # bytes are shared by what they are worth
    alone = trainer_of(tmp_path / "one", [FLAT, {**BENT, "frozen": True}])
    for _ in range(4):
        alone.step()
    assert (asked, alone.exchange.choice) == ([2], None)


def test_a_choice_whose_layer_is_gone_binds_nobody(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, [FLAT, BENT])
    trainer.exchange.choice = "gone"
    for _ in range(4):
        trainer.step()
    assert trainer.exchange.choice == "gone"
    assert set(trainer.exchange.worth) == {"flat", "bent"}


@pytest.mark.parametrize("broken_at", [1, 3])
def test_resumed_before_and_after_the_race_it_ends_in_the_same_bytes(tmp_path: Path, broken_at: int) -> None:
    whole = trainer_of(tmp_path / "whole", [ABLE, IDLE])
    for _ in range(8):
        whole.step()
    broken = trainer_of(tmp_path / "broken", [ABLE, IDLE])
    for _ in range(broken_at):
        broken.step()
    broken.save()
    resumed = Trainer(Run.open(broken.run.path), resume=True)
    assert resumed.exchange.choice == broken.exchange.choice
    for _ in range(8 - broken_at):
        resumed.step()
    assert resumed.exchange.choice == whole.exchange.choice is not None
    first, second = state_of(whole), state_of(resumed)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
