"""Kind `neural` on the engine: the tests proposed for the published primitive (Zhou et al. 2025); the oracle's picture.

Numbers in names are those of the proposed tests; 12 (size on disk) is the family's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from backends import Backend, found_backends
from compare import PLANES, Agreement, cotangents, relative_error, take_gradients
from on_axis import RED, ball, numbers, one_pixel
from scenes import Scene, simple_camera, single
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import NeuralDrawable
from smalti.renderers.oracle import render_oracle
from smalti.renderers.settings import RenderSettings

ENGINE = [backend for backend in found_backends() if backend.backend == "cpu"]
SINGLE = [backend for backend in ENGINE if backend.dtype == torch.float32]
(DOUBLE,) = (backend for backend in ENGINE if backend.dtype == torch.float64)
RAY = RenderSettings(order="ray", transmittance_min=0.0)
NETWORK = ("frequencies", "phases", "amplitudes", "offsets")
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
"""Central differences of fourth order."""


@pytest.fixture(params=ENGINE, ids=lambda backend: backend.name)
def engine(request: pytest.FixtureRequest) -> Backend:
    return request.param


def neural(count: int, seed: int = 0, width: int = 8, **other: Any) -> NeuralDrawable:
    """Around the origin, about 0.5 in size; rays find both signs of the integral."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    values: dict[str, Any] = {
        "means": 0.7 * normal(count, 3),
        "quaternions": normal(count, 4),
        "scales": 0.5 * torch.exp(0.4 * normal(count, 3)),
        "frequencies": uniform(count, width, 3) / 3,
        "phases": uniform(count, width) / 3,
        "amplitudes": 0.5 * uniform(count, width),
        "offsets": 0.4 + uniform(count),
        "sh_dc": 0.8 * normal(count, 3),
        "sh_rest": 0.2 * normal(count, 3, 3),
        "features": normal(count, 2),
    }
    values = {name: single(value) for name, value in values.items()}
    return NeuralDrawable(**{**values, "sh_degree": 1, **other})


def looking(width: int, height: int, distance: float = 3.0) -> Camera:
    """At the origin; its rotation is one to the last digit, as the mathematics of world axes asks."""
    camera = simple_camera(width, height, distance)
    u, _, v = torch.linalg.svd(camera.rotation)
    return replace(camera, rotation=u @ v)


def draw(engine: Backend, *drawables: NeuralDrawable, camera: Camera, settings: RenderSettings = RAY) -> Any:
    """A frame in the engine's own precision."""
    _, scene = Scene(drawables, camera, settings=settings).leaves(engine.dtype)
    return engine.render(scene)


def optical_depth(engine: Backend, *drawables: NeuralDrawable, camera: Camera, near: float = 0.01) -> np.ndarray:
    frame = draw(engine, *drawables, camera=camera, settings=replace(RAY, near=near))
    return -np.log1p(-frame.alpha.detach().double().numpy())


