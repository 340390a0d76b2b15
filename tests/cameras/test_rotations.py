"""Rotation helpers: group properties, agreement with torch's matrix exponential, gradients at the identity."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smalti.cameras import rotations as so3

vectors = st.lists(st.floats(-1.7, 1.7), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
quaternions = (
    st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4)
    .map(lambda v: torch.tensor(v, dtype=torch.float64))
    .filter(lambda q: float(q.norm()) > 0.1)
)
TINY = [0.0, 1e-300, 1e-12, 1e-6, 9.9e-4, 1.01e-3, 0.1, 1.0, 3.0]


@pytest.mark.parametrize("angle", TINY)
def test_exponential_is_the_matrix_exponential_at_every_size(angle: float) -> None:
    vector = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64) * angle
    expected = torch.linalg.matrix_exp(so3.skew(vector))
    torch.testing.assert_close(so3.so3_exp(vector), expected, rtol=0, atol=2e-15)
    torch.testing.assert_close(
        so3.matrix_from_quaternion(so3.quaternion_from_vector(vector)), expected, rtol=0, atol=2e-15
    )
    torch.testing.assert_close(so3.so3_log(expected), vector, rtol=1e-12, atol=2e-15)


@settings(max_examples=80, deadline=None)
@given(vectors)
def test_log_undoes_exp(vector: torch.Tensor) -> None:
    rotation = so3.so3_exp(vector)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)
    assert float(torch.det(rotation)) == pytest.approx(1.0)
    angle = float(vector.norm())
    if angle < math.pi - 1e-6:
        torch.testing.assert_close(so3.so3_log(rotation), vector, rtol=1e-9, atol=1e-12)
    else:
        torch.testing.assert_close(so3.so3_exp(so3.so3_log(rotation)), rotation, rtol=0, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(quaternions, quaternions)
def test_quaternions_multiply_like_matrices(left: torch.Tensor, right: torch.Tensor) -> None:
    product = so3.matrix_from_quaternion(so3.quaternion_multiply(left, right))
    torch.testing.assert_close(
        product, so3.matrix_from_quaternion(left) @ so3.matrix_from_quaternion(right), rtol=0, atol=1e-13
    )
    again = so3.quaternion_from_matrix(so3.matrix_from_quaternion(left))
    assert float(again[0]) >= 0.0
    assert abs(float(again @ left / left.norm())) == pytest.approx(1.0, abs=1e-13)
    inverse = so3.matrix_from_quaternion(so3.quaternion_conjugate(left))
    torch.testing.assert_close(inverse, so3.matrix_from_quaternion(left).T, rtol=0, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(quaternions, quaternions, st.floats(0.0, 1.0))
def test_slerp_turns_at_constant_speed_the_short_way(start: torch.Tensor, end: torch.Tensor, share: float) -> None:
    middle = so3.slerp(start, end, share)
    whole = so3.so3_log(so3.matrix_from_quaternion(start).T @ so3.matrix_from_quaternion(end)).norm()
    part = so3.so3_log(so3.matrix_from_quaternion(start).T @ so3.matrix_from_quaternion(middle)).norm()
    assert float(middle.norm()) == pytest.approx(1.0)
    assert float(part) == pytest.approx(share * float(whole), abs=1e-7)
    finish = so3.matrix_from_quaternion(so3.slerp(start, end, 1.0))
    torch.testing.assert_close(finish, so3.matrix_from_quaternion(end), rtol=0, atol=1e-7)


def test_half_turns() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        rotation = 2.0 * axis[:, None] * axis[None, :] - torch.eye(3, dtype=torch.float64)
        vector = so3.so3_log(rotation)
        assert float(vector.norm()) == pytest.approx(math.pi)
        torch.testing.assert_close(so3.so3_exp(vector), rotation, rtol=0, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 5e-4, 2e-3, 1.2])
def test_gradients(angle: float) -> None:
    vector = (torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64) * angle).requires_grad_()
    assert torch.autograd.gradcheck(so3.so3_exp, vector)
    assert torch.autograd.gradcheck(so3.quaternion_from_vector, vector)
    assert torch.autograd.gradcheck(lambda v: so3.so3_log(so3.so3_exp(v)), vector)
    assert torch.autograd.gradgradcheck(so3.so3_exp, vector)
    start = torch.tensor([0.9, 0.1, -0.2, 0.3], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda v: so3.slerp(start, so3.quaternion_multiply(start, so3.quaternion_from_vector(v)), 0.3), vector
    )


def test_exponential_at_zero_has_the_generators_as_its_derivative() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    derivative = torch.autograd.functional.jacobian(so3.so3_exp, zero)
    for axis in range(3):
        unit = torch.eye(3, dtype=torch.float64)[axis]
        assert torch.equal(derivative[..., axis], so3.skew(unit))


def test_batches_and_float32() -> None:
    batch = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    rotation = so3.so3_exp(batch)
    assert rotation.shape == (4, 5, 3, 3)
    assert rotation.dtype == torch.float32
    torch.testing.assert_close(so3.so3_exp(so3.so3_log(rotation)), rotation, rtol=0, atol=3e-6)
    single = torch.stack([torch.stack([so3.so3_exp(vector) for vector in row]) for row in batch])
    torch.testing.assert_close(rotation, single, rtol=0, atol=1e-6)
    quaternion = so3.quaternion_from_matrix(rotation)
    shares = torch.linspace(0, 1, 20).reshape(4, 5)
    assert so3.slerp(quaternion, quaternion.flip(0), shares).shape == (4, 5, 4)


def test_nearest_rotation_removes_noise_and_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    exact = so3.so3_exp(torch.randn(6, 3, dtype=torch.float64, generator=generator))
    noise = 1e-3 * torch.randn(6, 3, 3, dtype=torch.float64, generator=generator)
    found = so3.nearest_rotation(2.5 * exact + noise)
    torch.testing.assert_close(found @ found.mT, torch.eye(3, dtype=torch.float64).expand(6, 3, 3), rtol=0, atol=1e-14)
    assert (torch.det(found) > 0.0).all()
    assert float((found - exact).abs().max()) < 2e-3
    torch.testing.assert_close(so3.nearest_rotation(exact), exact, rtol=0, atol=1e-14)
