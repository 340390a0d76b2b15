"""The triangle kind on the oracle: hits, edges in three modes, textures, normals; all numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from on_axis import BACK, GREEN, RAY, RED, draw, leaf, numbers, one_pixel, seen, wall
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import TriangleDrawable

FOCAL = 8.0


def plate(corners: Any, opacity: Any = 1.0, z: float = 2.0, **other: Any) -> TriangleDrawable:
    """Triangles [n, 3, 2] given in pixels from the middle of the picture, at depth z; white unless told."""
    at = numbers(corners) * z / FOCAL
    at = at.reshape(-1, 3, 2)
    deep = torch.cat([at, torch.full_like(at[..., :1], z)], dim=-1)
    n = len(deep)
    values: dict[str, Any] = {"colors": torch.ones(n, 3, 3, dtype=torch.float64), **other}
    return TriangleDrawable(deep, numbers(opacity).expand(n), **values)


def picture(*drawables: TriangleDrawable, width: int = 8, height: int = 8, **other: Any) -> Tensor:
    """Alpha of a picture of that size."""
    return draw(*drawables, camera=one_pixel(width, height, FOCAL), **other).alpha


def centres(width: int = 8, height: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres from the middle of the picture: x and y [h, w]."""
    y, x = np.mgrid[:height, :width] + 0.5
    return x - width / 2, y - height / 2


# ---- hits
def test_perspective_correct_interpolation() -> None:
    """A slanted triangle: hit, weights and depth from a 3 x 3 linear system per pixel."""
    q = np.array([[-2.0, -1.5, 2.0], [2.5, -1.0, 6.0], [0.0, 2.0, 3.0]])
    colors = np.array([RED, GREEN, [0.2, 0.4, 0.9]])
    features = np.array([[1.0, -2], [0.5, 3], [4, 0]])
    triangle = TriangleDrawable(
        numbers(q)[None], numbers([0.75]), numbers(colors)[None], numbers(features)[None], edges="hard"
    )
    frame = draw(triangle, camera=one_pixel(9, 9, FOCAL))
    x, y = centres(9, 9)
    hits = 0
    for row, column in np.ndindex(9, 9):
        direction = np.array([x[row, column] / FOCAL, y[row, column] / FOCAL, 1])
        weights = np.linalg.solve(q.T, direction)
        inside = (weights > 0).all()
        hits += inside
        beta = weights / weights.sum()
        assert frame.depth is not None
        assert frame.features is not None
        np.testing.assert_allclose(frame.alpha[row, column], 0.75 * inside, atol=1e-12)
        np.testing.assert_allclose(frame.color[row, column], 0.75 * inside * (beta @ colors), atol=1e-12)
        np.testing.assert_allclose(frame.features[row, column], 0.75 * inside * (beta @ features), atol=1e-12)
        np.testing.assert_allclose(frame.depth[row, column], inside / weights.sum(), rtol=1e-12)
    assert 5 < hits < 60


@pytest.mark.parametrize("turned", [False, True])
def test_exactly_one_of_two_neighbours_has_a_pixel(turned: bool) -> None:
    """A fan around a pixel centre, edges through many pixel centres, both windings: all of alpha 0.5, so none twice."""
    fan = numbers([[-4.0, -4], [4, -4], [4, 4], [-4, 4], [0, -4], [4, 0], [0, 4], [-4, 0]])
    around = [0, 4, 1, 5, 2, 6, 3, 7]
    middle = numbers([0.5, 0.5])
    faces = torch.stack(
        [torch.stack([middle, fan[a], fan[b]]) for a, b in zip(around, around[1:] + around[:1], strict=True)]
    )
    if turned:
        faces = faces.flip(1)
    np.testing.assert_allclose(picture(plate(faces, 0.5)), np.full((8, 8), 0.5), atol=1e-15)


