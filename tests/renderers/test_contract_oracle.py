"""Every clause of the compositing contract in closed form, worked out by hand, on the float64 oracle.

The ray is the optical axis; colours, alphas, optical depths and positions are chosen, so each expected number is a
short formula. None of them comes from the oracle's own functions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from on_axis import BACK, BLUE, GREEN, RAY, RED, THIN, ball, block, draw, gaussian, leaf, one_pixel, seen, surfel, wall
from torch import Tensor

from smalti.renderers.drawables import Drawable
from smalti.renderers.oracle_kinds.picture import pixel_events

CENTRE = replace(RAY, order="centre")
EXP = math.exp


def mix(*parts: tuple[float, Any]) -> np.ndarray:
    """Sum of weights times colours."""
    return sum((weight * np.array(color) for weight, color in parts), np.zeros(3))


def same(got: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


def gradient(of: Tensor, leaf_: Tensor) -> Tensor:
    return torch.autograd.grad(of, leaf_, retain_graph=True)[0]


# ---- 1. thin over thin
@pytest.mark.parametrize(("front", "behind"), list(itertools.product(THIN, THIN)))
@pytest.mark.parametrize("swapped", [False, True])
def test_thin_over_thin(front: str, behind: str, swapped: bool) -> None:
    drawables: list[Drawable] = [THIN[front](2.0, 0.25, RED), THIN[behind](3.0, 0.5, GREEN)]
    frame = draw(*(reversed(drawables) if swapped else drawables), background=BACK)
    same(frame.color[0, 0], mix((0.25, RED), (0.75 * 0.5, GREEN), (0.75 * 0.5, BACK)))
    same(frame.alpha[0, 0], 1 - 0.75 * 0.5)
    assert frame.depth is not None
    same(frame.depth[0, 0], (0.25 * 2 + 0.375 * 3) / 0.625)


def test_exact_ties_fall_to_the_lower_primitive() -> None:
    for first, second in itertools.product(THIN, THIN):
        color = seen(THIN[first](2.0, 0.5, RED), THIN[second](2.0, 0.5, GREEN))
        same(color, mix((0.5, RED), (0.25, GREEN)))


@pytest.mark.parametrize(("apart", "tied"), [(0.5, True), (-0.5, True), (2.0, False), (-2.0, False)])
def test_ties_end_at_their_epsilon(apart: float, tied: bool) -> None:
    """2^-19 of z; the second one is `apart` of that in front (negative: behind)."""
    nearer = 2.0 * (1 - apart * 2**-19)
    color = seen(wall(2.0, 0.5, RED), wall(nearer, 0.5, GREEN))
    red_first = tied or apart < 0
    same(color, mix((0.5, RED), (0.25, GREEN)) if red_first else mix((0.5, GREEN), (0.25, RED)))


def test_an_alpha_of_zero_changes_nothing_and_has_a_derivative() -> None:
    opacity = leaf(0.0)
    color = seen(wall(1.0, opacity, RED), wall(2.0, 0.5, GREEN), background=BACK)
    same(color, mix((0.5, GREEN), (0.5, BACK)))
    same(gradient(color[0], opacity), 1 - 0.5 * BACK[0])


# ---- 2. and 3. thin and thick
def test_one_segment() -> None:
    frame = draw(ball(2, 4, 0.75, RED), background=BACK)
    same(frame.color[0, 0], mix((1 - EXP(-0.75), RED), (EXP(-0.75), BACK)))
    # Mean of z over the density of absorption sigma exp(-sigma (z - z0)) on [z0, z1].
    assert frame.depth is not None
    same(frame.depth[0, 0], 2 + 2 * (1 / 0.75 - EXP(-0.75) / (1 - EXP(-0.75))))


@pytest.mark.parametrize("tau", [1e-9, 1e-4, 0.0099, 0.0101, 0.099, 0.101, 5.0])
def test_depth_of_faint_and_dense_segments(tau: float) -> None:
    """Against quadrature, on both sides of every series."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    s = 0.5 * (nodes + 1)
    absorbed = 0.5 * weights * tau * np.exp(-tau * s)
    frame = draw(ball(2, 3, tau, RED))
    assert frame.depth is not None
    same(frame.color[0, 0, 0], absorbed.sum(), 1e-11)
    same(frame.depth[0, 0], 2 + (absorbed * s).sum() / absorbed.sum(), 1e-6 if tau < 1e-6 else 1e-10)


