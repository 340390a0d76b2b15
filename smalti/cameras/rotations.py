"""Rotations: quaternions (w, x, y, z), SO(3) exponential and logarithm, slerp. Torch, batched, differentiable.

Every function is finite with finite gradients at the identity. The logarithm is ambiguous at half a turn, where one of
the two answers is given and its gradient means nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-3
"""Angles (radians) below which series replace quotients: their next term is below 1e-15 in the functions used here."""


def skew(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrices with `skew(v) @ p == cross(v, p)`."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, dim=-1).reshape(*vectors.shape[:-1], 3, 3)


def so3_exp(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle in radians); Rodrigues' formula."""
    square = vectors.square().sum(-1)[..., None, None]
    small = square < _SMALL**2
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    first = torch.where(small, 1.0 - square / 6.0 + square**2 / 120.0, angle.sin() / angle)
    # (1 - cos a) / a^2 written without the difference of nearly equal numbers.
    second = torch.where(small, 0.5 - square / 24.0 + square**2 / 720.0, 2.0 * (0.5 * angle).sin().square() / safe)
    cross = skew(vectors)
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + first * cross + second * (cross @ cross)


def so3_log(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors of rotation matrices, of length at most pi."""
    return vector_from_quaternion(quaternion_from_matrix(rotations))


def quaternion_from_vector(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions of rotation vectors."""
    square = vectors.square().sum(-1, keepdim=True)
    small = square < _SMALL**2
    half = 0.5 * torch.where(small, torch.ones_like(square), square).sqrt()
    cosine = torch.where(small, 1.0 - square / 8.0 + square**2 / 384.0, half.cos())
    gain = torch.where(small, 0.5 - square / 48.0 + square**2 / 3840.0, 0.5 * half.sin() / half)
    return torch.cat([cosine, gain * vectors], dim=-1)


def vector_from_quaternion(quaternions: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3"]:
    """Rotation vectors of quaternions (any length but zero), by the shorter way round: of length at most pi."""
    unit = torch.nn.functional.normalize(quaternions, dim=-1)
    unit = torch.where(unit[..., :1] < 0.0, -unit, unit)
    real, imaginary = unit[..., :1], unit[..., 1:]
    square = imaginary.square().sum(-1, keepdim=True)
    small = square < _SMALL**2
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    # atan(t) / t with t = |imaginary| / real.
    safe_real = torch.where(small, real, torch.ones_like(real))
    tangent = square / safe_real.square()
    series = 2.0 / safe_real * (1.0 - tangent / 3.0 + tangent**2 / 5.0)
    return imaginary * torch.where(small, series, 2.0 * torch.atan2(sine, real) / sine)


def matrix_from_quaternion(quaternions: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions of any length but zero (normalised here, differentiably)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        *(2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        *(2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).reshape(*quaternions.shape[:-1], 3, 3)


def quaternion_from_matrix(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions with w >= 0 of rotation matrices (Shepperd 1978: the best of four formulas for each)."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotations.flatten(-2).unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([1.0 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, 1.0 + m00 - m11 - m22, m10 + m01, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m10 + m01, 1.0 - m00 + m11 - m22, m21 + m12], dim=-1),
            torch.stack([m10 - m01, m02 + m20, m21 + m12, 1.0 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    chosen = torch.take_along_dim(candidates, best[..., None, None].expand(*best.shape, 1, 4), dim=-2).squeeze(-2)
    unit = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(unit[..., :1] < 0.0, -unit, unit)


def quaternion_multiply(left: Float[Tensor, "*b 4"], right: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Hamilton's product: the rotation `right` followed by `left`."""
    a, b, c, d = left.unbind(-1)
    e, f, g, h = right.unbind(-1)
    return torch.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        dim=-1,
    )


def quaternion_conjugate(quaternions: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The inverse rotation, for unit quaternions."""
    return quaternions * quaternions.new_tensor([1.0, -1.0, -1.0, -1.0])


def slerp(start: Float[Tensor, "*b 4"], end: Float[Tensor, "*b 4"], fraction: Tensor | float) -> Float[Tensor, "*b 4"]:
    """From `start` (fraction 0) to `end` (1) at constant angular speed, the shorter way round (Shoemake 1985).

    `fraction` is a number or has the batch's shape; outside [0, 1] it extrapolates. Unit quaternions.
    """
    start = torch.nn.functional.normalize(start, dim=-1)
    between = vector_from_quaternion(quaternion_multiply(quaternion_conjugate(start), end))
    share = fraction[..., None] if isinstance(fraction, Tensor) and fraction.ndim else fraction
    return quaternion_multiply(start, quaternion_from_vector(between * share))


def nearest_rotation(matrices: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest to each matrix (orthogonal Procrustes): for files whose rotations are rounded or scaled.

    Differentiable where the singular values differ. Not a remedy for a mirrored matrix: check the determinant first.
    """
    left, _, right = torch.linalg.svd(matrices)
    sign = torch.det(left @ right)
    ones = torch.ones_like(sign)
    return (left * torch.stack([ones, ones, sign], dim=-1)[..., None, :]) @ right