def test_a_pixel_on_an_edge_goes_down_and_to_the_left() -> None:
    """Edges exactly through pixel centres: as if these lay a trifle further down, and a smaller one to the left."""
    rectangle = numbers([[[-1.5, -2.5], [2.5, -2.5], [2.5, 1.5]], [[-1.5, -2.5], [2.5, 1.5], [-1.5, 1.5]]])
    x, y = centres()
    expected = (x > -1.5) & (x <= 2.5) & (y >= -2.5) & (y < 1.5)
    np.testing.assert_allclose(picture(plate(rectangle)), expected, atol=1e-15)


def test_hard_edges_take_gradients_through_colour_and_depth_only() -> None:
    z = leaf(2.0)
    frame = draw(wall(z, 0.5, RED), background=BACK)
    assert frame.depth is not None
    np.testing.assert_allclose(torch.autograd.grad(frame.depth.sum(), z, retain_graph=True)[0], 1.0, rtol=1e-12)
    assert not any(
        bool(g.abs() > 1e-14) for g in torch.autograd.grad(frame.alpha.sum(), z, allow_unused=True) if g is not None
    )


# ---- antialiased
def test_coverage_of_an_antialiased_edge() -> None:
    """A half plane x < 0.3 (pixels): the centres at 0.5 are covered by 0.5 - 0.2; the slope passes to the corners."""
    shift = leaf(0.3)
    far = 1000.0
    triangle = torch.stack(
        [torch.stack([shift, numbers(-far)]), torch.stack([shift, numbers(far)]), numbers([-far, 0.0])]
    )
    alpha = picture(plate(triangle[None], 0.8, edges="antialiased"))
    x, _ = centres()
    np.testing.assert_allclose(alpha.detach(), 0.8 * np.clip(0.5 + 0.3 - x, 0, 1), atol=1e-12)
    gradient = torch.autograd.grad(alpha[3, 4], shift)[0]
    np.testing.assert_allclose(gradient, 0.8, rtol=1e-6)


def test_only_silhouettes_are_antialiased() -> None:
    """A square of two triangles with neighbours: fading outside, seamless inside; outside a corner by distance."""
    square = numbers([[[-2.2, -2.2], [2.2, -2.2], [2.2, 2.2]], [[-2.2, -2.2], [2.2, 2.2], [-2.2, 2.2]]])
    neighbours = torch.tensor([[-1, -1, 1], [0, -1, -1]], dtype=torch.int32)
    alpha = picture(plate(square, edges="antialiased", neighbours=neighbours))
    x, y = centres()
    inside = np.minimum(2.2 - abs(x), 2.2 - abs(y))
    away = np.hypot(np.maximum(abs(x) - 2.2, 0), np.maximum(abs(y) - 2.2, 0))
    expected = np.clip(0.5 + np.where(inside >= 0, inside, -away), 0, 1)
    # The corners on the diagonal are cut by it: each triangle has one side of it.
    np.testing.assert_allclose(alpha, expected, atol=1e-12)
    # Without neighbours the diagonal is a silhouette of both: they fade there, and together cover less.
    assert float(picture(plate(square, edges="antialiased"))[3, 3]) < 1 - 1e-3


def test_an_edge_between_front_and_back_is_a_silhouette() -> None:
    """Two triangles of a strip, folded so that the second faces away: the edge fades, though it has a neighbour."""
    front = numbers([[0.3, -50.0, 2], [0.3, 50, 2], [-50, 0, 2]])
    fold = torch.stack([front[1], front[0], numbers([-30.0, 0, 4])])
    neighbours = torch.tensor([[1, -1, -1], [0, -1, -1]], dtype=torch.int32)
    strip = TriangleDrawable(
        torch.stack([front, fold]) / numbers([FOCAL / 2, FOCAL / 2, 1]),
        numbers([1.0, 0.0]),
        torch.ones(2, 3, 3, dtype=torch.float64),
        neighbours=neighbours,
        edges="antialiased",
    )
    x, _ = centres()
    row = picture(strip)[4]
    np.testing.assert_allclose(row, np.clip(0.5 + 0.3 - x[4], 0, 1), atol=1e-12)


