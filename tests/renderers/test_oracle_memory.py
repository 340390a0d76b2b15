"""Large pictures: the oracle recomputes tiles in the backward pass; nothing may change by that."""

from __future__ import annotations

import pytest
import torch
from backends import ORACLE
from compare import take_gradients
from scenes import Scene, gaussians, simple_camera

from smalti.renderers import oracle


def test_recomputed_tiles_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene((gaussians(60, 50, degree=1, feature_count=1),), simple_camera(40, 36))
    found = []
    for limit in (oracle.TABLE_LIMIT, 0):
        monkeypatch.setattr(oracle, "TABLE_LIMIT", limit)
        leaves, ready = scene.leaves(torch.float64)
        frame = ORACLE.render(ready)
        keep = torch.ones_like(frame.alpha, dtype=torch.bool)
        found.append({"color": frame.color.detach(), **take_gradients(frame, leaves, keep)})
    assert any(bool(value.any()) for name, value in found[0].items() if name == "screen absolute")
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
