"""Kind `gaussian_ray` in the engine: against the oracle, closed forms, central differences and Mitsuba's ellipsoids."""

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
    WHITE,
    Response,
    central_differences,
    converted,
    directions,
    disagreements,
    drawn,
    one,
    ray_gaussians,
    straight_camera,
)
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import GaussianDrawable, RayGaussianDrawable
from smalti.renderers.engine.library import use_isa
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

RESPONSES: tuple[Response, ...] = ("maximum", "integral")
ball = partial(one, kind="gaussian_ray")


CASES: list[tuple[str, Response]] = [
    *((name, RESPONSES[0]) for name in ORDERS),
    *((name, RESPONSES[1]) for name in ("small", "around_the_camera", "needles")),
]


@cache
def _reference(name: str, response: Response) -> Reference:
    return Reference(converted(name, partial(ray_gaussians, response=response), ORDERS[name]))


@pytest.mark.parametrize("backend", ENGINES, ids=lambda backend: backend.name)
@pytest.mark.parametrize(("name", "response"), CASES)
def test_agrees_with_the_oracle(name: str, response: Response, backend: Backend) -> None:
    """Every plane, id, contribution and gradient."""
    with backend.chosen():
        agreement, faults = disagreements(backend, _reference(name, response))
    print(f"{backend.name} {name} {response}: {agreement}")
    assert not faults, "\n".join([str(agreement), *faults])


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("around", [False, True], ids=["in front", "around the camera"])
def test_gradients_by_central_differences(response: Response, around: bool) -> None:
    """Of every tensor and of the camera, in float64."""
    drawable = ray_gaussians(gaussians(7, 3, degree=2, feature_count=2, scale=0.4), response)
    distance = 0.3 if around else 3.0
    drawable = replace(drawable, scales=drawable.scales * (2 if around else 1))
    settings = RenderSettings(order="ray", depth=True, smooth_cutoff=True, near=0.05)
    background = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64)
    scene: Any = Scene((drawable,), simple_camera(20, 14, distance), background, settings)  # type: ignore[arg-type]
    errors = central_differences(scene)
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert set(errors) >= {"0.means", "0.quaternions", "0.scales", "0.opacities", "0.sh_rest", "rotation", "intrinsics"}
    assert max(errors.values()) < 1e-6, errors


def _closest(mean: list[float], camera: Camera) -> tuple[Tensor, Tensor]:
    """Camera z of the rays' points nearest to the mean, and squared distance there."""
    d, q = directions(camera), torch.tensor(mean, dtype=torch.float64)
    z = (d @ q) / d.square().sum(-1)
    return z, (z[..., None] * d - q).square().sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("mean", "scale", "near"),
    [
        ([0.3, -0.2, 4.0], 0.7, 0.01),
        ([0.0, 0.0, 0.05], 1.0, 0.01),  # the camera is inside
        ([0.5, 0.1, 0.9], 0.4, 0.93),  # the mean is nearer than the near plane, and so are some of the events
        ([0.8, 0.0, 0.02], 0.3, 0.01),  # beside the camera: the ellipsoid reaches behind it
    ],
    ids=["in front", "around the camera", "at the near plane", "beside the camera"],
)
def test_ball_in_closed_form(mean: list[float], scale: float, near: float, dtype: torch.dtype) -> None:
    """The largest response lies at the point nearest to the mean; a ball's line integral is that times sqrt(2 pi)."""
    camera = straight_camera()
    z, squared = _closest(mean, camera)
    for response in RESPONSES:
        density = 0.8 * torch.exp(-squared / (2 * scale**2))
        raw = density if response == "maximum" else -torch.expm1(-math.sqrt(2 * math.pi) * density)
        expected = torch.where((raw >= 1 / 255) & (z >= near), raw.clamp(max=0.99), 0)
        assert int((expected > 0).sum()) > 5
        if near > 0.5:
            assert int((expected == 0).sum()) > 5
        frame = drawn(ball(mean, [scale] * 3, 0.8, response=response), camera, dtype, near=near)
        tolerance = 1e-12 if dtype == torch.float64 else 2e-6
        torch.testing.assert_close(frame.alpha.double(), expected, rtol=tolerance, atol=tolerance)
        assert frame.depth is not None
        shown = expected > 0.05
        torch.testing.assert_close(frame.depth.double()[shown], z[shown], rtol=20 * tolerance, atol=0)


