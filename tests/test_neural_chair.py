"""The experiment at equal bytes runs through, small, keeps its budgets, and is not done again where it was done."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_families_alone_and_together_hold_equal_bytes(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "bench"))
    report = import_module("neural_chair").report
    if not (shared_data / "chair_blender").is_dir():
        pytest.skip("the capture chair_blender is not there")
    arguments = argparse.Namespace(
        cache=tmp_path, data=shared_data, quick=True, out=None, seconds=float("inf"), json=False
    )
    found = report(arguments)
    rows = {row["variant"]: row for row in found["runs"]}
    assert set(rows) == {"ray_gaussians-3", "neural-3-exchange", "mix-3"}
    assert all(96_000 < row["bytes"] == sum(row["bytes_by_layer"].values()) <= 100_000 for row in rows.values())
    assert all(5 < row["psnr"] < 40 for row in rows.values())
    verdict = found["mixes"]["0.1MB"]["mix-3"]
    best = max(("ray_gaussians-3", "neural-3-exchange"), key=lambda name: rows[name]["psnr"])
    assert verdict["better_single"] == best
    assert verdict["gain"] == pytest.approx(rows["mix-3"]["psnr"] - rows[best]["psnr"])
    arguments.seconds = 0.0
    assert report(arguments)["runs"] == found["runs"]
    (tmp_path / "chair-mix-3-0.1MB-0.json").unlink()
    assert report(arguments)["runs_left"] == 1
    sys.modules.pop("neural_chair")
