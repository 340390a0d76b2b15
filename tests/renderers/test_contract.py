"""`bench/contract.py`: every clause of the contract in closed form over every pair of event modes; it must be able to
fail, and its closed forms agree with numbers worked out by hand and with integrals taken numerically.
"""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from backends import emulator
from torch import Tensor

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load(name: str) -> ModuleType:
    """A module of `bench/`, which is no package."""
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCH))


contract, scenes = load("contract"), load("contract_scenes")
PAIRS = list(itertools.product(scenes.MODES, repeat=2))


def require(rows: list[dict[str, Any]]) -> None:
    faults = [
        f"{r['clause']} {r['first']}, {r['second']} {r['backend']}: {r['error']:.1e} {r['worst']}"
        for r in rows
        if not r["passed"]
    ]
    assert rows
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("first", scenes.MODES)
def test_every_pair_on_the_cpu(first: str) -> None:
    """The fastest single-precision build and the double one; `bench/contract.py` runs over all builds."""
    found = [b for b in contract.backends() if b.name.startswith("cpu")]
    chosen = [found[0], *(b for b in found if b.name == "cpu-double")]
    assert len(chosen) == 2
    rows = []
    for second in scenes.MODES:
        for check in contract.checks_of((first, second), every=False):
            for backend in chosen:
                rows += contract.rows_of(check, (first, second), backend)
    require(rows)
    print(f"{len(rows)} rows, worst {max(row['error'] / row['tolerance'] for row in rows):.1e} of the tolerance")


@pytest.mark.parametrize("first", scenes.MODES)
def test_every_pair_on_the_oracle(first: str) -> None:
    """The clauses of order; the rest is in the bench."""
    oracle = contract.backends()[0]
    rows = []
    for second in scenes.MODES:
        names = ("order: interpenetrating", "order: coincident", "order: at the near plane", "the cap acts")
        checks = [c for c in contract.checks_of((first, second), every=False) if c.clause.startswith(names)]
        for check in checks:
            rows += contract.rows_of(check, (first, second), oracle)
    require(rows)


def test_a_crowd_outgrows_the_window() -> None:
    """Eighty overlapping primitives of two kinds: the picture stays exact, and the fall-back is reported."""
    (double,) = (b for b in contract.backends() if b.name == "cpu-double")
    for pair in (("neural", "neural"), ("box", "neural"), ("superquadric", "triangle")):
        checks = [c for c in contract.checks_of(pair) if c.clause.startswith("more events")]
        rows = [row for check in checks for row in contract.rows_of(check, pair, double)]
        require(rows)
        if "neural" in pair:
            assert rows[0]["fallback"] == 1.0


@pytest.mark.slow
def test_some_pairs_in_the_emulator() -> None:
    """Compiled once: every scene holds no primitives of all kinds first."""
    backend = contract.Backend("emulator-float64", "emulator", torch.float64, lambda: emulator().selected())
    rows = []
    for pair in (("gaussian", "neural"), ("box", "gaussian_ray"), ("surfel", "superquadric"), ("triangle", "box")):
        for check in contract.checks_of(pair, every=False):
            rows += contract.rows_of(check, pair, backend)
    require(rows)


def test_an_additive_box_is_refused_among_others() -> None:
    (double,) = (b for b in contract.backends() if b.name == "cpu-double")
    assert all(contract.refusal(pair, double)["passed"] for pair in PAIRS if "box" in pair and pair != ("box", "box"))


# ---- the closed forms themselves
def expected(clause: str, pair: tuple[str, str]) -> Any:
    (check,) = (c for c in contract.checks_of(pair, every=False) if c.clause == clause)
    return scenes.expected(check.primitives, scenes.single(contract.BACKGROUND), check.settings), check


def same(got: Tensor, want: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach(), want, rtol=tolerance, atol=tolerance)


