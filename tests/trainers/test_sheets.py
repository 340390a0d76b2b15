"""Comparison sheet and learning curves: written, of the right shape, and showing what they should."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.trainers.evaluation import Comparison, Evaluation, ViewScore
from smalti.trainers.metrics import Protocol, psnr, ssim
from smalti.trainers.sheets import SheetRow, draw_curves, draw_sheet, spread


def synthetic_rows(count: int = 3) -> list[SheetRow]:
    y, x = torch.meshgrid(torch.linspace(0, 1, 90), torch.linspace(0, 1, 120), indexing="ij")
    rows = []
    for k in range(count):
        truth = torch.stack([x, y, 0.5 + 0.5 * torch.sin(12 * (x + y) + k)], dim=-1)
        image = truth.clone()
        image[30:60, 40:80] = (image[30:60, 40:80] + 0.1 + 0.1 * k).clamp(0, 1)
        mask = None
        if k == 1:
            mask = torch.ones(90, 120, dtype=torch.bool)
            mask[:, 90:] = False
        values = {"psnr": float(psnr(image, truth, mask)), "ssim": float(ssim(image, truth, mask))}
        pair = Comparison(f"picture_{k}.png", image, truth, mask)
        rows.append(SheetRow(pair, ViewScore(pair.name, values), f"{k + 1} of {count}"))
    return rows


def synthetic_records(steps: int = 600) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        quality = 30 - 18 * math.exp(-step / 150)
        noisy = quality + rng.normal()
        count, seconds = 1000 + 8 * step, 0.1 * step + 1e-4 * step**2
        record = {"kind": "train", "step": step, "loss": 10 ** (-noisy / 20), "psnr": noisy, "primitives": count}
        record["reduction"] = 2 if step < 200 else 1
        record |= {"bytes": 1000 * count, "cpu_seconds": seconds, "preview_psnr": quality if step % 100 == 0 else None}
        records.append(record)
        if step % 200 == 0:
            record = {"kind": "evaluation", "step": step, "psnr": quality - 1, "ssim": 0.9, "cpu_seconds": seconds}
            records.append(record)
    return records


def test_the_sheet_has_a_row_per_view(tmp_path: Path) -> None:
    draw_sheet(tmp_path / "three.png", synthetic_rows(3), str(Protocol()))
    draw_sheet(tmp_path / "one.png", synthetic_rows(1), "")
    three, one = Image.open(tmp_path / "three.png"), Image.open(tmp_path / "one.png")
    assert three.width == one.width
    assert three.height > 2 * one.height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "three.png"]
    with pytest.raises(ValueError, match="no view"):
        draw_sheet(tmp_path / "none.png", [], "")


def test_the_error_map_is_bright_where_the_error_is(tmp_path: Path) -> None:
    """The third column of the sheet: inferno's dark end where equal, its bright end where not, grey where masked."""
    rows = synthetic_rows(2)[1:]
    draw_sheet(tmp_path / "sheet.png", rows, str(Protocol()))
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"), np.int64)
    column = pixels[:, 2 * pixels.shape[1] // 3 : int(0.92 * pixels.shape[1])].reshape(-1, 3)
    dark = (np.abs(column - [0, 0, 4]).max(axis=1) <= 6).mean()
    bright = ((column[:, 0] > 240) & (column[:, 1] > 200)).mean() - (column.min(axis=1) > 240).mean()
    grey = (np.abs(column - 153).max(axis=1) <= 3).mean()
    assert dark > 0.2
    assert bright > 0.02
    assert grey > 0.08


def test_large_pictures_are_averaged() -> None:
    from smalti.trainers.sheets import reduced

    picture = torch.arange(1300 * 4, dtype=torch.float32).reshape(4, 1300)
    small = reduced(picture)
    assert small.shape == (1, 433)
    assert small[0, 1] == pytest.approx(float(picture[:3, 3:6].mean()))


def test_views_are_spread_from_worst_to_best() -> None:
    views = tuple(ViewScore(f"v{k}", {"psnr": 20.0 + (7 * k) % 10}) for k in range(10))
    chosen = spread(Evaluation(Protocol(metrics=("psnr",)), views), 4)
    assert [score.values["psnr"] for score, _ in chosen] == [20.0, 23.0, 26.0, 29.0]
    assert [rank for _, rank in chosen] == ["worst of 10", "7 of 10", "4 of 10", "best of 10"]
    few = spread(Evaluation(Protocol(metrics=("psnr",)), views[:1]), 4)
    assert [(score.name, rank) for score, rank in few] == [("v0", "the only view")]


def test_curves_of_a_run_and_of_an_odd_one(tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.png", synthetic_records())
    colors = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"), np.int64).reshape(-1, 3)
    for wanted in ((31, 119, 180), (44, 160, 44), (214, 39, 40)):  # training, fixed view, held-out
        assert (np.abs(colors - wanted).max(axis=1) <= 4).sum() > 100
    odd = [{"kind": "train", "step": 1, "loss": math.nan, "psnr": math.inf}, {"kind": "note", "step": 1}]
    draw_curves(tmp_path / "odd.png", odd)
    with pytest.raises(ValueError, match="no training record"):
        draw_curves(tmp_path / "none.png", odd[1:])
