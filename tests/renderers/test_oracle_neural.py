"""The neural kind on the oracle: its closed-form integral against quadrature, and what its specification asks.

Numbers in names are those of the tests proposed for the published primitive (Zhou et al. 2025).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from on_axis import BACK, BLUE, RAY, RED, UPRIGHT, ball, draw, leaf, numbers, one_pixel, seen, shade
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import NeuralDrawable

ENDLESS = replace(RAY, transmittance_min=0.0)
PARAMETERS = ("means", "quaternions", "scales", "frequencies", "phases", "amplitudes", "offsets")


def field(seed: int = 0, **other: Any) -> NeuralDrawable:
    """One primitive near the origin whose density is positive along most rays."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values: dict[str, Any] = {
        "means": 0.2 * normal(1, 3),
        "quaternions": normal(1, 4),
        "scales": numbers([[0.9, 1.3, 0.7]]),
        "frequencies": normal(1, 8, 3) / 12,
        "phases": normal(1, 8) / 10,
        "amplitudes": 0.4 * normal(1, 8),
        "offsets": numbers([1.1]),
        "sh_dc": shade([1.0, 1.0, 1.0]),
        "cap": False,
    }
    return NeuralDrawable(**{**values, **other})


def looking(width: int, height: int, fov: float = 0.9) -> Camera:
    """From a distance of 3 at the origin; a rotation to the last digit."""
    position = numbers([0.3, -0.4, -1.0])
    position = 3 * position / position.norm()
    return Camera.look_at(position, torch.zeros_like(position), numbers([0.0, -1.0, 0.1]), fov, (width, height))


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Of w, x, y, z, by Rodrigues' formula."""
    w, *axis = quaternion / np.linalg.norm(quaternion)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + 2 * w * k + 2 * k @ k


def quadrature(primitive: NeuralDrawable, camera: Camera, near: float = 0.01, points: int = 200) -> np.ndarray:
    """Optical depth of each pixel by Gauss-Legendre points on the chord, in arc length and world axes; >= 0."""
    values = {name: getattr(primitive, name).detach().numpy()[0] for name in PARAMETERS}
    turn = rotation(values["quaternions"])
    k = 1 / values["scales"].max()
    eye = camera.centre.numpy()
    nodes, weights = np.polynomial.legendre.leggauss(points)
    depth = np.zeros((camera.height, camera.width))
    for row, column in np.ndindex(depth.shape):
        fx, fy, cx, cy = camera.intrinsics.tolist()
        direction = np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
        per_z = np.linalg.norm(direction)
        direction = camera.rotation.numpy().T @ direction / per_z
        v = turn.T @ direction / values["scales"]
        p = turn.T @ (values["means"] - eye) / values["scales"]
        discriminant = (v @ p) ** 2 - (v @ v) * (p @ p - 1)
        if discriminant <= 0:
            continue
        low, high = ((v @ p) + np.array([-1, 1]) * math.sqrt(discriminant)) / (v @ v)
        low = max(low, near * per_z)
        if high <= low:
            continue
        t = low + (high - low) * 0.5 * (nodes + 1)
        x = eye + t[:, None] * direction - values["means"]
        if primitive.frame == "local":
            x = x @ turn
        inner = np.cos(primitive.omega * (k * x @ values["frequencies"].T + values["phases"]))
        density = values["offsets"] + inner @ values["amplitudes"]
        depth[row, column] = max(0.0, k * 0.5 * (high - low) * (weights @ density))
    return depth


def optical_depth(*primitives: NeuralDrawable, camera: Camera, near: float = 0.01) -> Tensor:
    frame = draw(*primitives, camera=camera, settings=replace(ENDLESS, near=near))
    return -torch.log1p(-frame.alpha)


@pytest.mark.parametrize("frame", ["world", "local"])
@pytest.mark.parametrize("seed", range(4))
def test_1_closed_form_is_the_quadrature(frame: str, seed: int) -> None:
    camera = looking(12, 9)
    primitive = field(seed, frame=frame)
    expected = quadrature(primitive, camera)
    assert (expected > 0.1).sum() > 10
    np.testing.assert_allclose(optical_depth(primitive, camera=camera), expected, atol=1e-11)


