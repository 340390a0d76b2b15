"""Chamfer distances against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from smalti.primitives.surface import Surface, icosphere
from smalti.testing.chamfer import chamfer, nearest_distances, sampled, thinned


def square(side: float, height: float) -> Surface:
    """Parallel to the xy plane, one corner at the origin."""
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) * side
    corners[:, 2] = height
    return Surface(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def test_nearest_is_exact_and_blockwise(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    points, others = (torch.rand(n, 3, generator=generator, dtype=torch.float64) for n in (57, 83))
    expected = (points[:, None] - others[None]).norm(dim=2).amin(dim=1)
    assert torch.allclose(nearest_distances(points, others), expected, atol=1e-15)
    monkeypatch.setattr("smalti.testing.chamfer.BLOCK", 100)  # one row at a time
    assert torch.allclose(nearest_distances(points, others), expected, atol=1e-15)
    # Far from the origin, where an expanded square would have lost everything.
    assert torch.allclose(nearest_distances(points + 1e6, others + 1e6), expected, atol=1e-9)


def test_both_directions_and_their_mean() -> None:
    """Of hand-made points: accuracy (0.1 + 0.3) / 2, completeness (0.1 + 0.3 + 2.3) / 3."""
    samples = torch.tensor([[0.1, 0, 0], [1.3, 0, 0]])
    truth = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 2.023199, 0]])  # the last is 2.3 from the first sample
    found = chamfer(samples, truth)
    assert found.accuracy == pytest.approx(0.2, abs=1e-6)
    last = math.hypot(1.1, 2.023199)
    assert found.completeness == pytest.approx((0.1 + 0.3 + last) / 3, abs=1e-6)
    assert found.mean == pytest.approx((found.accuracy + found.completeness) / 2)
    limited = chamfer(samples, truth, limit=0.2)
    assert (limited.accuracy, limited.completeness) == pytest.approx((0.1, 0.1), abs=1e-6)
    assert (limited.samples, limited.truths) == (1, 1)
    # Samples outside of the observed volume are not judged, but complete the truth all the same.
    observed = chamfer(samples, truth, within=torch.tensor([True, False]))
    assert observed.accuracy == pytest.approx(0.1, abs=1e-6)
    assert observed.completeness == found.completeness
    assert math.isnan(chamfer(samples, truth, limit=0.01).mean)
    with pytest.raises(ValueError, match="0 samples against 3 points"):
        chamfer(samples[:0], truth)


def test_of_parallel_squares_and_of_spheres() -> None:
    """Two squares at distance h are h apart; two concentric spheres |R - r|; up to the spacing of the samples."""
    generator = torch.Generator().manual_seed(1)
    low, high = (sampled(square(1.0, height), 0.02, generator) for height in (0.0, 0.25))
    found = chamfer(low, high)
    assert found.accuracy == pytest.approx(0.25, abs=1e-3)
    assert found.completeness == pytest.approx(0.25, abs=1e-3)
    ball = icosphere(4)
    small, large = (sampled(Surface(ball.vertices * r, ball.faces), 0.03, generator) for r in (0.5, 0.6))
    found = chamfer(small, large)
    assert found.accuracy == pytest.approx(0.1, abs=3e-3)
    assert found.completeness == pytest.approx(0.1, abs=3e-3)
    # A square of half the side: all of it lies on the large one. The way back has a closed form: the integral over the
    # L-shaped rest of the distance to the small square, 2 times that of x over (0, 1/2) x (0, 1/2) and that of
    # |(x, y)| over (0, 1/2)^2. Samples do not reach the very edge: a little more than that, less than one spacing.
    half = sampled(square(0.5, 0.0), 0.01, generator)
    found = chamfer(half, sampled(square(1.0, 0.0), 0.01, generator))
    corner = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 3 * 0.5**3
    assert 0 < found.completeness - (2 * 0.125 * 0.5 + corner) < 0.01
    assert found.accuracy < 0.006


def test_thinning_is_greedy_in_radius() -> None:
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(3000, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.2])
    rows = thinned(points, 0.08, generator)
    kept = points[rows].double()
    apart = torch.cdist(kept, kept) + 10 * torch.eye(len(kept))
    assert float(apart.min()) >= 0.08  # no two are nearer
    assert float(nearest_distances(points, kept).max()) < 0.08  # and none could have stayed
    assert bool((rows[1:] > rows[:-1]).all())
    assert len(thinned(points[:0], 0.1, generator)) == 0
    # Samples of a surface: as many as of discs that nearly cover it.
    count = len(sampled(square(1.0, 0.0), 0.05, generator))
    assert 0.55 / 0.05**2 < count < 1.1 / 0.05**2
    assert len(sampled(Surface(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 0.1, generator)) == 0
    with pytest.raises(ValueError, match="spacing"):
        sampled(square(1.0, 0.0), 0.0, generator)
