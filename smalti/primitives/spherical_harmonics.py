"""The spherical-harmonic basis (the renderer's own, so that there is one) and how coefficients turn with the world."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.renderers.spherical_harmonics import spherical_harmonics_basis as basis

__all__ = ["SH_0", "basis", "rotate_rest"]

SH_0 = 0.5 * math.sqrt(1.0 / math.pi)
"""The constant basis function; colour = 0.5 + SH_0 * coefficient."""


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
