"""The trainer end to end on 28 x 28 pictures of the demo: it learns, it stops politely, it keeps NaN out, it starts
from files.
"""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.configs.config import TrainConfig
from smalti.configs.resolve import ConfigError, resolve
from smalti.trainers import evaluation, finish, loop
from smalti.trainers.checkpoints import CheckpointError
from smalti.trainers.display import LiveDisplay, PlainDisplay, Status, make_display
from smalti.trainers.evaluation import evaluate, protocol_for
from smalti.trainers.guard import BadGradientError
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.points": "frustum", "data.sampled_points": 400,
    "schedule.resolution": [], "density.max_primitives": 800,
    "density.pixels_per_primitive": 0, "run.finish": ["evaluation"],
}  # fmt: skip


def small(**options: Any) -> TrainConfig:
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return resolve("gaussians-fast", {**SMALL, **dotted})


class Silent(PlainDisplay):
    """Keeps what was said, and calls `at_step` after each step."""

    def __init__(self, at_step: Any = None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.statuses: list[Status] = []
        self.at_step = at_step

    def update(self, status: Status) -> None:
        self.statuses.append(status)
        if self.at_step is not None:
            self.at_step(status.step)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_training_learns_and_evaluation_in_training_equals_evaluation_afterwards(tmp_path: Path) -> None:
    config = small(run__steps=150, run__eval_at_cpu_seconds=[1e-6], run__eval_every=100)
    run = Run.create(tmp_path / "run", config)
    trainer = Trainer(run)
    display = Silent()
    assert loop.train(trainer, display) == "finished"
    trained, start = trainer.clock.wall, time.perf_counter()
    lines = finish.finish(trainer)
    took = time.perf_counter() - start
    assert trainer.clock.wall - trained < 0.1 * took  # what is made of a training is no part of it
    assert list(run.metrics())[-1]["wall_seconds"] - trained < 0.1 * took
    assert any("mean" in line and "dB" in line for line in lines)
    records = list(run.metrics())
    marks = [each for each in records if each["kind"] == "evaluation"]
    assert [each["step"] for each in marks] == [1, 100, 150]
    assert marks[0]["mark_cpu_seconds"] == 1e-6
    assert marks[-1]["psnr"] > marks[0]["psnr"] + 3
    assert marks[-1]["psnr"] > 14.5
    dataset = run.dataset()
    again = evaluate(run.load_scene(), trainer.cache, run.split(dataset)[1], protocol_for(config.data, dataset))
    assert again.mean["psnr"] == marks[-1]["psnr"]
    train = [each for each in records if each["kind"] == "train"]
    assert train[-1]["loss"] < 0.6 * train[0]["loss"]
    assert train[-1]["preview_psnr"] is not None
    assert train[-1]["cpu_seconds"] > train[0]["cpu_seconds"]
    assert display.statuses[-1].primitives == len(run.load_scene())


def test_ctrl_c_finishes_the_step_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=12))
    press = lambda step: signal.raise_signal(signal.SIGINT) if step == 5 else None  # noqa: E731
    handler = signal.getsignal(signal.SIGINT)
    display = Silent(press)
    assert loop.train(Trainer(run), display) == "interrupted"
    assert "saving" in display.said[0]
    assert signal.getsignal(signal.SIGINT) is handler
    assert run.latest_step() == 5
    trainer = Trainer(run, resume=True)
    assert loop.train(trainer, Silent()) == "finished"
    assert run.latest_step() == 12


def test_ctrl_c_in_the_middle_of_a_print_is_kept(tmp_path: Path) -> None:
    """A buffered stream that the handler enters again raises; the run is saved all the same."""

    class Printing(Silent):
        def say(self, text: str) -> None:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    run = Run.create(tmp_path / "run", small(run__steps=9))
    press = lambda step: signal.raise_signal(signal.SIGINT) if step == 3 else None  # noqa: E731
    assert loop.train(Trainer(run), Printing(press)) == "interrupted"
    assert run.latest_step() == 3


def test_the_wall_clock_ends_a_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=10_000, run__wall_limit=0.002))
    trainer = Trainer(run)
    assert loop.train(trainer, Silent()) == "out of time"
    assert run.latest_step() == trainer.step_number < 10_000


def test_a_run_that_the_clock_ended_has_its_time_again_when_it_is_resumed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=40, run__wall_limit=0.5))
    trainer = Trainer(run)
    trainer.step()
    trainer.clock.wall_before = 3600.0  # what earlier sittings took
    assert loop.train(trainer, Silent()) == "finished"


def spoil(frame: Any, camera: Any, index: int) -> torch.Tensor:
    """A loss whose gradient is NaN for whatever touches the picture's middle."""
    return frame.color[14, 14].sum() * math.nan


