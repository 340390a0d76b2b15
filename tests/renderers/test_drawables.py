"""Drawables that the kernels could not read are refused where they are made, with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from mixed_scenes import boxes, neurals, surfels, textured, triangles
from scenes import gaussians, simple_camera

from smalti.renderers import shapes
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

NAN, INFINITE = float("nan"), float("inf")
WRONG: list[tuple[str, Callable[[int], Any], dict[str, Any]]] = [
    ("texture: expected", textured, {"texture": torch.zeros(0, 4, 3)}),
    ("texture: expected", textured, {"texture": torch.zeros(4, 4)}),
    ("texture: expected", textured, {"texture": torch.zeros(4, 4, 2)}),
    ("mipmaps: 3 texels are no levels", textured, {"mipmaps": torch.zeros(3, 4, dtype=torch.float64)}),
    ("mipmaps: expected shape", textured, {"mipmaps": torch.zeros(6, 3, dtype=torch.float64)}),
    ("mipmaps need their texture", triangles, {"mipmaps": torch.zeros(7, 4)}),
    ("neighbours: expected integers", triangles, {"neighbours": torch.zeros(2, 3)}),
    ("neighbours: expected shape", triangles, {"neighbours": torch.zeros(2, 2, dtype=torch.int32)}),
    ("sigma", triangles, {"sigma": NAN}),
    ("sigma", triangles, {"sigma": INFINITE}),
    ("payload: expected", boxes, {"payload": torch.zeros(2, 0, 0, 0, 4)}),
    ("payload: expected", boxes, {"payload": torch.zeros(2, 3, 3, 3)}),
    ("payload: expected shape", boxes, {"payload": torch.zeros(1, 3, 3, 3, 4)}),
    ("warp: expected", boxes, {"warp": torch.zeros(2, 0, 2, 2, 3)}),
    ("warp: expected", boxes, {"warp": torch.zeros(2, 3)}),
    ("step", boxes, {"step": NAN}),
    ("step", boxes, {"step": INFINITE}),
    ("fade_scale", boxes, {"fade_scale": INFINITE}),
    ("fade_exponent", boxes, {"fade_exponent": NAN}),
    ("frequencies: expected", neurals, {"frequencies": torch.zeros(8)}),
    ("width of 8 or 16", neurals, {"frequencies": torch.zeros(2, 0, 3), "phases": torch.zeros(2, 0)}),
    ("omega", neurals, {"omega": NAN}),
    ("leak", neurals, {"leak": NAN}),
    ("leak", neurals, {"leak": -0.1}),
    ("scales: expected shape", surfels, {"scales": torch.ones(2, 3)}),
]


@pytest.mark.parametrize(("words", "make", "change"), WRONG, ids=[f"{k}-{w[0]}" for k, w in enumerate(WRONG)])
def test_refused(words: str, make: Callable[[int], Any], change: dict[str, Any]) -> None:
    right = make(2)
    like = next(value for value in vars(right).values() if isinstance(value, torch.Tensor))
    wrong = {k: v.to(like) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in change.items()}
    if words == "width of 8 or 16":
        wrong["amplitudes"] = wrong["phases"]
    with pytest.raises(ValueError, match=words):
        replace(right, **wrong)


def test_tables_larger_than_the_kernels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true limits take gigabytes: lower ones stand in for them."""
    monkeypatch.setattr(shapes, "MOST_NUMBERS", 10)
    with pytest.raises(ValueError, match="10 numbers in all"):
        boxes(2)
    monkeypatch.setattr(shapes, "MOST_NUMBERS", 2**31 - 1)
    monkeypatch.setattr(shapes, "MOST_TEXELS", 2)
    with pytest.raises(ValueError, match="at most 2 along a side"):
        textured(2)


def test_no_faces_need_no_texture() -> None:
    """As where all blocks of a family are gone."""
    nothing = textured(0, texture=torch.zeros(0, 4, 3, dtype=torch.float64))
    assert float(render([nothing], simple_camera(8, 8)).alpha.max()) == 0


def test_one_drawable_instead_of_a_list() -> None:
    with pytest.raises(ValueError, match=r"write \[drawable\]"):
        render(surfels(2), simple_camera(8, 8))  # pyright: ignore[reportArgumentType]


def test_a_background_that_is_no_tensor() -> None:
    with pytest.raises(ValueError, match="expected a tensor, got tuple"):
        render([surfels(2)], simple_camera(8, 8), background=(1, 1, 1))  # pyright: ignore[reportArgumentType]


def test_the_order_of_a_render_that_states_none() -> None:
    """Exact where kinds other than EWA Gaussians are drawn: by one key they would show through surfaces before them."""
    camera = simple_camera(24, 20)
    ewa, mix = [gaussians(6)], [gaussians(6), triangles(6)]
    assert torch.equal(render(ewa, camera).color, render(ewa, camera, settings=RenderSettings(order="centre")).color)
    assert torch.equal(render(mix, camera).color, render(mix, camera, settings=RenderSettings(order="ray")).color)
    assert not torch.equal(render(mix, camera).color, render(mix, camera, settings=RenderSettings()).color)
