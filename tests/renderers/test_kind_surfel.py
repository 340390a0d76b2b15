"""Kind `surfel` in the engine: against the oracle, closed forms, central differences."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from backends import Backend
from compare import Reference
from scenes import Scene, gaussians, simple_camera
from splats import (
    ENGINES,
    ORDERS,
    central_differences,
    converted,
    directions,
    disagreements,
    drawn,
    one,
    straight_camera,
    surfels,
)
from torch import Tensor

from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

disk = partial(one, kind="surfel")
HALF = math.sqrt(0.5)
PRECISIONS = {torch.float32: 2e-6, torch.float64: 1e-12}


@cache
def _reference(name: str) -> Reference:
    return Reference(converted(name, surfels, ORDERS[name]))


@pytest.mark.parametrize("backend", ENGINES, ids=lambda backend: backend.name)
@pytest.mark.parametrize("name", list(ORDERS))
def test_agrees_with_the_oracle(name: str, backend: Backend) -> None:
    """Every plane (normals, too), id, contribution and gradient."""
    with backend.chosen():
        agreement, faults = disagreements(backend, _reference(name))
    print(f"{backend.name} {name}: {agreement}")
    assert not faults, "\n".join([str(agreement), *faults])


@pytest.mark.parametrize("around", [False, True], ids=["in front", "around the camera"])
def test_gradients_by_central_differences(around: bool) -> None:
    """Of every tensor and of the camera, normals among the channels, in float64."""
    drawable = surfels(gaussians(7, 5, degree=2, feature_count=2, scale=0.4))
    drawable = replace(drawable, scales=drawable.scales * (2 if around else 1))
    settings = RenderSettings(order="ray", depth=True, normals=True, smooth_cutoff=True, near=0.05)
    background = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64)
    camera = simple_camera(20, 14, 0.5 if around else 3.0)
    scene: Any = Scene((drawable,), camera, background, settings)  # type: ignore[arg-type]
    errors = central_differences(scene)
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert set(errors) >= {"0.means", "0.quaternions", "0.scales", "0.opacities", "0.sh_rest", "rotation", "intrinsics"}
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_facing_the_camera_in_closed_form(dtype: torch.dtype) -> None:
    """A flat Gaussian of the plane's coordinates at one depth; its normal looks back whichever way it was turned."""
    camera = straight_camera()
    d = directions(camera)
    x, y = 3 * d[..., 0] - 0.2, 3 * d[..., 1] + 0.1
    raw = 0.85 * torch.exp(-(x**2 / 0.5**2 + y**2 / 0.3**2) / 2)
    expected = torch.where(raw >= 1 / 255, raw, 0)
    assert 10 < int((expected > 0).sum()) < expected.numel()
    for quaternion in ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]):  # as it is; half a turn about x
        drawable = disk([0.2, -0.1, 3.0], [0.5, 0.3], 0.85, quaternions=torch.tensor([quaternion], dtype=torch.float64))
        frame = drawn(drawable, camera, dtype, normals=True)
        tolerance = PRECISIONS[dtype]
        torch.testing.assert_close(frame.alpha.double(), expected, rtol=0, atol=tolerance)
        assert frame.depth is not None
        assert frame.normal is not None
        depth = frame.depth.double()[raw > 0.05]
        torch.testing.assert_close(depth, torch.full_like(depth, 3.0), rtol=tolerance, atol=0)
        towards = torch.tensor([0.0, 0.0, -1.0]).double() * expected[..., None]
        torch.testing.assert_close(frame.normal.double(), towards, rtol=0, atol=tolerance)


