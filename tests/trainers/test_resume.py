"""A run that is killed, while saving too, and continued ends in the same bytes as one that is not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.cli.train import main
from smalti.primitives.superquadrics import Superquadrics
from smalti.trainers import schedules
from smalti.trainers.checkpoints import checkpoint_path, checkpoint_steps
from smalti.trainers.run import Run

ROOT = Path(__file__).resolve().parents[2]
COMMON = [
    "--data", "demo", "--downscale", "8", "--data.points", "frustum", "--sampled_points", "300", "--steps", "36",
    "--checkpoint_every", "5", "--log_every", "1", "--preview_every", "12", "--run.finish", "[]", "--batch", "2",
    "--sh_every", "10", "--resolution", "[[8, 2]]", "--density.start", "4", "--density.every", "4", "--stop", "30",
    "--data.background", "random", "--poses", "1e-4", "--exposure", "1e-3", "--contribution.at", "[18]",
    "--budget", "600KB",
]  # fmt: skip
RULES = {
    "mcmc": ["gaussians-mcmc", "--growth", "0.2"],
    "mixed": [
        "mixed", "--growth", "0.2", "--scene.surface.settings.faces", "150", "--scene.fuzz.settings.count", "100",
        "--scene.fuzz.max_primitives", "150",
    ],
    "gradient": ["gaussians", "--threshold", "1e-5", "--reset_every", "10", "--max_primitives", "500"],
}  # fmt: skip
CHILD = """
import os, signal, sys
at, flushes = int(sys.argv[1]), 0
flush = os.fsync
def counted(descriptor):
    global flushes
    flushes += 1
    if flushes == at:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(descriptor)