@pytest.mark.parametrize("thin", THIN)
def test_thin_over_thick_over_thin(thin: str) -> None:
    color = seen(THIN[thin](5.0, 0.5, BLUE), ball(2, 4, 1.5, GREEN), THIN[thin](1.0, 0.25, RED), background=BACK)
    left = 0.75 * EXP(-1.5)
    same(color, mix((0.25, RED), (0.75 * (1 - EXP(-1.5)), GREEN), (left * 0.5, BLUE), (left * 0.5, BACK)))


@pytest.mark.parametrize("thin", THIN)
def test_thin_inside_thick_cuts_by_length(thin: str) -> None:
    color = seen(ball(2, 4, 1.2, GREEN), THIN[thin](2.5, 0.5, RED), background=BACK)
    front, rest = EXP(-0.3), EXP(-0.9)
    after = front * 0.5
    same(color, mix((1 - front, GREEN), (front * 0.5, RED), (after * (1 - rest), GREEN), (after * rest, BACK)))
    same(draw(ball(2, 4, 1.2, GREEN), THIN[thin](2.5, 0.5, RED)).alpha[0, 0], 1 - 0.5 * EXP(-1.2))


def test_where_it_is_cut_has_a_gradient() -> None:
    """With y = z - z0 green is 1 - e^(-s y) + (1 - a) e^(-s y) (1 - e^(-s (L - y))), its slope a s e^(-s y)."""
    z, z0, z1 = leaf(2.5), leaf(2.0), leaf(4.0)
    color = seen(ball(z0, z1, 1.2, GREEN), wall(z, 0.5, RED))
    front, sigma = EXP(-0.3), 0.6
    same(gradient(color[1], z), 0.5 * sigma * front)
    # Red is a T: T = exp(-tau (z - z0) / (z1 - z0)).
    same(gradient(color[0], z), -0.5 * sigma * front)
    same(gradient(color[0], z0), 0.5 * front * 1.2 * (4 - 2.5) / 4)
    same(gradient(color[0], z1), 0.5 * front * 1.2 * (2.5 - 2) / 4)


def test_overlapping_segments_add_their_densities() -> None:
    """[1, 3] with density 0.4 red, [2, 5] with density 0.2 blue: three pieces."""
    for drawables in ([ball(1, 3, 0.8, RED), ball(2, 5, 0.6, BLUE)], [ball(2, 5, 0.6, BLUE), ball(1, 3, 0.8, RED)]):
        color = seen(*drawables, background=BACK)
        first, both, last = EXP(-0.4), EXP(-0.6), EXP(-0.4)
        between = first * (1 - both)
        same(
            color,
            mix(
                (1 - first, RED),
                (between * 2 / 3, RED),
                (between / 3, BLUE),
                (first * both * (1 - last), BLUE),
                (first * both * last, BACK),
            ),
        )


def test_coincident_segments_are_one_of_the_sum() -> None:
    tau = leaf(0.7)
    color = seen(ball(2, 4, tau, RED), ball(2, 4, 0.3, GREEN), background=BACK)
    absorbed = 1 - EXP(-1.0)
    same(color, mix((0.7 * absorbed, RED), (0.3 * absorbed, GREEN), (EXP(-1.0), BACK)))
    # d/dtau of tau / (tau + 0.3) (1 - e^-(tau + 0.3)) at tau + 0.3 = 1
    same(gradient(color[0], tau), 0.3 * absorbed + 0.7 * EXP(-1.0) - BACK[0] * EXP(-1.0))


