"""`--data-format`: the reader of a capture, chosen by name, in `train`, `check` and the runs that come of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_sets

from smalti.cli import check
from smalti.cli.train import main, read_call
from smalti.configs.resolve import resolve
from smalti.trainers.run import Run


def test_train_takes_it_under_three_names() -> None:
    for words in (["--data-format", "llff"], ["--format=llff"], ["--set", "data.format=llff"]):
        assert read_call(["gaussians", *words]).overrides == {"data.format": "llff"}


def test_a_run_reads_its_data_by_the_format_it_was_started_with(tmp_path: Path) -> None:
    both = small_sets.write_transforms(tmp_path / "data", small_sets.cameras(4))
    small_sets.write_colmap_text(both, small_sets.cameras(4))
    for format in ("transforms", "colmap"):
        config = resolve("gaussians", {"data.path": str(both), "data.format": format})
        Run.create(tmp_path / format, config)
        assert Run.open(tmp_path / format).dataset().format == format


def test_check_takes_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_sets.write_transforms(tmp_path, small_sets.cameras(4))
    assert check.main([str(root), "--data-format", "transforms", "--json", "--no-overview", "--features", "never"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "transforms"


def test_an_unknown_one_is_said_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_sets.write_transforms(tmp_path / "data", small_sets.cameras(4))
    out = tmp_path / "run"
    assert main(["gaussians", "--data", str(root), "--data-format", "nerfstudioo", "--out", str(out)]) == 2
    assert "did you mean 'nerfstudio'" in capsys.readouterr().err
    assert not out.exists()
