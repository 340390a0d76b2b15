"""Density control by the gradients of the networks (Zhou et al. 2025), and what the published preset says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from smalti.configs.config import GradientConfig, TrainConfig
from smalti.configs.resolve import resolve
from smalti.primitives.family import LossContext
from smalti.primitives.neural_splats import NETWORK, NeuralSplats
from smalti.scene.scene import Scene
from smalti.trainers import schedules
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.density.budget import Budget
from smalti.trainers.density.gradient import GradientRule
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change
from smalti.trainers.plans import plans_of
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
PAPER = "neural-splats-paper"


def population(count: int = 6, **metadata: float) -> Population:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator)
    family = NeuralSplats.from_points(points, torch.rand(count, 3, generator=generator), {"sh_degree": 0, **metadata})
    return Population(Scene().add("neural", family), Adam(AdamSettings()))


def rule_of(**options: float) -> GradientRule:
    config = resolve(PAPER)
    return GradientRule(config.model_copy(update={"gradient": config.gradient.model_copy(update=options)}), extent=1.0)


def change(made: Population) -> Change:
    return Change(1500, [made], Budget(10**9, 10**6), torch.Generator().manual_seed(1), 1e-4)


def nobody(made: Population) -> torch.Tensor:
    return torch.zeros(len(made), dtype=torch.bool)


def test_the_mean_is_over_the_steps_that_saw_a_primitive() -> None:
    """Those too in which it took no gradient: a field that is negative wherever it is looked at is seen, and idle."""
    made, rule = population(3), rule_of()
    rule.feel(made, torch.tensor([4.0, 0.0, 9.0]), torch.tensor([True, True, False]))
    rule.feel(made, torch.tensor([2.0, 0.0, 1.0]), torch.tensor([True, True, True]))
    rule.feel(made, torch.tensor([math.nan, 0.0, 1.0]), torch.tensor([True, True, True]))
    assert made.statistic("pull").tolist() == [6, 0, 2]
    assert made.statistic("seen").tolist() == [3, 3, 2]


def test_small_ones_are_doubled_large_ones_split_idle_ones_go_unseen_ones_stay() -> None:
    made, rule = population(6), rule_of()
    scales = torch.full((6, 3), math.log(0.005))
    scales[1, 2] = math.log(0.02)  # of several axes the largest decides
    made.family.replace({"log_scales": scales})
    before = {key: value.detach().clone() for key, value in made.family.parameters.items()}
    pull = torch.tensor([1e-3, 1e-3, 5e-5, 1e-6, 0.0, 0.0])
    rule.feel(made, pull, torch.tensor([True, True, True, True, True, False]))
    counts = rule.change(made, nobody(made), change(made))
    assert counts == {"pruned": 2, "cloned": 1, "split": 1, "refused": 0}
    found = made.family.parameters
    # Left: 0, 2, 5; then the copy of 0; then the children of 1.
    for name, value in before.items():
        assert torch.equal(found[name][:4], value[[0, 2, 5, 0]]), name
    for name in (*NETWORK, "quaternions", "sh_dc"):
        assert torch.equal(found[name][4:], before[name][[1, 1]]), name
    assert torch.allclose(found["log_scales"][4:], before["log_scales"][[1, 1]] - math.log(1.6))
    assert not made.statistic("pull").any()
    assert not made.statistic("seen").any()


def test_where_nothing_pulls_any_more_not_everything_goes() -> None:
    made, rule = population(3), rule_of()
    rule.feel(made, torch.zeros(3), torch.ones(3, dtype=torch.bool))
    assert rule.change(made, nobody(made), change(made))["pruned"] == 0
    assert len(made) == 3


def test_where_everything_is_faint_not_everything_goes() -> None:
    made, rule = population(3), rule_of(prune_pull=0.0)
    made.family.replace({"offsets": torch.full((3,), -9.0)})
    rule.config = rule.config.model_copy(
        update={"density": rule.config.density.model_copy(update={"opacity_min": 0.005})}
    )
    assert rule.change(made, nobody(made), change(made))["pruned"] == 0
    made.family.parameters["offsets"].data[1] = 1.0
    assert rule.change(made, nobody(made), change(made))["pruned"] == 2
    assert len(made) == 1


def test_without_its_option_the_rule_keeps_what_is_idle() -> None:
    assert GradientConfig().prune_pull == 0
    made, rule = population(3), rule_of(prune_pull=0.0)
    rule.feel(made, torch.tensor([1e-5, 0.0, 0.0]), torch.ones(3, dtype=torch.bool))
    assert rule.change(made, nobody(made), change(made))["pruned"] == 0


def test_children_lie_as_their_parent_says() -> None:
    """Centres are normal with the parent's covariance R diag(s^2) R^T."""
    made = population(1)
    values = made.family.parameters
    turn = torch.nn.functional.normalize(torch.tensor([[0.9, 0.2, -0.3, 0.4]]))
    made.family.replace({"quaternions": turn, "log_scales": torch.tensor([[0.3, 0.1, 0.02]]).log()})
    mean = values["means"].detach()[0].clone()
    wanted = made.family.bounds()[0]  # of the ellipsoid: half extents are the roots of the covariance's diagonal
    made.split(torch.tensor([0]), torch.Generator().manual_seed(3), copies=20_000)
    offsets = made.family.positions().detach() - mean
    assert torch.allclose(offsets.mean(0), torch.zeros(3), atol=0.01)
    assert torch.allclose(offsets.std(0), 0.5 * (wanted[1] - wanted[0]), rtol=0.03)


