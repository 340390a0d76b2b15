"""The experiments of `bench/` run through, small: every variant trains, and what they report is what was drawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def report_of(script: str, *options: str) -> dict[str, Any]:
    """What `bench/SCRIPT --quick --json` prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(ROOT / "bench" / script), "--quick", "--json", *options]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_boxes_at_equal_voxels() -> None:
    found = report_of("boxes.py")
    plain = {row["boxes"]: row for row in found["runs"] if row["ablation"] == "none"}
    assert sorted(plain) == [1, 8, 64, 512]
    assert all(row["boxes"] * row["voxels_per_side"] ** 3 == 32**3 for row in found["runs"])
    assert {row["ablation"] for row in found["runs"]} == {"none", "no window", "prior 0", "prior 0.1", "frozen places"}
    # What many small boxes are for, and what does not hang on training: less of the space is marched through. (Eight
    # large ones overlap, and cost more than one.)
    lookups = {count: row["lookups_per_ray"] for count, row in plain.items()}
    assert lookups[8] > lookups[64] > lookups[512] > 0
    assert lookups[512] < lookups[1]
    for row in found["runs"]:
        assert (row["volume"] == row["volume_at_start"]) == (row["ablation"] == "frozen places")


def test_mix_and_each_family_alone(tmp_path: Path) -> None:
    pytest.importorskip("mitsuba", reason="the scene is drawn by Mitsuba 3: pip install smalti[test]")
    found = report_of("mixed.py", "--out", str(tmp_path))
    rows = {row["variant"]: row for row in found["runs"]}
    assert len(rows) == 11
    for row in rows.values():
        assert 30_000 < row["bytes"] <= 40_000  # equal bytes
        assert 5 < row["psnr"] < 40
        assert sum(row["share_of_squared_error"].values()) == pytest.approx(1.0)
        assert set(row["psnr_by_region"]) == {"mesh", "superquadrics", "ball", "wires", "empty"}
    assert set(rows["mix"]["layers"]) == {"surface", "missing"}
    assert set(rows["mix-former"]["layers"]) == {"surface", "on-hull", "in-space"}
    singles = {name: row["psnr"] for name, row in rows.items() if not name.startswith("mix")}
    assert found["best_single"] == max(singles, key=lambda name: singles[name])
    assert found["gain_of_mix"] == pytest.approx(rows["mix"]["psnr"] - max(singles.values()))
    assert (tmp_path / "mixed.png").stat().st_size > 10_000


def test_mipmaps_from_near_and_far() -> None:
    """Nearer to the supersampled picture wherever a pixel is wider than a texel, and the same picture where none is."""
    found = report_of("mipmaps.py")
    for row in found["pictures"]:
        near = row["shape"] == "sphere" and row["texels_per_pixel"] < 1
        assert (row["with"] == row["without"]) if near else (row["with"] > row["without"] + 2), row
    assert len(found["pictures"]) == 18
    assert len(found["milliseconds"]) == 4
