"""What a family draws as triangles, exactly: as a mesh of its own, or sampled evenly over its area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.family import Family
from smalti.primitives.meshes import Meshes
from smalti.primitives.texture import texture_lookup
from smalti.renderers.drawables import TriangleDrawable
from smalti.scene.conversions.thinning import thinned

NARROW = 1e-7
"""Logits of colours and opacities are of values kept this far from 0 and 1."""


def drawn_triangles(family: Family) -> TriangleDrawable | None:
    """The triangles it draws, or None where it draws anything else."""
    eye = torch.tensor([0.0, 0.0, -1.0])
    camera = Camera.look_at(eye, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 1.0, (8, 8))
    with torch.no_grad():
        drawn = family.drawables(camera)
    if len(drawn) != 1 or not isinstance(drawn[0], TriangleDrawable):
        return None
    return drawn[0]


@torch.no_grad()
def mesh_of(family: Family, drawn: TriangleDrawable) -> Meshes:
    """The very triangles, with their texture or corner colours, opacities and edges. Corners are shared as in
    `Family.surface`; where colours differ between faces at one vertex, no corner is shared.
    """
    vertices, faces = _topology(family, drawn)
    parameters: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {}
    if drawn.texture is not None:
        assert drawn.uvs is not None
        parameters["raw_texture"] = _logit(drawn.texture)
        constants["uvs"] = drawn.uvs
    else:
        assert drawn.colors is not None
        colors = torch.zeros_like(vertices).index_copy(0, faces.reshape(-1), drawn.colors.reshape(-1, 3))
        if not torch.equal(colors[faces], drawn.colors):
            vertices, faces = _apart(drawn)
            colors = drawn.colors.reshape(-1, 3)
        parameters["raw_colors"] = _logit(colors)
    if bool((drawn.opacities < 1).any()):
        parameters["logit_opacities"] = _logit(drawn.opacities)
    metadata = {
        **{"edges": drawn.edges, "sigma": drawn.sigma, "wrap": drawn.wrap},
        **{"detach_barycentrics": drawn.detach_barycentrics, "smooth_normals": drawn.normals is not None},
    }
    if drawn.mipmaps is not None:
        metadata["mipmaps"] = int(family.metadata.get("mipmaps", 24))
    return Meshes({"vertices": vertices, **parameters}, metadata, {"faces": faces, **constants})


def _topology(family: Family, drawn: TriangleDrawable) -> tuple[Tensor, Tensor]:
    surface = family.surface()
    if surface is not None and tuple(surface.faces.shape) == (len(drawn), 3):
        vertices = surface.vertices.to(drawn.corners)
        if torch.allclose(vertices[surface.faces], drawn.corners, rtol=1e-5, atol=1e-6 * float(vertices.abs().max())):
            return vertices, surface.faces
    return _apart(drawn)


def _apart(drawn: TriangleDrawable) -> tuple[Tensor, Tensor]:
    return drawn.corners.reshape(-1, 3), torch.arange(3 * len(drawn), device=drawn.device).reshape(-1, 3)


def _logit(values: Tensor) -> Tensor:
    return torch.logit(values.double().clamp(NARROW, 1 - NARROW)).float()


@dataclass(frozen=True, eq=False)
class Patches:
    """Even samples of drawn triangles."""

    positions: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    """Unit, by the faces' winding."""
    colors: Float[Tensor, "n 3"]
    opacities: Float[Tensor, "n"]
    area: float
    """Of all that was sampled, square world units."""


@torch.no_grad()
def even_samples(drawn: TriangleDrawable, count: int, seed: int) -> Patches:
    """`count` points spread evenly over the area: of up to four times as many, those that keep their distance.

    The many are one in each of equal shares of the area. Shares run through the faces in their order; within a face
    points follow the Kronecker sequence of the plastic number, folded into the triangle, which leaves no gaps.
    """
    corners = drawn.corners.double().cpu()
    double = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = 0.5 * double.norm(dim=1) * (drawn.opacities.double().cpu() > COUNTED)
    total = float(areas.sum())
    if not total > 0:
        raise ValueError("convert: the surface has no area above the least opacity, so there is nothing to sample")
    generator = torch.Generator().manual_seed(seed)
    many = max(count, min(OVERSAMPLED * count, MOST_CANDIDATES))
    place = (torch.arange(many, dtype=torch.float64) + torch.rand(many, dtype=torch.float64, generator=generator)) / (
        many / total
    )
    face = torch.searchsorted(areas.cumsum(0), place, right=True).clamp_max(len(areas) - 1)
    rank = torch.arange(many) - torch.searchsorted(face, face)  # within its face: `face` ascends
    shift = torch.rand(len(areas), 2, dtype=torch.float64, generator=generator)[face]
    pair = (shift + (rank[:, None] + 1) * torch.tensor([1 / PLASTIC, 1 / PLASTIC**2], dtype=torch.float64)) % 1.0
    pair = torch.where(pair.sum(1, keepdim=True) > 1, 1 - pair, pair)
    weights = torch.cat([1 - pair.sum(1, keepdim=True), pair], dim=1)
    kept = thinned((corners[face] * weights[..., None]).sum(1), count, total, generator)
    face, weights = face[kept], weights[kept]
    colors, opacities = _looks(drawn, face, weights.float())
    return Patches(
        positions=(corners[face] * weights[..., None]).sum(1).float(),
        normals=torch.nn.functional.normalize(double, dim=1)[face].float(),
        colors=colors,
        opacities=opacities,
        area=total,
    )


OVERSAMPLED, MOST_CANDIDATES = 4, 240_000
COUNTED = 0.01
"""Faces at or below this opacity are not sampled."""
PLASTIC = 1.32471795724474602596
"""The real root of x^3 = x + 1: its powers spread points in the plane as the golden ratio does on the line."""


def _looks(drawn: TriangleDrawable, face: Int[Tensor, "n"], weights: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
    opacities = drawn.opacities.cpu().float()[face]
    if drawn.texture is None:
        assert drawn.colors is not None
        return (drawn.colors.cpu().float()[face] * weights[..., None]).sum(1), opacities
    assert drawn.uvs is not None
    uvs = (drawn.uvs.cpu().float()[face] * weights[..., None]).sum(1)
    texels = texture_lookup(drawn.texture.cpu().float(), uvs, drawn.wrap)
    return texels[:, :3], opacities * texels[:, 3] if texels.shape[1] == 4 else opacities
