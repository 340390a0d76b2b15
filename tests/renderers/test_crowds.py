"""Hundreds of overlapping primitives per ray: the engine's exact order against the oracle's full sort, and the share of
rays that it says outgrew the window.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backends import ORACLE, Backend, found_backends
from compare import Agreement, compare_frames, relative_error
from mixed_scenes import boxes, mapped, neurals, ray_gaussians, surfels, triangles
from scenes import Scene, gaussians, simple_camera, single
from torch import Tensor

from smalti.renderers.drawables import Drawable
from smalti.renderers.frame import Frame
from smalti.renderers.settings import RenderSettings

EXACT = RenderSettings(order="ray", depth=True, statistics=True, transmittance_min=0.0)
ENGINE = [backend for backend in found_backends() if backend.backend == "cpu"]
SIZE = (9, 7)
COUNT = 140
"""Of each kind but boxes."""


def faint(drawable: Drawable, alpha: float) -> Drawable:
    """So that light gets through all of them."""

    def change(name: str, value: Tensor) -> Tensor:
        if name == "opacities":
            return torch.full_like(value, single(torch.tensor(alpha)).item())
        if name == "offsets":
            return torch.full_like(value, single(torch.tensor(alpha)).item())
        if name == "amplitudes":
            return 0.01 * value
        if name == "payload":
            return torch.cat([value[..., :3], alpha * (0.5 + value[..., 3:])], dim=-1)
        return value

    return mapped(mapped(drawable, change), lambda _, value: single(value))


def crowd() -> tuple[Drawable, ...]:
    """Every kind, large and close together; four hundred and more of them on every ray."""
    wide = {"scales": single(0.8 + 0.2 * torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(1)).double())}
    flat = {"scales": wide["scales"][:, :2].contiguous()}
    corners = triangles(COUNT, 4).corners
    middle = corners.mean(1, keepdim=True)
    spread = single(0.4 * middle + 6 * (corners - middle))
    return (
        faint(gaussians(COUNT, 1, **wide), 0.02),  # type: ignore[arg-type]
        faint(ray_gaussians(COUNT, 2, **wide), 0.02),
        faint(surfels(COUNT, 3, **flat), 0.02),
        faint(triangles(COUNT, 4, corners=spread), 0.01),
        faint(neurals(COUNT, 5, cap=False, **wide), 0.02),
        faint(replace(boxes(12, 6), half_extents=torch.full((12, 3), 0.75, dtype=torch.float64)), 0.02),
    )


@pytest.fixture(scope="module")
def judged() -> tuple[Scene, Frame, dict[str, Tensor]]:
    """The scene, and the oracle's frame and gradients."""
    scene = Scene(crowd(), simple_camera(*SIZE, fov=0.4), None, EXACT)  # type: ignore[arg-type]
    leaves, ready = scene.leaves(torch.float64)
    frame = ORACLE.render(ready)
    loss_of(frame).backward()
    return scene, frame, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def loss_of(frame: Frame) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    planes = [plane for plane in (frame.color, frame.alpha, frame.depth) if plane is not None]
    return torch.stack([(torch.randn(p.shape, generator=generator).to(p) * p).sum() for p in planes]).sum()


@pytest.mark.parametrize("engine", ENGINE, ids=lambda backend: backend.name)
def test_exact_order_against_a_full_sort(engine: Backend, judged: tuple[Scene, Frame, dict[str, Tensor]]) -> None:
    scene, expected, gradients = judged
    leaves, ready = scene.leaves(engine.dtype)
    frame = engine.render(ready)
    assert frame.visibility.fallback > 0.9, "the window was meant to be outgrown"
    # One event more or less before another of hundreds is a difference that the image tolerance sees.
    agreement = Agreement({"image": engine.image_tolerance, "gradient": engine.gradient_tolerance})
    # The oracle's radii are of the pixels that are drawn, the engine's of bounds (`Visibility`).
    seen = replace(expected.visibility, radii=frame.visibility.radii)
    plain = replace(frame, ids={}), replace(expected, ids={}, visibility=seen)
    keep = compare_frames(agreement, *plain)
    assert not agreement.faults, "\n".join(agreement.faults)
    with engine.chosen():
        loss_of(frame).backward()
    assert bool(keep.all()) or engine.dtype == torch.float32
    if bool(keep.all()):
        for name, gradient in gradients.items():
            found = leaves[name].grad
            assert found is not None, name
            # Sums over hundreds of events, many of which cancel.
            assert relative_error(found, gradient) <= 3 * engine.gradient_tolerance, name


def test_rays_meet_hundreds(judged: tuple[Scene, Frame, dict[str, Tensor]]) -> None:
    """Else the test above would show little: counted by the door that lists events."""
    from smalti.renderers.fragments import fragments

    scene, _, _ = judged
    _, ready = scene.leaves(torch.float64)
    counts = fragments(ready.drawables, ready.camera, 1, settings=EXACT).counts
    assert int(counts.min()) > 300
    assert int(counts.max()) > 500


@pytest.mark.parametrize("engine", ENGINE[:1], ids=lambda backend: backend.name)
def test_a_wrong_order_would_show(engine: Backend, judged: tuple[Scene, Frame, dict[str, Tensor]]) -> None:
    """One key per primitive is another picture by far more than the tolerance."""
    scene, expected, _ = judged
    _, ready = replace(scene, settings=replace(EXACT, order="centre")).leaves(engine.dtype)
    assert relative_error(engine.render(ready).color, expected.color) > 100 * engine.image_tolerance


def test_few_primitives_stay_in_the_window() -> None:
    """The reported share is of pixels, and nothing where rays meet a handful."""
    small = Scene((ray_gaussians(8),), simple_camera(24, 17), None, EXACT)  # type: ignore[arg-type]
    for engine in ENGINE:
        _, ready = small.leaves(engine.dtype)
        assert engine.render(ready).visibility.fallback == 0.0
