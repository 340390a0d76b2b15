"""Pictures worked out by hand, from first principles in numpy, on the oracle in float64 and every backend."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backends import ORACLE, Backend
from scenes import Scene

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.settings import RenderSettings

ALL = RenderSettings(depth=True, statistics=True)
DC = 0.5 / math.sqrt(math.pi)
"""Y_0: a coefficient c shows as 0.5 + c Y_0."""


@pytest.fixture
def draw(backend: Backend) -> Draw:
    """Every way to draw, in turn."""
    return Draw(backend)


class Draw:
    """One backend, given its values in float64; `tolerance` is that of its dtype, relative to 1."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.tolerance = 1e-12 if backend is ORACLE else backend.image_tolerance

    def __call__(self, drawables: Any, camera: Camera, background: Any = None, settings: RenderSettings = ALL) -> Frame:
        given = None if background is None else torch.as_tensor(background, dtype=torch.float64)
        drawables = (drawables,) if isinstance(drawables, GaussianDrawable) else tuple(drawables)
        return self.backend.render(Scene(drawables, camera, given, settings).leaves(self.backend.dtype)[1])

    def close(self, got: torch.Tensor, expected: Any) -> None:
        np.testing.assert_allclose(got.detach().double().numpy(), expected, rtol=self.tolerance, atol=self.tolerance)


def straight_camera(width: int = 21, height: int = 13, focal: float = 32.0) -> Camera:
    """At the origin, looking along z; the optical axis meets the middle of the picture."""
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    intrinsics = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)
    return Camera(eye, zero, intrinsics, width, height)


def balls(rows: list[tuple[float, float, list[float]]], sigma_pixels: float = 1e-3, **other: Any) -> GaussianDrawable:
    """Round Gaussians on the optical axis: (z, opacity, colour), of `sigma_pixels` at a focal length of 32."""
    z = torch.tensor([row[0] for row in rows], dtype=torch.float64)
    colors = torch.tensor([row[2] for row in rows], dtype=torch.float64).reshape(-1, 3)
    values: dict[str, Any] = {
        "means": torch.stack([torch.zeros_like(z), torch.zeros_like(z), z], dim=-1),
        "quaternions": torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(len(rows), 4),
        "scales": (z * sigma_pixels / 32)[:, None].expand(-1, 3),
        "opacities": torch.tensor([row[1] for row in rows], dtype=torch.float64),
        "sh_dc": (colors - 0.5) / DC,
    }
    return GaussianDrawable(**{**values, **other})


MIDDLE = (6, 10)
"""Row and column of the pixel whose centre is the image of the optical axis."""


def test_one_gaussian_from_first_principles(draw: Draw) -> None:
    """Value at several pixels by the full 3 x 3 covariance, a matrix inverse and the textbook Jacobian."""
    mean, scales, opacity = np.array([0.3, -0.2, 2.5]), np.array([0.25, 0.08, 0.15]), 0.8
    axis, angle = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5]), 0.9
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross  # Rodrigues
    quaternion = 3.0 * np.array([math.cos(angle / 2), *(math.sin(angle / 2) * axis)])  # of length 3 on purpose
    world_to_camera = np.array([[0.96, 0, -0.28], [0, 1, 0], [0.28, 0, 0.96]])
    shift = np.array([0.1, 0.05, 0.3])
    fx, fy, cx, cy, width, height = 40.0, 35.0, 14.25, 9.5, 30, 20

    x, y, z = world_to_camera @ mean + shift
    jacobian = np.array([[fx / z, 0, -fx * x / z**2], [0, fy / z, -fy * y / z**2]])
    covariance = turn @ np.diag(scales**2) @ turn.T
    flat = jacobian @ world_to_camera @ covariance @ world_to_camera.T @ jacobian.T + 0.3 * np.eye(2)
    inverse = np.linalg.inv(flat)
    picture = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            d = np.array([column + 0.5 - (fx * x / z + cx), row + 0.5 - (fy * y / z + cy)])
            alpha = opacity * math.exp(-0.5 * d @ inverse @ d)
            picture[row, column] = alpha if alpha >= 1 / 255 else 0
    assert picture.max() > 0.7
    assert (picture == 0).any()

    drawable = GaussianDrawable(
        *(torch.from_numpy(values)[None] for values in (mean, quaternion, scales)),
        torch.tensor([opacity], dtype=torch.float64),
        (torch.tensor([[0.9, 0.5, 0.2]], dtype=torch.float64) - 0.5) / DC,
    )
    intrinsics = torch.tensor([fx, fy, cx, cy], dtype=torch.float64)
    camera = Camera(torch.from_numpy(world_to_camera), torch.from_numpy(shift), intrinsics, width, height)
    frame = draw(drawable, camera)
    draw.close(frame.alpha, picture)
    draw.close(frame.color, picture[..., None] * np.array([0.9, 0.5, 0.2]))
    assert frame.depth is not None
    draw.close(frame.depth, np.where(picture > 0, z, 0))


