"""The box kind on the oracle: lookups, window, march, and the additive rule with its gradients (Lombardi et al. 2021).

Numbers in names are those of the tests proposed for the published primitive.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from on_axis import BACK, GREEN, RAY, RED, UPRIGHT, at, block, draw, leaf, numbers, one_pixel, seen, wall
from test_oracle_neural import looking, product, rotation
from torch import Tensor

from smalti.renderers.drawables import BoxDrawable
from smalti.renderers.oracle_kinds.picture import pixel_events
from smalti.renderers.settings import RenderSettings

BOTH = ("exponential", "additive")


def absorbed(*boxes: BoxDrawable, **other: Any) -> float:
    """What the boxes add up to on the axis: A, or the optical depth."""
    alpha = float(draw(*boxes, **other).alpha[0, 0].detach())
    return alpha if boxes[0].accumulation == "additive" else -math.log1p(-alpha)


def some_boxes(accumulation: str, density: float = 0.6, step: float = 0.07, **other: Any) -> BoxDrawable:
    """Five boxes of random payload around the origin."""
    generator = torch.Generator().manual_seed(2)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    payload = uniform(5, 3, 4, 5, 4)
    payload[..., 3] *= density
    values: dict[str, Any] = {"step": step, "accumulation": accumulation, **other}
    return BoxDrawable(uniform(5, 3) - 0.5, uniform(5, 4) - 0.5, 0.4 + 0.4 * uniform(5, 3), payload, **values)


@pytest.mark.parametrize("accumulation", BOTH)
def test_1_constant_density(accumulation: str) -> None:
    """density times the length, to one step; with the window times the mean of exp(-8 y^8), 0.7262."""
    for step in (0.1, 0.013, 0.0017):
        box = block(2, 4, 0.3, RED, step, accumulation=accumulation)
        assert abs(absorbed(box) - 0.6) <= 0.3 * step + 1e-12
        faded = replace(box, fade_scale=8.0)
        y = (np.arange(200_000) + 0.5) / 200_000
        mean = np.exp(-8 * y**8).mean()
        assert abs(mean - 0.7262) < 5e-5
        assert abs(absorbed(faded) - 0.6 * mean) <= 0.3 * step


def test_window_in_all_three_directions() -> None:
    """A ray beside the axis: the window is the product of those of the three coordinates, at each sample."""
    camera = one_pixel(3, 3, focal=8.0)
    box = replace(block(2, 4, 0.4, RED, 0.05), fade_scale=6.5, fade_exponent=7.5)
    alpha = draw(box, camera=camera).alpha
    for row, column in np.ndindex(3, 3):
        direction = np.array([(column - 1) / 8, (row - 1) / 8, 1.0])
        length = np.linalg.norm(direction)
        total = 0.0
        for n in range(200):
            y = direction / length * (n + 0.5) * 0.05 - [0, 0, 3]
            if (np.abs(y) < 1).all():
                total += 0.4 * 0.05 * math.exp(-6.5 * (np.abs(y) ** 7.5).sum())
        np.testing.assert_allclose(alpha[row, column], 1 - math.exp(-total), rtol=1e-12)


def test_2_saturation() -> None:
    """Twice the density saturates at half the depth; A stays 1, and the last weight is what is left."""
    for density in (0.6, 1.2, 2.4):
        box = block(2, 4, density, RED, 0.125, accumulation="additive")
        behind = block(5, 6, 0.5, GREEN, 0.125, accumulation="additive")
        color = seen(box, behind, background=BACK)
        np.testing.assert_allclose(color, RED, atol=1e-12)
        assert absorbed(box, behind) == pytest.approx(1.0, abs=1e-12)
    # 0.4 red, then 0.5 per z green: of 0.7 only 0.6 fits.
    color = seen(
        block(2, 3, 0.4, RED, 0.125, accumulation="additive"),
        block(4, 5, 0.7, GREEN, 0.125, accumulation="additive"),
        background=BACK,
    )
    np.testing.assert_allclose(color, [0.4, 0.6, 0], atol=1e-12)


@pytest.mark.parametrize(("density", "saturated"), [(0.15, False), (20.0, True)])
def test_3_order_of_the_list(density: float, saturated: bool) -> None:
    """A, and the colour too: cells of several boxes coincide, so there is nothing to order even where rays saturate."""
    camera = looking(9, 7)
    boxes = some_boxes("additive", density)
    frames = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3], [1, 0, 4, 3, 2]):
        rows = {name: getattr(boxes, name)[order] for name in ("centres", "quaternions", "half_extents", "payload")}
        frames.append(draw(replace(boxes, **rows), camera=camera, background=BACK))
    assert bool((frames[0].alpha > 1 - 1e-12).any()) == saturated
    for frame in frames[1:]:
        np.testing.assert_allclose(frame.alpha, frames[0].alpha, atol=1e-12)
        np.testing.assert_allclose(frame.color, frames[0].color, atol=1e-12)


@pytest.mark.parametrize("accumulation", BOTH)
def test_4_two_halves_are_one(accumulation: str) -> None:
    camera = looking(9, 7)
    whole = some_boxes(accumulation, 3.0)
    half = replace(whole, payload=whole.payload * numbers([1, 1, 1, 0.5]))
    twice = draw(half, half, camera=camera, background=BACK)
    once = draw(whole, camera=camera, background=BACK)
    assert float(once.alpha.max()) > 0.9
    np.testing.assert_allclose(twice.color, once.color, atol=1e-12)
    np.testing.assert_allclose(twice.alpha, once.alpha, atol=1e-12)


def test_5_the_rules_agree_only_for_thin_content() -> None:
    camera = looking(9, 7)
    for density, thin in ((1e-4, True), (5.0, False)):
        pictures = [draw(some_boxes(rule, density), camera=camera).alpha for rule in BOTH]
        difference = float((pictures[0] - pictures[1]).abs().max())
        largest = float(pictures[1].max())
        assert difference < largest**2 if thin else difference > 0.01


@pytest.mark.parametrize("order", ["centre", "ray"])
def test_additive_accumulation_is_along_the_ray(order: Any) -> None:
    """The nearer centre belongs to the box that lies behind along the axis."""
    front = block(2, 6, 0.2, RED, 0.125, accumulation="additive")
    inside = block(3, 4, 0.5, GREEN, 0.125, accumulation="additive")
    color = seen(front, inside, background=BACK, settings=RenderSettings(order=order))
    # A: 0.2 at z = 3; then 0.7 per z in the mixture, 0.9 at z = 4; 0.1 more at z = 4.5, where it is full.
    np.testing.assert_allclose(color, [0.2 + 0.2 + 0.1, 0.5, 0], atol=1e-12)


def test_additive_gradients_without_saturation() -> None:
    """dL/dtau_i = c_i dL/dC + dL/dA, where dA takes the background away: per unit of density times its length."""
    density, color = leaf(0.3), leaf([0.9, 0.2, 0.4])
    picture = seen(
        block(2, 3, density, color, 0.125, accumulation="additive"),
        block(4, 5, 0.4, GREEN, 0.125, accumulation="additive"),
        background=BACK,
    )
    for channel in range(3):
        gradients = torch.autograd.grad(picture[channel], [density, color], retain_graph=True)
        np.testing.assert_allclose(gradients[0], float(color[channel].detach()) - BACK[channel], atol=1e-12)
        np.testing.assert_allclose(gradients[1], 0.3 * np.eye(3)[channel], atol=1e-12)


def test_6_additive_gradients_of_a_saturated_ray() -> None:
    """Before saturation dL/da_i = c_i - c_sat; the saturating sample and those behind: 0."""
    density = leaf([0.5] * 8)
    colors = leaf([[0.1 * k + 0.05, 0.3, 1 - 0.1 * k] for k in range(8)])
    # Eight boxes of one cell each, which would give 0.25 each behind a first one of 0.1: the fourth has room for 0.15.
    boxes = [block(2 + k, 2.5 + k, density[k], colors[k], 0.5, accumulation="additive") for k in range(8)]
    picture = seen(*boxes, block(1, 1.5, 0.2, GREEN, 0.5, accumulation="additive"), background=BACK)
    c = colors.detach().numpy()
    np.testing.assert_allclose(picture.detach(), 0.1 * np.array(GREEN) + 0.25 * c[:3].sum(0) + 0.15 * c[3], rtol=1e-12)
    for channel in range(3):
        to_density, to_colors = torch.autograd.grad(picture[channel], [density, colors], retain_graph=True)
        expected = np.zeros(8)
        expected[:3] = 0.5 * (c[:3, channel] - c[3, channel])
        np.testing.assert_allclose(to_density, expected, atol=1e-12)
        weights = np.array([0.25, 0.25, 0.25, 0.15, 0, 0, 0, 0])
        np.testing.assert_allclose(to_colors[:, channel], weights, atol=1e-12)


def test_6_a_ray_that_saturates_on_its_first_sample() -> None:
    density, color = leaf(30.0), leaf([0.9, 0.2, 0.4])
    picture = seen(block(2, 4, density, color, 0.125, accumulation="additive"), background=BACK)
    np.testing.assert_allclose(picture.detach(), color.detach(), rtol=1e-12)
    gradients = torch.autograd.grad(picture[0], [density, color])
    np.testing.assert_allclose(gradients[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(gradients[1], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("accumulation", BOTH)
@pytest.mark.parametrize("density", [0.4, 6.0])
def test_6_all_gradients_against_central_differences(accumulation: str, density: float) -> None:
    """Payload, place, rotation, size, warp; samples near a box's faces are dark through the window."""
    camera = looking(4, 3)
    generator = torch.Generator().manual_seed(4)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 3, dtype=torch.float64)] * 3, indexing="ij")[::-1], -1)
    warp = 0.8 * grid + 0.15 * torch.rand(5, 3, 3, 3, 3, generator=generator, dtype=torch.float64)
    boxes = some_boxes(accumulation, density, warp=warp, fade_scale=30.0, fade_exponent=6.0)
    names = ("centres", "quaternions", "half_extents", "payload", "warp")
    leaves = {name: getattr(boxes, name).clone().requires_grad_() for name in names}
    weights = torch.rand(3, 4, 4, generator=generator, dtype=torch.float64)
    settings = replace(RAY, transmittance_min=0.0)

    def loss(given: dict[str, Tensor]) -> Tensor:
        frame = draw(replace(boxes, **given), camera=camera, background=BACK, settings=settings)
        return (torch.cat([frame.color, frame.alpha[..., None]], dim=-1) * weights).sum()

    loss(leaves).backward()
    for name, value in leaves.items():
        assert value.grad is not None
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            ends = [loss({**leaves, name: value + sign * 1e-6 * direction}) for sign in (-1, 1)]
        found = float(ends[1] - ends[0]) / 2e-6
        expected = float((value.grad * direction).sum())
        assert abs(found - expected) < 1e-6 * max(abs(expected), float(value.grad.abs().max())), name