def test_2_constant_density_on_the_central_ray() -> None:
    for radius in (0.01, 0.5, 1.7):
        depth = -torch.log1p(-draw(ball(2 - radius, 2 + radius, 2.6, RED)).alpha)
        np.testing.assert_allclose(depth, 2.6, rtol=1e-12)


def test_3_scale_and_rotation_of_the_world() -> None:
    camera = looking(10, 8)
    primitive = field(1)
    before = optical_depth(primitive, camera=camera)
    larger = replace(primitive, means=3 * primitive.means, scales=3 * primitive.scales)
    farther = replace(camera, translation=3 * camera.translation)
    np.testing.assert_allclose(optical_depth(larger, camera=farther), before, rtol=1e-9, atol=1e-12)

    half = 0.35
    turn = numbers([math.cos(half), 0.0, math.sin(half), 0.0])
    matrix = torch.from_numpy(rotation(turn.numpy()))
    turned_camera = replace(camera, rotation=camera.rotation @ matrix.T)
    for frame in ("world", "local"):
        original = replace(primitive, frame=frame)
        before = optical_depth(original, camera=camera)
        turned = replace(original, means=original.means @ matrix.T, quaternions=product(turn, original.quaternions[0]))
        after = optical_depth(turned, camera=turned_camera)
        if frame == "world":
            # The published field does not turn with its primitive, unless its weights are turned.
            assert float((after - before).abs().max()) > 1e-2
            turned = replace(turned, frequencies=turned.frequencies @ matrix.T)
            after = optical_depth(turned, camera=turned_camera)
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton's product, one row."""
    cross = torch.linalg.cross(a[1:], b[1:])
    vector = a[0] * b[1:] + b[0] * a[1:] + cross
    return torch.cat([(a[0] * b[0] - a[1:] @ b[1:])[None], vector])[None]


