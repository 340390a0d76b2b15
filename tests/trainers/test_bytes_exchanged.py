"""Bytes move between layers to where they are worth more, within the budget, with their moments, resumed alike."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.configs.config import ExchangeConfig
from smalti.configs.resolve import resolve
from smalti.primitives.family import Family, find_family
from smalti.renderers.render import render
from smalti.scene.scene import Scene
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.density.budget import Budget
from smalti.trainers.density.exchange import Exchange, Judged, evidence_of, spread, without_rows
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.sampled_points": 400, "schedule.resolution": [],
    "density.pixels_per_primitive": 0, "density.start": 2, "density.every": 4, "density.model": "40KB",
    "exchange.every": 2, "exchange.views": 3, "exchange.share": 0.1, "run.finish": [], "run.steps": 12,
    "run.checkpoint_every": 0,
}  # fmt: skip
LAYERS = [
    {"name": "flat", "family": "ray_gaussians", "settings": {"count": 300}, "metadata": {"sh_degree": 0}},
    {"name": "bent", "family": "neural_splats", "settings": {"count": 80}, "metadata": {"sh_degree": 1}},
]
EYE, UP = torch.tensor([0.0, 0.0, -4.0]), torch.tensor([0.0, -1.0, 0.0])
CAMERA = Camera.look_at(EYE, torch.zeros(3), UP, 0.9, (24, 24))


def trainer_of(folder: Path, layers: list[dict[str, Any]] | None = None, **options: Any) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "layers.yaml"
    file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers or LAYERS}))
    given = {key.replace("__", "."): value for key, value in options.items()}
    return Trainer(Run.create(folder / "run", resolve(str(file), {**SMALL, **given})))


def dots(family: str, count: int, depth: float, seed: int = 0) -> Family:
    """Primitives in a plane, in view where `depth` is not far behind the camera."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 3, generator=generator) * 2 - 1
    places[:, 2] = depth
    solid = {"initial_offset": 1.0} if family == "neural_splats" else {"initial_opacity": 0.5}
    return find_family(family).from_points(places, torch.rand(count, 3, generator=generator), {"sh_degree": 0, **solid})


def drawn(scene: Scene, target: torch.Tensor) -> Any:
    def judge(scene: Scene, row: int) -> Judged:
        frame = render(scene.drawables(CAMERA), CAMERA, settings=scene.settings(statistics=True))
        error = (frame.color - target).abs().mean(2)
        return Judged(frame, error.detach(), float(error.mean().detach()))

    return judge


def moment(scene: Scene, model: int = 0) -> Change:
    adam = Adam(AdamSettings())
    populations = [Population(layer, adam) for layer in scene]
    for each in populations:  # row numbers as moments and statistics: wherever rows go, they tell
        for name, parameter in each.parameters().items():
            number = torch.arange(1.0, len(each) + 1).reshape(-1, *[1] * (parameter.dim() - 1))
            adam.moments[name] = (number.expand_as(parameter).clone(), number.expand_as(parameter).clone())
            adam.counts[name] = 1
        each.statistic("row").copy_(torch.arange(1.0, len(each) + 1))
    budget = Budget(10**9, 10**6, model=model)
    return Change(100, populations, budget, torch.Generator().manual_seed(1), 1e-4)


@pytest.mark.parametrize(("seen", "hidden"), [("ray_gaussians", "neural_splats"), ("neural_splats", "ray_gaussians"),
                                              ("surfels", "surfels")])  # fmt: skip
def test_bytes_go_from_what_no_view_shows_to_what_is_seen(seen: str, hidden: str) -> None:
    scene = Scene(order="ray")
    scene.add("seen", dots(seen, 60, 0.0))
    scene.add("hidden", dots(hidden, 60, -40.0))
    held = sum(layer.family.bytes for layer in scene)
    change = moment(scene, held)
    exchange = Exchange(ExchangeConfig(every=1, share=0.1, views=1))
    before = scene.counts()
    target = scene.render(CAMERA).color.detach() + 0.01
    counts = exchange.change(scene, change, 1, drawn(scene, target))
    assert counts["moved_between"] > 0
    assert scene.counts()["hidden"] == before["hidden"] - counts["moved_between"]
    assert counts["moved"] >= scene.counts()["seen"] - before["seen"] > 0
    assert exchange.worth["hidden"] == 0.0 < exchange.worth["seen"]
    after = sum(layer.family.bytes for layer in scene)
    finest = max(layer.family.bytes_per_primitive for layer in scene)
    assert held - finest < after <= held


