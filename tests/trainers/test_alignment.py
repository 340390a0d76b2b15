"""Training by a canonical frame: what is stated, the unit, files and scenes in the input's frame, resuming, telling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smalti.cameras.similarity import Similarity
from smalti.cli.main import main
from smalti.configs.resolve import ConfigError, resolve
from smalti.datasets.dataset import Points
from smalti.datasets.open import open_dataset
from smalti.datasets.world import World
from smalti.files import read_scene_file
from smalti.scene import Scene, demo_scene
from smalti.scene.open_file import open_scene
from smalti.scene.plain import SceneFileError
from smalti.trainers.alignment import alignment_of, found_alignment, wishes_of
from smalti.trainers.initial import found_points
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

SMALL = {
    "data.path": "demo",
    "data.downscale": 8,
    "data.points": "hull",
    "data.sampled_points": 400,
    "run.steps": 4,
    "run.finish": ["export"],
    "density.pixels_per_primitive": 0,
}
TURN = Similarity(
    2.0, torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([1.0, 2.0, 3.0])
)


def trained(path: Path, **options: object) -> Trainer:
    named = {f"data.{name}": value for name, value in options.items()}
    return Trainer(Run.create(path, resolve("gaussians-fast", {**SMALL, **named})))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the command line, aligned, with a part of it stated."""
    folder = tmp_path_factory.mktemp("aligned") / "run"
    words = [f"--{name}={value}" for name, value in {**SMALL, "run.finish": '["export"]', "data.ground": -0.7}.items()]
    assert main(["train", "gaussians-fast", "--out", str(folder), "--align", "auto", "--up", "z", *words]) == 0
    return folder


# -- configuration ----------------------------------------------------------------------------------------------------
def test_nothing_is_aligned_unless_asked_for(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "run")
    assert trainer.alignment is None
    assert trainer.scene.canonical_from_scene is None
    assert "canonical_from_scene" not in trainer.scene.state()[1]


@pytest.mark.parametrize(
    ("name", "value"), [("up", "z"), ("centre", [0, 0, 1]), ("radius", 2.0), ("ground", "none"), ("ground", -0.5)]
)
def test_a_stated_part_without_alignment_is_an_error(name: str, value: object) -> None:
    config = resolve("gaussians-fast", {f"data.{name}": value})
    with pytest.raises(ConfigError, match=rf"data\.{name}: .*--align auto"):
        wishes_of(config.data)


def test_what_is_stated_comes_through_the_configuration() -> None:
    stated = {"data.align": "auto", "data.up": "-y", "data.centre": [0, 0, 1], "data.radius": 2, "data.ground": -0.5}
    wishes = wishes_of(resolve("gaussians-fast", stated).data)
    assert wishes.up is not None
    assert wishes.centre is not None
    assert wishes.up.tolist() == [0.0, -1.0, 0.0]
    assert wishes.centre.tolist() == [0.0, 0.0, 1.0]
    assert (wishes.radius, wishes.ground) == (2.0, -0.5)


def test_an_up_that_is_no_direction_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"data\.up: 'sideways' is no direction"):
        wishes_of(resolve("gaussians-fast", {"data.align": "auto", "data.up": "sideways"}).data)


# -- training ---------------------------------------------------------------------------------------------------------
def test_the_unit_of_a_run_is_that_of_its_world(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "run", align="auto", radius=0.25)
    assert trainer.extent == pytest.approx(0.25)
    assert trainer.scene.near == pytest.approx(0.25 * trainer.config.model.near)


def test_the_world_comes_from_training_views_alone(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "run", align="auto")
    assert trainer.alignment is not None
    held_out = {trainer.dataset.views[row].camera.name for row in trainer.test_rows}
    assert held_out
    assert held_out.isdisjoint(view.camera.name for view in trainer.alignment.training.views)