def test_line_integral_against_quadrature() -> None:
    """Of the density in space, peak opacity / max(scales), along every ray of a tilted, uneven ellipsoid."""
    camera = straight_camera()
    drawable = ball([0.2, 0.1, 3.0], [0.5, 0.2, 0.9], 0.6, response="integral")
    drawable = replace(drawable, quaternions=torch.tensor([[0.9, 0.3, -0.4, 0.2]], dtype=torch.float64))
    from smalti.renderers.oracle import rotation_matrices

    d = directions(camera)
    length = torch.linspace(0, 12, 6001, dtype=torch.float64)
    points = length[:, None, None, None] * torch.nn.functional.normalize(d, dim=-1)
    local = (points - drawable.means[0]) @ rotation_matrices(drawable.quaternions)[0] / drawable.scales[0]
    density = 0.6 / 0.9 * torch.exp(-0.5 * local.square().sum(-1))
    expected = -torch.expm1(-torch.trapezoid(density, length, dim=0))
    frame = drawn(drawable, camera)
    shown = expected >= 1 / 255
    assert int(shown.sum()) > 20
    torch.testing.assert_close(frame.alpha[shown], expected[shown].clamp(max=0.99), rtol=1e-9, atol=0)
    assert float(frame.alpha[~shown].max()) == 0


def test_small_gaussians_near_the_axis_are_those_of_ewa() -> None:
    """The affine approximation's error goes with the square of the size, at equal size on the screen."""
    differences = []
    for size in (0.2, 0.05):
        camera = straight_camera(24, 24, 24 / size / 4)
        drawable = ball([0.02 * size, 0.01 * size, 1.0], [0.3 * size, 0.2 * size, 0.25 * size], 0.9)
        frame = drawn(drawable, camera)
        d = drawable
        flat = GaussianDrawable(d.means, d.quaternions, d.scales, d.opacities, d.sh_dc, filter_variance=0.0)
        differences.append(float((frame.alpha - drawn(flat, camera).alpha).abs().max()))
    assert differences[0] > 1e-4  # they are not the same
    assert differences[1] < differences[0] / 8


