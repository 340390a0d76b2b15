"""A training on show: looking changes nothing, it waits when it is told to, edits are followed and can be resumed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from live_runs import RULES, Meanwhile, Silent, a_trainer, different, require_aligned, state_bytes, until

from smalti.cameras.similarity import Similarity
from smalti.scene import (
    EditError,
    Scene,
    Selection,
    delete,
    duplicate,
    everything,
    index,
    layer,
    merge,
    move,
    split,
    where,
)
from smalti.scene.selection import positions
from smalti.trainers import loop
from smalti.trainers.checkpoints import checkpoint_path, checkpoint_steps
from smalti.trainers.trainer import Trainer
from smalti.viewer.curves import Curve
from smalti.viewer.live import Live

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("rule", list(RULES))
def test_looking_changes_no_byte(rule: str, tmp_path: Path) -> None:
    plain, seen = a_trainer(tmp_path / "plain", rule), a_trainer(tmp_path / "seen", rule)
    loop.train(plain, Silent())
    live, pictures = Live(seen), list[float]()
    camera = seen.cameras[0]
    bigger = type(camera).look_at(camera.centre, torch.zeros(3), torch.tensor([0.0, 0, 1]), 1.0, (200, 150))

    def look() -> None:
        while not live.ending:
            with live.stage.reading() as scene, torch.no_grad():
                frame = scene.render(bigger, settings=scene.settings(statistics=True))
            pictures.append(float(frame.alpha.mean()))
            live.state()
            time.sleep(0.01)

    looking = Meanwhile(look)
    assert loop.train(seen, Silent(), live) == "finished"
    looking.done()
    assert len(pictures) > 5
    assert max(pictures) > 0
    assert different(state_bytes(plain), state_bytes(seen)) == []
    state = live.state()
    assert state["step"] == state["steps"] == 24
    assert state["ending"] == "finished"
    assert [step for step, _ in state["losses"]] == list(range(1, 25))
    assert len(state["preview_psnrs"]) == 4
    assert live.stage.scene is seen.scene
    assert live.stage.revision >= 24


def test_it_waits_steps_once_saves_meanwhile_and_the_clock_stands_still(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run")
    live = Live(trainer)
    live.pause()

    def steer() -> None:
        until(lambda: live.state()["waiting"])
        assert live.state()["step"] == 0
        assert live.state()["paused"]
        live.one_step()
        live.one_step()
        until(lambda: live.state()["step"] == 2 and live.state()["waiting"])
        time.sleep(1.0)
        assert live.state()["step"] == 2
        assert live.save().endswith("000002")
        assert checkpoint_steps(trainer.run.path) == [2]
        live.go_on()

    before, steering, start = trainer.clock.wall, Meanwhile(steer), time.perf_counter()
    assert loop.train(trainer, Silent(), live) == "finished"
    steering.done()
    assert trainer.clock.wall - before < time.perf_counter() - start - 0.9
    other = a_trainer(tmp_path / "plain")
    loop.train(other, Silent())
    assert different(state_bytes(other), state_bytes(trainer)) == []


def test_ctrl_c_and_the_wall_limit_end_it_while_it_is_paused(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "interrupted")
    live = Live(trainer)
    live.pause()
    live.one_step()

    def interrupt() -> None:
        until(lambda: live.state()["step"] == 1 and live.state()["waiting"])
        os.kill(os.getpid(), signal.SIGINT)

    other = Meanwhile(interrupt)
    assert loop.train(trainer, Silent(), live) == "interrupted"
    other.done()
    assert checkpoint_steps(trainer.run.path) == [1]
    assert live.state()["ending"] == "interrupted"
    start = time.perf_counter()
    late = a_trainer(tmp_path / "late", run__wall_limit=1.0 / 60.0)
    live = Live(late)
    live.pause()
    assert loop.train(late, Silent(), live) == "out of time"
    assert 0.8 < time.perf_counter() - start < 20
    assert late.step_number == 0


def test_moments_follow_what_is_deleted_moved_copied_and_undone(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run", density__start=100)
    for _ in range(3):
        trainer.step()
    (name,) = trainer.scene.layers
    full = f"{name}/means"
    before = trainer.adam.moments[full][0].clone()
    assert float(before.abs().amin(dim=1).median()) > 0
    delete(trainer.scene, index(name, [0, 5]))
    move(trainer.scene, index(name, [0]), [0.0, 0.0, 0.01])
    duplicate(trainer.scene, index(name, [1, 2]))
    assert trainer.can_step
    kept = [row for row in range(len(before)) if row not in (0, 5)]
    wanted = torch.cat([before[kept], torch.zeros(2, 3)])
    wanted[0] = 0  # moved
    assert torch.equal(trainer.adam.moments[full][0], wanted)
    colors = trainer.adam.moments[f"{name}/sh_dc"][0]
    assert bool((colors[0] != 0).any()), "a move leaves the moments of colours"
    while trainer.scene.history.done:
        trainer.scene.undo()
    assert trainer.can_step
    back = before.clone()
    back[[0, 1, 5]] = 0
    assert torch.equal(trainer.adam.moments[full][0], back)
    assert trainer.adam.counts[full] == 3
    require_aligned(trainer)
    trainer.step()


def two_edits(scene: Scene, one: Selection, other: Selection) -> None:
    with scene.edit("both"):
        delete(scene, one)
        delete(scene, other)


def test_an_edit_that_fails_and_one_that_is_undone_at_once_cost_nothing(tmp_path: Path) -> None:
    trainer, other = a_trainer(tmp_path / "run"), a_trainer(tmp_path / "other")
    for each in (trainer, other):
        each.step()
    (name,) = trainer.scene.layers
    delete(trainer.scene, everything())
    trainer.scene.undo()
    both = index(name, [0, 1]) | layer("none")
    with pytest.raises(EditError, match="no layer"):
        two_edits(trainer.scene, index(name, [0, 1]), both)
    for each in (trainer, other):
        each.step()
        each.save()
    assert different(state_bytes(other), state_bytes(trainer)) == []


def test_values_that_are_set_past_the_history_start_anew(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run")
    live = Live(trainer)
    trainer.step()
    (name,) = trainer.scene.layers
    family = trainer.scene.layers[name].family
    with live.stage.changing():
        family.replace({"means": family.parameters["means"].detach() + 0.01})
        live.edited({name})
    assert not trainer.adam.moments
    trainer.step()
    with live.stage.changing():  # without a word: found by its size
        family.prune(torch.arange(len(family)) < 3)
    trainer.step()
    require_aligned(trainer)


def test_layers_that_are_placed_are_trained_where_they_are(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run", "mixed")
    trainer.step()
    scene, place = trainer.scene, Similarity(scale=1.5, translation=torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64))
    split(scene, index("fuzz", list(range(20))), "locked")
    wanted = {name: place.apply(scene.layers[name].family.positions().detach().double()) for name in ("fuzz", "locked")}
    for name in wanted:
        scene[name].similarity = place
    scene["locked"].locked = True
    assert trainer.can_step
    for name, points in wanted.items():
        torch.testing.assert_close(positions(scene.layers[name]), points, rtol=1e-5, atol=1e-5)
    assert scene.layers["fuzz"].similarity.is_identity
    assert not scene.history.done
    require_aligned(trainer)
    trainer.step()


def edit_at_random(trainer: Trainer, chance: random.Random) -> str:
    """One edit, some of which are refused."""
    scene = trainer.scene
    if not scene.layers:
        return scene.undo()
    name = chance.choice(list(scene.layers))
    rows = sorted(chance.sample(range(len(scene.layers[name].family)), min(7, len(scene.layers[name].family))))
    other = chance.choice(list(scene.layers))
    what: dict[str, Callable[[], object]] = {
        "delete": lambda: delete(scene, index(name, rows)),
        "delete all": lambda: delete(scene, layer(name)),
        "duplicate": lambda: duplicate(scene, index(name, rows), [0.01, 0, 0]),
        "move": lambda: move(scene, index(name, rows), [0.02, 0, 0]),
        "split": lambda: split(scene, index(name, rows), f"part-{len(scene.layers)}-{chance.randrange(1000)}"),
        "rename": lambda: setattr(scene[name], "name", f"other-{chance.randrange(1000)}"),
        "lock": lambda: setattr(scene[name], "locked", not scene[name].locked),
        "hide": lambda: setattr(scene[name], "visible", not scene[name].visible),
        "merge": lambda: merge(scene, [name, other]),
        "remove": lambda: scene[name].remove(),
        "faint": lambda: delete(scene, where("opacity", "<", 0.05)),
        "undo": scene.undo,
        "redo": scene.redo,
    }
    chosen = chance.choice(list(what))
    try:
        what[chosen]()
    except EditError:
        return f"{chosen} (refused)"
    return chosen


@pytest.mark.parametrize("rule", ["gradient", "mixed"])
@pytest.mark.parametrize("seed", range(3))
def test_after_any_edits_training_goes_on_and_resumes_to_the_same_bytes(rule: str, seed: int, tmp_path: Path) -> None:
    trainer, chance = a_trainer(tmp_path / "run", rule), random.Random(seed)
    made: list[str] = []
    for _ in range(10):
        if trainer.can_step:
            trainer.step()
        made += [edit_at_random(trainer, chance) for _ in range(chance.randrange(4))]
        able = trainer.can_step
        require_aligned(trainer)
        while not able:
            trainer.scene.undo()
            able = trainer.can_step
    assert len({each for each in made if "refused" not in each}) > 3, made
    trainer.save()
    resumed, last = Trainer(trainer.run, resume=True), dict[str, bytes]()
    for each in (trainer, resumed):
        for _ in range(5):
            each.step()
        each.save()
        if each is trainer:
            last = state_bytes(trainer)
            for entry in checkpoint_path(trainer.run.path).iterdir():
                entry.unlink()
            checkpoint_path(trainer.run.path).rmdir()
    assert different(last, state_bytes(resumed)) == [], made


def test_what_is_edited_after_a_checkpoint_of_the_same_step_is_saved(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run")
    trainer.step()
    trainer.save()
    (name,) = trainer.scene.layers
    delete(trainer.scene, index(name, list(range(50))))
    trainer.save()
    again = Trainer(trainer.run, resume=True)
    assert again.scene.counts() == trainer.scene.counts()
    assert checkpoint_steps(trainer.run.path) == [1]
    assert not list((tmp_path / "run/checkpoints").glob(".writing*"))


def test_it_waits_where_everything_is_deleted_and_goes_on_when_that_is_undone(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run")
    live = Live(trainer)

    def steer() -> None:
        until(lambda: live.state()["step"] >= 2)
        with live.stage.changing() as scene:
            delete(scene, everything())
            live.edited(set(scene.layers))
        until(lambda: "nothing is left" in live.state()["note"])
        step = live.state()["step"]
        assert live.state()["waiting"]
        assert live.state()["primitives"] == 0
        assert step < 24
        with live.stage.changing() as scene:
            scene.undo()
        until(lambda: live.state()["step"] > step)
        assert live.state()["note"] == ""

    steering = Meanwhile(steer)
    assert loop.train(trainer, Silent(), live) == "finished"
    steering.done()


def test_hidden_and_locked_layers_rest(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path / "run", "mixed")
    for _ in range(2):
        trainer.step()
    scene = trainer.scene
    split(scene, index("fuzz", list(range(40))), "hidden")
    split(scene, index("fuzz", list(range(20))), "locked")
    trainer.step()
    scene["hidden"].visible, scene["locked"].locked = False, True
    before = {name: scene.layers[name].family.copy().parameters for name in ("hidden", "locked")}
    for _ in range(6):  # a structural change among them
        trainer.step()
    for name, held in before.items():
        for key, value in held.items():
            assert torch.equal(scene.layers[name].family.parameters[key], value), (name, key)
    assert "hidden/means" in trainer.adam.moments
    assert "locked/means" not in trainer.adam.moments
    scene["hidden"].visible, scene["locked"].locked = True, False
    trainer.step()
    for name, held in before.items():
        assert not torch.equal(scene.layers[name].family.parameters["means"], held["means"])
    require_aligned(trainer)


def test_a_curve_stays_bounded_and_true() -> None:
    curve = Curve(64)
    for step in range(1, 10_001):
        curve.add(step, float(step) if step != 777 else float("nan"))
    assert 32 <= len(curve.points) < 64
    steps, _values = zip(*curve.points, strict=True)
    assert list(steps) == sorted(steps)
    assert steps[-1] > 9_500
    assert all(abs(value - (step - 0.5 * curve.every)) <= 3 for step, value in curve.points[8:])