def test_one_inside_the_other() -> None:
    """[2, 6] with density 0.2 red, [3, 4] with density 1.3 green."""
    color = seen(ball(3, 4, 1.3, GREEN), ball(2, 6, 0.8, RED))
    t1, t2, t3 = EXP(-0.2), EXP(-1.5), EXP(-0.4)
    between = t1 * (1 - t2)
    red = 1 - t1 + between * 0.2 / 1.5 + t1 * t2 * (1 - t3)
    same(color, mix((red, RED), (between * 1.3 / 1.5, GREEN)))


def test_boxes_are_segments_per_cell_and_add_to_others() -> None:
    """A block [2, 3] of density 0.5 in ten cells, inside a ball [1, 5] of density 0.25."""
    color = seen(block(2, 3, 0.5, RED, step=0.1), ball(1, 5, 1.0, GREEN))
    t1, t2, t3 = EXP(-0.25), EXP(-0.75), EXP(-0.5)
    between = t1 * (1 - t2)
    same(color, mix((between * 2 / 3, RED), (1 - t1 + between / 3 + t1 * t2 * (1 - t3), GREEN)))
    events = pixel_events([block(2, 3, 0.5, RED, step=0.1)], one_pixel(), RAY, 0, 0)
    assert [event.point for event in events] == ["begin", "end"] * 10
    np.testing.assert_allclose([event.z for event in events[::2]], np.arange(2, 2.95, 0.1), rtol=1e-12)
    np.testing.assert_allclose([event.value for event in events], 0.05, rtol=1e-12)


def test_many_overlapping_segments_against_quadrature() -> None:
    """Transmittance and colour as integrals over z of a sum of step functions, between their sorted ends."""
    generator = np.random.default_rng(3)
    z0 = generator.uniform(1, 5, 40)
    z1, tau, colors = z0 + generator.uniform(0.1, 3, 40), generator.uniform(0.01, 0.2, 40), generator.random((40, 3))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    points = np.unique(np.concatenate([z0, z1]))
    total, depth_before = np.zeros(3), 0.0
    for a, b in itertools.pairwise(points):
        z = a + (b - a) * 0.5 * (nodes + 1)
        inside = (z0 < 0.5 * (a + b)) & (z1 > 0.5 * (a + b))
        density = np.where(inside, tau / (z1 - z0), 0)
        transmittance = np.exp(-depth_before - (z - a) * density.sum())
        total += 0.5 * (b - a) * (weights * transmittance).sum() * (density @ colors)
        depth_before += (b - a) * density.sum()
    settings = replace(RAY, transmittance_min=0.0)
    balls = [ball(*values) for values in zip(z0, z1, tau, colors.tolist(), strict=True)]
    frame = draw(*balls, settings=settings)
    same(frame.color[0, 0], total, 1e-11)
    same(frame.alpha[0, 0], 1 - EXP(-tau.sum()))


# ---- 3. clamps act once, before the cut
def test_the_cap_is_shared_by_the_pieces() -> None:
    """tau = 40 is capped at -ln 0.01; a thin event in the middle finds 0.1 left, not 1e-9."""
    capped = ball(2, 4, 40.0, GREEN, cap=True)
    color = seen(capped, wall(3.0, 0.5, RED), background=BACK)
    same(color, mix((0.9, GREEN), (0.05, RED), (0.05 * 0.9, GREEN), (0.005, BACK)))
    same(draw(capped).alpha[0, 0], 0.99)


def test_the_threshold_looks_at_the_whole() -> None:
    """Of a segment with alpha just above 1/255, cut into three pieces, all are drawn; just below, nothing is."""
    tau = -math.log(1 - 1.001 / 255)
    walls = [wall(2.5, 0.5, RED), wall(3.0, 0.5, RED)]
    same(draw(ball(2, 4, tau, GREEN, cap=True), *walls).alpha[0, 0], 1 - 0.25 * EXP(-tau))
    same(draw(ball(2, 4, tau * 0.99, GREEN, cap=True), *walls).alpha[0, 0], 0.75)
    same(draw(ball(2, 4, tau * 0.99, GREEN), *walls).alpha[0, 0], 1 - 0.25 * EXP(-tau * 0.99))