def test_two_overlapping_and_the_background(draw: Draw) -> None:
    """The nearer one comes first although it is listed second; the background fills what is left."""
    near, far = np.array([0.9, 0.1, 0.4]), np.array([0.2, 0.8, 0.6])
    back = np.array([0.3, 0.6, 0.9])
    frame = draw(balls([(3.0, 0.5, list(far)), (2.0, 0.4, list(near))]), straight_camera(), back)
    total = 0.4 * near + 0.6 * 0.5 * far + 0.6 * 0.5 * back
    draw.close(frame.color[MIDDLE], total)
    draw.close(frame.alpha[MIDDLE], 0.7)
    draw.close(frame.color[0, 0], back)
    assert frame.depth is not None
    draw.close(frame.depth[MIDDLE], (0.4 * 2 + 0.3 * 3) / 0.7)
    assert frame.contribution_sum is not None
    assert frame.contribution_max is not None
    draw.close(frame.contribution_max, [0.3, 0.4])
    # One pixel off the axis the filter alone (variance 0.3 and next to nothing) has fallen by exp(-1 / 0.6).
    fall = math.exp(-0.5 / (0.3 + 1e-6))
    draw.close(frame.alpha[6, 11], 1 - (1 - 0.4 * fall) * (1 - 0.5 * fall))


def test_background_picture_shows_where_nothing_is(draw: Draw) -> None:
    generator = torch.Generator().manual_seed(3)
    back = torch.rand(13, 21, 3, generator=generator).double()
    frame = draw(balls([(2.0, 0.75, [1.0, 1.0, 1.0])]), straight_camera(), back)
    alpha = frame.alpha.detach().double()[..., None]
    draw.close(frame.color, alpha + (1 - alpha) * back)
    draw.close(frame.color[0], back[0])
    draw.close(frame.color[MIDDLE], 0.75 + 0.25 * back[MIDDLE])


def test_alpha_is_capped_at_099(draw: Draw) -> None:
    frame = draw(balls([(2.0, 1.0, [0.5, 0.25, 1.0])]), straight_camera())
    draw.close(frame.alpha[MIDDLE], 0.99)
    draw.close(frame.color[MIDDLE], 0.99 * np.array([0.5, 0.25, 1.0]))


def test_cap_passes_no_gradient(draw: Draw) -> None:
    frame_of = {}
    for opacity in (1.0, 0.985):
        leaves, scene = Scene((balls([(2.0, opacity, [0.5, 0.25, 1.0])]),), straight_camera()).leaves(
            draw.backend.dtype
        )
        draw.backend.render(scene).alpha[MIDDLE].backward()
        frame_of[opacity] = float(leaves["0.opacities"].grad)  # type: ignore[arg-type]
    assert frame_of[1.0] == 0
    assert frame_of[0.985] == pytest.approx(1, abs=1e-5)


def test_below_1_255_nothing_is_drawn(draw: Draw) -> None:
    over, under = 1 / 255 + 1e-5, 1 / 255 - 1e-5
    shown = draw(balls([(2.0, over, [1.0, 1.0, 1.0])]), straight_camera())
    draw.close(shown.alpha[MIDDLE], over)
    assert int((shown.alpha > 0).sum()) == 1
    hidden = draw(balls([(2.0, under, [1.0, 1.0, 1.0])]), straight_camera())
    assert not bool(hidden.alpha.any())
    assert not bool(hidden.visibility.visible.any())
    assert hidden.visibility.skipped == 0