def test_moments_and_statistics_follow(tmp_path: Path) -> None:
    scene = Scene(order="ray")
    scene.add("seen", dots("ray_gaussians", 30, 0.0))
    scene.add("hidden", dots("neural_splats", 30, -40.0))
    change = moment(scene)
    places = {layer.name: layer.family.positions().detach().clone() for layer in scene}
    Exchange(ExchangeConfig(every=1, share=0.1, views=1)).change(scene, change, 1, drawn(scene, torch.ones(24, 24, 3)))
    for population in change.populations:
        number = population.statistics["row"]
        first = population.adam.moments[f"{population.layer.name}/means"][0][:, 0]
        kept = first > 0
        assert 0 < int(kept.sum()) < 30  # some went, or were split
        assert torch.equal(first[kept], number[kept])
        rows = number[kept].long() - 1
        assert torch.equal(population.family.positions()[kept], places[population.layer.name][rows])
        for name in population.parameters():
            for value in population.adam.moments[name]:
                assert len(value) == len(population)
                assert not value[~kept].any()


def test_alone_a_layer_moves_its_own_bytes_to_the_error() -> None:
    scene = Scene(order="ray")
    scene.add("dots", dots("ray_gaussians", 50, 0.0))
    held = scene.layers["dots"].family.bytes
    with torch.no_grad():
        target = scene.render(CAMERA).color.clone()
    target[:, :12] += 0.5  # the left half is wrong
    places = scene.layers["dots"].family.positions().detach().clone()
    exchange = Exchange(ExchangeConfig(every=1, share=0.1, views=1))
    counts = exchange.change(scene, moment(scene, held), 1, drawn(scene, target))
    assert counts == {"moved": 5, "moved_between": 0}
    assert exchange.worth == {}
    family = scene.layers["dots"].family
    assert family.bytes == held
    children = family.positions().detach()[-10:]  # of five, in place of their parents
    assert bool((family.positions().detach()[:-10, None] == places[None]).all(2).any(1).all())
    assert float((children[:, 0] < 0.3).float().mean()) >= 0.8


def test_evidence_is_what_the_frame_says() -> None:
    scene = Scene(order="ray")
    scene.add("near", dots("ray_gaussians", 12, 0.0))
    scene.add("far", dots("neural_splats", 12, 1.0, seed=1))
    target = torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(2))
    judge = drawn(scene, target)
    evidence, judged = evidence_of(scene, [0, 0], judge), judge(scene, 0)
    assert evidence.loss == pytest.approx(judged.loss)
    weights = sum(float(each.sum()) for each in evidence.contribution.values())
    assert weights == pytest.approx(2 * float(judged.frame.alpha.detach().sum()), rel=1e-4)
    hit = judged.frame.ids["dominant"] >= 0
    handed = sum(float(each.sum()) for each in evidence.error.values())
    assert handed == pytest.approx(2 * float(judged.error[hit].sum()), rel=1e-4)
    assert {name: len(each) for name, each in evidence.error.items()} == scene.counts()


def test_a_trial_leaves_the_scene_alone() -> None:
    scene = Scene(order="ray", near=0.1, background=(0.2, 0.3, 0.4), canonical_from_scene=Similarity(2.0))
    scene.add("dots", dots("ray_gaussians", 9, 0.0))
    before = {key: value.clone() for key, value in scene.state()[0].items()}
    without = without_rows(scene, scene.layers["dots"], torch.tensor([0, 4]))
    assert without.counts() == {"dots": 7}
    assert (without.order, without.near, without.background) == ("ray", 0.1, (0.2, 0.3, 0.4))
    assert without.canonical_from_scene is scene.canonical_from_scene
    assert torch.equal(without.layers["dots"].family.positions(), before["dots/means"][[1, 2, 3, 5, 6, 7, 8]])
    after = scene.state()[0]
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("family", ["ray_gaussians", "neural_splats"])
def test_branches_are_not_twice_the_same(family: str) -> None:
    scene = Scene(order="ray")
    scene.add("dots", dots(family, 20, 0.0))
    population = moment(scene).populations[0]
    rows = torch.tensor([2, 7, 11])
    before, change = population.family.copy(), torch.Generator().manual_seed(0)
    population.branch(rows, change)
    assert len(population) == 23
    places = population.family.positions().detach()
    assert int((torch.cdist(places, places) < 1e-6).sum()) == 23  # nothing but with itself
    untouched = population.statistics["row"][population.adam.moments["dots/means"][0][:, 0] > 0]
    assert sorted(untouched.tolist()) == [row + 1 for row in range(20) if row not in rows.tolist()]
    sizes = before.sizes().detach().amax(1)[rows].max()
    parents = before.positions().detach()[rows]
    assert float(torch.cdist(places[-3:], parents).amin(1).max()) < 4 * float(sizes)


