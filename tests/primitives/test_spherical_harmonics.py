"""Rotation of spherical-harmonics coefficients, judged by evaluating the renderer's basis in turned directions."""

from __future__ import annotations

import math

import pytest
import torch

from smalti.primitives.spherical_harmonics import rotate_rest
from smalti.renderers.spherical_harmonics import spherical_harmonics_basis


def random_rotation(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * torch.sign(torch.linalg.det(q))


def random_directions(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=-1)


def random_rest(count: int, rest: int, seed: int) -> torch.Tensor:
    return torch.randn(count, rest, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_signs_and_order_are_those_of_3dgs() -> None:
    special = pytest.importorskip("scipy.special", reason="scipy judges the basis")
    directions = random_directions(20, 1)
    polar, azimuth = torch.acos(directions[:, 2]).numpy(), torch.atan2(directions[:, 1], directions[:, 0]).numpy()
    y = spherical_harmonics_basis(directions, 3)
    for level in range(4):
        for m in range(-level, level + 1):
            value = special.sph_harm_y(level, abs(m), polar, azimuth)  # with the Condon-Shortley phase
            real = value.real if m == 0 else math.sqrt(2) * (value.imag if m < 0 else value.real)
            expected = torch.from_numpy(real)
            torch.testing.assert_close(y[:, level * level + level + m], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rotated_coefficients_evaluate_as_the_turned_function(degree: int) -> None:
    for seed in range(5):
        rotation, directions = random_rotation(seed), random_directions(50, seed + 100)
        rest = random_rest(7, (degree + 1) ** 2 - 1, seed)
        turned = rotate_rest(rest, rotation)
        before = torch.einsum("dk,nkc->ndc", spherical_harmonics_basis(directions, degree)[:, 1:], rest)
        there = spherical_harmonics_basis(directions @ rotation.T, degree)[:, 1:]  # at R d
        torch.testing.assert_close(torch.einsum("dk,nkc->ndc", there, turned), before, atol=1e-12, rtol=0)


def test_rotations_compose_and_keep_lengths() -> None:
    first, second, rest = random_rotation(3), random_rotation(4), random_rest(9, 15, 5)
    twice = rotate_rest(rotate_rest(rest, first), second)
    torch.testing.assert_close(twice, rotate_rest(rest, second @ first), atol=1e-12, rtol=0)
    for band in (slice(0, 3), slice(3, 8), slice(8, 15)):
        torch.testing.assert_close(rotate_rest(rest, first)[:, band].norm(dim=1), rest[:, band].norm(dim=1))


def test_without_coefficients_nothing_happens() -> None:
    empty = torch.zeros(4, 0, 3)
    assert rotate_rest(empty, random_rotation(0)).shape == (4, 0, 3)
