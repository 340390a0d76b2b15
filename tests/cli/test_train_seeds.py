"""`smalti train --seeds`: processes that are stopped, killed and continued end as runs of their own do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import smalti
from smalti.cli.main import main
from smalti.configs.resolve import resolve
from smalti.trainers import seed_processes
from smalti.trainers.run import Run
from smalti.trainers.seed_board import PlainBoard
from smalti.trainers.seeds import Seed, Seeds
from smalti.trainers.trainer import Trainer
from smalti.trainers.training_loss import training_loss

pytestmark = pytest.mark.usefixtures("one_torch_thread")
COMMON = [
    "gaussians-fast", "--data", "demo", "--downscale", "8", "--data.points", "frustum", "--sampled_points", "200",
    "--resolution", "[]", "--steps", "150", "--checkpoint_every", "0", "--preview_every", "1000", "--data.background",
    "random", "--run.finish", "[curves]",
]  # fmt: skip

SMALLEST = {"data.downscale": 8, "data.points": "frustum", "sampled_points": 50, "run.steps": 2, "run.finish": []}
OLD = "loss:\n  ssim_of_old: 3\n"
"""As a version before this one may have written it."""


class Meddler(PlainBoard):
    """Does something as soon as a seed has made a step."""

    def __init__(self, seeds: list[Seed], on: int, action: Any) -> None:
        super().__init__(seeds)
        self.on, self.action = on, action

    def finishing(self, seed: Seed, what: str) -> None:
        super().finishing(seed, what)
        print(f"seed {seed.seed} {self.short(seed)}")

    def update(self, seed: Seed, status: Mapping[str, Any]) -> None:
        super().update(seed, status)
        if seed.seed == self.on and self.action is not None:
            action, self.action = self.action, None
            action()


def statuses(path: Path) -> dict[int, str]:
    return {each.seed: each.status for each in Seeds.open(path).seeds}


def test_seeds_that_are_stopped_and_killed_are_continued_and_end_as_runs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, workers = tmp_path / "all", dict[int, seed_processes.Worker]()
    start = seed_processes.Worker.__init__

    def noted(self: seed_processes.Worker, *arguments: Any) -> None:
        start(self, *arguments)
        workers[self.seed.seed] = self

    monkeypatch.setattr(seed_processes.Worker, "__init__", noted)

    def meddle(on: int, action: Any) -> None:
        monkeypatch.setattr("smalti.trainers.seed_board.make_board", lambda seeds, _: Meddler(seeds, on, action))

    meddle(4, lambda: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    assert main(["train", *COMMON, "--seed", "4", "--seeds", "2", "--jobs", "1", "--out", str(folder)]) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert statuses(folder) == {4: "interrupted", 5: "waiting"}
    assert f"continue with: smalti train --resume {folder}" in capsys.readouterr().out
    assert 0 < Run.open(folder / "seed-4").latest_step() < 150
    assert main(["eval", str(folder)]) == 2
    assert "none of its seeds has come to its end" in capsys.readouterr().err

    meddle(5, lambda: workers[5].process.kill())
    assert main(["train", "--resume", str(folder), "--jobs", "2"]) == 1
    assert statuses(folder) == {4: "finished", 5: "failed"}
    said = capsys.readouterr()
    assert said.out.index("seed 4 finishing (curves)\n") < said.out.index("seed 4 finishing (training loss)\n")
    assert "killed by SIGKILL" in said.out
    assert "not all seeds came to their end" in said.err
    assert Run.open(folder).path == folder / "seed-4"

    meddle(0, None)
    assert main(["train", "--resume", str(folder)]) == 0
    assert statuses(folder) == {4: "finished", 5: "finished"}
    assert all(each.contents == f"{each.primitives:,} primitives" for each in Seeds.open(folder).seeds)
    losses = {each.seed: each.training_loss for each in Seeds.open(folder).seeds}
    best = min(losses, key=lambda seed: losses[seed] or 9.0)
    assert (folder / "best").read_text() == f"seed-{best}\n"
    assert json.loads((folder / "seeds.json").read_text())["best"] == f"seed-{best}"
    assert "*" in capsys.readouterr().out

    assert main(["train", *COMMON, "--seed", "5", "--out", str(tmp_path / "alone")]) == 0
    for number in (4, 5):
        assert Run.open(folder / f"seed-{number}").config.run.seed == number
    name = "checkpoints/000150/trainer.safetensors"
    assert (folder / "seed-5" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert (folder / "seed-4" / name).read_bytes() != (tmp_path / "alone" / name).read_bytes()
    again = training_loss(Trainer(Run.open(folder / "seed-5"), resume=True))
    assert again.loss == losses[5]

    capsys.readouterr()
    assert main(["eval", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(folder / f"seed-{best}")
    assert main(["export", str(folder), str(tmp_path / "scene.ply")]) == 0
    view = Run.open(folder).dataset().views[0].camera.name
    assert main(["render", str(folder), "--view", view]) == 0
    assert len(list(folder.glob("*.png"))) == 1
    assert main(["train", "--resume", str(folder)]) == 0
    assert main(["train", *COMMON, "--seeds", "2", "--out", str(folder)]) == 2
    assert main(["train", "--resume", str(folder), "--steps", "200"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_the_viewer_shows_the_best(tmp_path: Path) -> None:
    from smalti.cli import view

    monkey = Seeds.create(tmp_path / "all", Run.create(tmp_path / "spare", _config()).config, 2)
    for seed, loss in zip(monkey.seeds, (0.2, 0.1), strict=True):
        trainer = Trainer(Run.create(monkey.run_path(seed), monkey.config_of(seed)))
        trainer.save()
        seed.status, seed.training_loss, seed.training_psnr = "finished", loss, 10.0
    monkey.write()
    stage = view.opened(view.parser().parse_args([str(tmp_path / "all")]))
    assert stage.title == "all/seed-1, step 0"
    assert stage.views is not None


def test_what_a_folder_of_seeds_and_its_runs_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How each fared, then the best one's scene; before one came to its end, how to go on."""
    made = Seeds.create(tmp_path / "all", _config(), 2)
    for seed, loss in zip(made.seeds, (0.2, 0.1), strict=True):
        trainer = Trainer(Run.create(made.run_path(seed), made.config_of(seed)))
        trainer.save()
        seed.status, seed.training_loss, seed.training_psnr = "finished", loss, 10.0
        seed.primitives = len(trainer.scene)
    made.write()
    best = tmp_path / "all" / "seed-1"
    assert main(["info", str(made.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  seed 0  finished     loss 0.20000")
    assert lines[1].startswith("* seed 1  finished     loss 0.10000")
    assert lines[3].startswith(f"{best}: run, step 0, {made.seeds[1].primitives:,} primitives, ")
    assert any("means[0]" in line for line in lines)
    assert main(["info", str(made.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(best)
    assert (found["best"], [each["status"] for each in found["seeds"]]) == ("seed-1", ["finished", "finished"])
    assert main(["info", str(best), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone == {key: found[key] for key in alone}
    assert alone["layers"][0]["family"] == "gaussians"
    for seed in made.seeds:
        seed.status = "interrupted"
    made.write()
    assert main(["info", str(made.path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"continue with: smalti train --resume {made.path}")
    assert main(["info", str(made.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] is None


def test_runs_of_another_version_say_the_ways_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that this version does not have: what, in which files, and what works without; no process is started.
    In a seed's own file alone the others are trained and that seed says it.
    """
    made = Seeds.create(tmp_path / "all", resolve("gaussians-fast", {"data.path": "demo", **SMALLEST}), 2)
    trainer = Trainer(Run.create(made.run_path(made.seeds[0]), made.config_of(made.seeds[0])))
    trainer.save()
    made.seeds[0].status, made.seeds[0].training_loss, made.seeds[0].training_psnr = "finished", 0.2, 10.0
    made.write()
    first, second = made.path / "seed-0", made.path / "seed-1"
    for folder in (made.path, first):
        written = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(written.replace("loss:\n", OLD))
    assert main(["train", "--resume", str(made.path)]) == 2
    said = capsys.readouterr().err
    assert f"{made.path / 'config.yaml'}: unknown key loss.ssim_of_old; " in said
    assert f"Another version of Smalti made this run (this is {smalti.__version__})" in said
    assert "correct it there (likewise in seed-0) or take it out" in said
    assert not second.exists()
    assert main(["eval", str(made.path)]) == 2
    said = capsys.readouterr().err
    assert f"{first / 'config.yaml'}: unknown key loss.ssim_of_old; " in said
    scene = str(first / "checkpoints" / "000000")
    assert said.strip().endswith(f"smalti view {scene}, or a new run with --init-from {scene}")
    assert main(["info", scene, "--json"]) == 0
    assert main(["info", str(made.path)]) == 0
    assert "finished" in capsys.readouterr().out
    (made.path / "config.yaml").write_text((made.path / "config.yaml").read_text().replace(OLD, "loss:\n"))
    made.seeds[0].status = "interrupted"
    made.write()
    assert main(["train", "--resume", str(made.path)]) == 1
    said = capsys.readouterr().out
    assert f"seed 0 cannot go on: {first / 'config.yaml'}: unknown key loss.ssim_of_old" in said
    assert statuses(made.path) == {0: "failed", 1: "finished"}


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "smalti", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"smalti {smalti.__version__}\n")


def _config() -> Any:
    from smalti.configs.resolve import resolve

    return resolve("gaussians-fast", {"data.path": "demo", "data.downscale": 8, "data.points": "frustum"})


def test_what_cannot_begin_leaves_no_folder_and_says_why_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [*COMMON, "--metadata.sh_degre", "2", "--seeds", "2"]
    assert main(["train", *bad, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("did you mean 'sh_degree'") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gaussians", "--seeds", "0"], "expected a number from 1 on"),
        (["gaussians", "--seeds", "2", "--jobs", "few"], "--jobs few"),
        (["--resume", "RUN", "--seeds", "2"], "leave --seeds out"),
        (["gaussians", "--seeds", "2", "--view"], "--view watches one training"),
        (["gaussians", "--data", "demo", "--jobs", "2"], "--jobs says how many seeds"),
    ],
)
def test_calls_that_mean_nothing(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_run_is_not_continued_several_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(tmp_path / "one", resolve("gaussians-fast", {"data.path": "demo"}))
    assert main(["train", "--resume", str(run.path), "--jobs", "2"]) == 2
    assert "is a single run" in capsys.readouterr().err