def rotation(quaternion: Tensor) -> Tensor:
    """Of w, x, y, z, by Rodrigues' formula."""
    w, x, y, z = (quaternion / quaternion.norm()).tolist()
    k = numbers([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return torch.eye(3, dtype=torch.float64) + 2 * w * k + 2 * k @ k


def quadrature(primitive: NeuralDrawable, camera: Camera, near: float = 0.01, points: int = 200) -> np.ndarray:
    """max(0, integral) for every pixel by Gauss-Legendre points, in arc length, world axes; NaN near grazing rays."""
    row = {field.name: getattr(primitive, field.name) for field in fields(primitive)}
    row = {name: value[0].numpy() for name, value in row.items() if isinstance(value, Tensor)}
    turn, k = rotation(primitive.quaternions[0]).numpy(), 1 / row["scales"].max()
    eye, (fx, fy, cx, cy) = camera.centre.numpy(), camera.intrinsics.tolist()
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    directions = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1) @ camera.rotation.numpy()
    v, p = directions @ turn / row["scales"], (row["means"] - eye) @ turn / row["scales"]
    a, b, c = (v * v).sum(-1), v @ p, p @ p - 1
    inside = (b * b - a * c) / a
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    low, high = np.maximum((b - root) / a, near), (b + root) / a
    nodes, weights = np.polynomial.legendre.leggauss(points)
    z = low[..., None] + np.maximum(high - low, 0)[..., None] * 0.5 * (nodes + 1)
    offset = k * (eye + z[..., None] * directions[:, :, None] - row["means"])
    offset = offset @ turn if primitive.frame == "local" else offset
    angles = primitive.omega * (offset @ row["frequencies"].T + row["phases"])
    density = row["offsets"] + np.cos(angles) @ row["amplitudes"]
    lengths = np.maximum(high - low, 0) * np.linalg.norm(directions, axis=-1)
    integral = np.where(inside > 0, 0.5 * k * lengths * (density @ weights), 0)
    return np.where(np.abs(inside) < 1e-4, np.nan, np.maximum(integral, 0))


def assert_depth(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Pixels near grazing rays, where the chord is the root of a rounding error, aside."""
    keep = ~np.isnan(expected)
    assert keep.mean() > 0.97
    assert (expected[keep] > 0.05).sum() > 20
    np.testing.assert_allclose(found[keep], expected[keep], atol=tolerance, rtol=0)


# ---------------------------------------------------------------- the integral
@pytest.mark.parametrize("frame", ["world", "local"])
@pytest.mark.parametrize("width", [8, 16])
def test_1_closed_form_is_the_quadrature(engine: Backend, width: int, frame: str) -> None:
    """Seen from outside, and from within."""
    for seed, distance in ((0, 3.0), (1, 3.0), (2, 0.3)):
        camera = looking(18, 14, distance)
        primitive = neural(1, seed, width, frame=frame, cap=False, means=numbers([[0.1, -0.2, 0.15]]).float().double())
        primitive = replace(primitive, offsets=primitive.offsets + 1, scales=single(1.4 * primitive.scales))
        expected = quadrature(primitive, camera)
        found = optical_depth(engine, primitive, camera=camera)
        assert_depth(found, expected, 1e-12 if engine.dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("radius", [1e-6, 1e-3, 0.5, 1.7, 1e3])
def test_2_constant_density_on_the_central_ray(engine: Backend, radius: float) -> None:
    """2 x 1.3 whatever the radius, and whatever the distance in radii."""
    for distance in (1.5 * radius, 40 * radius):
        primitive = ball(distance - radius, distance + radius, 2.6, RED)
        depth = optical_depth(engine, primitive, camera=one_pixel(), near=1e-9)
        np.testing.assert_allclose(depth, 2.6, rtol=1e-10 if engine.dtype == torch.float64 else 2e-6)


def test_3_scale_and_rotation_of_the_world(engine: Backend) -> None:
    tolerance = 1e-11 if engine.dtype == torch.float64 else 2e-5
    camera, primitive = looking(14, 12), neural(1, 4, cap=False, offsets=numbers([1.5]))
    before = optical_depth(engine, primitive, camera=camera)
    larger = replace(primitive, means=4 * primitive.means, scales=4 * primitive.scales)
    after = optical_depth(engine, larger, camera=replace(camera, translation=4 * camera.translation))
    np.testing.assert_allclose(after, before, atol=tolerance)

    turn = numbers([0.9, 0.1, 0.4, -0.2])
    matrix = rotation(turn)
    turned_camera = replace(camera, rotation=camera.rotation @ matrix.T)
    (w, v), (a, b) = (turn[0], turn[1:]), (primitive.quaternions[0, 0], primitive.quaternions[0, 1:])
    quaternions = torch.cat([(w * a - v @ b)[None], w * b + a * v + torch.linalg.cross(v, b)])[None]
    for frame in ("world", "local"):
        before = optical_depth(engine, replace(primitive, frame=frame), camera=camera)
        turned = replace(primitive, frame=frame, means=primitive.means @ matrix.T, quaternions=quaternions)
        after = optical_depth(engine, turned, camera=turned_camera)
        if frame == "world":  # the published field does not turn with its primitive, unless its weights are turned
            assert np.abs(after - before).max() > 1e-2
            turned = replace(turned, frequencies=turned.frequencies @ matrix.T)
            after = optical_depth(engine, turned, camera=turned_camera)
        np.testing.assert_allclose(after, before, atol=5 * tolerance)


def test_4_turning_a_round_primitive_changes_nothing(engine: Backend) -> None:
    camera = looking(14, 12)
    primitive = neural(1, 6, cap=False, scales=numbers([[0.75, 0.75, 0.75]]), offsets=numbers([1.0]))
    turned = replace(primitive, quaternions=numbers([[0.3, -0.2, 0.9, 0.1]]))
    before, after = (optical_depth(engine, p, camera=camera) for p in (primitive, turned))
    np.testing.assert_allclose(after, before, atol=1e-12 if engine.dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("slope", [0.0, 1e-20, 1e-7, -1e-7, 1e-4, -3e-3, 1e-2, 0.3])
def test_5_waves_across_the_ray(engine: Backend, slope: float) -> None:
    """W1 = (4, 0, slope): the cosine along the axis is constant at slope 0, else sin(x) / x of it, x = omega slope.

    Its derivative by the slope is that of sin(x) / x, also where that cancels.
    """
    frequencies = torch.zeros(1, 8, 3, dtype=torch.float64)
    frequencies[0, 0] = numbers([4.0, 0.0, slope])
    weights = {"phases": numbers([[0.02] + [0.0] * 7]), "amplitudes": numbers([[0.5] + [0.0] * 7])}
    primitive = ball(2, 4, 1.6, RED, frequencies=frequencies, **weights)
    leaves, scene = Scene((primitive,), one_pixel(), settings=RAY).leaves(engine.dtype)
    alpha = engine.render(scene).alpha
    x, wave = 30 * slope, 2 * 0.5 * math.cos(30 * 0.02)
    rounding = 3e-6 if engine.dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(-np.log1p(-alpha.item()), 1.6 + wave * (math.sin(x) / x if x else 1), rtol=rounding)
    (-torch.log1p(-alpha)).sum().backward()
    expected = wave * 30 * ((math.cos(x) - math.sin(x) / x) / x if abs(x) > 0.02 else -x / 3 + x**3 / 30)
    # Across the ray the gradient is 0: the axis meets the mean.
    found = leaves["0.frequencies"].grad
    assert found is not None
    np.testing.assert_allclose(found[0, 0, 2].item(), expected, rtol=20 * rounding, atol=20 * rounding)


def test_6_a_part_of_the_chord_has_a_part_of_the_integral(engine: Backend) -> None:
    """The near plane cuts the chord anywhere: what is left is the quadrature of what is left."""
    camera = looking(16, 12)
    primitive = neural(1, 8, cap=False, means=numbers([[0.0, 0.0, 0.0]]), offsets=numbers([1.5]))
    primitive = replace(primitive, scales=single(1.6 * primitive.scales))
    whole = quadrature(primitive, camera)
    for near in (2.75, 3.0, 3.125):
        part = quadrature(primitive, camera, near)
        assert np.nanmax(np.abs(part - whole)) > 0.05
        found = optical_depth(engine, primitive, camera=camera, near=near)
        assert_depth(found, part, 1e-12 if engine.dtype == torch.float64 else 2e-5)


# ---------------------------------------------------------------- gradients
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


# ---------------------------------------------------------------- limits
def test_8_grazing_rays_and_hostile_sizes(engine: Backend) -> None:
    """As a ray grazes the bound the depth goes to 0 like the chord; no picture and no gradient is NaN."""
    radius, z = 0.5, 4.0
    for share in (1e-2, 1e-4, 1e-6):
        # The axis passes at a distance of radius (1 - share / 2): half chord about radius sqrt(share).
        primitive = replace(ball(z - radius, z + radius, 2.0, RED), means=numbers([[radius * (1 - share / 2), 0.0, z]]))
        depth = optical_depth(engine, primitive, camera=one_pixel())
        expected = 2.0 * math.sqrt(share - share * share / 4)
        rounding = 1e-9 if engine.dtype == torch.float64 else 1e-6
        np.testing.assert_allclose(depth**2, expected**2, atol=rounding)
    for primitive in (
        replace(ball(1.5, 2.5, 1.0, RED), means=numbers([[0.5, 0.0, 2.0]])),  # touches the axis: D = 0
        neural(6, 20, scales=torch.full((6, 3), 1e-6, dtype=torch.float64)),
        neural(6, 21, scales=torch.full((6, 3), 1e3, dtype=torch.float64)),
        neural(6, 22, scales=single(torch.tensor([[1e-5, 1.0, 1e3]], dtype=torch.float64).expand(6, 3))),
        neural(6, 23, frequencies=torch.full((6, 8, 3), 1e4, dtype=torch.float64)),
    ):
        camera = looking(20, 16)
        settings = replace(RAY, depth=True)
        leaves, scene = Scene((primitive,), camera, settings=settings).leaves(engine.dtype)
        frame = engine.render(scene)
        (frame.color.sum() + frame.alpha.sum() + frame.depth.sum()).backward()
        assert bool(frame.color.isfinite().all())
        assert bool(frame.depth.isfinite().all())
        for name, leaf in leaves.items():
            assert leaf.grad is None or bool(leaf.grad.isfinite().all()), name


def test_8_unusable_rows_are_skipped_and_counted(engine: Backend) -> None:
    names = ("means", "quaternions", "scales", *NETWORK, "sh_dc", "features")
    good = neural(len(names) + 3, 24)
    for row, name in enumerate(names):
        getattr(good, name)[row].view(-1)[0] = (math.nan, math.inf)[row % 2]
    good.scales[-1, 1], good.scales[-2, 0], good.quaternions[-3] = 0.0, -1.0, 0.0
    frame = draw(engine, good, camera=looking(20, 16))
    assert frame.visibility.skipped == len(good)
    assert float(frame.alpha.detach().abs().max()) == 0


def test_9_through_the_bound_with_the_camera(engine: Backend) -> None:
    """The picture is continuous as the camera enters, and seen in reverse the central integral is the same."""
    primitive = neural(1, 25, cap=False, means=numbers([[0.0, 0.0, 2.0]]), scales=numbers([[1.0, 1.0, 1.0]]))
    primitive = replace(primitive, offsets=numbers([1.25]))
    before = optical_depth(
        engine, replace(primitive, means=numbers([[0.0, 0.0, 1.0001]])), camera=one_pixel(), near=0.0
    )
    after = optical_depth(engine, replace(primitive, means=numbers([[0.0, 0.0, 0.9999]])), camera=one_pixel(), near=0.0)
    assert before.item() > 0.1
    np.testing.assert_allclose(after, before, atol=2e-3)
    reverse = Camera(numbers([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]), numbers([0.0, 0, 4]), one_pixel().intrinsics, 1, 1)
    there, back = (optical_depth(engine, primitive, camera=camera) for camera in (one_pixel(), reverse))
    np.testing.assert_allclose(there, back, atol=1e-12 if engine.dtype == torch.float64 else 2e-6)


# ---------------------------------------------------------------- among others
def test_10_compositing(engine: Backend) -> None:
    camera = looking(20, 16)
    some = neural(8, 30)
    empty = neural(8, 31, offsets=torch.full((8,), -9.0, dtype=torch.float64))
    alone, among = draw(engine, some, camera=camera), draw(engine, some, empty, camera=camera)
    assert torch.equal(alone.color, among.color)

    opaque = ball(2, 4, 1e4, (0.5, 0.25, 0.75), cap=True)
    frame = draw(engine, opaque, camera=one_pixel())
    np.testing.assert_allclose(frame.alpha.detach(), 0.99, rtol=1e-6)
    np.testing.assert_allclose(frame.color.detach()[0, 0], 0.99 * np.array([0.5, 0.25, 0.75]), rtol=1e-6)

    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    rows = {f.name: getattr(some, f.name) for f in fields(some) if isinstance(getattr(some, f.name), Tensor)}
    shuffled = draw(engine, replace(some, **{name: value[order] for name, value in rows.items()}), camera=camera)
    np.testing.assert_allclose(shuffled.color.detach(), alone.color.detach(), atol=2e-6)


def test_10_coincident_primitives_add_their_densities(engine: Backend) -> None:
    """Two of tau 0.8 and 0.4 in one place absorb 1.2 and show the mean colour by density."""
    red, blue = ball(2, 4, 0.8, RED), ball(2, 4, 0.4, (0.0, 0.0, 1.0))
    color = draw(engine, red, blue, camera=one_pixel()).color.detach()[0, 0].double()
    absorbed = 1 - math.exp(-1.2)
    np.testing.assert_allclose(color, [absorbed * 2 / 3, 0, absorbed / 3], rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("count", [60])
def test_11_tiles_lose_no_pixel(engine: Backend, count: int) -> None:
    """Small, long and thin, half outside of the picture: against the oracle, which asks every pixel."""
    primitives = neural(count, 40, cap=False, amplitudes=torch.zeros(count, 8, dtype=torch.float64))
    stretch = torch.tensor([2.0, 0.02, 0.3], dtype=torch.float64)
    primitives = replace(primitives, means=2 * primitives.means, scales=single(primitives.scales * stretch))
    primitives = replace(primitives, offsets=torch.full((count,), 3.0, dtype=torch.float64))
    camera = looking(70, 50, 3.5)
    expected = render_oracle([primitives], camera, None, RAY)
    found = draw(engine, primitives, camera=camera)
    lost = ((expected.alpha > 0) != (found.alpha > 0)).sum()
    # Float32 may see a ray that grazes otherwise; a lost tile or block would be 16 pixels at least.
    assert int(lost) <= (0 if engine.dtype == torch.float64 else 3)
    both = (expected.alpha > 0) & (found.alpha > 0)
    slack = 1e-9 if engine.dtype == torch.float64 else 2e-3
    np.testing.assert_allclose(found.alpha.detach()[both].double(), expected.alpha[both], atol=slack)


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
