"""The real spherical-harmonic basis of 3D Gaussian splatting (its signs and order), degrees 0 to 3, and its rotation."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SH_0 = 0.5 * math.sqrt(1.0 / math.pi)
"""The constant basis function; colour = 0.5 + SH_0 * coefficient."""


def basis(directions: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """All basis functions up to `degree` at unit `directions`, k = (degree + 1)^2."""
    x, y, z = directions.unbind(-1)
    columns = [torch.full_like(x, SH_0)]
    if degree >= 1:
        c = math.sqrt(3.0 / (4.0 * math.pi))
        columns += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = 0.5 * math.sqrt(15.0 / math.pi)
        third = 0.25 * math.sqrt(5.0 / math.pi)
        columns += [c * x * y, -c * y * z, third * (3 * z * z - 1), -c * x * z, 0.5 * c * (x * x - y * y)]
    if degree >= 3:
        a = 0.25 * math.sqrt(35.0 / (2.0 * math.pi))
        b = 0.5 * math.sqrt(105.0 / math.pi)
        d = 0.25 * math.sqrt(21.0 / (2.0 * math.pi))
        columns += [
            -a * y * (3 * x * x - y * y),
            b * x * y * z,
            -d * y * (5 * z * z - 1),
            0.25 * math.sqrt(7.0 / math.pi) * z * (5 * z * z - 3),
            -d * x * (5 * z * z - 1),
            0.5 * b * z * (x * x - y * y),
            -a * x * (x * x - 3 * y * y),
        ]
    return torch.stack(columns, dim=-1)


def rotate_rest(rest: Float[Tensor, "n k 3"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "n k 3"]:
    """Coefficients of degrees 1 and up of the same colours, after the world was turned by `rotation`.

    Each degree spans a rotation-invariant space, so its matrix is found by least squares over fixed directions
    (exact to rounding). k is 0, 3, 8 or 15.
    """
    degree = math.isqrt(rest.shape[1] + 1) - 1
    if degree == 0:
        return rest
    directions = _directions()
    turn = rotation.to(torch.float64).cpu()
    # The colour seen along R d afterwards is the one seen along d before: Y(R d) c' = Y(d) c.
    before, after = basis(directions, degree), basis(directions @ turn.T, degree)
    parts = []
    for band in range(1, degree + 1):
        span = slice(band * band, (band + 1) ** 2)
        matrix = torch.linalg.lstsq(after[:, span], before[:, span]).solution.to(rest)
        parts.append(torch.einsum("ij,njc->nic", matrix, rest[:, band * band - 1 : (band + 1) ** 2 - 1]))
    return torch.cat(parts, dim=1)


def _directions() -> Float[Tensor, "64 3"]:
    """A Fibonacci spiral on the sphere: well spread, no randomness."""
    index = torch.arange(64, dtype=torch.float64)
    z = 1 - (2 * index + 1) / 64
    angle = index * math.pi * (3 - math.sqrt(5))
    radius = torch.sqrt(1 - z * z)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle), z], dim=-1)
