"""Rows chosen at random by weight."""

from __future__ import annotations

import torch

from smalti.primitives.picking import picked


def test_rows_come_in_proportion_and_never_without_weight() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0])
    rows = picked(weights, 40_000, torch.Generator().manual_seed(1))
    found = torch.bincount(rows, minlength=5) / 40_000
    assert found[0] == found[2] == found[4] == 0
    assert abs(float(found[3]) - 0.75) < 0.01  # its standard deviation is 0.002


def test_none_wanted_of_none() -> None:
    assert picked(torch.zeros(0), 0, torch.Generator()).tolist() == []