def test_a_run_gathers_the_norms_of_the_raw_gradients(tmp_path: Path) -> None:
    """As they stand after the pictures' backward pass, and the dead go at the first change."""
    options = {
        "data.path": "demo", "data.downscale": 8, "data.points": "hull", "data.sampled_points": 60, "run.steps": 3,
        "density.start": 3, "density.stop": 3, "density.every": 3, "gradient.threshold": 1e9,
        "gradient.prune_pull": 1e-12,
    }  # fmt: skip
    trainer = Trainer(Run.planned(tmp_path / "run", resolve(PAPER, options)))
    (made,) = trainer.populations
    made.family.parameters["offsets"].data[:7] = -9.0  # dark along every ray: no gradient, ever
    expected, seen = torch.zeros(60), torch.zeros(60)
    for step in range(2):
        trainer.step()
        norms = [made.family.parameters[name].grad.reshape(60, -1).norm(dim=1) for name in NETWORK]  # type: ignore[union-attr]
        expected += torch.stack(norms).sum(0)
        seen += 1
        assert torch.allclose(made.statistic("pull"), expected)
        assert torch.equal(made.statistic("seen"), seen), step  # all of the object is in every picture
    assert float(made.statistic("pull")[7:].max()) > 0
    assert not made.statistic("pull")[:7].any()
    report = trainer.step()
    assert report.changes["pruned"] >= 7
    assert len(made) == 60 - report.changes["pruned"]


def test_a_gradient_that_is_no_number_moves_nothing(tmp_path: Path) -> None:
    """The publication deletes primitives whose parameters became NaN; here they are left out of the step instead."""
    options = {"data.path": "demo", "data.downscale": 8, "data.points": "hull", "data.sampled_points": 20}
    trainer = Trainer(Run.planned(tmp_path / "run", resolve(PAPER, options)))
    (made,) = trainer.populations
    made.family.parameters["offsets"].data += 1.0
    spoiled = made.family.parameters["amplitudes"]
    spoiled.register_hook(lambda gradient: torch.cat([torch.full_like(gradient[:1], math.nan), gradient[1:]]))
    before = {key: value.detach().clone() for key, value in made.family.parameters.items()}
    report = trainer.step()
    assert any("neural_splats/amplitudes is NaN or Inf in primitives 0" in line for line in report.problems)
    for name, value in made.family.parameters.items():
        assert bool(value.isfinite().all())
        assert torch.equal(value[0], before[name][0]), name
    assert not torch.equal(spoiled[1:], before["amplitudes"][1:])


def test_the_published_preset_says_what_is_published() -> None:
    """Specification, section 3: what the configuration and the family make of it."""
    config = resolve(PAPER)
    family = NeuralSplats.from_points(torch.rand(4, 3), torch.rand(4, 3), dict(config.scene[0].metadata))
    scene = Scene()
    scene.add("neural_splats", family)
    plan = plans_of(scene, config, LossContext(1.0, torch.Generator()))["neural_splats"]
    assert plan.rule == "gradient"
    assert {name: weight for name, weight in plan.weights.items() if weight} == {"anisotropy": 1e-3}
    wanted = {
        "means": 1.6e-4, "sh_dc": 2.5e-3, "sh_rest": 1.25e-4, "log_scales": 5e-3, "quaternions": 1e-3,
        "frequencies": 1e-3, "phases": 1e-3, "amplitudes": 1e-3, "offsets": 1e-3,
    }  # fmt: skip
    for step in (0, 50_000, 99_999):
        rates = schedules.learning_rates(family, plan.rates, config.optimizer, step, config.run.steps)
        assert rates == pytest.approx(wanted)
    degrees = [schedules.color_degree(step, config.schedule) for step in (1999, 2000, 6000)]
    assert degrees == [0, 1, 3]
    rule = GradientRule(config, 1.0)
    assert [step for step in range(20_001) if rule.due(step)] == list(range(1500, 15_000, 500))
    assert (config.run.steps, config.schedule.batch, config.optimizer.epsilon, config.loss.dssim) == (
        100_000,
        1,
        1e-15,
        0.2,
    )
    assert family.metadata["frame"] == "world"
    assert family.metadata["leak"] == 0
    assert family.metadata["cap"]


@pytest.mark.parametrize("scaled", [True, False])
def test_rates_of_positions_are_in_extents_or_in_world_units(scaled: bool, tmp_path: Path) -> None:
    options = {"data.path": "demo", "data.downscale": 8, "data.points": "hull", "data.sampled_points": 20}
    trainer = Trainer(Run.planned(tmp_path / "run", resolve(PAPER, {**options, "optimizer.scale_positions": scaled})))
    assert TrainConfig().optimizer.scale_positions
    assert trainer.extent > 2
    (made,) = trainer.populations
    made.family.parameters["offsets"].data += 1.0
    before = made.family.positions().detach().clone()
    trainer.step()
    moved = float((made.family.positions().detach() - before).abs().max())  # Adam's first step is the rate itself
    assert moved == pytest.approx(1.6e-4 * (trainer.extent if scaled else 1.0), rel=1e-3)
