"""`smalti check --world` as it is typed: the numbers, the picture, what is stated, bad calls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_sets
from rigs import table

from smalti.cli.main import main
from smalti.datasets.world import World


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Twelve cameras around a block on a table, z up, with points."""
    positions = table(600, strays=5).positions[:, [0, 2, 1]] * (1, -1, 1)
    header = (
        "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header"
    )
    rows = "\n".join(" ".join(f"{value:.5f}" for value in point) for point in positions)
    root = tmp_path / "capture"
    root.mkdir()
    (root / "points.ply").write_text(f"{header.format(len(positions))}\n{rows}\n")
    small_sets.write_transforms(root, small_sets.cameras(12), ply_file_path="points.ply")
    return root


def test_check_tells_and_draws_the_world(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "pictures" / "world.png"
    assert (
        main(["check", str(capture), "--world", str(picture), "--up", "-y", "--centre", "0,0,1", "--ground", "none"])
        == 0
    )
    text = capsys.readouterr().out
    assert "up: (0, -1, 0), stated" in text
    assert "centre: (0, 0, 1), stated" in text
    assert "ground: none, stated" in text
    assert picture.stat().st_size > 10_000


def test_check_finds_the_table(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(capture), "--world", str(tmp_path / "world.png")]) == 0
    text = capsys.readouterr().out
    assert "normal of the ground plane" in text
    assert f"picture: {tmp_path / 'world.png'}" in text


def test_check_gives_the_world_as_json(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(capture), "--json", "--world", str(tmp_path / "world.png"), "--radius", "2"]) == 0
    world = World.from_plain(json.loads(capsys.readouterr().out))
    assert world.unit == pytest.approx(2.0)
    assert np.allclose(world.up, [0.0, 0.0, 1.0], atol=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--up", "-y"], "goes with --world"),
        (["--world", "world.jpg"], "ends in .png"),
        (["--world", "world.png", "--up", "aslant"], "no direction"),
        (["--world", "world.png", "--centre", "1,2"], "centre"),
    ],
)
def test_bad_calls_are_told(
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(capture), *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [capture]
