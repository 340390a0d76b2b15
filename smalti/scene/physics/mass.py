"""Volume, centre of mass and inertia of closed shapes of uniform density: superquadrics in closed form (Jaklic and
Solina 2003), meshes by tetrahedra from the origin (exact for a closed mesh).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.primitives.surface import Surface
from smalti.primitives.topology import face_edges


@dataclass(frozen=True, eq=False)
class MassProperties:
    """Of a solid of density 1 per cubic unit, in float64; with lengths in metres and kilograms per cubic metre
    (`scaled`): kilograms, metres, kg m^2.
    """

    mass: float
    """Density 1: the volume."""
    centre: Float[Tensor, "3"]
    """Of mass."""
    inertia: Float[Tensor, "3 3"]
    """About the centre of mass, in the axes of the coordinates; symmetric."""

    def scaled(self, density: float, metres: float = 1.0) -> MassProperties:
        """With another density, and lengths times `metres` (density per cubic metre then)."""
        mass = self.mass * density * metres**3
        return MassProperties(mass, self.centre * metres, self.inertia * density * metres**5)


def superquadric_mass(exponents: Float[Tensor, "2"], half_extents: Float[Tensor, "3"]) -> MassProperties:
    """Of the smooth superquadric in its own axes (y from pole to pole); e1 pole to pole, e2 around.

    With B Euler's beta function and a, b, c the half extents along x, y, z:
    V = 2 a b c e1 e2 B(e1/2 + 1, e1) B(e2/2, e2/2);
    int x^2 = a^2 a b c e1 e2 B(3 e2/2, e2/2) B(e1/2, 2 e1 + 1) / 2, int z^2 likewise with c^2;
    int y^2 = b^2 a b c e1 e2 B(e2/2, e2/2) B(3 e1/2, e1 + 1).

    >>> import torch
    >>> from smalti.scene.physics import superquadric_mass
    >>> ball = superquadric_mass(torch.ones(2), torch.ones(3))
    >>> round(ball.mass, 4), [round(float(each), 4) for each in ball.inertia.diagonal()]
    (4.1888, [1.6755, 1.6755, 1.6755])
    """
    e1, e2 = exponents.detach().double().cpu().unbind()
    half = half_extents.detach().double().cpu()
    unit = half.prod() * e1 * e2
    volume = 2.0 * unit * _beta(0.5 * e1 + 1.0, e1) * _beta(0.5 * e2, 0.5 * e2)
    around = 0.5 * unit * _beta(1.5 * e2, 0.5 * e2) * _beta(0.5 * e1, 2.0 * e1 + 1.0)
    along = unit * _beta(0.5 * e2, 0.5 * e2) * _beta(1.5 * e1, e1 + 1.0)
    second = half.square() * torch.stack([around, along, around])
    return MassProperties(float(volume), torch.zeros(3, dtype=torch.float64), _inertia(torch.diag(second)))


def mesh_mass(surface: Surface) -> MassProperties:
    """Of what a closed surface, faces counter-clockwise from outside, encloses. ValueError where it is not closed, or
    encloses nothing.

    >>> from smalti.primitives.surface import icosphere
    >>> from smalti.scene.physics import mesh_mass
    >>> round(mesh_mass(icosphere(4)).mass, 2)
    4.18
    """
    holes = open_edges(surface)
    if holes:
        raise ValueError(f"mesh_mass: {holes} edges of the mesh have not exactly two faces; a solid has no open edges")
    corners = surface.corners.detach().double().cpu()
    # Tetrahedra from a point near the solid: no digits are lost to its distance from the origin.
    origin = corners.reshape(-1, 3).mean(dim=0)
    corners = corners - origin
    a, b, c = corners.unbind(1)
    six = (a * torch.linalg.cross(b, c)).sum(dim=1)  # six times the signed volumes
    total = float(six.sum()) / 6.0
    if not total > 0:
        raise ValueError(f"mesh_mass: the mesh encloses a volume of {total:.3g}; are its faces the wrong way round?")
    sums = corners.sum(dim=1)
    centre = (six[:, None] * sums).sum(dim=0) / 24.0 / total
    each = corners.mT @ corners + sums[:, :, None] * sums[:, None, :]
    second = (six[:, None, None] * each).sum(dim=0) / 120.0
    about = second - total * centre[:, None] * centre[None, :]
    return MassProperties(total, centre + origin, _inertia(about))


def open_edges(surface: Surface) -> int:
    """Edges that do not have exactly two faces."""
    edges, place = face_edges(surface.faces.cpu().long())
    return int((torch.bincount(place.reshape(-1), minlength=len(edges)) != 2).sum())


def convexity(surface: Surface) -> float:
    """How far the farthest vertex lies beyond the plane of a face, over the longest side of the bounds: 0 where the
    surface is convex. Faces without area do not count.
    """
    vertices, normals = surface.vertices.detach().double().cpu(), surface.normals().double().cpu()
    offsets = (normals * surface.corners[:, 0].detach().double().cpu()).sum(dim=1)
    parts = zip(normals.split(512), offsets.split(512), strict=True)
    beyond = max(float((vertices @ part.T - far).max()) for part, far in parts)
    return max(0.0, beyond) / float((vertices.amax(0) - vertices.amin(0)).max())


def _inertia(second: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """From the second moments about the same point."""
    second = 0.5 * (second + second.T)
    return torch.eye(3, dtype=torch.float64) * second.trace() - second


def _beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b))