def test_tilted_in_closed_form() -> None:
    """Turned by 45 degrees about y: the plane x = z0 - z meets the ray (u, v, 1) at z = z0 / (1 + u)."""
    camera = straight_camera(33, 25, 20.0)
    turn = torch.tensor([[math.cos(math.pi / 8), 0.0, math.sin(math.pi / 8), 0.0]], dtype=torch.float64)
    frame = drawn(disk([0.0, 0.0, 2.0], [0.6, 0.4], 0.9, quaternions=turn), camera)
    d = directions(camera)
    z = 2 / (1 + d[..., 0])
    along = ((z * d[..., 0]) - (z - 2)) * HALF  # on the first local axis (1, 0, -1) / sqrt(2)
    raw = 0.9 * torch.exp(-((along / 0.6) ** 2 + (z * d[..., 1] / 0.4) ** 2) / 2)
    expected = torch.where(raw >= 1 / 255, raw, 0)
    torch.testing.assert_close(frame.alpha, expected, rtol=0, atol=1e-12)
    assert frame.depth is not None
    shown = expected > 0
    assert int(shown.sum()) > 100
    torch.testing.assert_close(frame.depth[shown], z[shown], rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cut_by_the_near_plane(dtype: torch.dtype) -> None:
    """A floor under the camera reaches from behind it to the horizon: hits begin at the near plane and end there."""
    camera = straight_camera(16, 16, 8.0)
    turn = torch.tensor([[HALF, HALF, 0.0, 0.0]], dtype=torch.float64)  # the normal along y
    d = directions(camera)
    for near in (0.01, 1.5):
        frame = drawn(disk([0.0, 0.5, 0.3], [50.0, 50.0], 0.9, quaternions=turn), camera, dtype, near=near)
        z = 0.5 / d[..., 1]
        below = (z > 0) & (z >= near)
        raw = 0.9 * torch.exp(-((z * d[..., 0] / 50) ** 2 + ((z - 0.3) / 50) ** 2) / 2)
        expected = torch.where(below, raw, 0)
        assert int((expected == 0).sum()) >= 128
        assert int((expected > 0).sum()) > 40
        torch.testing.assert_close(frame.alpha.double(), expected, rtol=0, atol=PRECISIONS[dtype])
        assert frame.depth is not None
        torch.testing.assert_close(frame.depth.double()[below], z[below], rtol=1e-5, atol=0)


def test_seen_edge_on_there_is_nothing() -> None:
    """The camera's centre lies in the disk's plane."""
    turn = torch.tensor([[HALF, HALF, 0.0, 0.0]], dtype=torch.float64)
    frame = drawn(disk([0.0, 0.0, 3.0], [1.0, 1.0], 0.9, quaternions=turn), straight_camera(8, 8))
    assert float(frame.alpha.abs().max()) == 0
    assert frame.visibility.skipped == 0


def test_crossing_disks_are_ordered_per_pixel() -> None:
    """Two disks through one another: each is in front on its own side."""
    camera = straight_camera(16, 4, 16.0)
    a, b = math.cos(math.pi / 8), math.sin(math.pi / 8)
    quaternions = torch.tensor([[a, 0.0, b, 0.0], [a, 0.0, -b, 0.0]], dtype=torch.float64)
    single = disk([0.0, 0.0, 3.0], [3.0, 3.0], 0.9)
    double: dict[str, Tensor] = {
        name: value.expand(2, *value.shape[1:]).contiguous()
        for name, value in vars(single).items()
        if isinstance(value, Tensor)
    }
    frame = drawn(replace(single, **{**double, "quaternions": quaternions}), camera, statistics=True)
    first = frame.ids["first"]
    # The first is turned so that it comes nearer to the right (x = z0 - z).
    assert (first[:, :8] == 1).all()
    assert (first[:, 8:] == 0).all()


def test_gradient_of_the_projected_centre() -> None:
    """One disk's is that of the principal point; where one pixel has a gradient its absolute value is the same."""
    camera = simple_camera(24, 16)
    intrinsics = camera.intrinsics.clone().requires_grad_()
    drawable: Any = surfels(gaussians(1, 5, scale=0.6))
    means = (0.2 * drawable.means).clone().requires_grad_()
    drawable = replace(drawable, means=means, opacities=torch.tensor([0.9]).double())
    settings = RenderSettings(order="ray", absolute_gradient=True)
    frame = render([drawable], replace(camera, intrinsics=intrinsics), settings=settings, backend="cpu")
    assert float(frame.alpha.detach()[8, 12]) > 0.01
    frame.alpha[8, 12].backward()
    assert intrinsics.grad is not None
    felt = frame.visibility.screen_gradient
    assert float(felt["sum"].abs().max()) > 1e-4
    torch.testing.assert_close(felt["sum"][0], intrinsics.grad[2:], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(felt["absolute"], felt["sum"].abs(), rtol=1e-9, atol=1e-12)
