"""Analytic gradients against central differences: a small run of `bench/gradients.py`; it must notice a wrong one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "gradients.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gradients", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_gradients"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mode", ["plain", "compensated", "plain+compensated"])
def test_every_parameter_in_float64(bench: ModuleType, mode: str) -> None:
    (case,) = (case for case in bench.CASES if case.mode == mode)
    rows = [row for backend in bench.backends() for row in bench.check(case, backend, 6)]
    parameters = {row["parameter"].split(".")[-1] for row in rows}
    assert parameters == {
        *("means", "quaternions", "scales", "opacities", "sh_dc", "sh_rest", "features"),
        *("rotation", "translation", "intrinsics", "background"),
    }
    print(f"set aside {max(row['set_aside'] for row in rows):.1e}, worst {max(row['error'] for row in rows):.1e}")
    assert not [row for row in rows if not row["passed"]]
    assert all(row["set_aside"] <= 0.02 for row in rows)


def test_a_wrong_gradient_is_noticed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The means' gradient is made 1e-4 too large without touching their values."""
    honest = bench.draw

    def draw(case: Any, leaves: dict[str, Tensor], backend: str) -> Any:
        means = leaves["0.means"]
        return honest(case, {**leaves, "0.means": means + 1e-4 * (means - means.detach())}, backend)

    monkeypatch.setattr(bench, "draw", draw)
    rows = list(bench.check(bench.CASES[0], "oracle", 3))
    failed = {row["parameter"] for row in rows if not row["passed"]}
    assert failed == {"0.means"}