def test_gradient_of_the_projected_centre() -> None:
    """One primitive's is that of the principal point; where one pixel has a gradient its absolute value is the same."""
    camera = simple_camera(24, 16)
    intrinsics = camera.intrinsics.clone().requires_grad_()
    drawable: Any = ray_gaussians(gaussians(1, 5, scale=0.6))
    drawable = replace(
        drawable, means=0.2 * drawable.means.clone().requires_grad_(), opacities=torch.tensor([0.9]).double()
    )
    settings = RenderSettings(order="ray", absolute_gradient=True)
    frame = render([drawable], replace(camera, intrinsics=intrinsics), settings=settings, backend="cpu")
    frame.alpha[6, 9].backward()
    assert intrinsics.grad is not None
    felt = frame.visibility.screen_gradient
    assert float(felt["sum"].abs().max()) > 1e-4
    torch.testing.assert_close(felt["sum"][0], intrinsics.grad[2:], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(felt["absolute"], felt["sum"].abs(), rtol=1e-9, atol=1e-12)


def test_far_and_small_in_single_precision() -> None:
    """A few pixels large, a thousand sizes away: images to 2e-5, gradients to 1e-3 of the double build's."""
    camera = straight_camera(64, 48, 1500.0)
    generator = torch.Generator().manual_seed(4)
    drawable = ray_gaussians(gaussians(60, 8, degree=1, scale=1.0))
    d = directions(camera)[8:40, 8:56].reshape(-1, 3)
    where = d[torch.randint(len(d), (60,), generator=generator)] * (900 + 200 * torch.rand(60, 1, generator=generator))
    drawable = replace(drawable, means=where.double().float().double())
    scene: Any = Scene((drawable,), camera, None, RenderSettings(order="ray", depth=True, normals=True))  # type: ignore[arg-type]
    reference = Reference(scene)
    for backend in ENGINES:
        with backend.chosen():
            agreement, faults = disagreements(backend, reference)
        assert not faults, "\n".join([str(agreement), *faults])


def test_nothing_skipped_but_what_cannot_be_drawn() -> None:
    """NaN, a zero quaternion, a scale of 0: counted, and the others are drawn as if these were not there."""
    whole = ray_gaussians(gaussians(12, 6, degree=1, feature_count=1))
    spoilt = {"means": (0, math.nan), "quaternions": (2, 0.0), "scales": (4, 0.0), "opacities": (6, math.inf)}
    spoilt |= {"features": (8, math.nan), "sh_dc": (10, math.inf)}
    changed: dict[str, Tensor] = {}
    for name, (row, value) in spoilt.items():
        changed[name] = getattr(whole, name).clone()
        changed[name][row] = value
    camera = simple_camera()
    frame = drawn(replace(whole, **changed), camera)
    assert frame.visibility.skipped == 6
    rest = torch.arange(1, 12, 2)
    odd = RayGaussianDrawable(
        *[getattr(whole, n)[rest] for n in ("means", "quaternions", "scales", "opacities", "sh_dc")],
        sh_rest=whole.sh_rest[rest] if whole.sh_rest is not None else None,
        sh_degree=1,
        features=whole.features[rest] if whole.features is not None else None,
    )
    assert torch.equal(frame.color, drawn(odd, camera).color)


@pytest.fixture(scope="module")
def mitsuba() -> Any:
    """Mitsuba 3 in its scalar variant, which needs no LLVM."""
    module = pytest.importorskip("mitsuba", reason="mitsuba (an extra of the tests) is not installed")
    module.set_variant("scalar_rgb")
    try:
        module.load_dict(
            {"type": "ellipsoids", **_ellipsoid(module, one([0, 0, 1], [1, 1, 1], 0.5, "gaussian_ray"), 3.0)}
        )
    except RuntimeError as error:
        pytest.skip(f"this mitsuba has no ellipsoids: {error}")
    return module


def _ellipsoid(mi: Any, drawable: RayGaussianDrawable, extent: float) -> dict[str, Any]:
    """Mitsuba's parameters; its quaternions are x, y, z, w."""
    quaternions = torch.nn.functional.normalize(drawable.quaternions, dim=-1)[:, [1, 2, 3, 0]]
    values = {"centers": drawable.means, "scales": drawable.scales, "quaternions": quaternions}
    return {"extent": extent, **{name: mi.TensorXf(value.float().numpy()) for name, value in values.items()}}


def test_ellipsoids_of_mitsuba(mitsuba: Any) -> None:
    """Which rays meet the body of radius 1, 2 and 3 sigma, and the middle of their chords, where the response peaks."""
    camera = straight_camera(13, 11, 9.0)
    drawable = ball([0.3, -0.1, 3.0], [0.9, 0.25, 0.5], 0.95)
    drawable = replace(drawable, quaternions=torch.tensor([[0.8, -0.4, 0.5, 0.3]], dtype=torch.float64))
    frame = drawn(drawable, camera)
    assert frame.depth is not None
    rays, checked = torch.nn.functional.normalize(directions(camera), dim=-1), 0
    for extent in (1.0, 2.0, 3.0):
        shape = mitsuba.load_dict(
            {"type": "scene", "e": {"type": "ellipsoids", **_ellipsoid(mitsuba, drawable, extent)}}
        )
        edge = 0.95 * math.exp(-(extent**2) / 2)
        for y in range(camera.height):
            for x in range(camera.width):
                ray = rays[y, x].tolist()
                ahead = shape.ray_intersect(mitsuba.Ray3f([0.0, 0.0, 0.0], ray))
                alpha = float(frame.alpha[y, x])
                if abs(alpha - edge) < 1e-4 * edge:
                    continue
                assert ahead.is_valid() == (alpha > edge)
                if not ahead.is_valid():
                    continue
                far = 20.0
                back = shape.ray_intersect(mitsuba.Ray3f([far * c for c in ray], [-c for c in ray]))
                middle = 0.5 * (ahead.t + far - back.t) * ray[2]
                assert middle == pytest.approx(
                    float(frame.depth[y, x]), rel=2e-4
                )  # its single precision at grazing rays
                checked += 1
    assert checked > 60


@pytest.mark.parametrize("name", [backend.isa for backend in ENGINES if backend.isa != "double"])
def test_bits_do_not_depend_on_threads(name: str) -> None:
    """Images and gradients, in every build."""
    from smalti.renderers.engine.library import get_threads, set_threads

    scene = converted("dense", ray_gaussians, "ray")
    before, results = get_threads(), []
    try:
        with use_isa(name):
            for threads in (1, 3):
                set_threads(threads)
                leaves, ready = scene.leaves(torch.float32)
                frame = render(ready.drawables, ready.camera, settings=ready.settings, backend="cpu")
                assert frame.depth is not None
                (frame.color.sum() + frame.depth.sum()).backward()
                results.append(
                    [frame.color.detach(), *[leaf.grad for leaf in leaves.values() if leaf.grad is not None]]
                )
    finally:
        set_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_white_is_white() -> None:
    """The coefficient that these tests use shows as 1 (so `color` is `alpha`)."""
    frame = drawn(ball([0.0, 0.0, 2.0], [0.4] * 3, 0.7), straight_camera())
    assert pytest.approx(1) == 0.5 + WHITE * 0.28209479177387814
    torch.testing.assert_close(frame.color, frame.alpha[..., None].expand(-1, -1, 3))