def test_nothing_is_moved(tmp_path: Path) -> None:
    """Scenes of an aligned run and of one that is not start from the same numbers, before the same cameras."""
    plain, aligned = trained(tmp_path / "plain"), trained(tmp_path / "aligned", align="auto", up="-z", radius=3.0)
    one, other = (each.scene.layers["gaussians"].family.parameters["means"] for each in (plain, aligned))
    assert torch.equal(one, other)
    assert torch.equal(plain.cameras[0].translation, aligned.cameras[0].translation)


def test_points_at_random_are_no_reason_to_forget_the_captures_own() -> None:
    generator = np.random.default_rng(0)
    dataset = open_dataset("demo")
    own = Points(generator.uniform(-0.2, 0.2, (500, 3)), np.zeros((500, 3), np.uint8))
    config = resolve("", {**SMALL, "data.align": "auto", "data.points": "frustum"})
    found = found_alignment(config, replace(dataset, points=own))
    assert found.world.findings["centre"].how == "points"
    assert found.points is not None
    assert found.points.origin == "file"
    bare = found_alignment(config, replace(dataset, points=None))
    assert bare.world.findings["centre"].how == "cameras"


def test_points_are_the_captures_own_where_a_scene_file_is_the_start() -> None:
    config = resolve("gaussians-fast", {**SMALL, "data.align": "auto"})
    dataset = open_dataset("demo")
    own = Points(np.random.default_rng(0).normal(size=(200, 3)), np.zeros((200, 3), np.uint8))
    none = Points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
    alignment = alignment_of(config.data, replace(dataset, points=own), none)
    assert alignment is not None
    assert alignment.points is own


def test_the_same_world_whatever_the_seed() -> None:
    dataset = open_dataset("demo")
    ups = []
    for seed in (0, 1):
        config = resolve("gaussians-fast", {**SMALL, "data.align": "auto", "run.seed": seed})
        ups.append(found_alignment(config, dataset).world)
    assert np.allclose(ups[0].up, ups[1].up, atol=1e-9)
    assert ups[0].unit == pytest.approx(ups[1].unit, rel=0.05)  # other points of the same hull


# -- what a run leaves ------------------------------------------------------------------------------------------------
def test_a_run_tells_and_draws_its_world(finished: Path) -> None:
    world = World.from_plain(json.loads((finished / "world.json").read_text()))
    assert np.allclose(world.up, [0.0, 0.0, 1.0])
    assert world.ground == -0.7
    assert (finished / "world.png").stat().st_size > 10_000
    scene = Scene.load(finished / "scene")
    assert scene.canonical_from_scene is not None
    assert torch.allclose(scene.canonical_from_scene.matrix, world.canonical_from_input.matrix)


def test_exports_lie_in_the_frame_of_the_input(finished: Path) -> None:
    """The exported splats are where the hull of the untouched capture is, as the cameras see it."""
    points = read_scene_file(finished / "scene.ply").to_parameters()["means"].numpy()
    run = Run.open(finished)
    dataset = run.dataset()
    config = resolve("gaussians-fast", SMALL)
    hull = found_points(config, dataset, run.split(dataset)[0], torch.Generator().manual_seed(1)).positions
    assert np.abs(np.median(points, axis=0) - np.median(hull, axis=0)).max() < 0.1
    assert np.abs(np.quantile(points, [0.05, 0.95], axis=0) - np.quantile(hull, [0.05, 0.95], axis=0)).max() < 0.15
    given = {view.camera.name: view.camera for view in open_dataset("demo").views}
    for view in dataset.views:
        assert torch.equal(view.camera.translation, given[view.camera.name].translation)


