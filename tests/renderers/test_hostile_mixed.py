"""Hostile numbers in every field of every kind: a small run of `bench/fuzz.py`, and what its long runs have found."""

from __future__ import annotations

import importlib
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from backends import Backend, found_backends
from mixed_scenes import KINDS, boxes, mapped, textured
from on_axis import BLUE, RED, ball, wall
from scenes import Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.fragments import composite, fragments
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

BENCH = Path(__file__).resolve().parents[2] / "bench"
RAY = RenderSettings(order="ray", depth=True, normals=True)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        return importlib.import_module("fuzz")
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture(params=[b for b in found_backends() if b.backend == "cpu"], ids=lambda backend: backend.name)
def engine(request: pytest.FixtureRequest) -> Backend:
    return request.param


def test_some_hundred_scenes(fuzz: ModuleType) -> None:
    """Both precisions in turn; nothing but numbers comes out, and rubbish is counted."""
    failed, skipped = {}, 0
    for seed in range(10_000, 10_300):
        faults, count = fuzz.faults_of(seed)
        skipped += count
        if faults:
            failed[seed] = faults
    assert not failed
    assert skipped > 300


def test_rubbish_is_noticed(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture with a NaN in it, and a gradient that is one, are faults."""
    honest = fuzz.render

    def broken(drawables: Any, *rest: Any, **other: Any) -> Any:
        frame = honest(drawables, *rest, **other)
        return fuzz.replace(frame, color=frame.color + float("nan"))

    monkeypatch.setattr(fuzz, "render", broken)
    faults = [fault for seed in range(20_000, 20_020) for fault in fuzz.faults_of(seed)[0]]
    assert sum("color" in fault for fault in faults) == 20
    assert any("gradient" in fault for fault in faults) or len(faults) == 20


def draw_and_take_back(engine: Backend, *drawables: Any, settings: RenderSettings = RAY) -> dict[str, Tensor]:
    """Gradients of the sum of all planes; the planes and they must be numbers."""
    leaves, ready = Scene(drawables, simple_camera(20, 14), settings=settings).leaves(engine.dtype)
    frame = engine.render(ready)
    planes = [plane for plane in (frame.color, frame.alpha, frame.depth, frame.normal) if plane is not None]
    assert all(bool(plane.isfinite().all()) for plane in planes)
    with engine.chosen():
        torch.stack([plane.sum() for plane in planes]).sum().backward()
    found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    for name, gradient in found.items():
        assert bool(gradient.isfinite().all()), name
    return found


@pytest.mark.parametrize("exponent", [8.0, 64.0])
def test_steep_windows_do_not_overflow_where_a_ray_misses(engine: Backend, exponent: float) -> None:
    """|y|^64 of a lane far beside the box is Inf, and 0 times it was NaN."""
    found = draw_and_take_back(engine, boxes(6, fade_scale=1000.0, fade_exponent=exponent))
    assert bool(found["0.centres"].any())


def test_texture_coordinates_out_of_range(engine: Backend) -> None:
    """Clamped there: the derivative is 0, and 0 times an offset of Inf texels was NaN."""
    huge = 3e38 if engine.dtype == torch.float32 else 1e308
    for wrap in (False, True):

        def spoil(name: str, value: Tensor) -> Tensor:
            value = value.clone()
            if name == "uvs":
                value[:, 2, 0], value[::2, 1, 1] = huge, -huge
            return value

        drawable = mapped(textured(9, edges="soft", sigma=1e-2, wrap=wrap), spoil)
        found = draw_and_take_back(engine, drawable)
        assert bool(found["0.opacities"].any())


def test_what_no_ray_felt_has_no_gradient(engine: Backend) -> None:
    """A flat Gaussian whose compensated opacity is 0; the derivative of that is out of range."""
    drawable = gaussians(3, 5, compensated=True, filter_variance=0.0)
    scales, means = drawable.scales.clone(), drawable.means.clone()
    towards = simple_camera().rotation[2]
    scales[1, 1], means[1] = 3e37, towards * 1e20
    found = draw_and_take_back(engine, mapped(drawable, lambda n, v: {"scales": scales, "means": means}.get(n, v)))
    assert not bool(found["0.means"][1].any())


def test_needles_without_area_have_no_gradient(engine: Backend) -> None:
    """Of EWA Gaussians alone; compensated, their opacity is 0, and 0 times the derivative of that was NaN."""
    drawable = gaussians(3, 5, compensated=True, filter_variance=0.0)
    scales = drawable.scales.clone()
    scales[1] = torch.tensor([1e-20, 0.7, 1e-20], dtype=torch.float64)
    needle = mapped(drawable, lambda name, value: scales if name == "scales" else value)
    found = draw_and_take_back(engine, needle, settings=RenderSettings(depth=True))
    assert bool(found["0.means"][0].any())


@pytest.mark.parametrize("tau", [1e-44, 1e-38, 1e-30, 1e-21])
def test_rays_that_absorb_next_to_nothing(engine: Backend, tau: float) -> None:
    """Their expected depth would be a quotient of denormals: it is 0, without a gradient."""
    for others in ((), (wall(2.5, 1e-30, BLUE),)):
        faint = ball(2.0, 3.0, tau, RED)
        # Away from the world's origin as the camera sees it: the ball is around the origin, the camera 4 away.
        around = mapped(faint, lambda n, v: v * 0 if n == "means" else v)
        found = draw_and_take_back(engine, around, *others)
        assert not bool(found["0.means"].isnan().any())


@pytest.mark.parametrize("tau", [1e-44, 1e-38, 1e-21])
def test_faint_segments_through_fragments(tau: float) -> None:
    around = mapped(ball(2.0, 3.0, tau, RED), lambda n, v: v * 0 if n == "means" else v)
    leaves, ready = Scene((around,), simple_camera(9, 7)).leaves(torch.float32)  # type: ignore[arg-type]
    found = fragments(ready.drawables, ready.camera, 4)
    color, alpha = composite(found, found.colors[..., :3])
    (color.sum() + alpha.sum()).backward()
    assert all(leaf.grad is None or bool(leaf.grad.isfinite().all()) for leaf in leaves.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_no_number_is_not_hidden(kind: str) -> None:
    """Zeros would let a training go on that has lost its loss."""
    drawable = KINDS[kind](4)
    held = {field.name: getattr(drawable, field.name) for field in fields(drawable) if field.name != "features"}
    leaves = {
        name: value.clone().requires_grad_()
        for name, value in held.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    if "mipmaps" in leaves:  # the texture is seen through them
        del leaves["texture"]
    color = render([replace(drawable, **leaves)], simple_camera(24, 20), backend="cpu").color
    (color.sum() * torch.nan).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert bool(leaf.grad.isnan().any()), name
