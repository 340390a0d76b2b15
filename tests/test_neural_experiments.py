"""The experiments on neural splats run through, small; their solids are what they say."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from bench_scripts import BENCH, printed_by


@pytest.fixture
def solids(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    import neural_solids  # pyright: ignore[reportMissingImports]

    yield neural_solids
    for name in ("neural_solids", "neural_toy_report"):
        sys.modules.pop(name, None)


def test_the_toy_runs_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--part", "toy", "--cache", str(tmp_path / "cache"))
    found = printed_by("neural_splats.py", monkeypatch, capsys, "--out", str(tmp_path), *options)
    assert found["missing_runs"] == 0
    assert {(row["model"], row["primitives"]) for row in found["rows"]} == {
        (model, count) for model in ("neural", "gaussian", "ellipsoid") for count in (1, 2)
    }
    for row in found["rows"]:
        for measure in ("psnr", "psnr_fine"):
            assert row[f"{measure}_range"] == [row[measure]] * 2  # of one seed
            assert 5 < row[measure] < 40
    for name in ("neural-toy.png", "neural-toy-pictures.png", "neural-toy.json"):
        assert (tmp_path / name).stat().st_size > 500
    again = printed_by("neural_splats.py", monkeypatch, capsys, *options)  # from the cache: not even the seconds differ
    assert again == found


def test_every_form_trains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = printed_by("neural_splats.py", monkeypatch, capsys, "--part", "forms")
    rows = {row["form"]: row for row in report["rows"]}
    assert len(rows) == 8
    for form, row in rows.items():
        each = 396 if form.startswith("published") else 312  # colours of degree 3, and 2
        assert row["bytes"] == each * row["primitives"]
        assert 8 < row["psnr"] < 40
    assert rows["published, growing"]["primitives"] > 15  # from a quarter of the others' 60
    assert all(row["primitives"] == 60 for form, row in rows.items() if "growing" not in form)


def test_distances_never_step_through_a_solid(solids: ModuleType) -> None:
    """As functions of place they change no faster than the place does, and are 0 where the solid ends."""
    random = np.random.default_rng(0)
    p, step = random.uniform(-1, 1, (2000, 3)), 1e-3 * random.normal(size=(2000, 3))
    for name, distance in solids.SOLIDS.items():
        change = np.abs(distance(p + step) - distance(p))
        assert (change <= np.linalg.norm(step, axis=1) * (1 + 1e-9)).all(), name
        inside = solids.points_inside(name, 500, 0).numpy()
        assert (distance(inside) < 0).all()
        assert float(np.linalg.norm(inside, axis=1).max()) < solids.RADIUS
    assert solids.half_torus(np.array([[0.65, -0.3, 0.2], [0.0, 0.35, 0.0]])) == pytest.approx([0.0, -0.2])
    assert solids.notched_box(np.array([[0.55, -0.4, 0.0], [-0.5, 0.0, 0.0]])) == pytest.approx([0.2, -0.1])


def test_a_ball_covers_its_outline(solids: ModuleType) -> None:
    """Sphere tracing and the share of covered rays: the disk that perspective makes of a ball in the middle."""
    radius = 0.6
    camera = solids.camera_at(np.array([0.6, 0.0, 0.8]), 64)
    found = solids.picture(lambda p: np.linalg.norm(p, axis=-1) - radius, camera)
    on_screen = float(camera.intrinsics[0]) * math.tan(math.asin(radius / solids.DISTANCE))
    covered = found[..., 0].sum() / solids.ALBEDO[0]
    assert float(covered) == pytest.approx(math.pi * on_screen**2, rel=5e-3)
    assert torch.equal(found[..., 1] * solids.ALBEDO[0] / solids.ALBEDO[1] > 0.5, found[..., 0] > 0.5)


def test_numbers_are_read_off_a_curve_by_its_logarithm(solids: ModuleType) -> None:
    from neural_toy_report import needed  # pyright: ignore[reportMissingImports]

    points = {2: (10.0, 9.0, 11.0), 8: (20.0, 19.0, 21.0), 32: (22.0, 22.0, 22.0)}
    assert needed(points, 15.0) == pytest.approx(4.0)
    assert needed(points, 20.0) == pytest.approx(8.0)
    assert needed(points, 21.0) == pytest.approx(16.0)
    assert needed(points, 9.0) == 2
    assert needed(points, 22.5) is None