def test_7_lookup_of_linear_functions() -> None:
    """x along the last voxel axis; a linear function at the voxels gives that function everywhere, up to +-1."""
    axes = [torch.linspace(-1, 1, size, dtype=torch.float64) for size in (3, 4, 5)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    payload = torch.stack([0.5 + 0.25 * x, 0.5 + 0.25 * y, 0.5 - 0.25 * z, 1 + 0.5 * x + 0.25 * y + 0.125 * z], -1)
    half = numbers([[0.5, 0.75, 1.0]])
    step = 1e-3
    box = BoxDrawable(at(3.0), UPRIGHT, half, payload[None], step=step, fade_scale=0.0)
    camera = one_pixel(5, 5, focal=12.0)
    settings = replace(RAY, transmittance_min=0.0)
    frame = draw(box, camera=camera, settings=settings)
    for row, column in itertools.product(range(5), range(5)):
        direction = np.array([(column - 2) / 12, (row - 2) / 12, 1.0])
        direction /= np.linalg.norm(direction)
        t = (np.arange(5000) + 0.5) * step
        local = (t[:, None] * direction - [0, 0, 3]) / half.numpy()
        local = local[(np.abs(local) < 1).all(1)]
        tau = step * (1 + local @ [0.5, 0.25, 0.125])
        before = np.exp(-np.concatenate([[0], np.cumsum(tau)[:-1]]))
        colors = 0.5 + local * [0.25, 0.25, -0.25]
        expected = (before * -np.expm1(-tau)) @ colors
        np.testing.assert_allclose(frame.color[row, column], expected, rtol=1e-10, atol=1e-12)
    # The first and last samples are within half a step of y = +-1.
    depth = -torch.log1p(-frame.alpha[2, 2])
    np.testing.assert_allclose(depth, 2.0, rtol=2e-3)


def test_warp_moves_the_lookup_and_not_the_window() -> None:
    """A warp that mirrors x, at twice the distance: lookup at clamp(-2 x), window where the sample is."""
    axes = [torch.linspace(-1, 1, size, dtype=torch.float64) for size in (2, 2, 3)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    payload = torch.stack([0.5 + 0.5 * x, 0 * x, 0 * x, 0.5 + 0 * x], dim=-1)[None]
    warp = torch.stack([-2 * x, y, z], dim=-1)[None]
    box = BoxDrawable(at(3.0), UPRIGHT, numbers([[1.0, 1.0, 0.05]]), payload, warp, step=0.1, fade_scale=8.0)
    camera = one_pixel(9, 1, focal=13.5)
    color, alpha = (getattr(draw(box, camera=camera), name)[0] for name in ("color", "alpha"))
    for column in range(9):
        slope = (column - 4) / 13.5
        length = math.hypot(1, slope)
        n = [n for n in range(60) if abs((n + 0.5) * 0.1 / length - 3) < 0.05]
        assert len(n) == 1
        z_hit = (n[0] + 0.5) * 0.1 / length
        y_x, y_z = slope * z_hit, (z_hit - 3) / 0.05
        expected = 1 - math.exp(-0.05 * math.exp(-8 * (abs(y_x) ** 8 + abs(y_z) ** 8)))
        np.testing.assert_allclose(alpha[column], expected, rtol=1e-10)
        red = 0.5 + 0.5 * min(max(-2 * y_x, -1), 1)
        np.testing.assert_allclose(color[column, 0], red * expected, rtol=1e-10)


def test_negative_densities_count_as_nothing() -> None:
    box = block(2, 4, -0.5, RED, 0.1)
    assert pixel_events([box], one_pixel(), RAY, 0, 0) == []
    np.testing.assert_allclose(seen(box, wall(5.0, 0.5, GREEN)), [0, 0.5, 0], atol=1e-15)


@pytest.mark.parametrize("accumulation", BOTH)
def test_8_rigid_motion_and_scale_of_the_world(accumulation: str) -> None:
    camera = looking(9, 7)
    boxes = some_boxes(accumulation, 2.0)
    before = draw(boxes, camera=camera)
    assert float(before.alpha.max()) > 0.5
    half = 0.4
    turn = numbers([math.cos(half), 0.0, math.sin(half), 0.0])
    matrix, shift = torch.from_numpy(rotation(turn.numpy())), numbers([0.3, -2.0, 1.1])
    moved = replace(
        boxes,
        centres=boxes.centres @ matrix.T + shift,
        quaternions=torch.cat([product(turn, q) for q in boxes.quaternions]),
    )
    turned = camera.rotation @ matrix.T
    after = draw(moved, camera=replace(camera, rotation=turned, translation=camera.translation - turned @ shift))
    np.testing.assert_allclose(after.color, before.color, atol=1e-10)
    # Ten times as large, at ten times the step: densities are per length.
    large = replace(
        boxes,
        centres=10 * boxes.centres,
        half_extents=10 * boxes.half_extents,
        payload=boxes.payload * numbers([1, 1, 1, 0.1]),
        step=10 * boxes.step,
    )
    after = draw(large, camera=replace(camera, translation=10 * camera.translation))
    np.testing.assert_allclose(after.color, before.color, atol=1e-10)


def test_13_halving_the_step_halves_the_error() -> None:
    """On average over pixels and steps: faces cut through cells (first order), inside the midpoints do better."""
    camera = looking(5, 4)
    sharp = {"fade_scale": 0.0}
    exact = draw(some_boxes("exponential", 1.0, step=0.0005, **sharp), camera=camera).alpha
    errors = []
    for step in (0.064, 0.032, 0.016, 0.008):
        alpha = draw(some_boxes("exponential", 1.0, step=step, **sharp), camera=camera).alpha
        errors.append(float((alpha - exact).abs().mean()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert 0.6 < sum(orders) / 3 < 2.2, errors


def test_cells_begin_at_the_camera_and_at_near() -> None:
    """A camera inside of a box: cells whose sample lies before the near plane are left out, others are whole."""
    box = block(-2, 2, 0.5, RED, 0.25)
    for near, cells in ((0.0, 8), (0.125, 8), (0.126, 7), (0.6, 6), (1.9, 0)):
        depth = absorbed(box, settings=replace(RAY, near=near))
        np.testing.assert_allclose(depth, 0.5 * 0.25 * cells, rtol=1e-12, atol=1e-12)
    camera = replace(one_pixel(), translation=numbers([0.0, 0.0, -3.0]))
    assert absorbed(box, camera=camera) == 0


def test_skipped_boxes_are_counted() -> None:
    good = block(2, 4, 0.5, RED, 0.1)
    bad_payload = good.payload.clone()
    bad_payload[0, 1, 1, 0, 3] = math.nan
    bad = [
        replace(good, payload=bad_payload),
        replace(good, half_extents=numbers([[1.0, -1.0, 1.0]])),
        replace(good, quaternions=0 * UPRIGHT),
        replace(good, centres=at(math.inf)),
    ]
    frame = draw(*bad, good)
    assert frame.visibility.skipped == 4
    np.testing.assert_allclose(frame.alpha[0, 0], 1 - math.exp(-1), rtol=1e-12)