def test_ray_ends_after_the_event_that_darkens_it(draw: Draw) -> None:
    rows = [(1.0 + 0.5 * k, 0.98, [0.0, 0.0, 0.0]) for k in range(5)]
    for k in range(5):
        rows[k][2][k % 3] = 1.0
    frame = draw(balls(rows), straight_camera())
    # T before events: 1, 0.02, 4e-4, 8e-6: the third event brings T below 1e-4 and still counts, the fourth does not.
    draw.close(frame.color[MIDDLE], [0.98, 0.02 * 0.98, 4e-4 * 0.98])
    draw.close(frame.alpha[MIDDLE], 1 - 8e-6)
    # At the middle nothing is left for the other two; around it the rays live longer.
    endless = draw(balls(rows), straight_camera(), settings=replace(ALL, transmittance_min=0.0))
    draw.close(endless.alpha[MIDDLE], 1 - 0.02**5)


def test_depth_definitions_and_ids(draw: Draw) -> None:
    rows = [(4.0, 0.9, [0.5] * 3), (2.0, 0.3, [0.5] * 3), (3.0, 0.4, [0.5] * 3)]
    frame = draw(balls(rows), straight_camera())
    # Front to back: z 2 (T a = 0.3, T -> 0.7), z 3 (0.28, 0.42: half is passed here), z 4 (0.378, 0.042).
    assert frame.depth is not None
    assert frame.depth_first is not None
    assert frame.depth_median is not None
    draw.close(frame.depth[MIDDLE], (0.3 * 2 + 0.28 * 3 + 0.378 * 4) / 0.958)
    draw.close(frame.depth_first[MIDDLE], 2)
    draw.close(frame.depth_median[MIDDLE], 3)
    assert [int(frame.ids[name][MIDDLE]) for name in ("first", "median", "dominant")] == [1, 2, 0]
    for plane in (frame.depth, frame.depth_first, frame.depth_median):
        assert not bool(plane[0, 0])
    assert [int(frame.ids[name][0, 0]) for name in ("first", "median", "dominant")] == [-1, -1, -1]
    thin = draw(balls([(2.0, 0.4, [0.5] * 3)]), straight_camera())
    assert thin.depth_median is not None
    assert not bool(thin.depth_median[MIDDLE])
    assert int(thin.ids["median"][MIDDLE]) == -1
    assert int(thin.ids["first"][MIDDLE]) == 0


def test_depth_ties_go_to_the_lower_row_across_drawables(draw: Draw) -> None:
    red, green = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    frame = draw((balls([(2.0, 0.5, red)]), balls([(2.0, 0.5, green)])), straight_camera())
    draw.close(frame.color[MIDDLE], [0.5, 0.25, 0])
    assert int(frame.ids["dominant"][MIDDLE]) == 0


@pytest.mark.parametrize(
    ("z", "drawn"), [(0.5, True), (0.5 - 2**-20, False), (0.5 + 2**-20, True), (-2.0, False), (0.0, False)]
)
def test_near_plane(draw: Draw, z: float, drawn: bool) -> None:
    drawable = replace(balls([(1.0, 0.5, [1.0] * 3)]), means=torch.tensor([[0, 0, z]], dtype=torch.float64))
    frame = draw(drawable, straight_camera(), settings=replace(ALL, near=0.5))
    draw.close(frame.alpha[MIDDLE], 0.5 if drawn else 0)
    assert bool(frame.visibility.visible[0]) == drawn
    assert frame.visibility.skipped == 0
    assert float(frame.visibility.depths[0]) == z


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_compensated_filter_keeps_the_mass(draw: Draw, sigma: float) -> None:
    """On the axis the projected covariance is sigma^2 I, so opacity scales by sigma^2 / (sigma^2 + f)."""
    kept = sigma**2 / (sigma**2 + 0.3)
    frame = draw(balls([(2.0, 0.9, [1.0] * 3)], sigma, compensated=True), straight_camera())
    expected = 0.9 * kept
    draw.close(frame.alpha[MIDDLE], expected if expected >= 1 / 255 else 0)
    plain = draw(balls([(2.0, 0.9, [1.0] * 3)], sigma), straight_camera())
    draw.close(plain.alpha[MIDDLE], 0.9)