def test_splats_are_capped_and_cut_off() -> None:
    for thin in (gaussian, THIN["gaussian_ray"], surfel):
        same(seen(thin(2.0, 1.0, RED), background=GREEN), mix((0.99, RED), (0.01, GREEN)))
        same(seen(thin(2.0, 0.999 / 255, RED)), np.zeros(3))
        same(seen(thin(2.0, 1.001 / 255, RED)), mix((1.001 / 255, RED)))


# ---- 4. alpha = 1
@pytest.mark.parametrize("opacity", [0.99, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("limit", [1e-4, 0.0])
def test_near_opaque_events_and_their_derivative(opacity: float, limit: float) -> None:
    """Behind the red wall a green one (0.5) before the background, evaluated only if the ray has not ended."""
    alpha, behind_alpha = leaf(opacity), leaf(0.5)
    settings = replace(RAY, transmittance_min=limit)
    color = seen(wall(2.0, alpha, RED), wall(3.0, behind_alpha, GREEN), background=BACK, settings=settings)
    ended = 1 - opacity < limit
    behind = np.array(BACK) if ended else mix((0.5, GREEN), (0.5, BACK))
    same(color, opacity * np.array(RED) + (1 - opacity) * behind)
    for channel in range(3):
        same(gradient(color[channel], alpha), RED[channel] - behind[channel])
        difference = 0.0 if ended else (1 - opacity) * (GREEN[channel] - BACK[channel])
        same(gradient(color[channel], behind_alpha), difference)


@pytest.mark.parametrize("z", [1.0, 3.0, 5.0])
def test_an_opaque_wall_in_and_around_a_segment(z: float) -> None:
    alpha, tau = leaf(1.0), leaf(2.0)
    color = seen(wall(z, alpha, RED), ball(2, 4, tau, GREEN), background=BACK)
    before = min(max((z - 2) / 2, 0), 1)
    t = EXP(-2 * before)
    same(color, mix((1 - t, GREEN), (t, RED)))
    same(gradient(color[0], alpha), t * (1 - BACK[0]))
    same(gradient(color[1], tau), before * t)


def test_the_ray_ends_after_what_brings_it_below_the_limit() -> None:
    """Three walls of 0.99: T = 1e-2, 1e-4, 1e-6. With 1e-4 the third counts (T is not below), with 2e-4 it does not."""
    walls = [wall(1.0, 0.99, RED), wall(2.0, 0.99, GREEN), wall(3.0, 0.99, BLUE)]
    below, above = replace(RAY, transmittance_min=0.9e-4), replace(RAY, transmittance_min=2e-4)
    same(seen(*walls, settings=below), [0.99, 0.0099, 0.99e-4])
    same(seen(*walls, settings=above), [0.99, 0.0099, 0.0])
    # A segment is cut by what happens in it: its piece behind the end is dropped, the one that crosses is whole.
    color = seen(ball(1, 3, 20.0, RED), wall(2.0, 0.5, GREEN), settings=replace(RAY, transmittance_min=1e-4))
    same(color, [1 - EXP(-10), 0, 0])


# ---- near plane, behind the camera
@pytest.mark.parametrize("thin", THIN)
def test_thin_events_before_the_near_plane_do_not_happen(thin: str) -> None:
    settings = replace(RAY, near=0.5)
    for z, shown in [(-2.0, False), (0.4999, False), (0.5, True), (0.5001, True)]:
        same(draw(THIN[thin](z, 0.5, RED), settings=settings).alpha[0, 0], 0.5 if shown else 0.0)


def test_segments_are_clamped_to_the_near_plane() -> None:
    """A ball [-1, 3] of density 0.3 per z, seen from inside: what is left of it is [0.5, 3]; near takes no gradient."""
    z, tau = leaf(1.0), leaf(1.2)
    inside = ball(z - 2, z + 2, tau, RED)
    frame = draw(inside, settings=replace(RAY, near=0.5))
    left = EXP(-0.3 * 2.5)
    same(frame.alpha[0, 0], 1 - left)
    same(gradient(frame.alpha[0, 0], z), 0.3 * left)  # only the far end moves
    same(gradient(frame.alpha[0, 0], tau), 2.5 / 4 * left)
    assert frame.depth is not None
    x = 0.3 * 2.5
    same(frame.depth[0, 0], 0.5 + 2.5 * (1 / x - left / (1 - left)))
    for z0, z1, expected in [(-3.0, -1.0, 0.0), (-1.0, 0.5, 0.0), (-0.5, 0.5 + 1e-9, 1e-9), (0.5, 1.5, 1.0)]:
        got = draw(ball(z0, z1, z1 - z0, RED), settings=replace(RAY, near=0.5)).alpha[0, 0]
        same(got, 1 - EXP(-expected))


def test_triangles_pass_through_the_camera_plane() -> None:
    """A floor y = 1 from behind the camera to far ahead; every ray below the horizon hits it at z = 1 / v."""
    camera = one_pixel(1, 8)
    corners = torch.tensor([[[-500.0, 1, -300], [500, 1, -300], [0, 1, 900]]], dtype=torch.float64)
    floor = replace(wall(2.0, 0.5, RED), corners=corners)
    frame = draw(floor, camera=camera, settings=replace(RAY, near=1.0, normals=True))
    v = (np.arange(8) + 0.5 - 4) / 8
    hit = (v > 0) & (1 / np.where(v > 0, v, 1) >= 1)
    assert frame.depth is not None
    assert frame.normal is not None
    same(frame.alpha[:, 0], np.where(hit, 0.5, 0))
    same(frame.depth[:, 0], np.where(hit, 1 / np.where(v > 0, v, 1), 0))
    same(frame.normal[:, 0], np.where(hit[:, None], [0, -0.5, 0], 0))


# ---- 5. order = centre
def test_centre_order_has_one_key_per_primitive() -> None:
    """The ball's key is 3: before a wall at 3.5 it is one thin event, though it reaches to 4."""
    frame = draw(wall(3.5, 0.5, RED), ball(2, 4, 0.8, GREEN), background=BACK, settings=CENTRE)
    absorbed = 1 - EXP(-0.8)
    left = EXP(-0.8) * 0.5
    same(frame.color[0, 0], mix((absorbed, GREEN), (left, RED), (left, BACK)))
    assert frame.depth is not None
    same(frame.depth[0, 0], (3 * absorbed + 3.5 * left) / (absorbed + left))


def test_in_centre_order_a_box_keeps_its_cells_together() -> None:
    """A block [2, 3] around a wall at 2.4, whose key is nearer: the wall comes before all cells."""
    color = seen(block(2, 3, 0.5, RED, step=0.25), wall(2.4, 0.5, GREEN), settings=CENTRE)
    same(color, mix((0.5, GREEN), (0.5 * (1 - EXP(-0.5)), RED)))


def test_slanted_triangle_is_ordered_by_its_centroid_or_by_its_hit() -> None:
    """Its plane meets the axis at z = 5, its centroid lies at z = 4; beside it a wall at 4.5."""
    corners = torch.tensor([[[-1.0, -1, 2], [-1, 1, 2], [1, 0, 8]]], dtype=torch.float64)
    slanted = replace(wall(2.0, 0.5, RED), corners=corners)
    frame = draw(slanted)
    assert frame.depth is not None
    same(frame.depth[0, 0], 5.0)
    same(seen(slanted, wall(4.5, 0.5, GREEN)), mix((0.5, GREEN), (0.25, RED)))
    same(seen(slanted, wall(4.5, 0.5, GREEN), settings=CENTRE), mix((0.5, RED), (0.25, GREEN)))


# ---- 8. what the frame offers
def test_statistics_name_first_median_and_dominant() -> None:
    """Primitives: 0 ball [2, 4] tau 0.4, 1 ball [3, 5] tau 2, 2 wall at 1 (0.2), 3 wall at 6 (1)."""
    frame = draw(ball(2, 4, 0.4, RED), ball(3, 5, 2.0, GREEN), wall(1.0, 0.2, BLUE), wall(6.0, 1.0, RED))
    first_piece, both, last = 0.8 * EXP(-0.2), EXP(-1.2), EXP(-1.0)
    red = 0.8 * (1 - EXP(-0.2)) + first_piece * (1 - both) * 0.2 / 1.2
    green = first_piece * (1 - both) / 1.2 + first_piece * both * (1 - last)
    assert frame.contribution_sum is not None
    assert frame.contribution_max is not None
    assert frame.depth_first is not None
    assert frame.depth_median is not None
    expected = [red, green, 0.2, first_piece * both * last]
    same(frame.contribution_sum, expected)
    same(frame.contribution_max, expected)
    assert {name: int(ids[0, 0]) for name, ids in frame.ids.items()} == {"first": 2, "median": 1, "dominant": 1}
    same(frame.depth_first[0, 0], 1.0)
    # T after the first piece is above one half; it passes it between 3 and 4.
    same(frame.depth_median[0, 0], 3 + math.log(first_piece / 0.5) / 1.2)


def test_median_may_be_a_thin_event_or_absent() -> None:
    frame = draw(ball(2, 4, 0.2, RED), wall(3.0, 0.6, GREEN))
    assert frame.depth_median is not None
    assert int(frame.ids["median"][0, 0]) == 1
    same(frame.depth_median[0, 0], 3.0)
    none = draw(ball(2, 4, 0.2, RED))
    assert none.depth_median is not None
    assert int(none.ids["median"][0, 0]) == -1
    same(none.depth_median[0, 0], 0.0)
    empty = draw(wall(-3.0, 0.6, GREEN))
    assert {int(ids[0, 0]) for ids in empty.ids.values()} == {-1}


def test_features_of_some_and_normals() -> None:
    """Drawables without features count as zero; fewer features than others: the rest is zero."""
    features = torch.tensor([[[2.0, -3.0]] * 3], dtype=torch.float64)
    one = torch.tensor([[5.0]], dtype=torch.float64)
    front = surfel(1.0, 0.5, RED, features=one)
    settings = replace(RAY, normals=True)
    frame = draw(front, gaussian(2.0, 0.5, GREEN), wall(3.0, 0.5, BLUE, features=features), settings=settings)
    assert frame.features is not None
    assert frame.normal is not None
    same(frame.features[0, 0], [0.5 * 5 + 0.125 * 2, -0.125 * 3])
    same(frame.normal[0, 0], [0, 0, -0.625])  # turned towards the camera; the Gaussian has none
    assert draw(front).normal is None
    assert draw(wall(1.0, 0.5, RED)).features is None


def test_events_of_a_pixel_are_listed_in_order() -> None:
    drawables = [ball(2, 4, 0.4, RED), wall(3.0, 0.2, BLUE), ball(3.5, 5, 2.0, GREEN)]
    events = pixel_events(drawables, one_pixel(), RAY, 0, 0)
    assert [(e.point, e.primitive) for e in events] == [
        ("begin", 0),
        ("thin", 1),
        ("begin", 2),
        ("end", 0),
        ("end", 2),
    ]
    np.testing.assert_allclose([e.z for e in events], [2, 3, 3.5, 4, 5], rtol=1e-12)
    np.testing.assert_allclose([e.value for e in events], [0.4, 0.2, 2.0, 0.4, 2.0], rtol=1e-12)


def test_the_background_takes_its_gradient() -> None:
    background = leaf([0.1, 0.2, 0.3])
    color = seen(ball(2, 4, 0.4, RED), wall(3.0, 0.2, BLUE), background=background)
    same(gradient(color.sum(), background), np.full(3, EXP(-0.4) * 0.8))