def test_a_needle_grows_no_spikes() -> None:
    """Far beyond the tip of a thin triangle nothing is covered."""
    alpha = picture(plate([[[-3.0, 0.49], [-3.0, 0.51], [0.0, 0.5]]], edges="antialiased"))
    assert float(alpha[4, 2]) > 0.4
    assert not bool((alpha[4, 5:] > 0).any())


# ---- soft (Blocks World)
@pytest.mark.parametrize("size", [(8, 8), (12, 8)])
def test_occupancy_of_soft_edges(size: tuple[int, int]) -> None:
    """a inside, a / e at squared NDC distance sigma, nothing below 1e-4; NDC: the shorter side is [-1, 1]."""
    square = numbers([[[-2.2, -2.2], [2.2, -2.2], [2.2, 2.2]]])
    sigma = (2 * 0.7 / 8) ** 2
    alpha = picture(plate(square, 0.6, edges="soft", sigma=sigma), width=size[0], height=size[1])
    x, y = centres(*size)
    segments = [((-2.2, -2.2), (2.2, -2.2)), ((2.2, -2.2), (2.2, 2.2)), ((2.2, 2.2), (-2.2, -2.2))]
    squared = np.full(x.shape, np.inf)
    for (ax, ay), (bx, by) in segments:
        share = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
        squared = np.minimum(squared, (x - ax - share * (bx - ax)) ** 2 + (y - ay - share * (by - ay)) ** 2)
    inside = (y >= -2.2) & (x <= 2.2) & (y <= x)
    factor = np.where(inside, 1.0, np.exp(-squared / 0.49))
    expected = 0.6 * np.where(factor >= 1e-4, factor, 0)
    np.testing.assert_allclose(alpha, expected, atol=1e-12)
    assert (expected == 0).any()
    # One pixel lies 0.7 pixels outside a right edge: a / e.
    edge = plate([[[-0.2, -50.0], [-0.2, 50.0], [-50.0, 0.0]]], 0.6, edges="soft", sigma=sigma)
    np.testing.assert_allclose(picture(edge)[4, 4], 0.6 / math.e, rtol=1e-9)


def test_soft_derivative_is_continuous_from_outside() -> None:
    """alpha = a exp(-d^2 / sigma): slope -2 d / sigma outside, 0 inside."""
    for distance in (0.2, 0.02, -0.1):
        x = leaf(0.5 - distance)
        triangle = torch.stack(
            [torch.stack([x, numbers(-50.0)]), torch.stack([x, numbers(50.0)]), numbers([-50.0, 0.0])]
        )
        alpha = picture(plate(triangle[None], 0.6, edges="soft", sigma=0.04))[4, 4]
        d = 2 * max(distance, 0) / 8
        expected = 0.6 * math.exp(-(d**2) / 0.04) * 2 * d / 0.04 * 2 / 8
        np.testing.assert_allclose(torch.autograd.grad(alpha, x)[0], expected, rtol=1e-6, atol=1e-12)