def test_an_interrupted_aligned_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    def ended(trainer: Trainer, steps: int) -> Trainer:
        while trainer.step_number < steps:
            trainer.step()
        trainer.save()
        return trainer

    whole = ended(trained(tmp_path / "whole", align="auto"), 4)
    ended(trained(tmp_path / "broken", align="auto"), 2)
    resumed = Trainer(Run.open(tmp_path / "broken"), resume=True)
    assert resumed.alignment is None  # it is in the scene
    assert resumed.extent == whole.extent
    ended(resumed, 4)
    paths = [tmp_path / name / "checkpoints" / "000004" / "scene.safetensors" for name in ("whole", "broken")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    plain = [json.loads(path.with_name("scene.json").read_text()) for path in paths]
    assert plain[0] == plain[1]
    assert "canonical_from_scene" in plain[0]


def test_an_upright_export_stands_in_the_canonical_frame(finished: Path, tmp_path: Path) -> None:
    assert main(["export", str(finished), str(tmp_path / "plain.ply")]) == 0
    assert main(["export", str(finished), str(tmp_path / "upright.ply"), "--upright"]) == 0
    plain, upright = (
        read_scene_file(tmp_path / f"{name}.ply").to_parameters()["means"].double() for name in ("plain", "upright")
    )
    world = World.from_plain(json.loads((finished / "world.json").read_text()))
    expected = world.canonical_from_input.apply(plain) * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(upright, expected, atol=1e-5)
    assert main(["export", str(finished), str(tmp_path / "upright.smalti"), "--upright"]) == 0
    scene = Scene.load(tmp_path / "upright.smalti")
    assert scene.canonical_from_scene is not None
    here = scene.canonical_from_scene.apply(scene.layers["gaussians"].family.positions().detach().double())
    assert torch.allclose(here, world.canonical_from_input.apply(plain), atol=1e-5)
    assert scene.near == pytest.approx(Run.open(finished).load_scene().near * world.canonical_from_input.scale)


def test_no_scene_stands_upright_that_knows_no_up() -> None:
    with pytest.raises(ValueError, match="--align auto"):
        demo_scene().upright()


# -- scenes -----------------------------------------------------------------------------------------------------------
def aligned_scene() -> Scene:
    scene = demo_scene()
    scene.canonical_from_scene = TURN
    return scene


@pytest.mark.parametrize("name", ["folder", "scene.smalti"])
def test_a_saved_scene_keeps_its_canonical_frame(tmp_path: Path, name: str) -> None:
    aligned_scene().save(tmp_path / name)
    loaded = Scene.load(tmp_path / name)
    assert loaded.canonical_from_scene is not None
    assert torch.equal(loaded.canonical_from_scene.matrix, TURN.matrix.double())
    flat = loaded.flattened()
    assert flat.canonical_from_scene is loaded.canonical_from_scene


def test_a_canonical_frame_that_means_nothing_is_refused(tmp_path: Path) -> None:
    aligned_scene().save(tmp_path)
    plain = json.loads((tmp_path / "scene.json").read_text())
    for broken in ({"scale": 1.0}, [], {**plain["canonical_from_scene"], "scale": -1.0}):
        (tmp_path / "scene.json").write_text(json.dumps({**plain, "canonical_from_scene": broken}))
        with pytest.raises(SceneFileError):
            Scene.load(tmp_path)


def test_the_canonical_frame_follows_other_axes(tmp_path: Path) -> None:
    scene = aligned_scene()
    scene.save(tmp_path / "scene.smalti")
    opened = open_scene(tmp_path / "scene.smalti", "gltf").scene
    before = TURN.apply(scene.layers["chair"].family.positions().detach())
    assert opened.canonical_from_scene is not None
    held = opened.layers["chair"]
    after = opened.canonical_from_scene.apply(held.similarity.apply(held.family.positions().detach()))
    assert torch.allclose(before, after, atol=1e-5)
    assert main(["convert", str(tmp_path / "scene.smalti"), str(tmp_path / "turned.smalti"), "--scale", "3"]) == 0
    turned = Scene.load(tmp_path / "turned.smalti")
    assert turned.canonical_from_scene is not None
    again = turned.canonical_from_scene.apply(turned.layers["chair"].family.positions().detach())
    assert torch.allclose(before, again, atol=1e-5)
