"""Scenes of several layers in the trainer: rates, loss terms, rules, budget by layer; freezing, starting, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from smalti.cli.main import main
from smalti.configs.config import TrainConfig
from smalti.configs.resolve import ConfigError, resolve
from smalti.renderers.engine import set_threads
from smalti.scene.folder import load_scene
from smalti.trainers import finish, loop
from smalti.trainers.display import PlainDisplay, Speed, Status, rows
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.sampled_points": 400, "schedule.resolution": [],
    "density.max_primitives": 800, "density.pixels_per_primitive": 0, "run.finish": [], "run.steps": 20,
}  # fmt: skip
TWO = [
    {"name": "far", "family": "gaussians", "settings": {"count": 100}},
    {"name": "near", "family": "gaussians", "settings": {"count": 150}, "metadata": {"sh_degree": 1}},
]
MIXED = [
    {"name": "body", "family": "meshes", "initializer": "hull", "settings": {"faces": 150}},
    {"name": "fuzz", "family": "gaussians", "settings": {"count": 60}, "metadata": {"sh_degree": 0}},
]


def layered(tmp_path: Path, layers: list[dict[str, Any]], **options: Any) -> TrainConfig:
    """`gaussians-fast` with these layers in place of its own, as a file of a user would say it."""
    file = tmp_path / "layers.yaml"
    file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers}))
    return resolve(str(file), {**SMALL, **{key.replace("__", "."): value for key, value in options.items()}})


def trainer_of(tmp_path: Path, config: TrainConfig, **options: Any) -> Trainer:
    return Trainer(Run.planned(tmp_path / "run", config), **options)


def values_of(trainer: Trainer, layer: str) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in trainer.scene.layers[layer].family.parameters.items()}


def test_rates_and_freezing_are_each_layers_own(tmp_path: Path) -> None:
    layers = [
        {**TWO[0], "learning_rates": {"means": 0.0, "log_scales": 0.0}},
        {**TWO[1], "regularizers": {"opacity": 0.5}},
        {**TWO[0], "name": "still", "frozen": True},
    ]
    trainer = trainer_of(tmp_path, layered(tmp_path, layers, density__rule="none"))
    before = {name: values_of(trainer, name) for name in ("far", "near", "still")}
    for _ in range(4):
        trainer.step()
    moved = {
        name: {key for key, value in values_of(trainer, name).items() if not torch.equal(value, before[name][key])}
        for name in before
    }
    assert moved["still"] == set()
    assert moved["far"] == {"quaternions", "logit_opacities", "sh_dc"}  # degree 0 is in use: sh_rest has no part yet
    assert moved["near"] == {"means", "log_scales", "quaternions", "logit_opacities", "sh_dc"}
    assert not any(name.startswith("still/") for name in trainer.adam.moments)
    assert trainer.budget.fixed == trainer.scene.layers["still"].family.bytes
    assert trainer.options.weights["near"]["opacity"] == 0.5
    assert trainer.options.weights["far"]["opacity"] == trainer.config.loss.opacity


def test_a_layers_own_loss_term_pulls_at_it_alone(tmp_path: Path) -> None:
    heavy = [{**TWO[0], "regularizers": {"opacity": 50.0}}, TWO[1]]
    ends = []
    for layers in (TWO, heavy):
        trainer = trainer_of(tmp_path, layered(tmp_path, layers))
        for _ in range(5):
            trainer.step()
        ends.append(
            {name: float(trainer.scene.layers[name].family.opacities().detach().mean()) for name in ("far", "near")}
        )
    assert ends[1]["far"] < ends[0]["far"] - 0.005
    assert ends[1]["near"] == pytest.approx(ends[0]["near"], abs=1e-3)


def test_each_layer_grows_by_its_own_rule_and_to_its_own_limit(tmp_path: Path) -> None:
    layers = [{**TWO[0], "density": "none"}, {**TWO[1], "max_primitives": 170}, {**TWO[0], "name": "third"}]
    config = layered(tmp_path, layers, density__start=2, density__every=2, mcmc__growth=0.2)
    trainer = trainer_of(tmp_path, config)
    reports = [trainer.step() for _ in range(6)]
    assert trainer.scene.counts() == {"far": 100, "near": 170, "third": 172}
    assert trainer.budget.refused > 0
    assert sum(report.changes.get("grown", 0) for report in reports) == 20 + 72


def test_the_bytes_of_all_layers_count_and_all_are_thinned_alike(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, layered(tmp_path, TWO))
    whole = trainer.budget.used(trainer.populations)
    assert whole == sum(population.bytes for population in trainer.populations)
    half = trainer_of(tmp_path, layered(tmp_path, TWO, density__budget=str(whole // 2)))
    assert half.scene.counts() == {"far": 50, "near": 75}
    assert half.budget.used(half.populations) <= whole // 2
    assert half.budget.refused == 125
    few = trainer_of(tmp_path, layered(tmp_path, TWO, density__max_primitives=150))
    assert few.scene.counts() == {"far": 60, "near": 90}


def test_a_mesh_is_never_thinned_at_random(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, layered(tmp_path, MIXED))
    faces = trainer.scene.counts()["body"]
    mesh = next(population for population in trainer.populations if population.layer.name == "body")
    budget = trainer_of(tmp_path, layered(tmp_path, MIXED, density__budget=str(mesh.bytes + 3000)))
    assert budget.scene.counts()["body"] == faces
    assert 0 < budget.scene.counts()["fuzz"] < 60


def test_a_mix_of_families_is_drawn_exactly_and_learns(tmp_path: Path) -> None:
    config = layered(tmp_path, MIXED, run__steps=12, density__start=4, density__every=4, run__finish=["export"])
    trainer = trainer_of(tmp_path, config)
    assert trainer.scene.order == "ray"
    assert trainer.plans["body"].rule == "none"
    before = {name: values_of(trainer, name) for name in ("body", "fuzz")}
    run = trainer.run
    run.begin()
    assert loop.train(trainer, PlainDisplay(seconds=1e9)) == "finished"
    records = [each for each in run.metrics() if each["kind"] == "train"]
    assert records[-1]["layers"] == trainer.scene.counts()
    assert records[-1]["primitives"] == sum(records[-1]["layers"].values())
    assert records[-1]["layers"]["fuzz"] > records[0]["layers"]["fuzz"] == 60
    assert records[-1]["layers"]["body"] == records[0]["layers"]["body"]
    assert all(not torch.equal(values_of(trainer, "body")[key], before["body"][key]) for key in before["body"])
    lines = finish.finish(trainer)
    assert "layers fuzz alone" in lines[-1]
    again = load_scene(run.path / "scene")
    assert again.order == "ray"
    assert torch.equal(
        again.layers["body"].family.constants["faces"], trainer.scene.layers["body"].family.constants["faces"]
    )
    assert main(["export", str(run.path), str(tmp_path / "all.ply")]) == 2
    assert main(["export", str(run.path), str(tmp_path / "fuzz.ply"), "--layers", "fuzz"]) == 0
    assert main(["export", str(run.path), str(tmp_path / "all")]) == 0
    assert load_scene(tmp_path / "all").counts() == trainer.scene.counts()


def test_a_mix_that_is_interrupted_ends_in_the_same_bytes(tmp_path: Path) -> None:
    ends = []
    for name, stop in (("straight", 0), ("broken", 7)):
        config = layered(
            tmp_path, [*MIXED, {**TWO[1], "density": "gradient"}], run__steps=12, density__start=2, density__every=3,
            run__checkpoint_every=7, data__background="random", contribution__at=[5], gradient__threshold=1e-6,
        )  # fmt: skip
        run = Run.create(tmp_path / name, config)
        trainer = Trainer(run)
        if stop:
            for _ in range(stop):
                trainer.step()
            trainer.save()
            trainer.step()  # lost
            trainer = Trainer(run, resume=True)
        loop.train(trainer, PlainDisplay(seconds=1e9))
        last = run.path / "checkpoints" / "000012"
        ends.append({each.name: each.read_bytes() for each in last.iterdir() if each.name != "clock.json"})
        assert len(trainer.scene.layers["near"].family) != 150
    assert ends[0].keys() == ends[1].keys()
    assert [name for name in ends[0] if ends[0][name] != ends[1][name]] == []


EVERY = [
    *MIXED,
    {"family": "boxes", "metadata": {"count": 8, "voxels": 4}},
    {"family": "superquadrics", "metadata": {"count": 3, "texture_size": 8}},
    {"family": "neural_splats", "settings": {"count": 20}},
    {"family": "surfels", "settings": {"count": 40}},
    {"family": "ray_gaussians", "settings": {"count": 40}},
]


def test_all_families_train_in_one_picture_and_no_thread_count_changes_a_byte(tmp_path: Path) -> None:
    states = []
    for threads in (1, 2):
        config = layered(tmp_path, EVERY, run__steps=8, density__start=2, density__every=3)
        run = Run.create(tmp_path / str(threads), config)
        set_threads(threads)
        try:
            trainer = Trainer(run)
            before = {layer.name: values_of(trainer, layer.name) for layer in trainer.scene}
            reports = [trainer.step() for _ in range(8)]
            trainer.save()
        finally:
            set_threads(0)
        assert not any(report.problems for report in reports)
        for layer in trainer.scene:  # every layer has its part in the gradient
            moved = values_of(trainer, layer.name)
            assert any(
                moved[key].shape != value.shape or not torch.equal(moved[key], value)
                for key, value in before[layer.name].items()
            )
        folder = run.path / "checkpoints" / "000008"
        states.append({each.name: each.read_bytes() for each in folder.iterdir() if each.name != "clock.json"})
    assert [name for name in states[0] if states[0][name] != states[1][name]] == []


@pytest.mark.parametrize(
    ("layers", "order"),
    [
        (TWO, "centre"),
        (MIXED, "ray"),
        ([{"family": "surfels"}], "ray"),
    ],
)
def test_the_order_is_what_the_families_are_made_for(layers: list[dict[str, Any]], order: str, tmp_path: Path) -> None:
    assert trainer_of(tmp_path, layered(tmp_path, layers)).scene.order == order
    assert trainer_of(tmp_path, layered(tmp_path, layers, model__order="centre")).scene.order == "centre"
    assert trainer_of(tmp_path, layered(tmp_path, layers, model__order="ray")).scene.order == "ray"


def test_a_scene_folder_gives_its_layers_by_name_and_the_rest_starts_anew(tmp_path: Path) -> None:
    first = trainer_of(tmp_path, layered(tmp_path, TWO, run__finish=["export"]))
    first.step()
    first.run.begin()
    finish.finish(first)
    folder = str(first.run.path / "scene")
    more = [{**TWO[0], "frozen": True}, {**TWO[1], "learning_rates": {"means": 0.0}}, {"family": "surfels"}]
    second = trainer_of(tmp_path / "2", layered(tmp_path, more, init_from=folder))
    for name in ("far", "near"):
        for key, value in values_of(first, name).items():
            assert torch.equal(value, values_of(second, name)[key])
    assert second.scene.layers["far"].locked
    assert len(second.scene.layers["surfels"].family) == 400
    assert second.scene.order == "ray"
    with pytest.raises(
        ConfigError, match="holds a layer 'near' of family 'gaussians', which the configuration does not"
    ):
        trainer_of(tmp_path / "3", layered(tmp_path, TWO[:1], init_from=folder))
    with pytest.raises(ConfigError, match="is the file of one layer, and the scene has 2"):
        trainer_of(tmp_path / "4", layered(tmp_path, TWO, init_from=str(first.run.path / "scene.ply")))
    picked = [{"family": "gaussians", "initializer": "file", "settings": {"path": folder, "layer": "near"}}, TWO[0]]
    third = trainer_of(tmp_path / "5", layered(tmp_path, picked))
    assert torch.equal(values_of(third, "gaussians")["means"], values_of(first, "near")["means"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": {"meens": 1}}, "scene.far.learning_rates: no parameter is called 'meens'.* 'means'"),
        ({"regularizers": {"opacty": 1}}, "scene.far.regularizers: no loss term is called 'opacty'.*'opacity'"),
        ({"initializer": "pionts"}, "scene.far.initializer: 'pionts' is not known; did you mean 'points'"),
        ({"settings": {"cuont": 3}}, "scene.far.settings: unknown setting 'cuont'; did you mean 'count'"),
        ({"settings": {"count": -3}}, "count is of type int and not negative"),
        ({"settings": {"count": 2.5}}, "count is of type int"),
        ({"initializer": "file", "settings": {}}, "needs the path of a scene file"),
        ({"metadata": {"sh_degre": 1}}, "unknown metadata 'sh_degre'"),
        ({"family": "gausians"}, "did you mean 'gaussians'"),
    ],
)
def test_a_layer_that_cannot_be_says_why(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, layered(tmp_path, [{**TWO[0], **change}, TWO[1]]))


def test_layers_that_are_all_frozen_are_no_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every layer is frozen, so there is nothing to train"):
        trainer_of(tmp_path, layered(tmp_path, [{**each, "frozen": True} for each in TWO]))
    assert not (tmp_path / "run").exists()


def test_no_layer_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no layer to train"):
        trainer_of(tmp_path, resolve("", SMALL))


def test_the_display_counts_layers_where_there_are_several() -> None:
    status = Status(1, 2, 0.5, None, 250, 10, 10, 0, {"mesh": 200, "fuzz": 50})
    assert dict(rows(status, Speed()))["primitives"] == "250 (mesh 200, fuzz 50)"
    alone = Status(1, 2, 0.5, None, 250, 10, 10, 0, {"mesh": 250})
    assert dict(rows(alone, Speed()))["primitives"] == "250"
