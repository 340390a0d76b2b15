"""Rates that drop and loss terms that change along a run: closed forms, names that are checked, runs that are stretched
or too short.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.configs.config import OptimizerConfig, TrainConfig
from smalti.configs.resolve import ConfigError, load, parse_value, resolve, save
from smalti.configs.stretch import beyond_the_end
from smalti.primitives.gaussians import Gaussians
from smalti.trainers.losses import ImageLossWeights
from smalti.trainers.run import Run
from smalti.trainers.schedules import dropped, learning_rates, weight_factor
from smalti.trainers.step import StepOptions
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.points": "frustum", "data.sampled_points": 100,
    "schedule.resolution": [], "run.finish": [], "run.steps": 9, "density.rule": "none",
}  # fmt: skip


def small(**options: Any) -> TrainConfig:
    return resolve("gaussians-fast", {**SMALL, **{key.replace("__", "."): value for key, value in options.items()}})


def test_all_rates_are_multiplied_by_every_drop_that_came() -> None:
    drops = [(10, 0.5), (20, 0.1)]
    assert [dropped(step, drops) for step in (0, 9, 10, 19, 20, 99)] == pytest.approx([1, 1, 0.5, 0.5, 0.05, 0.05])
    family = Gaussians.from_points(torch.rand(5, 3), torch.rand(5, 3), {"sh_degree": 0})
    plain, with_drops = OptimizerConfig(warmup=3), OptimizerConfig(warmup=3, drops=[(10, 0.5)])
    for step, factor in ((2, 1.0), (10, 0.5)):
        wanted = learning_rates(family, {"means": 1e-3}, plain, step, 40)
        got = learning_rates(family, {"means": 1e-3}, with_drops, step, 40)
        assert got == pytest.approx({name: factor * rate for name, rate in wanted.items()})


def test_a_drop_is_felt_by_scene_and_poses_from_its_step_on(tmp_path: Path) -> None:
    """At a factor of 1e-9 nothing moves any more; Adam's steps before are of the rate's size."""
    config = small(optimizer__drops=[[2, 1e-9]], refine__poses=1e-3)
    trainer = Trainer(Run.create(tmp_path / "run", config))
    family = trainer.scene.layers["gaussians"].family
    for step, moved in ((0, True), (1, True), (2, False), (3, False)):
        before = {name: value.detach().clone() for name, value in family.parameters.items()}
        poses = trainer.refinement.tables["poses"].detach().clone()
        trainer.step()
        change = max(float((value.detach() - before[name]).abs().max()) for name, value in family.parameters.items())
        assert (change > 1e-4) == moved, step
        assert (float((trainer.refinement.tables["poses"].detach() - poses).abs().max()) > 1e-6) == moved


def test_factors_of_a_term_multiply_up_by_name_and_by_layer() -> None:
    changes = [
        (5, "overlap", 0.5),
        (5, "a/overlap", 0.1),
        (8, "overlap", 0.0),
        (9, "dssim", 2.0),
        (9, "perceptual", 3.0),
    ]
    factors = {layer: [weight_factor(step, "overlap", changes, layer) for step in (4, 5, 8)] for layer in ("a", "b")}
    assert factors == {"a": pytest.approx([1, 0.05, 0]), "b": pytest.approx([1, 0.5, 0])}
    weights = {"a": {"overlap": 4.0, "opacity": 1.0}, "b": {"overlap": 4.0}}
    options = StepOptions(ImageLossWeights(0.2, "mse"), weights=weights, changes=changes)
    assert options.at(4).weights == weights
    at = options.at(9)
    assert at.weights == {"a": {"overlap": 0.0, "opacity": 1.0}, "b": {"overlap": 0.0}}
    assert at.image == ImageLossWeights(0.4, "mse")
    assert at.at(100) is at


def test_a_scheduled_term_is_gone_from_its_step_on(tmp_path: Path) -> None:
    """The loss of a step is that of the pictures alone once all else is multiplied by zero."""
    changes = [[1, "gaussians/opacity", 0.0], [1, "scale", 0.0], [1, "perceptual", 0.0], [1, "dssim", 0.0]]
    common = {"loss__opacity": 5.0, "loss__scale": 5.0, "loss__perceptual": 2.0, "loss__perceptual_kind": "gradients"}
    bare = {"loss__opacity": 0.0, "loss__scale": 0.0, "loss__dssim": 0.0}
    scheduled = Trainer(Run.create(tmp_path / "a", small(schedule__weights=changes, **common)))
    plain = Trainer(Run.create(tmp_path / "b", small(**bare)))
    assert scheduled.step().loss > plain.step().loss + 1.0
    for name, value in plain.scene.layers["gaussians"].family.parameters.items():
        scheduled.scene.layers["gaussians"].family.parameters[name].data.copy_(value.detach())
    assert scheduled.step().loss == plain.step().loss


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([[3, "opacty", 0.5]], "schedule.weights: no loss term is called 'opacty'.*did you mean 'opacity'"),
        ([[3, "gaussian/opacity", 0.5]], "did you mean 'gaussians/opacity'"),
        ([[3, "gaussians/smoothness", 0.5]], "no loss term is called 'gaussians/smoothness'"),
        ([[3, "dssim", 2.0], [6, "dssim", 3.0]], "dssim would become 1.2"),
    ],
)
def test_unknown_terms_are_refused_with_the_near_miss(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(Run.create(tmp_path / "run", small(schedule__weights=changes)))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("optimizer.drops", [[30, 0.1], [20, 0.1]], "steps must rise"),
        ("optimizer.drops", [[30, 0.0]], "greater than 0"),
        ("schedule.weights", [[30, "opacity", 0.1], [20, "scale", 0.1]], "steps must not fall"),
        ("schedule.weights", [[30, "opacity", 0.1], [30, "opacity", 0.1]], "changes twice"),
        ("schedule.weights", [[30, "opacity", -0.1]], "greater than or equal to 0"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve("gaussians", {option: value})


def test_schedules_stretch_with_the_run_are_saved_and_say_what_never_comes(tmp_path: Path) -> None:
    weights = [[0, "scale", 2.0], [400, "opacity", 0.5], [403, "opacity", 0.5], [403, "scale", 0.0]]
    given = {"stretch": 0.01, "drops": [[400, 0.5], [403, 0.5], [3900, 0.1]], "schedule.weights": weights}
    config = resolve("gaussians-fast", given)
    assert config.run.steps == 40
    assert config.optimizer.drops == [(4, 0.25), (39, 0.1)]
    assert config.schedule.weights == [(0, "scale", 2.0), (4, "opacity", 0.25), (4, "scale", 0.0)]
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    late = beyond_the_end(resolve("gaussians-fast", {**given, "stretch": 1.0, "steps": 403}))
    assert late[-3:] == [
        "rates never drop at step 403 (optimizer.drops)",
        "rates never drop at step 3900 (optimizer.drops)",
        "the weight of opacity, scale never changes at step 403 (schedule.weights)",
    ]
    assert parse_value("[[400, opacity, 0.5]]") == [[400, "opacity", 0.5]]


def test_a_run_with_both_resumes_in_the_same_bytes(tmp_path: Path) -> None:
    from smalti.trainers import loop
    from smalti.trainers.display import PlainDisplay

    changes = [[3, "opacity", 9.0], [5, "perceptual", 0.5]]
    options = {"loss__perceptual": 0.5, "loss__perceptual_kind": "gradients", "loss__perceptual_every": 2}
    config = small(
        schedule__weights=changes, optimizer__drops=[[4, 0.3]], run__checkpoint_every=4, run__keep=9, **options
    )
    run = Run.create(tmp_path / "run", config)
    loop.train(Trainer(run), PlainDisplay(seconds=99))
    wanted = (run.path / "checkpoints/000009/trainer.safetensors").read_bytes()
    trainer = Trainer(run, resume=True)
    trainer.load(4)
    loop.train(trainer, PlainDisplay(seconds=99))
    assert (run.path / "checkpoints/000009/trainer.safetensors").read_bytes() == wanted
