"""Real spherical harmonics to degree 3, with the signs and order that 3DGS files are written in."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spherical_harmonics_basis(directions: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """The k = (degree + 1)^2 basis functions at unit `directions`, degree 0..3; differentiable.

    Orthonormal on the sphere. Row order within a degree: m = -l .. l; odd m carry the sign (-1)^m (Condon-Shortley),
    as in Kerbl et al. 2023, so degree 1 reads -C1 y, C1 z, -C1 x. Polynomials: Sloan, "Efficient Spherical Harmonic
    Evaluation", JCGT 2013.
    """
    if not 0 <= degree <= 3:
        raise ValueError(f"spherical_harmonics_basis: degree must be 0..3, got {degree}")
    x, y, z = directions.unbind(-1)
    pi = math.pi
    columns = [torch.full_like(x, 0.5 * math.sqrt(1 / pi))]
    if degree >= 1:
        scale = math.sqrt(3 / (4 * pi))
        columns += [-scale * y, scale * z, -scale * x]
    if degree >= 2:
        scale = 0.5 * math.sqrt(15 / pi)
        columns += [scale * x * y, -scale * y * z]
        columns += [0.25 * math.sqrt(5 / pi) * (2 * z * z - x * x - y * y)]
        columns += [-scale * x * z, 0.5 * scale * (x * x - y * y)]
    if degree >= 3:
        outer = 0.25 * math.sqrt(35 / (2 * pi))
        middle = 0.5 * math.sqrt(105 / pi)
        inner = 0.25 * math.sqrt(21 / (2 * pi))
        columns += [-outer * y * (3 * x * x - y * y), middle * x * y * z]
        columns += [-inner * y * (4 * z * z - x * x - y * y)]
        columns += [0.25 * math.sqrt(7 / pi) * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        columns += [-inner * x * (4 * z * z - x * x - y * y)]
        columns += [0.5 * middle * z * (x * x - y * y), -outer * x * (x * x - 3 * y * y)]
    return torch.stack(columns, dim=-1)


def gaussian_color(
    sh_dc: Float[Tensor, "n 3"],
    sh_rest: Float[Tensor, "n k 3"] | None,
    degree: int,
    directions: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 3"]:
    """`0.5 + sum_k c_k Y_k(direction)`, not yet clamped at zero; coefficients beyond `degree` are not read."""
    basis = spherical_harmonics_basis(directions, degree)
    color = 0.5 + basis[:, :1] * sh_dc
    if degree > 0 and sh_rest is not None:
        used = sh_rest[:, : basis.shape[1] - 1]
        color = color + (basis[:, 1:, None] * used).sum(dim=1)
    return color
