"""`smalti export --parts` and what `smalti render` makes of separate parts, through the command's own door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.cli.main import main
from smalti.configs.config import TrainConfig
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene.demo import demo_scene
from smalti.scene.scene import Scene
from smalti.trainers import part_pictures
from smalti.trainers.checkpoints import TrainerState, write_checkpoint
from smalti.trainers.run import Run


def block_scene() -> Scene:
    generator = torch.Generator().manual_seed(1)
    bounds = torch.tensor([[-0.6, -0.6, -0.6], [0.6, 0.6, 0.6]])
    options = {"texture_size": 8, "initial_opacity": 0.9, "binary": True}
    scene = Scene(order="ray", background=(0.0, 0.0, 1.0))
    scene.add("blocks", Superquadrics.at_random(bounds, 3, generator, options))
    return scene


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig()
    config.data.path, config.data.downscale = "demo", 8
    made = Run.create(tmp_path_factory.mktemp("runs") / "run", config)
    write_checkpoint(made.path, 5, block_scene(), TrainerState(), keep=2)
    block_scene().save(made.path / "scene")
    return made


@pytest.mark.parametrize("source", ["", "scene"])
def test_parts_as_files(run: Run, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run.path / source), str(tmp_path / "out"), "--parts"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 parts: ")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"block-00.glb", "block-01.glb", "block-02.glb", "parts.glb", "assembly.json"}


def test_a_turntable_and_an_exploded_view(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(part_pictures, "SIZE", (48, 36))
    monkeypatch.setattr(part_pictures, "OUT_AND_BACK", 6)
    path = ["--trajectory", "turntable", "--frames", "3"]
    assert main(["render", str(run.path), *path, "--out", str(tmp_path / "all")]) == 0
    assert main(["render", str(run.path / "scene"), *path, "--parts", "--out", str(tmp_path / "alone")]) == 0
    whole, alone = (np.asarray(Image.open(tmp_path / name / "00001.png")) for name in ("all", "alone"))
    assert whole[0, 0].tolist() == [0, 0, 255]  # the scene's own background
    assert alone[0, 0].tolist() == [235, 235, 235]
    assert len(list((tmp_path / "alone").iterdir())) == 3
    assert main(["render", str(run.path), "--exploded", "1", "--out", str(tmp_path / "apart")]) == 0
    frames = [np.asarray(Image.open(path)).astype(int) for path in sorted((tmp_path / "apart").iterdir())]
    assert len(frames) == 6
    assert np.abs(frames[0] - frames[3]).mean() > 1
    assert main(["render", str(run.path / "scene"), "--exploded", "0.5"]) == 0
    assert (run.path / "exploded.png").is_file()
    assert "3 parts, apart by 0.5" in capsys.readouterr().out


def test_flat_colors(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(run.path), "--flat"]) == 0
    assert (run.path / "flat.png").is_file()
    assert main(["render", str(run.path), "--flat", "--view", "train/003", "--out", str(tmp_path / "one.png")]) == 0
    assert "over train/003" in capsys.readouterr().out
    assert Image.open(tmp_path / "one.png").height < Image.open(run.path / "flat.png").height


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["render", "RUN/scene", "--flat"], "a scene or a file has none; give the run folder"),
        (["render", "RUN", "--flat", "--trajectory", "orbit"], "goes with --view alone"),
        (["render", "RUN", "--exploded", "-1"], "expected 0 or more"),
        (["render", "RUN", "--exploded", "1", "--parts"], "leave out --parts"),
        (["render", "RUN", "--exploded", "1", "--width", "60"], "--width and --channels"),
        (["render", "OTHER", "--exploded", "1"], "no separate parts. 'chair': primitives of family 'gaussians'"),
        (["export", "RUN", "a.glb", "--parts"], "give a folder"),
        (["export", "OTHER", "OUT", "--parts"], "no separate parts"),
        (["export", "RUN/scene", "OUT", "--parts", "--step", "5"], "--step is for run folders"),
    ],
)
def test_what_cannot_be_says_why(
    run: Run, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_scene().save(tmp_path / "other")
    places = {"RUN": str(run.path), "OTHER": str(tmp_path / "other"), "OUT": str(tmp_path / "out")}
    given = [places.get(each, each.replace("RUN", str(run.path))) for each in arguments]
    assert main(given) == 2
    assert words in capsys.readouterr().err