def test_channels_and_depth_outside_are_those_of_the_clamped_point() -> None:
    """Beside the middle of an edge: half of each of its corners, at its depth."""
    corners = numbers([[[-1.0, -1, 2], [1, -1, 2], [0, 0.5, 3]]])
    colors = numbers([[RED, GREEN, [0, 0, 1]]])
    # v of the pixel centres of a column: the axis is x = 0; the edge y = -1 at z = 2 shows at v = -0.5 = -4 pixels.
    soft = TriangleDrawable(corners, numbers([1.0]), colors, edges="soft", sigma=9.0)
    frame = draw(soft, camera=one_pixel(1, 12, FOCAL), settings=replace(RAY, transmittance_min=0.0))
    above = 0  # y = -5.5: 1.5 pixels above the edge
    assert frame.depth is not None
    alpha = frame.alpha[above, 0]
    np.testing.assert_allclose(alpha, math.exp(-((2 * 1.5) ** 2) / 9), rtol=1e-12)
    np.testing.assert_allclose(frame.color[above, 0] / alpha, [0.5, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(frame.depth[above, 0], 2.0, rtol=1e-12)


def test_compositing_of_faces() -> None:
    """Opaque faces are a z-buffer; dC/da_l = T_l (c_l - behind); a closed block of opacity a is crossed twice."""
    opaque = [wall(float(z), 1.0, [0.1 * z, 0.2, 0.3]) for z in (3, 2, 5, 4)]
    np.testing.assert_allclose(seen(*opaque), [0.2, 0.2, 0.3], atol=1e-12)
    box = [wall(2.0, 0.3, RED), wall(4.0, 0.3, RED)]
    np.testing.assert_allclose(draw(*box).alpha[0, 0], 1 - 0.7**2, rtol=1e-12)
    opacity = leaf(0.4)
    color = seen(wall(2.0, 0.3, RED), wall(3.0, opacity, GREEN), wall(4.0, 0.5, RED), background=BACK)
    behind = 0.5 * np.array(RED) + 0.5 * np.array(BACK)
    for channel in range(3):
        gradient = torch.autograd.grad(color[channel], opacity, retain_graph=True)[0]
        np.testing.assert_allclose(gradient, 0.7 * (GREEN[channel] - behind[channel]), atol=1e-12)


def test_soft_triangles_at_the_near_plane() -> None:
    """A floor from behind the camera: its outline is the polygon cut at near; what lies nearer does not happen."""
    corners = numbers([[[-5.0, 1, -300], [5, 1, -300], [0, 1, 900]]])
    floor = TriangleDrawable(
        corners, numbers([0.5]), torch.ones(1, 3, 3, dtype=torch.float64), edges="soft", sigma=1e-3
    )
    frame = draw(floor, camera=one_pixel(1, 24, FOCAL), settings=replace(RAY, near=1.0))
    y = np.arange(24) + 0.5 - 12
    # v = 1 / z from 1/900 to 1 at near: 8 pixels below the axis.
    inside = (y > FOCAL / 900) & (y <= FOCAL)
    np.testing.assert_allclose(frame.alpha[:, 0][torch.from_numpy(inside)], 0.5, rtol=1e-12)
    assert not bool((frame.alpha[:, 0][torch.from_numpy(y > FOCAL)] > 0).any())


# ---- textures and normals
def test_bilinear_texture() -> None:
    """Texel centres at +0.5; clamped at the border; v runs down the rows; alpha multiplies the opacity."""
    texture = np.random.default_rng(1).random((3, 4, 4))
    square = numbers([[[-4.0, -4], [4, -4], [4, 4]], [[-4.0, -4], [4, 4], [-4, 4]]])
    uvs = numbers([[[0.0, 0], [1, 0], [1, 1]], [[0.0, 0], [1, 1], [0, 1]]])
    frame = draw(plate(square, 0.8, colors=None, texture=numbers(texture), uvs=uvs), camera=one_pixel(8, 8, FOCAL))
    for row, column in np.ndindex(8, 8):
        u, v = (column + 0.5) / 8 * 4 - 0.5, (row + 0.5) / 8 * 3 - 0.5
        u, v = min(max(u, 0), 3), min(max(v, 0), 2)
        left, top = min(int(u), 2), min(int(v), 1)
        a, b = u - left, v - top
        texel = (1 - b) * ((1 - a) * texture[top, left] + a * texture[top, left + 1]) + b * (
            (1 - a) * texture[top + 1, left] + a * texture[top + 1, left + 1]
        )
        np.testing.assert_allclose(frame.alpha[row, column], 0.8 * texel[3], rtol=1e-12)
        np.testing.assert_allclose(frame.color[row, column], 0.8 * texel[3] * texel[:3], rtol=1e-12)


def test_texture_repeats_in_u_only_where_asked() -> None:
    texture = numbers([[RED, GREEN]])
    uvs = torch.full((1, 3, 2), 0.5, dtype=torch.float64)
    for u, clamped, wrapped in [(0.25, RED, RED), (1.25, GREEN, RED), (-0.25, RED, GREEN), (1.0, GREEN, [0.5, 0.5, 0])]:
        uvs = uvs.clone()
        uvs[..., 0] = u
        for wrap, expected in ((False, clamped), (True, wrapped)):
            textured = replace(wall(2.0, 1.0, RED), colors=None, texture=texture, uvs=uvs, wrap=wrap)
            np.testing.assert_allclose(seen(textured), expected, atol=1e-12)


@pytest.mark.parametrize("detach", [False, True])
def test_detached_barycentrics(detach: bool) -> None:
    """Moving a triangle sideways moves its colours, unless that path is cut; depth keeps its gradient."""
    x, z = leaf(0.0), leaf(2.0)
    offset = torch.stack([x, torch.zeros_like(x), z])
    corners = numbers([[-9.0, -8.0, 0.0], [9.0, -8.0, 0.0], [0.0, 16.0, 0.0]]) + offset
    colors = numbers([[RED, GREEN, [0, 0, 1]]])
    frame = draw(TriangleDrawable(corners[None], numbers([1.0]), colors, detach_barycentrics=detach))
    gradient = torch.autograd.grad(frame.color[0, 0, 0], x, retain_graph=True, allow_unused=True)[0]
    # Red falls from 1 to 0 along the lower edge of 18: its barycentric has slope 1/18 in x.
    expected = 0.0 if detach else 1 / 18
    np.testing.assert_allclose(0.0 if gradient is None else gradient, expected, rtol=1e-9, atol=1e-15)
    assert frame.depth is not None
    np.testing.assert_allclose(torch.autograd.grad(frame.depth.sum(), z)[0], 1.0, rtol=1e-9)


@pytest.mark.parametrize("flipped", [False, True])
def test_normals_are_unit_and_face_the_camera(flipped: bool) -> None:
    settings = replace(RAY, normals=True)
    turned = Camera.look_at(numbers([3.0, 0, 0]), numbers([0.0, 0, 0]), numbers([0.0, -1, 0]), 0.1, (1, 1))
    corners = numbers([[[0.0, -1, -1], [0.0, 1, -1], [0.0, 0, 1]]])
    corners = corners.flip(1) if flipped else corners
    face = TriangleDrawable(corners, numbers([0.5]), torch.ones(1, 3, 3, dtype=torch.float64))
    normal = draw(face, camera=turned, settings=settings).normal
    assert normal is not None
    np.testing.assert_allclose(normal[0, 0], [0.5, 0, 0], atol=1e-12)
    bent = numbers([[[-3.0, 0, 4]] * 3])
    normal = draw(replace(face, normals=bent), camera=turned, settings=settings).normal
    assert normal is not None
    np.testing.assert_allclose(normal[0, 0], [0.3, 0, -0.4], atol=1e-12)


def test_opacities_are_clamped_and_bad_faces_counted() -> None:
    np.testing.assert_allclose(seen(wall(2.0, 1.7, RED), background=GREEN), RED, atol=1e-12)
    np.testing.assert_allclose(seen(wall(2.0, -0.5, RED), background=GREEN), GREEN, atol=1e-12)
    good = wall(2.0, 0.5, RED)
    bad = [
        replace(good, corners=good.corners * math.nan),
        replace(good, opacities=numbers([math.inf])),
        replace(good, colors=good.colors * math.nan if good.colors is not None else None),
        replace(
            good,
            colors=None,
            texture=torch.full((2, 2, 3), math.nan, dtype=torch.float64),
            uvs=torch.zeros(1, 3, 2, dtype=torch.float64),
        ),
    ]
    flat = replace(good, corners=good.corners[:, [0, 0, 1]])  # no area: drawn nowhere, not an error
    frame = draw(*bad, flat, good)
    assert frame.visibility.skipped == 3  # rays miss the face whose texture is not a number
    assert frame.visibility.visible.tolist() == [False] * 5 + [True]
    np.testing.assert_allclose(frame.color[0, 0], [0.5, 0, 0], atol=1e-12)
