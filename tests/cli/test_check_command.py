"""`smalti check` as it is typed: the table, the JSON, the overview and where it goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from smalti.cli.main import main


def test_table_of_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "demo", "--features", "never"]) == 0
    text = capsys.readouterr().out
    assert "0 missing" in text
    assert "Fit for training as far as could be seen (the poses were not tested)." in text
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    pictures = list((tmp_path / "runs").glob("check_*.png"))
    assert len(pictures) == 1
    assert f"overview: {pictures[0]}" in text
    with Image.open(pictures[0]) as picture:
        assert picture.width > picture.height > 600


def test_remedies_in_brackets_are_not_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert main(["check", "demo", "--no-overview"]) == 0
    assert " ".join(capsys.readouterr().out.split()).count("'smalti[sfm]'") == 2  # in the table and below it


def test_json_is_one_object_with_the_same_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "here.png"
    assert main(["check", "demo", "--features", "never", "--json", "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 0
    assert report["overview"] == str(out)
    assert out.is_file()
    assert report["images_found"] > 0
    assert report["epipolar_note"] == "not asked for"


def test_no_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "demo", "--features", "never", "--no-overview"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_bad_data_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "transforms.json").write_text("{")
    assert main(["check", str(tmp_path), "--json"]) == 2
    output, errors = capsys.readouterr()
    assert json.loads(output)["exit_code"] == 2
    assert "transforms.json" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "overview.foo"], "a name that ends in .png"),
        (["--out", "overview"], "a name that ends in .png"),
        (["--views", "-1"], "expected a number of views"),
        (["--format", "nerfstudioo"], "did you mean 'nerfstudio'"),
        (["--out", "file/overview.png"], "file: File exists. Check the path"),
    ],
)
def test_wrong_arguments_end_with_code_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["check", "demo", "--features", "never", *arguments]) == 2
    assert said in capsys.readouterr().err