def test_4_turning_a_round_primitive_changes_nothing() -> None:
    camera = looking(10, 8)
    round_one = field(2, scales=numbers([[0.8, 0.8, 0.8]]))
    turned = replace(round_one, quaternions=numbers([[0.3, -0.2, 0.9, 0.1]]))
    before, after = (optical_depth(p, camera=camera) for p in (round_one, turned))
    np.testing.assert_allclose(after, before, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slope", [0.0, 1e-7, -1e-7, 1e-4, 3e-3, 1e-2])
def test_5_waves_across_the_ray(dtype: torch.dtype, slope: float) -> None:
    """W1 = (4, 0, slope): the cosine along the axis is constant at slope 0, else sin(x) / x of it, x = omega slope."""
    frequencies = torch.zeros(1, 8, 3, dtype=torch.float64)
    frequencies[0, 0] = numbers([4.0, 0.0, slope])
    phase, amplitude = numbers([[0.02] + [0.0] * 7]), numbers([[0.5] + [0.0] * 7])
    primitive = ball(2, 4, 1.6, RED, frequencies=frequencies, phases=phase, amplitudes=amplitude)
    values = {name: getattr(primitive, name).to(dtype) for name in (*PARAMETERS, "sh_dc")}
    depth = -torch.log1p(-draw(replace(primitive, **values)).alpha.double())
    x = 30 * slope
    expected = 1.6 + 2 * 0.5 * math.cos(30 * 0.02) * (math.sin(x) / x if x else 1)
    np.testing.assert_allclose(depth, expected, rtol=2e-6 if dtype == torch.float32 else 1e-12)


def test_6_a_part_of_the_chord_has_a_part_of_the_integral() -> None:
    """The near plane cuts the chord anywhere: what is left is the quadrature of what is left."""
    camera = looking(6, 5)
    primitive = field(3)
    whole = quadrature(primitive, camera)
    for near in (2.5, 2.9, 3.3):
        part = quadrature(primitive, camera, near)
        assert np.abs(part - whole).max() > 0.05
        np.testing.assert_allclose(optical_depth(primitive, camera=camera, near=near), part, atol=1e-11)


@pytest.mark.parametrize("frame", ["world", "local"])
def test_7_gradients_against_central_differences_of_the_quadrature(frame: str) -> None:
    """Of all inputs of the geometry and the network; the quadrature knows nothing of the closed form."""
    camera = looking(4, 3, fov=0.5)
    primitive = field(5, frame=frame)
    leaves = {name: getattr(primitive, name).clone().requires_grad_() for name in PARAMETERS}
    weights = torch.linspace(0.5, 1.5, 12, dtype=torch.float64).reshape(3, 4)
    expected_depth = quadrature(primitive, camera)
    keep = torch.from_numpy((expected_depth > 1e-2).astype(float))
    assert keep.sum() >= 8
    weights = weights * keep
    (optical_depth(replace(primitive, **leaves), camera=camera) * weights).sum().backward()
    step = 1e-5
    for name, value in leaves.items():
        flat = getattr(primitive, name).flatten()
        found = np.zeros(len(flat))
        for k in range(len(flat)):
            moved = []
            for sign in (-1, 1):
                changed = flat.clone()
                changed[k] += sign * step
                changed = changed.reshape(value.shape)
                moved.append(
                    (quadrature(replace(primitive, **{name: changed}), camera, points=50) * weights.numpy()).sum()
                )
            found[k] = (moved[1] - moved[0]) / (2 * step)
        assert value.grad is not None
        scale = np.abs(found).max()
        np.testing.assert_allclose(value.grad.flatten().numpy(), found, atol=2e-6 * scale, err_msg=name)


def test_7_negative_integrals_and_misses_have_no_gradient() -> None:
    tau, z = leaf(-0.3), leaf(3.0)
    frame = draw(ball(z - 1, z + 1, tau, RED))
    assert not bool(frame.alpha.any())
    assert not frame.alpha.requires_grad or not any(
        bool(g.any()) for g in torch.autograd.grad(frame.alpha.sum(), [tau, z], allow_unused=True) if g is not None
    )


@pytest.mark.parametrize("cap", [False, True])
def test_a_leak_gives_negative_rays_a_gradient_and_no_value(cap: bool) -> None:
    """dC/dI at tau = 0 is c - behind; times the leak where I < 0."""
    tau = leaf(-0.3)
    color = seen(ball(2, 4, tau, RED, leak=0.125, cap=cap), ball(3, 5, 0.5, BLUE), background=BACK)
    left = math.exp(-0.5)
    np.testing.assert_allclose(color.detach(), (1 - left) * np.array(BLUE) + left * np.array(BACK), rtol=1e-12)
    # The first half of [2, 4] lies before the blue segment, the second over half of it.
    s = np.linspace(0, 1, 2001)
    start = 0.5 * np.array(s)  # optical depth of blue in front of a place in [3, 4], from 0 to 0.25
    behind_first = (1 - left) * np.array(BLUE) + left * np.array(BACK)
    # At a place with blue depth b in front: dC = e^-b (red - behind), behind = (1 - e^-(0.5 - b)) blue + ...
    b = 0.5 * start
    part = np.exp(-b)[:, None] * np.array(RED) - (np.exp(-b) - left)[:, None] * np.array(BLUE) - left * np.array(BACK)
    expected = 0.5 * (np.array(RED) - behind_first) + 0.5 * np.trapezoid(part, s, axis=0)
    for channel in range(3):
        found = torch.autograd.grad(color[channel], tau, retain_graph=True)[0]
        np.testing.assert_allclose(found, 0.125 * expected[channel], rtol=1e-6)


def test_8_grazing_rays() -> None:
    """A ball whose outline nears the axis: I falls like the square root of D, without NaN, and ends at 0."""
    found = []
    for depth in (1e-2, 1e-4, 1e-6, 1e-8, 0.0, -1e-8):
        # The squared distance of the axis from the centre is 1 - depth radii.
        x = leaf(math.sqrt(1 - depth))
        centre = torch.stack([x, torch.zeros_like(x), torch.full_like(x, 5.0)])[None]
        grazing = replace(ball(4, 6, 0.4, RED), means=centre)
        alpha = draw(grazing).alpha[0, 0]
        if alpha.requires_grad:
            gradient = torch.autograd.grad(alpha, x, allow_unused=True)[0]
            assert gradient is None or bool(gradient.isfinite())
        found.append(-math.log1p(-float(alpha.detach())))
    expected = [0.4 * math.sqrt(depth) for depth in (1e-2, 1e-4, 1e-6, 1e-8)] + [0, 0]
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_8_tiny_and_huge(scale: float) -> None:
    camera = looking(6, 5)
    frame = draw(field(0, scales=numbers([[1.0, 1.0, 1.0]]) * scale), camera=camera)
    assert bool(frame.color.isfinite().all())
    assert bool(frame.alpha.isfinite().all())


def test_9_from_the_other_side() -> None:
    """The axis through a field is the same line when looked along backwards."""
    primitive = field(6, means=numbers([[0.1, -0.2, 4.0]]))
    forth = one_pixel()
    # At z = 8, looking back: turned by pi about y.
    back = replace(forth, rotation=torch.diag(numbers([-1.0, 1, -1])), translation=numbers([0.0, 0, 8]))
    depths = [float(optical_depth(primitive, camera=camera)) for camera in (forth, back)]
    assert depths[0] > 0.1
    np.testing.assert_allclose(depths[0], depths[1], rtol=1e-12)


def test_9_a_camera_moves_in_without_a_jump() -> None:
    """With near = 0: outside the whole tau, inside the rest of the chord; continuous where the camera crosses."""
    found = []
    for z in (-1e-9, 1e-9, 0.5, 1.0, 2.0 - 1e-9, 2.0):
        camera = replace(one_pixel(), translation=numbers([0.0, 0.0, -z]))
        found.append(float(optical_depth(ball(0, 2, 0.8, RED), camera=camera, near=0.0)))
    np.testing.assert_allclose(found, [0.8, 0.8, 0.6, 0.4, 0, 0], atol=2e-9)


def test_10_nothing_dense_and_shuffled() -> None:
    dense = seen(ball(2, 4, 1e4, RED, cap=True), background=BACK)
    np.testing.assert_allclose(dense, 0.99 * np.array(RED) + 0.01 * np.array(BACK), rtol=1e-12)
    camera = looking(8, 6)
    scene = [
        field(k, means=numbers([[0.1 * k, -0.05 * k, 0.2 * k]]), sh_dc=shade([0.2 * k, 0.5, 0.9])) for k in range(4)
    ]
    pictures = [
        draw(*order, camera=camera, background=BACK).color for order in (scene, scene[::-1], scene[2:] + scene[:2])
    ]
    for picture in pictures[1:]:
        np.testing.assert_allclose(picture, pictures[0], atol=1e-13)
    nothing = field(9, offsets=numbers([0.0]), amplitudes=torch.zeros(1, 8, dtype=torch.float64))
    with_nothing = draw(*scene, nothing, camera=camera, background=BACK)
    np.testing.assert_allclose(with_nothing.color, pictures[0], atol=1e-13)
    assert int(with_nothing.visibility.visible.sum()) == 4


def test_width_16_is_two_of_8() -> None:
    """A field of 16 waves whose second half is silent is the field of the first half."""
    camera = looking(6, 5)
    narrow = field(7)
    silent = {name: torch.cat([getattr(narrow, name)] * 2, dim=1) for name in ("frequencies", "phases")}
    wide = replace(narrow, **silent, amplitudes=torch.cat([narrow.amplitudes, 0 * narrow.amplitudes], dim=1))
    np.testing.assert_allclose(optical_depth(wide, camera=camera), optical_depth(narrow, camera=camera), atol=1e-13)


def test_skipped_neural_primitives_are_counted() -> None:
    bad = [
        field(0, offsets=numbers([math.nan])),
        field(0, frequencies=torch.full((1, 8, 3), math.inf, dtype=torch.float64)),
        field(0, quaternions=0 * UPRIGHT),
        field(0, scales=numbers([[1.0, 0.0, 1.0]])),
        field(0, sh_dc=numbers([[math.nan, 0, 0]])),
    ]
    frame = draw(*bad, field(0), camera=looking(6, 5))
    assert frame.visibility.skipped == 5
    assert frame.visibility.visible.tolist() == [False] * 5 + [True]
    assert bool(frame.color.isfinite().all())