def test_closed_forms_by_hand() -> None:
    """alpha 0.4375 then 0.625: T = 0.5625 * 0.375; a wall at 2.75 in a ball [2.25, 4.25] of alpha 0.625."""
    a, b = np.array(contract.COLORS)
    back = np.array(contract.BACKGROUND)
    thin, _ = expected("order: in front", ("triangle", "surfel"))
    left = 0.5625 * 0.375
    np.testing.assert_allclose(thin.planes["color"].detach(), 0.4375 * a + 0.5625 * 0.625 * b + left * back, rtol=1e-12)
    np.testing.assert_allclose(
        thin.planes["depth"].detach(), (0.4375 * 2 + 0.5625 * 0.625 * 4) / (1 - left), rtol=1e-12
    )
    tied, _ = expected("order: coincident", ("surfel", "triangle"))
    assert tied.ids["first"] == 0
    cut, check = expected("order: interpenetrating", ("triangle", "neural"))
    tau = 2 * float(check.primitives[1].strength.detach())
    assert abs(math.exp(-tau) - 0.375) < 1e-7
    first, rest = math.exp(-tau / 4), math.exp(-tau * 3 / 4)
    weights = 1 - first, first * 0.4375, first * 0.5625 * (1 - rest), first * 0.5625 * rest
    color = (weights[0] + weights[2]) * b + weights[1] * a + weights[3] * back
    np.testing.assert_allclose(cut.planes["color"].detach(), color, rtol=1e-12)
    np.testing.assert_allclose(
        cut.planes["contribution_sum"].detach(), [weights[1], weights[0] + weights[2]], rtol=1e-12
    )


@pytest.mark.parametrize("pair", list(itertools.product(["neural", "box"], repeat=2)))
@pytest.mark.parametrize("name", ["interpenetrating", "inside", "coincident"])
def test_closed_forms_are_the_integrals(pair: tuple[str, str], name: str) -> None:
    """Of transmittance times density times colour (or z) over z, by many small steps."""
    found, check = expected(f"order: {name}", pair)
    ends = np.linspace(0.0, 6.0, 48_001)
    z = 0.5 * (ends[1:] + ends[:-1])
    density = np.zeros((2, len(z)))
    for k, primitive in enumerate(check.primitives):
        alpha = contract.ALPHAS[k]
        centre = float(primitive.z.detach())
        inside = np.abs(z - centre) < primitive.half
        density[k] = inside * -math.log(1 - alpha) / (2 * primitive.half)
    total = density.sum(0) * (ends[1] - ends[0])
    before = np.exp(-(np.cumsum(total) - total))
    absorbed = before * -np.expm1(-total)
    share = np.where(total > 0, density / np.maximum(density.sum(0), 1e-30), 0)
    color = (share * absorbed).sum(1) @ np.array(contract.COLORS) + math.exp(-total.sum()) * np.array(
        contract.BACKGROUND
    )
    np.testing.assert_allclose(found.planes["color"].detach(), color, atol=1e-6)
    np.testing.assert_allclose(found.planes["contribution_sum"].detach(), (share * absorbed).sum(1), atol=1e-6)
    np.testing.assert_allclose(found.planes["depth"].detach(), (absorbed * z).sum() / absorbed.sum(), atol=1e-6)


def test_a_wrong_order_is_noticed() -> None:
    """With the two primitives exchanged behind the judge's back, ties and places no longer fit."""
    (double,) = (b for b in contract.backends() if b.name == "cpu-double")
    for pair in (("surfel", "triangle"), ("neural", "gaussian"), ("box", "superquadric")):
        for check in contract.checks_of(pair, every=False):
            if check.clause in ("order: in front", "order: interpenetrating"):
                wrong = [replace(p, z=q.z) for p, q in zip(check.primitives, check.primitives[::-1], strict=True)]
                honest = scenes.expected(check.primitives, scenes.single(contract.BACKGROUND), check.settings)
                frame = double.draw(wrong, scenes.single(contract.BACKGROUND), check.settings)
                assert contract.relative(frame.color[0, 0], honest.planes["color"]) > 1e-3