def test_views_are_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = spread(100, 8, generator)
    steps = [after - before for before, after in pairwise(rows)]
    assert len(set(rows)) == 8
    assert all(12 <= step <= 13 for step in steps)
    assert spread(3, 8, generator) == [0, 1, 2]


def test_training_moves_bytes_and_never_passes_the_budget(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    moved = 0
    for _ in range(12):
        report = trainer.step()
        moved += report.changes.get("moved", 0)
        assert trainer.budget.model_used(trainer.populations) <= 40_000
    assert moved > 0
    assert trainer.budget.model_used(trainer.populations) > 0.97 * 40_000
    assert set(trainer.exchange.worth) == {"flat", "bent"}


def test_layers_keep_to_their_limits_and_those_that_do_not_grow_take_no_part(tmp_path: Path) -> None:
    body = {"name": "body", "family": "meshes", "initializer": "hull", "settings": {"faces": 100}}
    layers = [body, {**LAYERS[0], "max_primitives": 300}, {**LAYERS[1], "frozen": True}, {**LAYERS[0], "name": "more"}]
    trainer = trainer_of(tmp_path, layers, density__model="80KB")
    before = trainer.scene.counts()
    for _ in range(12):
        trainer.step()
    after = trainer.scene.counts()
    assert (after["body"], after["bent"]) == (before["body"], before["bent"])
    assert after["flat"] <= 300
    assert set(trainer.exchange.worth) == {"flat", "more"}


def test_resumed_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole")
    for _ in range(12):
        whole.step()
    broken = trainer_of(tmp_path / "broken")
    for _ in range(5):
        broken.step()
    broken.save()
    resumed = Trainer(Run.open(broken.run.path), resume=True)
    for _ in range(7):
        resumed.step()
    assert resumed.exchange.worth == whole.exchange.worth
    assert resumed.scene.counts() == whole.scene.counts()
    first, second = whole.scene.state()[0], resumed.scene.state()[0]
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_without_the_option_nothing_moves(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, exchange__every=0)
    reports = [trainer.step() for _ in range(6)]
    assert not any("moved" in report.changes for report in reports)
    assert trainer.exchange.worth == {}


def test_what_judges_is_the_same_with_and_without_the_tried(tmp_path: Path) -> None:
    """Random backgrounds would say more about a trial than what is left out of it; and the run's own draws stay."""
    trainer = trainer_of(tmp_path, data__background="random", schedule__weights=[[0, "dssim", 0.0]])
    before = trainer.generator.get_state()
    first, second = (trainer._judged(trainer.scene, 0) for _ in range(2))
    assert first.loss == second.loss
    assert torch.equal(first.error, second.error)
    assert torch.equal(trainer.generator.get_state(), before)
    assert first.loss == pytest.approx(float(first.error.mean()), rel=1e-5)  # with the weights of the step


def test_a_layer_that_is_left_alone_keeps_its_bytes_whatever_others_were_worth() -> None:
    """Layers that are hidden, locked or renamed meanwhile leave their worth behind."""
    scene = Scene(order="ray")
    scene.add("dots", dots("ray_gaussians", 50, 0.0))
    exchange = Exchange(ExchangeConfig(every=1, share=0.1, views=1))
    exchange.load({"worth": {"one": 1.0, "other": 2.0}})
    counts = exchange.change(scene, moment(scene), 1, drawn(scene, torch.ones(24, 24, 3)))
    assert counts == {"moved": 5, "moved_between": 0}


def test_layers_in_which_nothing_is_left_take_no_part() -> None:
    scene = Scene(order="ray")
    scene.add("dots", dots("ray_gaussians", 50, 0.0))
    scene.add("gone", dots("neural_splats", 6, 0.0))
    change = moment(scene)
    change.populations[1].prune(torch.ones(6, dtype=torch.bool))
    counts = Exchange(ExchangeConfig(every=1, share=0.1, views=1)).change(
        scene, change, 1, drawn(scene, torch.ones(24, 24, 3))
    )
    assert counts == {"moved": 5, "moved_between": 0}
    assert scene.counts() == {"dots": 50, "gone": 0}
