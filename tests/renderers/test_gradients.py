"""Analytic gradients against central differences: a small run of `bench/gradients.py`; it must notice a wrong one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from smalti.primitives.superquadrics import Superquadrics
from smalti.renderers.drawables import (
    BoxDrawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)

KINDS = (GaussianDrawable, RayGaussianDrawable, SurfelDrawable, NeuralDrawable, TriangleDrawable, BoxDrawable)
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


# ---- every kind, mixed (gradient_mix.py)
def test_no_parameter_of_any_kind_is_left_out(bench: ModuleType) -> None:
    """Every tensor that a drawable can hold is moved in some mode of its kind, and every kind is in the list."""
    scenes = importlib.import_module("gradient_scenes")
    moved: dict[str, set[str]] = {}
    for part in scenes.PARTS:
        moved.setdefault(part.kind, set()).update(part.tensors(1))
    for kind in KINDS:
        tensors = {f.name for f in fields(kind) if "Float[" in str(f.type)}
        assert moved[kind.kind] == tensors, kind.kind
    assert moved["superquadric"] == set(Superquadrics.default_learning_rates())
    told = {(row["kind"], row["parameter"]) for row in bench.gradient_mix.reasons()}
    assert ("triangle", "neighbours") in told
    assert all(row["reason"] for row in bench.gradient_mix.reasons())


def test_all_kinds_in_one_scene(bench: ModuleType) -> None:
    rows = list(bench.gradient_mix.check(bench.gradient_mix.all_kinds(), "cpu"))
    assert {row["kind"] for row in rows} == {
        *("gaussian", "gaussian_ray", "surfel", "neural", "triangle", "box", "superquadric", "camera", "background")
    }
    print(f"set aside {rows[0]['set_aside']:.1e}, worst {max(row['error'] for row in rows):.1e}")
    assert not [row for row in rows if not row["passed"]]
    assert all(row["influence"] > 0 for row in rows), "a parameter without influence proves nothing"


def test_every_mode_alone(bench: ModuleType) -> None:
    """Along the ray; mixes two by two, and order=centre, are the bench's."""
    rows = []
    for mix in bench.gradient_mix.mixes(small=True):
        if len(mix.parts) == 1 and mix.order == "ray":
            rows += bench.gradient_mix.check(mix, "cpu")
    faults = [f"{row['kind']} {row['mode']} {row['parameter']} {row['error']:.1e}" for row in rows if not row["passed"]]
    assert not faults, "\n".join(faults)
    assert max(row["set_aside"] for row in rows) <= 0.01


def test_a_wrong_gradient_in_a_mix_is_noticed(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bench.gradient_mix.Mix.draw

    def draw(mix: Any, leaves: dict[str, Tensor], backend: str) -> Any:
        moved = leaves["1.scales"]
        return honest(mix, {**leaves, "1.scales": moved + 1e-4 * (moved - moved.detach())}, backend)

    monkeypatch.setattr(bench.gradient_mix.Mix, "draw", draw)
    mixes = (m for m in bench.gradient_mix.mixes() if [p.kind for p in m.parts] == ["gaussian", "surfel"])
    rows = bench.gradient_mix.check(next(mixes), "cpu")
    failed = {(row["kind"], row["parameter"]) for row in rows if not row["passed"]}
    assert failed == {("surfel", "scales")}
