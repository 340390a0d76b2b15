"""How a training begins and ends for whoever called it: notes, failed runs, runs that go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from smalti.cli.main import main
from smalti.configs.resolve import resolve
from smalti.files import write_scene_file
from smalti.files.splats import Splats
from smalti.trainers.run import Run

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SHORT = ["--data.downscale", "8", "--run.finish", "[]", "--run.eval_every", "0", "--run.preview_every", "1000"]


def test_a_run_whose_scene_is_lost_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a learning rate of 1e30 the loss is no number, or nothing is left to see: said, and not a success."""
    arguments = ["train", "demo", "--steps", "4", "--out", str(tmp_path / "run"), *SHORT]
    assert main([*arguments, "--learning_rates", "{means: 1.0e+30, log_scales: 1.0e+30}"]) == 1
    captured = capsys.readouterr()
    assert "the training failed: " in captured.err
    assert "Lower the learning rates" in captured.err


def test_what_is_left_out_at_the_start_is_said_and_a_run_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "demo", "--steps", "2", "--out", str(run), *SHORT]) == 0
    said = capsys.readouterr().out
    assert "initial primitives of layer 'gaussians' were left out, at random; the limits are" in said
    assert "density.pixels_per_primitive=80" in said

    assert main(["train", "--resume", str(run), "--steps", "2"]) == 2
    assert "stands at step 2; give a later one" in capsys.readouterr().err
    assert Run.open(run).config.run.steps == 2
    assert main(["train", "--resume", str(run), "--steps", "5"]) == 0
    said = capsys.readouterr().out
    assert "note: the run goes to step 5 instead of 2, by the schedule of 2 steps that it has; what is at its" in said
    opened = Run.open(run)
    assert (opened.config.run.steps, opened.config.schedule.length, opened.latest_step()) == (5, 2, 5)
    assert not list(run.glob(".*"))
    assert main(["train", "--resume", str(run), "--stretch", "2"]) == 2
    assert "--init-from" in capsys.readouterr().err


def test_a_readers_notices_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Infinite logits are clamped by the PLY reader, which says so; the start of a training passes that on."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    splats = Splats(0.3 * draw(50, 3), draw(50, 3) - 3, draw(50, 4), draw(50), draw(50, 3), draw(50, 0, 3))
    write_scene_file(tmp_path / "start.ply", splats)
    raw = bytearray((tmp_path / "start.ply").read_bytes())
    place = raw.index(b"end_header\n") + len(b"end_header\n") + 4 * 9
    raw[place : place + 4] = np.float32(np.inf).tobytes()
    (tmp_path / "start.ply").write_bytes(raw)
    arguments = ["train", "demo", "--steps", "1", "--out", str(tmp_path / "run"), *SHORT]
    assert main([*arguments, "--init-from", str(tmp_path / "start.ply")]) == 0
    assert "note: start.ply: 1 opacities were infinite" in capsys.readouterr().out


def test_a_training_starts_from_an_assembly(tmp_path: Path) -> None:
    """Files of meshes and blocks are starts as files of splats are."""
    data = '{"location": [0, 0, 0], "rotation": [0, 0, 0, 1], "scale": [0.5, 0.5, 0.5], "color": ["ff0000"]}'
    (tmp_path / "a.json").write_text(f'{{"group": [{{"type_id": 1101002001034010, "data": {data}}}]}}')
    arguments = ["train", "superquadrics", "--data", "demo", "--steps", "1", "--out", str(tmp_path / "run"), *SHORT]
    assert main([*arguments, "--init-from", str(tmp_path / "a.json")]) == 0
    assert Run.open(tmp_path / "run").load_scene().counts() == {"superquadrics": 1}
    assert main([*arguments[:-1], "[]", "--out", str(tmp_path / "b"), "--family", "meshes",
                 "--init-from", str(tmp_path / "a.json")]) == 2  # fmt: skip


def test_a_list_of_layers_keeps_the_rates_of_the_preset(tmp_path: Path) -> None:
    """Rates belong to a preset's length: they stay beneath those that a layer of the same family gives itself."""
    layers = [
        {"name": "cloud", "family": "gaussians", "metadata": {"sh_degree": 1}, "learning_rates": {"sh_dc": 0.5}},
        {"name": "ball", "family": "meshes"},
    ]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers}))
    preset, config = resolve("gaussians-fast"), resolve(str(tmp_path / "a.yaml"))
    cloud, ball = config.scene
    assert cloud.learning_rates == {**preset.scene[0].learning_rates, "sh_dc": 0.5}
    assert cloud.metadata == {"sh_degree": 1}
    assert ball.learning_rates == {}
