"""`smalti view` and `smalti train --view`: what a path names, what is refused, and that Ctrl-C ends it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from smalti.cli import train, view
from smalti.cli.failures import UsageError
from smalti.configs.config import TrainConfig
from smalti.scene import demo_scene
from smalti.scene.exchange import export_scene
from smalti.trainers.checkpoints import TrainerState, write_checkpoint
from smalti.trainers.run import Run
from smalti.viewer.stage import Stage


def shown(*words: str) -> Stage:
    return view.opened(view.parser().parse_args(list(words)))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = TrainConfig()
    config.data.path, config.data.downscale = "demo", 4
    made = Run.create(tmp_path / "run", config)
    write_checkpoint(made.path, 5, demo_scene(), TrainerState(), keep=2)
    write_checkpoint(made.path, 10, demo_scene(), TrainerState(), keep=2)
    return made


def test_a_run_is_shown_with_its_views(run: Run) -> None:
    stage = shown(str(run.path))
    assert (stage.title, stage.scene.counts()) == ("run, step 10", {"chair": 8, "cloud": 12})
    assert stage.views is not None
    assert (stage.views.train_rows, stage.views.test_rows) == run.split()
    assert stage.views.cache.camera(0).width * 4 == stage.views.dataset.views[0].camera.width
    assert shown(str(run.path), "--step", "5").title == "run, step 5"
    assert not any(p.requires_grad for layer in stage.scene for p in layer.family.parameters.values())


def test_a_run_whose_data_is_gone_is_shown_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig()
    config.data.path = str(tmp_path / "gone")
    made = Run.create(tmp_path / "run", config)
    write_checkpoint(made.path, 5, demo_scene(), TrainerState(), keep=2)
    assert shown(str(made.path)).views is None
    assert "without the views" in capsys.readouterr().out


def test_scenes_and_files(tmp_path: Path) -> None:
    scene = demo_scene()
    scene.save(tmp_path / "folder")
    scene.save(tmp_path / "one.smalti")
    export_scene(scene, tmp_path / "chair.ply", ["chair"])
    assert shown(str(tmp_path / "folder")).scene.counts() == {"chair": 8, "cloud": 12}
    assert shown(str(tmp_path / "one.smalti")).title == "one.smalti"
    splats = shown(str(tmp_path / "chair.ply"), "--data", "demo")
    assert len(splats.scene) == 8
    assert splats.views is not None


def test_a_data_set_shows_its_points_and_views(shared_data: Path) -> None:
    stage = shown(str(shared_data / "king_colmap"))
    assert stage.views is not None
    assert len(stage.views.dataset.views) == 23
    assert stage.scene.counts() == {"points": 1443}
    without_points = shown("demo")
    assert without_points.views is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-there"], "no such file"),
        (["demo", "--step", "3"], "run folders"),
        (["demo", "--device", "tpu"], "the devices are"),
        (["demo", "--backend", "pencil"], "pencil"),
        (["demo", "--port", "99999"], "--port"),
        (["demo", "--host", "no.such.host.invalid"], "no such address"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert view.main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("smalti: ")


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'smalti\[viewer\]'"):
        view.require_viewer()


def test_the_address_of_view() -> None:
    assert train.read_call(["demo"]).view is None
    assert train.read_call(["demo", "--view"]).view == ""
    assert train.read_call(["--view", "demo"]).source == "demo"
    assert train.read_call(["demo", "--view", "8123"]).view == "8123"
    assert train.read_call(["demo", "--view", "0.0.0.0:80", "--out", "x"]).view == "0.0.0.0:80"
    assert train.read_call(["demo", "--view=[::1]:80"]).view == "[::1]:80"
    assert train.read_call(["--resume", "x", "--view"]).view == ""
    with pytest.raises(UsageError, match="HOST:PORT"):
        train.opened_door("sesame")
    door = train.opened_door("127.0.0.1:0")
    assert door is not None
    door[1].close()


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    demo_scene().save(tmp_path / "scene.smalti")
    command = [sys.executable, "-m", "smalti.cli.main", "view", str(tmp_path / "scene.smalti"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            text = process.stdout.readline() + process.stdout.readline()
            found = re.search(r"http://\S+", text)
            assert found, text
            with urllib.request.urlopen(found[0] + "health", timeout=10) as answer:
                assert json.load(answer)["status"] == "ok"
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "stopped" in out
    assert not error


def test_a_training_is_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from smalti.viewer.server import Viewer

    said: list[str] = []
    monkeypatch.setattr(Viewer, "say_farewell", lambda _, text: said.append(text))
    words = ["gaussians-fast", "--data", "demo", "--downscale", "8", "--steps", "40", "--view", "0"]
    words += ["--run.finish", "[]", "--out", str(tmp_path / "run")]
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(train.main(words)))
    thread.start()
    text, url, steps = "", None, []
    try:
        while thread.is_alive():
            text += capsys.readouterr().out
            found = re.search(r"watch it at (http://\S+)", text)
            if found is None:
                time.sleep(0.02)
                continue
            url = found[1]
            try:
                with urllib.request.urlopen(url + "state", timeout=10) as answer:
                    state = json.load(answer)
            except (urllib.error.URLError, OSError):
                continue
            steps.append(state["training"]["step"])
    finally:
        thread.join(120)
    text += capsys.readouterr().out
    assert codes == [0]
    assert url is not None
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    assert f"smalti view {tmp_path / 'run'}" in text
    assert len(said) == 1
    assert f"smalti view {tmp_path / 'run'}" in said[0]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url + "health", timeout=5)