def spoil_the_second() -> Any:
    """Another pixel for each view of a step, so that the views spoil different primitives."""
    places = iter([(14, 14), (10, 17)])
    return lambda frame, camera, index: frame.color[next(places)].sum() * math.nan


def test_nan_is_named_and_never_reaches_the_parameters(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=5, density__rule="none"))
    trainer = Trainer(run, depth_loss=spoil)
    before = {key: value.detach().clone() for key, value in trainer.scene.layers["gaussians"].family.parameters.items()}
    report = trainer.step()
    assert any("gradient of gaussians/means is NaN or Inf in primitives" in line for line in report.problems)
    assert any("(view train/" in line for line in report.problems)
    moved = 0
    for key, value in trainer.scene.layers["gaussians"].family.parameters.items():
        assert bool(torch.isfinite(value).all())
        for moment in trainer.adam.moments.get(f"gaussians/{key}", ()):
            assert bool(torch.isfinite(moment).all())
        moved += int((value.detach() != before[key]).reshape(len(value), -1).any(1).sum())
    assert moved > 0
    pair = Trainer(Run.create(tmp_path / "pair", small(run__steps=5, density__rule="none", schedule__batch=2)))
    pair.options = replace(pair.options, depth_loss=spoil_the_second())
    pair.step()
    for value in pair.scene.layers["gaussians"].family.parameters.values():
        assert bool(torch.isfinite(value).all())
    stopping = Run.create(tmp_path / "stopping", small(run__steps=5, run__bad_gradient="stop"))
    with pytest.raises(BadGradientError, match="gaussians/means"):
        Trainer(stopping, depth_loss=spoil).step()


def test_a_scene_file_can_be_the_start(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=20, run__finish=["export"]))
    trainer = Trainer(run)
    loop.train(trainer, Silent())
    folder, file = finish.finish(trainer)
    assert "scene folder" in folder
    assert "scene.ply" in file
    for name in ("scene.ply", "scene"):
        second = Trainer(Run.create(tmp_path / f"from-{name}", small(init_from=str(run.path / name), run__steps=3)))
        for key, value in run.load_scene().layers["gaussians"].family.parameters.items():
            assert torch.allclose(second.scene.layers["gaussians"].family.parameters[key], value, atol=1e-6)
        loop.train(second, Silent())


def test_the_same_seed_gives_the_same_bytes_and_threads_change_nothing(tmp_path: Path) -> None:
    from smalti.renderers.engine import set_threads

    states = []
    for number, threads in enumerate((1, 2)):
        run = Run.create(tmp_path / str(number), small(run__steps=12, density__start=4, density__every=4))
        set_threads(threads)
        try:
            loop.train(Trainer(run), Silent())
        finally:
            set_threads(0)
        states.append((run.path / "checkpoints/000012/trainer.safetensors").read_bytes())
    assert states[0] == states[1]


def test_an_unknown_parameter_and_an_unknown_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no parameter is called 'meens'; there are log_scales.*did you mean 'means'"):
        Trainer(Run.create(tmp_path / "a", small(learning_rates={"meens": 1.0})))
    with pytest.raises(ConfigError):
        small(run__steps=0)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="cuda"):
            Trainer(Run.create(tmp_path / "b", small(run__device="cuda")))


def test_an_initial_scene_larger_than_the_budget_is_thinned(tmp_path: Path) -> None:
    config = small(density__budget="100KB", run__steps=2)
    trainer = Trainer(Run.create(tmp_path / "run", config))
    each = trainer.populations[0].bytes_per_primitive
    assert len(trainer.scene) == 100_000 // each < 400
    assert trainer.budget.refused == 400 - len(trainer.scene)


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small())
    for step in range(1, 6):
        run.record({"kind": "train", "step": step})
    with run.metrics_path.open("a") as file:
        file.write('{"kind": "tra')
    assert [each["step"] for each in run.metrics()] == [1, 2, 3, 4, 5]
    run.forget_after(3)
    assert [each["step"] for each in run.metrics()] == [1, 2, 3]


def test_records_are_json_whatever_was_measured(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small())
    run.record({"kind": "evaluation", "step": 1, "psnr": math.inf, "loss": math.nan, "ssim": 1.0})
    assert json.loads(run.metrics_path.read_text(), parse_constant=pytest.fail)["psnr"] is None
    assert list(run.metrics()) == [{"kind": "evaluation", "step": 1, "psnr": None, "loss": None, "ssim": 1.0}]


