"""The experiment at equal bytes runs through, small, keeps its budgets, and is not done again where it was done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "bench"))
    yield import_module("neural_chair")
    sys.modules.pop("neural_chair")


def test_a_mix_is_judged_by_the_seeds_that_all_have(bench: Any) -> None:
    """Against the better one of the same control, and of none; never against one of other colours."""
    psnr = {
        "mix-3": [30.0, 31.0, 40.0], "gaussians-3": [29.0, 29.5], "ray_gaussians-3": [28.0, 28.0],
        "neural-3": [29.4, 29.0], "ray_gaussians-3-exchange": [30.1], "neural-3-exchange": [29.0, 39.0],
        "gaussians-0": [50.0, 50.0],
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"variant": name, "budget": "0.4MB", "seed": seed, "psnr": value, "primitives": 1, "bytes": 1,
         "cpu_seconds": 1.0}
        for name, values in psnr.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    found = bench.summary(rows)
    verdicts = found["mixes"]["0.4MB"]["mix-3"]
    assert list(found["mixes"]) == ["0.4MB"]
    assert list(found["mixes"]["0.4MB"]) == ["mix-3"]
    plain, strict = verdicts["without exchange"], verdicts["with exchange"]
    assert (plain["better_single"], plain["seeds"], plain["reached"]) == ("gaussians-3", [0, 1], True)
    assert plain["gains"] == pytest.approx([1.0, 1.5])
    assert (strict["better_single"], strict["seeds"], strict["reached"]) == ("ray_gaussians-3-exchange", [0], False)
    assert strict["gain"] == pytest.approx(-0.1)
    assert found["table"]["0.4MB"]["mix-3"]["range"] == [30.0, 40.0]
    without = [row for row in rows if not row["variant"].startswith("neural-3")]
    assert bench.summary(without)["mixes"] == {}


def test_families_alone_and_together_hold_equal_bytes(tmp_path: Path, shared_data: Path, bench: Any) -> None:
    report = bench.report
    if not (shared_data / "chair_blender").is_dir():
        pytest.skip("the capture chair_blender is not there")
    arguments = argparse.Namespace(
        cache=tmp_path, data=shared_data, quick=True, out=tmp_path, seconds=float("inf"), json=False, validate=False,
        variants=None,
    )  # fmt: skip
    found = report(arguments)
    rows = {row["variant"]: row for row in found["runs"]}
    assert set(rows) == {"ray_gaussians-3", "neural-3", "mix-3"}
    assert all(96_000 < row["bytes"] == sum(row["bytes_by_layer"].values()) <= 100_000 for row in rows.values())
    assert all(5 < row["psnr"] < 40 for row in rows.values())
    verdicts = found["mixes"]["0.1MB"]["mix-3"]
    assert set(verdicts) == {"without exchange"}  # of those with it there is no run
    verdict = verdicts["without exchange"]
    best = max(("ray_gaussians-3", "neural-3"), key=lambda name: rows[name]["psnr"])
    assert verdict["better_single"] == best
    assert verdict["seeds"] == [0]
    assert (tmp_path / "neural-chair.png").is_file()
    assert verdict["gain"] == pytest.approx(rows["mix-3"]["psnr"] - rows[best]["psnr"])
    arguments.seconds = 0.0
    assert report(arguments)["runs"] == found["runs"]
    (tmp_path / "chair-mix-3-0.1MB-0.json").unlink()
    assert report(arguments)["runs_left"] == 1
    arguments.variants = "mix-3,mixed"
    with pytest.raises(SystemExit, match="no variant mixed; there are gaussians-3"):
        report(arguments)