def test_filter_variance_widens(draw: Draw) -> None:
    for variance in (0.1, 0.3, 2.0):
        frame = draw(balls([(2.0, 0.9, [1.0] * 3)], 0.5, filter_variance=variance), straight_camera())
        for distance, pixel in ((1, (7, 10)), (2, (6, 12)), (3, (6, 7))):
            expected = 0.9 * math.exp(-0.5 * distance**2 / (0.25 + variance))
            draw.close(frame.alpha[pixel], expected if expected >= 1 / 255 else 0)


def test_principal_point_and_odd_size(draw: Draw) -> None:
    """The axis lands at (cx, cy) wherever that is, in a picture of 35 x 50 pixels."""
    intrinsics = torch.tensor([32.0, 32.0, 33.5, 41.5], dtype=torch.float64)
    camera = replace(straight_camera(35, 50), intrinsics=intrinsics)
    frame = draw(balls([(2.0, 0.6, [1.0] * 3)]), camera)
    assert tuple(frame.color.shape) == (50, 35, 3)
    draw.close(frame.alpha[41, 33], 0.6)
    assert int(frame.alpha.argmax()) == 41 * 35 + 33


def test_the_affine_map_is_clamped_outside_the_picture(draw: Draw) -> None:
    """A Gaussian far to the right: u stops at half a picture plus 0.15 of it, so its blur grows no further."""
    camera = straight_camera(20, 20, 20.0)
    z, x, sigma = 1.0, 3.0, 1.2  # x / z = 3, limit (20 - 10) / 20 + 0.15 * 20 / 20 = 0.65
    drawable = replace(
        balls([(z, 0.95, [1.0] * 3)]),
        means=torch.tensor([[x, 0, z]], dtype=torch.float64),
        scales=torch.full((1, 3), sigma, dtype=torch.float64),
    )
    frame = draw(drawable, camera)
    variance_x = sigma**2 * ((20 / z) ** 2 + (20 * 0.65 / z) ** 2) + 0.3
    variance_y = sigma**2 * (20 / z) ** 2 + 0.3
    for column in (10, 15, 19):
        dx, dy = column + 0.5 - (20 * x / z + 10), 0.5
        draw.close(frame.alpha[10, column], 0.95 * math.exp(-0.5 * (dx**2 / variance_x + dy**2 / variance_y)))


def test_negative_color_is_clamped_without_gradient(draw: Draw) -> None:
    drawable = balls([(2.0, 0.5, [-0.25, 0.25, 0.75])])
    leaves, scene = Scene((drawable,), straight_camera()).leaves(draw.backend.dtype)
    frame = draw.backend.render(scene)
    draw.close(frame.color[MIDDLE], [0, 0.125, 0.375])
    frame.color[MIDDLE].sum().backward()
    gradient = leaves["0.sh_dc"].grad
    assert gradient is not None
    draw.close(gradient[0], [0, 0.5 * DC, 0.5 * DC])


def test_features_are_composited_with_the_same_weights(draw: Draw) -> None:
    rows = [[1.0, -2.0, 0.0, 7.0], [3.0, 4.0, 5.0, -6.0], [0.5, 0.0, 0.0, 0.0]]
    features = torch.tensor(rows, dtype=torch.float64)
    outer = balls([(2.0, 0.4, [1.0] * 3), (3.0, 0.5, [1.0] * 3)], features=features[:2])
    inner = balls([(2.5, 0.5, [1.0] * 3)], features=features[2:])
    frame = draw((outer, inner), straight_camera())
    assert frame.features is not None
    weights = [0.4, 0.6 * 0.5 * 0.5, 0.6 * 0.5]
    draw.close(frame.features[MIDDLE], np.array(weights) @ np.array(rows))


def test_opaque_stack_is_the_nearest(draw: Draw) -> None:
    """Three big opaque Gaussians: each lets 1 % through; the ray ends with the third."""
    colors = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    frame = draw(balls([(1.0 + k, 1.0, colors[k]) for k in range(3)], 500.0), straight_camera())
    # T: 1, 1e-2, then 1e-4, at the edge of the limit: the third event may count, and is worth at most 1e-4.
    expected = np.broadcast_to([0.99, 0.0099, 0], (13, 21, 3))
    np.testing.assert_allclose(frame.color.detach().double().numpy(), expected, atol=1.01e-4)
