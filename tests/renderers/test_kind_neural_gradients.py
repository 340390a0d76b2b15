"""Gradients of kind `neural`: against central differences, where there are none, on the screen, and the oracle's.

Numbers in names are those of the tests proposed for the published primitive (Zhou et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backends import Backend
from compare import PLANES, Agreement, cotangents, relative_error, take_gradients
from neural_scenes import DOUBLE, ENGINE, NETWORK, RAY, looking, neural
from on_axis import RED, ball, numbers, one_pixel
from scenes import Scene, simple_camera, single
from torch import Tensor

from smalti.renderers.drawables import NeuralDrawable
from smalti.renderers.oracle import render_oracle
from smalti.renderers.settings import RenderSettings

STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
"""Central differences of fourth order."""


@pytest.fixture(params=ENGINE, ids=lambda backend: backend.name)
def engine(request: pytest.FixtureRequest) -> Backend:
    return request.param


def differences(
    scene: Scene, leaves: dict[str, Tensor], loss: Callable[[Scene], Tensor], step: float
) -> dict[str, Tensor]:
    """d loss / d every number of every leaf, in the double build."""
    found = {}
    with torch.no_grad():
        for name, leaf in leaves.items():
            flat, slopes = leaf.view(-1), torch.zeros(leaf.numel(), dtype=leaf.dtype)
            for k in range(len(flat)):
                kept = flat[k].item()
                for offset, weight in STENCIL:
                    flat[k] = kept + offset * step
                    slopes[k] += weight * loss(scene) / step
                flat[k] = kept
            found[name] = slopes.view(leaf.shape)
    return found


def weighted(scene: Scene) -> Tensor:
    """A scalar of all that has a gradient."""
    frame = DOUBLE.render(scene)
    generator = torch.Generator().manual_seed(3)
    planes = {"color": frame.color, "alpha": frame.alpha, "features": frame.features}
    planes["depth"] = None if frame.depth is None else frame.depth * frame.alpha
    values = [plane for plane in planes.values() if plane is not None]
    terms = [(torch.randn(v.shape, generator=generator, dtype=v.dtype) * v).sum() for v in values]
    return torch.stack(terms).sum()


def overlapping(count: int, seed: int, width: int, frame: str, **other: Any) -> NeuralDrawable:
    """Around one point, larger than their distances."""
    drawable = neural(count, seed, width, frame=frame, **other)
    return replace(drawable, means=single(0.2 * drawable.means), scales=single(1.6 * drawable.scales))


SCENES: dict[str, Callable[[int, str], Scene]] = {
    "alone": lambda width, frame: Scene(
        (overlapping(1, 12, width, frame, cap=False, offsets=numbers([2.5])),),
        looking(9, 7),
        settings=replace(RAY, depth=True),
    ),
    "capped": lambda width, frame: Scene(
        (overlapping(3, 13, width, frame, offsets=numbers([1.2, 6.0, 0.5])),),
        looking(9, 7),
        settings=replace(RAY, depth=True, smooth_cutoff=True),
    ),
    "camera inside": lambda width, frame: Scene(
        (overlapping(2, 14, width, frame, cap=False, offsets=numbers([2.5, 1.5])),),
        looking(7, 5, 0.2),
        settings=replace(RAY, depth=True, near=0.0625),
    ),
    "by centre": lambda width, frame: Scene(
        (neural(3, 15, width, frame=frame, offsets=numbers([0.9, 0.7, 0.8])),),
        looking(8, 7),
        settings=replace(RAY, order="centre", depth=True, smooth_cutoff=True),
    ),
}


@pytest.mark.parametrize("frame", ["world", "local"])
@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("name", SCENES)
def test_7_gradients_against_central_differences(name: str, width: int, frame: str) -> None:
    """Of every number of the primitives and of the camera, in the double build."""
    scene = SCENES[name](width, frame)
    leaves, ready = scene.leaves(torch.float64)
    frame_alpha = DOUBLE.render(ready).alpha
    assert float((frame_alpha > 0.02).double().mean()) > 0.2
    weighted(ready).backward()
    errors = {}
    for leaf, slopes in differences(ready, leaves, weighted, 2e-5).items():
        found = leaves[leaf].grad
        assert found is not None, leaf
        errors[leaf] = relative_error(found, slopes)
    print({leaf: f"{error:.0e}" for leaf, error in errors.items()})
    assert len(errors) == 13
    assert not {leaf: error for leaf, error in errors.items() if not error < 1e-6}


def test_7_no_gradient_where_nothing_is_absorbed(engine: Backend) -> None:
    """Of a negative integral, of a miss, and of an optical depth at its cap."""
    behind = ball(2, 4, -1.0, RED, cap=True)
    beside = replace(ball(2, 4, 1.0, RED), means=numbers([[5.0, 0.0, 3.0]]))
    capped = ball(2, 4, 9.0, RED, cap=True)
    faint = ball(2, 4, 0.0039, RED, cap=True)
    for primitive, alpha in ((behind, 0.0), (beside, 0.0), (capped, 0.99), (faint, 0.0)):
        leaves, scene = Scene((primitive,), one_pixel(), settings=RAY).leaves(engine.dtype)
        frame = engine.render(scene)
        np.testing.assert_allclose(frame.alpha.detach(), alpha, atol=1e-6)
        frame.alpha.sum().backward()
        for name in ("means", "quaternions", "scales", *NETWORK):
            grad = leaves[f"0.{name}"].grad
            assert grad is None or float(grad.abs().max()) == 0, name


@pytest.mark.parametrize("order", ["ray", "centre"])
def test_7_leak(engine: Backend, order: str) -> None:
    """What is not drawn takes `leak` times the gradient of a segment of tau = 0: d colour / d tau = colour."""
    for leak, tau in ((0.0, -0.5), (0.25, -0.5), (0.0, 0.003), (0.25, 0.003)):
        primitive = ball(2, 4, tau, (0.75, 0.0, 0.0), cap=True, leak=leak)
        settings = replace(RAY, order=order)
        leaves, scene = Scene((primitive,), one_pixel(), settings=settings).leaves(engine.dtype)
        frame = engine.render(scene)
        assert float(frame.alpha.detach()) == 0
        assert float(frame.color.detach().abs().max()) == 0
        frame.color[0, 0, 0].backward()
        grad = leaves["0.offsets"].grad
        # The integral is 2 x the offset.
        np.testing.assert_allclose(0.0 if grad is None else grad.item(), leak * 2 * 0.75, rtol=1e-5)


def test_projected_centres_feel_what_the_principal_point_feels() -> None:
    """`screen` sums to the gradient of (cx, cy); in a picture of one pixel `absolute` is its size, but for |d|."""
    scene = Scene((neural(3, 50),), looking(12, 10), settings=RAY)
    leaves, ready = scene.leaves(torch.float64)
    frame = DOUBLE.render(ready)
    (
        frame.color * torch.linspace(-1, 1, frame.color.numel(), dtype=torch.float64).view(frame.color.shape)
    ).sum().backward()
    found = frame.visibility.screen_gradient["sum"].sum(0)
    np.testing.assert_allclose(found, leaves["intrinsics"].grad[2:], rtol=1e-9)

    settings = replace(RAY, absolute_gradient=True)
    for width in (8, 16):
        primitive = neural(1, 51, width, cap=False, means=numbers([[0.05, 0.02, 2.0]]), offsets=numbers([1.0]))
        leaves, ready = Scene((primitive,), one_pixel(), settings=settings).leaves(torch.float64)
        frame = DOUBLE.render(ready)
        frame.alpha.sum().backward()
        total, absolute = (frame.visibility.screen_gradient[name][0] for name in ("sum", "absolute"))
        assert float(total.abs().min()) > 1e-3
        np.testing.assert_allclose(absolute, total.abs(), rtol=1e-9)  # on the axis |d| does not change


# ---------------------------------------------------------------- against the oracle
CASES: dict[str, tuple[NeuralDrawable, float]] = {
    "published": (neural(14, 60), 4.0),
    "width 16, local": (neural(12, 61, 16, frame="local"), 4.0),
    "inside": (neural(10, 62, scales=1.5 * neural(10, 62).scales), 0.5),
    "leak, colour of degree 0": (neural(12, 63, leak=0.125, sh_rest=None, sh_degree=0, features=None), 4.0),
    "local, leak": (neural(12, 64, frame="local", leak=0.5, omega=12.0), 3.0),
}


@pytest.mark.parametrize("order", ["ray", "centre"])
@pytest.mark.parametrize("name", CASES)
def test_pictures_and_gradients_are_the_oracles(name: str, order: str) -> None:
    """Over all builds; pixels where float32 takes another side of a threshold are set aside and counted."""
    primitives, distance = CASES[name]
    settings = RenderSettings(order=order, depth=True)
    background = torch.tensor([0.25, 0.5, 0.125], dtype=torch.float64)
    scene = Scene((primitives,), simple_camera(41, 34, distance), background, settings)
    expected_leaves, ready = scene.leaves(torch.float64)
    expected = render_oracle(ready.drawables, ready.camera, ready.background, ready.settings)
    for engine in ENGINE:
        agreement = Agreement({"image": engine.image_tolerance, "gradient": engine.gradient_tolerance})
        leaves, own = scene.leaves(engine.dtype)
        with engine.chosen():
            frame = engine.render(own)
            keep = torch.ones_like(expected.alpha, dtype=torch.bool)
            planes = [plane for plane in PLANES if getattr(expected, plane) is not None]
            for plane in planes:
                want = getattr(expected, plane).detach()
                close = (getattr(frame, plane).detach() - want).abs() <= engine.image_tolerance * float(
                    want.abs().max()
                )
                keep &= close if close.dim() == 2 else close.all(-1)
            assert int((~keep).sum()) <= 1, f"{engine.name}: {int((~keep).sum())} pixels differ"
            assert set(cotangents(frame, keep)) == set(planes)
            found, wanted = take_gradients(frame, leaves, keep), take_gradients(expected, expected_leaves, keep)
        for leaf in leaves:
            agreement.note("gradient", leaf, relative_error(found[leaf], wanted[leaf]))
        print(engine.name, agreement)
        assert not agreement.faults, f"{engine.name}: {agreement.faults}"
        assert frame.visibility.skipped == expected.visibility.skipped