os.fsync = counted
from smalti.cli.train import main
sys.exit(main(sys.argv[2:]))
"""


def killed_while_saving(flush: int, arguments: list[str]) -> None:
    """Runs the command in a process that kills itself before its `flush`-th flush (nine of them per checkpoint)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CHILD, str(flush), *arguments], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def killed_at_random(folder: Path, arguments: list[str]) -> None:
    """Kills the command at a random moment after its next checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = checkpoint_steps(folder)
    child = subprocess.Popen([sys.executable, "-c", CHILD, "0", *arguments], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while checkpoint_steps(folder) == before and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.random() * 0.3)
    child.kill()
    child.wait()


def state_bytes(folder: Path) -> dict[str, bytes]:
    """All files of the last checkpoint but the clock."""
    last = checkpoint_path(folder)
    assert last.name == "000036"
    return {entry.name: entry.read_bytes() for entry in sorted(last.iterdir()) if entry.name != "clock.json"}


@pytest.mark.parametrize("rule", list(RULES))
def test_a_killed_run_ends_in_the_same_bytes(rule: str, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    arguments = [*RULES[rule], *COMMON, "--out"]
    assert main([*arguments, str(straight)]) == 0
    # 13 is in the middle of the second checkpoint's files, 16 and 8 between a rename and `latest`.
    killed_while_saving({"mcmc": 13, "gradient": 16, "mixed": 13}[rule], [*arguments, str(broken)])
    assert checkpoint_path(broken).name == "000005"
    if rule != "gradient":
        killed_at_random(broken, ["--resume", str(broken)])
    else:
        killed_while_saving(8, ["--resume", str(broken)])
    assert main(["--resume", str(broken)]) == 0
    wanted, got = state_bytes(straight), state_bytes(broken)
    assert sorted(wanted) == ["scene.json", "scene.safetensors", "state.json", "trainer.safetensors"]
    assert [name for name in wanted if wanted[name] != got[name]] == []
    assert not list((broken / "checkpoints").glob(".writing*"))
    same = [{**each, "cpu_seconds": 0, "wall_seconds": 0} for each in Run.open(straight).metrics()]
    assert [{**each, "cpu_seconds": 0, "wall_seconds": 0} for each in Run.open(broken).metrics()] == same
    changes = [each["changes"] for each in same if each["changes"]]
    growth = {"relocated", "grown"}
    wanted_changes = {"mcmc": growth, "mixed": growth, "gradient": {"cloned", "split", "pruned"}}[rule]
    assert wanted_changes & {name for change in changes for name in change}
    assert same[-1]["refused_growth"] > 0


def test_a_run_folder_is_not_overwritten_and_an_empty_one_cannot_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    assert main(["gaussians", "--data", "demo", "--out", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path / "nowhere")]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_what_cannot_start_leaves_no_folder_and_what_never_saved_starts_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["gaussians-fast", *COMMON, "--steps", "3", "--out", str(tmp_path / "run")]
    assert main([*arguments, "--model.metadata.sh_degre", "2"]) == 2
    assert main([*arguments, "--data", str(tmp_path / "nowhere")]) == 2
    assert "did you mean 'sh_degree'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(arguments) == 0
    wanted = (tmp_path / "run/checkpoints/000003/trainer.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main(["--resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/checkpoints/000003/trainer.safetensors").read_bytes() == wanted


def test_a_run_that_is_prolonged_keeps_its_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Textures that were fine stay fine, rates stay where they ended; and one that is prolonged on its way passes its
    former end with the same bytes.
    """
    arguments = ["superquadrics", *COMMON, "--steps", "4", "--checkpoint_every", "2", "--settings.count", "3"]
    arguments += ["--metadata.pool", "4", "--metadata.texture_size", "8", "--metadata.pooled_until", "0.6"]
    arguments += ["--position_final", "0.5", "--warmup", "0", "--optimizer.drops", "[]", "--keep", "9"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half/checkpoints/000004")

    shares, rates, pooled = list[float](), list[dict[str, float]](), list[int]()
    begin, compute = Superquadrics.begin_step, schedules.learning_rates

    def begun(self: Superquadrics, share: float, generator: torch.Generator) -> None:
        begin(self, share, generator)
        shares.append(share)
        pooled.append(self._pool)

    def computed(*arguments: Any) -> dict[str, float]:
        rates.append(compute(*arguments))
        return rates[-1]

    monkeypatch.setattr(Superquadrics, "begin_step", begun)
    monkeypatch.setattr(schedules, "learning_rates", computed)
    assert main(["--resume", str(tmp_path / "whole"), "--steps", "7"]) == 0
    assert (shares, pooled) == ([1.0] * 3, [1] * 3)
    base = Superquadrics.default_learning_rates()["translations"]
    assert [each["translations"] for each in rates] == [pytest.approx(0.5 * base)] * 3
    shares.clear(), pooled.clear()
    assert main(["--resume", str(tmp_path / "half"), "--steps", "5"]) == 0
    assert (shares, pooled) == ([0.5, 0.75, 1.0], [4, 1, 1])
    names = ("scene.safetensors", "trainer.safetensors")
    for name in names:
        first, second = (tmp_path / run / "checkpoints/000004" / name for run in ("whole", "half"))
        assert first.read_bytes() == second.read_bytes()
    assert main(["--resume", str(tmp_path / "half"), "--steps", "6"]) == 0
    config = Run.open(tmp_path / "half").config
    assert (config.run.steps, config.schedule.length) == (6, 4)


@pytest.mark.parametrize("name", ["scene.safetensors", "scene.json", "trainer.safetensors", "state.json", "clock.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_named_and_its_removal_falls_back(
    name: str, damage: str, saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = checkpoint_path(saved_run)
    whole = (last / name).read_bytes()
    if damage == "cut":
        (last / name).write_bytes(whole[: len(whole) // 2])
    else:
        (last / name).unlink()
    assert main(["--resume", str(saved_run)]) == 2
    error = capsys.readouterr().err
    (last / name).write_bytes(whole)
    assert f"{last}: the checkpoint is damaged" in error
    assert "remove this folder to fall back on the one before" in error
    shutil.copytree(saved_run, saved_run.parent / "other", dirs_exist_ok=True)
    shutil.rmtree(saved_run.parent / "other" / "checkpoints" / last.name)
    assert main(["--resume", str(saved_run.parent / "other")]) == 0


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps with two checkpoints."""
    path = tmp_path_factory.mktemp("saved") / "run"
    steps = ["--steps", "4", "--checkpoint_every", "2"]
    assert main(["gaussians-fast", *COMMON, *steps, "--out", str(path)]) == 0
    return path
