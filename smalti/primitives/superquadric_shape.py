"""Superquadrics in closed form: surface, implicit function, volume (Barr 1981; Jaklic et al. 2000), their icosphere
mesh and its texture coordinates (Monnier et al. 2023, section 3.1 and supplement).

Coordinates are the block's own, y upwards; `exponents` are (e1, e2), e1 from pole to pole, e2 around.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.primitives.surface import icosphere
from smalti.primitives.topology import face_neighbours

TINY = 1e-30
"""Bases of powers are kept above it, so that derivatives at coordinate planes are finite."""


def signed_power(base: Tensor, exponent: Tensor) -> Tensor:
    """sign(b) |b|^e; 0 with zero gradients at b = 0."""
    return base.sign() * base.abs().clamp_min(TINY) ** exponent


def surface_points(directions: Float[Tensor, "v 3"], exponents: Float[Tensor, "n 2"]) -> Float[Tensor, "n v 3"]:
    """The points of the unit superquadrics at latitude asin(y) and longitude atan2(x, z) of unit `directions`.

    ( sp(cos a, e1) sp(sin b, e2), sp(sin a, e1), sp(cos a, e1) sp(cos b, e2) ). Differentiable in the exponents.
    """
    x, y, z = directions.to(exponents).unbind(1)
    flat = torch.hypot(x, z)
    safe = torch.where(flat > 0, flat, torch.ones_like(flat))
    sine, cosine = x / safe, torch.where(flat > 0, z / safe, torch.ones_like(z))
    e1, e2 = exponents[:, None, 0], exponents[:, None, 1]
    ring = signed_power(flat, e1)
    return torch.stack([ring * signed_power(sine, e2), signed_power(y, e1), ring * signed_power(cosine, e2)], dim=-1)


def implicit(points: Float[Tensor, "*n 3"], exponents: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """F(p) = ((x^2)^(1/e2) + (z^2)^(1/e2))^(e2/e1) + (y^2)^(1/e1): 1 on the unit superquadric, below 1 inside.

    Homogeneous: F(c p) = c^(2/e1) F(p). Coordinates count as 5 at most. Differentiable.
    """
    x, y, z = points.clamp(-5.0, 5.0).square().clamp_min(TINY).unbind(-1)
    e1, e2 = exponents.unbind(-1)
    # The larger of the two taken out: no power of a sum that is nearly 0.
    large, small = torch.maximum(x, z), torch.minimum(x, z)
    ring = (1.0 + (small / large) ** (1.0 / e2)) ** (e2 / e1)
    return large ** (1.0 / e1) * ring + y ** (1.0 / e1)


def radial(points: Float[Tensor, "*n 3"], exponents: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """F^(e1/2): 1 on the unit superquadric, and so many times as large where the point is so many times as far from the
    centre. Coordinates count as 5 at most. Differentiable; unlike a power of F, whose small values underflow in single
    precision, with finite derivatives at the centre too.
    """
    x, y, z = points.clamp(-5.0, 5.0).abs().clamp_min(math.sqrt(TINY)).unbind(-1)
    e1, e2 = exponents.unbind(-1)
    return _norm(_norm(x, z, e2), y, e1)


def _norm(first: Tensor, second: Tensor, exponent: Tensor) -> Tensor:
    """(a^(2/e) + b^(2/e))^(e/2), the larger of the two taken out."""
    large, small = torch.maximum(first, second), torch.minimum(first, second)
    return large * (1.0 + (small / large) ** (2.0 / exponent)) ** (0.5 * exponent)


def volume(exponents: Float[Tensor, "n 2"], half_extents: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """2 e1 e2 B(e1/2 + 1, e1) B(e2/2, e2/2) s1 s2 s3. Differentiable."""
    e1, e2 = exponents.unbind(1)
    return 2.0 * e1 * e2 * _beta(0.5 * e1 + 1.0, e1) * _beta(0.5 * e2, 0.5 * e2) * half_extents.prod(dim=1)


def overlap(
    local: Float[Tensor, "n s 3"],
    frames: tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]],
    exponents: Float[Tensor, "n 2"],
    opacities: Float[Tensor, "n"],
) -> Float[Tensor, ""]:
    """Mean over points of how far the sum of occupancies exceeds 1.95 (Monnier et al. 2023, section 3.3).

    The points are given in the boxes [-1, 1]^3 of superquadrics with these centres, axes (columns) and half extents.
    Occupancy is opacity times sigmoid((1 - F^(e1/2)) / 0.005) (the released form). Differentiable in the superquadrics;
    the points have no gradient.
    """
    centres, axes, sizes = frames
    with torch.no_grad():
        points = ((local * sizes[:, None, :]) @ axes.mT + centres[:, None, :]).reshape(-1, 3)
    unit = ((points - centres[:, None, :]) @ axes) / sizes[:, None, :]
    radius = radial(unit, exponents[:, None, :].expand(*unit.shape[:-1], 2))
    occupancy = opacities[:, None] * torch.sigmoid((1.0 - radius) / 0.005)
    return (occupancy.sum(dim=0) - 1.95).clamp_min(0.0).mean()


def rotation_from_six(six: Float[Tensor, "n 6"]) -> Float[Tensor, "n 3 3"]:
    """Columns: the first three numbers normalised, the other three made orthogonal to them, their cross product
    (Zhou et al. 2019). Differentiable where the two are not parallel.
    """
    first = torch.nn.functional.normalize(six[:, :3], dim=1)
    second = six[:, 3:] - (first * six[:, 3:]).sum(dim=1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=2)


def turned(six: Float[Tensor, "n 6"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "n 6"]:
    """Both directions of each row, turned."""
    return (six.reshape(-1, 2, 3) @ rotation.to(six).T).reshape(-1, 6)


def _beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b))


@torch.no_grad()
def sample_superquadric(
    exponents: Float[Tensor, "2"], half_extents: Float[Tensor, "3"], count: int, generator: torch.Generator
) -> Float[Tensor, "count 3"]:
    """Points on the smooth surface, nearly even: on the triangles of a fine mesh, then moved along the ray from the
    centre to F = 1.
    """
    from smalti.primitives.surface import Surface

    ball = icosphere(5)
    vertices = surface_points(ball.vertices, exponents.double()[None])[0]
    points = Surface(vertices * half_extents.double(), ball.faces).sample(count, generator).positions
    unit = points / half_extents.double()
    radius = implicit(unit, exponents.double().expand(count, 2)) ** (-0.5 * exponents[0].double())
    return points * radius[:, None]


@dataclass(frozen=True, eq=False)
class Template:
    """What the meshes of all blocks share."""

    directions: Float[Tensor, "v 3"]
    """Unit sphere, float64."""
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "f 3 2"]
    """After both repairs; u may leave 0..1 by `overflow`. v = 0 is the lower pole."""
    overflow: float
    neighbours: Int[Tensor, "f 3"]


@lru_cache(maxsize=8)
def template(level: int) -> Template:
    """The icosphere of `level`, with the spherical map u = (atan2(x, z) + pi) / 2 pi, v = acos(-y) / pi.

    Two repairs: in a face that crosses the seam the minority's u is shifted by 1, so that no two corners are more than
    half a turn apart; a corner at a pole takes the mean u of its face's other two.
    """
    ball = icosphere(level)
    x, y, z = ball.vertices.unbind(1)
    # Rounding at the poles and the seam: exact zeros, and one side of the seam for both signs of zero.
    x, z = (torch.where(each.abs() < 1e-12, torch.zeros_like(each), each) for each in (x, z))
    u = (torch.atan2(x, z) + math.pi) / (2 * math.pi)
    v = torch.acos((-y).clamp(-1.0, 1.0)) / math.pi
    corner_u, corner_v = u[ball.faces], v[ball.faces]
    pole = (corner_v < 0.01) | (corner_v > 0.99)
    repaired = torch.stack([_repaired(us, at_pole) for us, at_pole in zip(corner_u, pole, strict=True)])
    uvs = torch.stack([repaired, corner_v], dim=-1)
    overflow = float(torch.maximum(-repaired.amin(), repaired.amax() - 1.0).clamp_min(0.0))
    directions = torch.stack([x, y, z], dim=1)
    return Template(directions, ball.faces, uvs, overflow, face_neighbours(ball.faces))


def repeated(rows: Int[Tensor, "f 3"], count: int, each: int) -> Int[Tensor, "m 3"]:
    """Numbers of rows for `count` copies behind one another of something of `each` rows; negative ones stay."""
    offset = each * torch.arange(count, dtype=rows.dtype, device=rows.device)[:, None, None]
    return torch.where(rows < 0, rows, rows + offset).reshape(-1, 3)


def _repaired(u: Float[Tensor, "3"], pole: Tensor) -> Float[Tensor, "3"]:
    u = u.clone()
    rest = torch.nonzero(~pole).squeeze(1)
    values = u[rest]
    if float(values.max() - values.min()) > 0.5 + 1e-9:
        high = values > 0.5
        minority_high = 2 * int(high.sum()) <= len(values)
        values = torch.where(high, values - 1.0, values) if minority_high else torch.where(high, values, values + 1.0)
    u[rest] = values
    u[pole] = values.mean()
    return u
