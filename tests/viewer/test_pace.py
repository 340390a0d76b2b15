"""What a picture costs is measured, and decides its size."""

from __future__ import annotations

import pytest

from smalti.viewer.pace import SMALLEST, Cost


def made(fixed: float, slope: float, sizes: list[int]) -> Cost:
    cost = Cost()
    for pixels in sizes:
        cost.add(pixels, fixed + slope * pixels)
    return cost


def test_costs_are_found_again() -> None:
    fixed, slope = made(0.02, 3e-7, [20_000, 90_000, 480_000]).fit()
    assert fixed == pytest.approx(0.02)
    assert slope == pytest.approx(3e-7)


def test_pictures_of_one_size_are_charged_by_the_pixel() -> None:
    assert made(0.02, 3e-7, [100_000] * 4).fit() == pytest.approx((0.0, 5e-7))


@pytest.mark.parametrize("fixed", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("slope", [1e-9, 1e-7, 1e-5])
def test_the_scale_keeps_to_the_target_and_to_its_bounds(fixed: float, slope: float) -> None:
    cost, pixels, target = made(fixed, slope, [5_000, 50_000, 480_000]), 480_000, 0.08
    scale = cost.scale(pixels, target)
    assert SMALLEST <= scale <= 1.0
    if scale > SMALLEST and fixed < 0.75 * target:
        assert fixed + slope * pixels * scale**2 <= target * 1.01
    if scale < 1.0:
        assert fixed + slope * pixels * (scale / 0.8) ** 2 > 0.25 * target, "it could have been larger"


def test_a_high_fixed_cost_does_not_shrink_the_picture_to_nothing() -> None:
    """Where time does not depend on the size, small pictures would only be ugly."""
    cost = Cost()
    scale = 1.0
    for _ in range(30):
        pixels = int(480_000 * scale**2)
        cost.add(pixels, 0.2 + 1e-8 * pixels)
        scale = cost.scale(480_000, 0.08)
    assert scale == 1.0


def test_steady_costs_give_a_steady_size() -> None:
    cost, scales = Cost(), [1.0]
    for _ in range(30):
        pixels = int(480_000 * scales[-1] ** 2)
        cost.add(pixels, 0.01 + 5e-7 * pixels)
        scales.append(cost.scale(480_000, 0.08))
    assert len(set(scales[5:])) == 1
    assert 0.4 < scales[-1] < 0.7
