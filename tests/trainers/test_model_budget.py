"""The budget of the model alone: kept to the byte at the start, in growth and at the end, by one layer and several."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import ConfigError, resolve
from smalti.scene import duplicate, index
from smalti.trainers import loop
from smalti.trainers.display import PlainDisplay
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.sampled_points": 400, "schedule.resolution": [],
    "density.max_primitives": 5000, "density.pixels_per_primitive": 0, "density.start": 2, "density.every": 2,
    "run.finish": [], "run.steps": 20, "mcmc.growth": 0.2,
}  # fmt: skip
FLAT = {"name": "flat", "family": "gaussians", "settings": {"count": 150}, "metadata": {"sh_degree": 0}}
BENT = {"name": "bent", "family": "neural_splats", "settings": {"count": 50}, "metadata": {"sh_degree": 1}}
BODY = {"name": "body", "family": "meshes", "initializer": "hull", "settings": {"faces": 150}}


def trainer_of(tmp_path: Path, layers: list[dict[str, Any]], model: str, **options: Any) -> Trainer:
    file = tmp_path / "layers.yaml"
    file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers}))
    given = {key.replace("__", "."): value for key, value in options.items()}
    config: TrainConfig = resolve(str(file), {**SMALL, "density.model": model, **given})
    return Trainer(Run.planned(tmp_path / "run", config))


def saved(trainer: Trainer) -> int:
    """Bytes of all tensors that a saved scene holds."""
    return sum(value.numel() * value.element_size() for value in trainer.scene.state()[0].values())


def each_of(trainer: Trainer) -> dict[str, int]:
    return {layer.name: layer.family.bytes_per_primitive for layer in trainer.scene}


def test_parameters_alone_count(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, [FLAT, BENT], "")
    assert trainer.budget.model == 0
    assert each_of(trainer) == {"flat": 4 * 14, "bent": 4 * (3 + 3 + 4 + 12 + 41)}
    assert trainer.budget.model_used(trainer.populations) == saved(trainer) == 150 * 56 + 50 * 252


def test_the_start_is_thinned_to_the_byte(tmp_path: Path) -> None:
    one = trainer_of(tmp_path, [FLAT], "4KB")
    assert one.scene.counts() == {"flat": 4000 // 56}
    assert "density.model=4KB" in one.notices[0]
    two = trainer_of(tmp_path, [FLAT, BENT], "10.5KB")  # half of what they are
    assert two.scene.counts() == {"flat": 75, "bent": 25}
    assert saved(two) == 10_500


@pytest.mark.parametrize("layers", [[FLAT], [FLAT, BENT], [FLAT, {**BENT, "frozen": True}]])
@pytest.mark.parametrize("rule", ["mcmc", "gradient"])
def test_growth_fills_it_and_never_passes_it(tmp_path: Path, layers: list[dict[str, Any]], rule: str) -> None:
    options = {"density__rule": rule, "gradient__threshold": 1e-9, "density__opacity_min": 0.0}
    trainer = trainer_of(tmp_path, layers, "24.1KB", **options)
    for _ in range(20):
        trainer.step()
        assert saved(trainer) <= 24_100
    trained = [each for name, each in each_of(trainer).items() if not trainer.scene.layers[name].locked]
    assert saved(trainer) > 24_100 - max(trained)
    assert trainer.budget.refused > 0


def test_the_run_ends_within_it_and_records_it(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, [FLAT, BENT], "22KB", run__log_every=1)
    trainer.run.begin()
    assert loop.train(trainer, PlainDisplay()) == "finished"
    held = [record["model_bytes"] for record in trainer.run.metrics() if record["kind"] == "train"]
    assert len(held) == 20
    assert max(held) <= 22_000
    state = trainer.run.load_scene().state()[0]
    assert held[-1] == sum(value.numel() * value.element_size() for value in state.values())


def test_what_hangs_together_is_counted_with_its_constants_and_subdivided_within_it(tmp_path: Path) -> None:
    layers = [{**BODY, "density": "gradient"}, FLAT]
    start = saved(trainer_of(tmp_path, layers, ""))
    trainer = trainer_of(tmp_path, layers, str(start + 4000), gradient__threshold=1e-9)
    faces = trainer.scene.counts()["body"]
    for _ in range(20):
        trainer.step()
        assert saved(trainer) <= start + 4000
    assert trainer.scene.counts()["body"] > faces


def test_layers_that_cannot_fit_are_refused_by_name(tmp_path: Path) -> None:
    body = trainer_of(tmp_path, [BODY, FLAT], "").scene.layers["body"].family.bytes
    with pytest.raises(ConfigError, match=r"density\.model=1KB: the layers take [0-9,]+ bytes.*settings"):
        trainer_of(tmp_path, [BODY, FLAT], "1KB")
    fits = trainer_of(tmp_path, [BODY, FLAT], str(body + 56 * 3 + 55))
    assert fits.scene.counts()["flat"] == 3
    with pytest.raises(ConfigError, match="not a size"):
        trainer_of(tmp_path, [FLAT], "much")


def test_a_model_over_its_budget_gives_back(tmp_path: Path) -> None:
    """As after an edit that added primitives."""
    trainer = trainer_of(tmp_path, [FLAT], "8.4KB", density__opacity_min=0.0)
    population = trainer.populations[0]
    population.clone(torch.arange(40))
    assert saved(trainer) == 190 * 56
    trainer.step_number = 3
    trainer.step()
    assert trainer.scene.counts() == {"flat": 150}


@pytest.mark.parametrize(("stop", "what"), [(1, "nothing is taken away after step 1"), (20, "ends at step 20")])
def test_an_edit_beyond_it_is_made_and_said_once(tmp_path: Path, stop: int, what: str) -> None:
    """A person's wish stands above a budget, and the run does not keep it to itself."""
    trainer = trainer_of(tmp_path, [FLAT], "8.4KB", density__stop=stop, density__start=stop, run__steps=3)
    trainer.run.begin()
    trainer.step()
    duplicate(trainer.scene, index("flat", [0, 1, 2]))
    said = io.StringIO()
    assert loop.train(trainer, PlainDisplay(said)) == "finished"
    lines = [line for line in said.getvalue().splitlines() if "density.model" in line]
    assert len(lines) == 1
    assert f"the edited scene takes {153 * 56:,} bytes, {3 * 56} more than density.model=8.4KB" in lines[0]
    assert what in lines[0]
    assert trainer.scene.counts() == {"flat": 153}
    trainer.scene.undo()
    trainer.edited.follow()
    assert (trainer.edited.told(), trainer.edited.over) == ([], 0)