def test_a_view_that_cannot_be_measured_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=3, run__eval_every=2))
    empty = torch.zeros(28, 28, dtype=torch.bool)
    target_of = evaluation.target_of
    monkeypatch.setattr(evaluation, "target_of", lambda view, color: (target_of(view, color)[0], empty))
    display = Silent()
    trainer = Trainer(run)
    assert loop.train(trainer, display) == "finished"
    (said,) = display.said
    assert "step 2: not evaluated: test/000: evaluation: metric: the mask leaves no pixel to compare" in said
    assert "evaluation: not made: test/000" in finish.finish(trainer)[0]


def test_a_capture_that_changed_cannot_be_resumed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=2))
    loop.train(Trainer(run), Silent())
    run.config.data.split = "none"
    with pytest.raises(CheckpointError, match=r"trained on 43 views, but .* now gives 51"):
        Trainer(run, resume=True)


def test_a_checkpoint_without_room_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=4))
    trainer = Trainer(run)
    trainer.step()
    trainer.save()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    trainer.step()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"000002: cannot be written: .*No space.*--resume"):
        trainer.save()
    assert [each.name for each in sorted((run.path / "checkpoints").iterdir())] == ["000001", "latest"]
    monkeypatch.undo()
    assert Trainer(run, resume=True).step_number == 1


def test_a_checkpoint_killed_before_latest_is_found_by_the_resumed_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=4, run__checkpoint_every=2))
    loop.train(Trainer(run), Silent())
    (run.path / "checkpoints" / "latest").write_text("000002")  # as a kill after the rename leaves it
    loop.train(Trainer(run, resume=True), Silent())
    assert run.latest_step() == 4


def test_plain_lines_show_what_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    display = make_display("run")
    assert isinstance(display, PlainDisplay)
    with display:
        display.update(Status(10, 20, 0.25, 21.5, 1234, 5_000_000, 900_000_000, 2))
    shown = capsys.readouterr().out
    for part in (
        "step 10/20",
        "loss 0.2500",
        "21.50 dB",
        "1,234",
        "5 MB",
        "900 MB",
        "steps/s",
        "left",
        "bad gradients 2",
    ):
        assert part in shown


def test_the_live_panel_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    display = LiveDisplay("a run")
    with display:
        display.update(Status(20, 20, 0.25, None, 1234, 5_000_000, 900_000_000, 0))
        display.say("a line that stays")
    shown = capsys.readouterr().out
    for part in ("a run", "20/20", "0.2500", "1,234", "a line that stays"):
        assert part in shown


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(run__steps=8, run__checkpoint_every=2, run__keep=2))
    loop.train(Trainer(run), Silent())
    assert run.steps() == [6, 8]
    assert run.latest_step() == 8
    (run.path / "checkpoints" / "latest").write_text("000004")  # gone: the newest is taken
    assert run.latest_step() == 8
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 4; there are \[6, 8\]"):
        run.load_scene(4)


def test_locked_layers_stay_as_they_are(tmp_path: Path) -> None:
    trainer = Trainer(Run.create(tmp_path / "run", small(run__steps=30, density__start=2, density__every=2)))
    trained = trainer.scene.layers["gaussians"].family
    trainer.scene.add("fixed", type(trained)(trained.parameters, trained.metadata), locked=True)
    trainer._assemble()
    before = {key: value.detach().clone() for key, value in trainer.scene.layers["fixed"].family.parameters.items()}
    for _ in range(6):
        trainer.step()
    for key, value in trainer.scene.layers["fixed"].family.parameters.items():
        assert torch.equal(value, before[key])
        assert f"fixed/{key}" not in trainer.adam.moments
    assert len(trained) > len(before["means"])


@pytest.mark.parametrize("rule", ["gaussians", "gaussians-mcmc"])
def test_a_budget_binds_with_the_engines_own_arena(rule: str, tmp_path: Path) -> None:
    options = {
        **SMALL,
        "density.budget": "700KB",
        "density.start": 2,
        "density.every": 2,
        "density.max_primitives": 10**6,
    }
    grow = {"gradient.threshold": 1e-9} if rule == "gaussians" else {"mcmc.growth": 0.3}
    trainer = Trainer(Run.create(tmp_path / "run", resolve(rule, {**options, **grow})))
    peak = 0
    for _ in range(40):
        trainer.step()
        peak = max(peak, trainer.budget.used(trainer.populations))
    assert trainer.budget.arena_peak > 0
    assert trainer.budget.refused > 0
    assert 0.9 * 700_000 < peak < 1.05 * 700_000


def test_few_pixels_support_few_primitives(tmp_path: Path) -> None:
    options = {"density__pixels_per_primitive": 43 * 28 * 28 / 450, "density__start": 2, "density__every": 2}
    trainer = Trainer(Run.create(tmp_path / "run", small(run__steps=30, mcmc__growth=0.3, **options)))
    assert trainer.budget.most == 450
    for _ in range(6):
        trainer.step()
    assert len(trainer.scene) == 450
