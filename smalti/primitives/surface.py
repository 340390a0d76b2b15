"""A triangle surface as a plain value: what families are initialised on, and what they hand to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Samples of a surface."""

    positions: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    """0..1; mid grey where the surface has none."""
    normals: Float[Tensor, "n 3"]
    """Unit, by the faces' winding."""
    faces: Int[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles in world units; counter-clockwise seen from outside."""

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    colors: Float[Tensor, "v 3"] | None = None
    """0..1 per vertex."""
    uvs: Float[Tensor, "f 3 2"] | None = None
    """Texture coordinates per face corner."""

    def __post_init__(self) -> None:
        if self.vertices.dim() != 2 or self.vertices.shape[1] != 3:
            raise ValueError(f"Surface.vertices: expected [v, 3], got {tuple(self.vertices.shape)}")
        if self.faces.dim() != 2 or self.faces.shape[1] != 3 or self.faces.is_floating_point():
            raise ValueError(f"Surface.faces: expected integers [f, 3], got {self.faces.dtype} {self.faces.shape}")
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.vertices):
            raise ValueError(f"Surface.faces: a vertex number lies outside of 0..{len(self.vertices) - 1}")
        if self.colors is not None and self.colors.shape != self.vertices.shape:
            raise ValueError(f"Surface.colors: expected {tuple(self.vertices.shape)}, got {tuple(self.colors.shape)}")
        if self.uvs is not None and tuple(self.uvs.shape) != (len(self.faces), 3, 2):
            raise ValueError(f"Surface.uvs: expected {(len(self.faces), 3, 2)}, got {tuple(self.uvs.shape)}")

    @staticmethod
    def from_trimesh(mesh: Any) -> Surface:
        """From a `trimesh.Trimesh`, with its vertex colours and texture coordinates where it has them."""
        faces = torch.as_tensor(mesh.faces.copy(), dtype=torch.int64)
        vertices = torch.as_tensor(mesh.vertices.copy(), dtype=torch.float32)
        visual: Any = getattr(mesh, "visual", None)
        uv = getattr(visual, "uv", None)
        uvs = None if uv is None else torch.as_tensor(uv.copy(), dtype=torch.float32)[faces]
        colors = None
        if getattr(visual, "kind", None) == "vertex":
            colors = torch.as_tensor(visual.vertex_colors[:, :3].copy(), dtype=torch.float32) / 255.0
        return Surface(vertices, faces, colors, uvs)

    @property
    def corners(self) -> Float[Tensor, "f 3 3"]:
        """(face, corner, xyz)."""
        return self.vertices[self.faces]

    def normals(self) -> Float[Tensor, "f 3"]:
        """Unit normals of the faces; zero where a face has no area."""
        return torch.nn.functional.normalize(_double_areas(self.corners), dim=1)

    def areas(self) -> Float[Tensor, "f"]:
        """Square world units."""
        return 0.5 * _double_areas(self.corners).norm(dim=1)

    def volume(self) -> float:
        """Enclosed volume of a closed surface, positive where faces are seen counter-clockwise from outside."""
        a, b, c = self.corners.double().unbind(1)
        return float((a * torch.linalg.cross(b, c)).sum() / 6.0)

    def sample(self, count: int, generator: torch.Generator) -> SurfacePoints:
        """Points spread evenly over the area."""
        areas = self.areas().detach().cpu().double()
        if not float(areas.sum()) > 0:
            raise ValueError("Surface.sample: the surface has no area")
        faces = torch.multinomial(areas.float(), count, replacement=True, generator=generator)
        weights = uniform_barycentrics(count, generator).to(self.vertices)
        return self.at(faces.to(self.faces.device), weights)

    def at(self, faces: Int[Tensor, "n"], weights: Float[Tensor, "n 3"]) -> SurfacePoints:
        """The points with these barycentric coordinates."""
        corners = self.faces[faces]
        positions = (self.vertices[corners] * weights[..., None]).sum(1)
        colors = torch.full_like(positions, 0.5)
        if self.colors is not None:
            colors = (self.colors[corners].to(positions) * weights[..., None]).sum(1)
        return SurfacePoints(positions, colors, self.normals()[faces], faces)


def uniform_barycentrics(count: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Uniform over a triangle: the square folded along its diagonal."""
    pair = torch.rand(count, 2, generator=generator)
    pair = torch.where(pair.sum(1, keepdim=True) > 1, 1 - pair, pair)
    return torch.cat([1 - pair.sum(1, keepdim=True), pair], dim=1)


def _double_areas(corners: Float[Tensor, "f 3 3"]) -> Float[Tensor, "f 3"]:
    return torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def icosphere(level: int) -> Surface:
    """The unit sphere as an icosahedron subdivided `level` times: 10 4^level + 2 vertices, 20 4^level faces."""
    if not 0 <= level <= 7:
        raise ValueError(f"icosphere: level must be 0..7, got {level}")
    golden = (1 + math.sqrt(5)) / 2
    plane = [(-1.0, golden), (1.0, golden), (-1.0, -golden), (1.0, -golden)]
    points = [(a, b, 0.0) for a, b in plane] + [(0.0, a, b) for a, b in plane] + [(b, 0.0, a) for a, b in plane]
    vertices = torch.nn.functional.normalize(torch.tensor(points, dtype=torch.float64), dim=1)
    faces = _hull_faces(vertices)
    for _ in range(level):
        vertices, faces = _quartered(vertices, faces)
    return Surface(vertices, faces)


def _hull_faces(vertices: Float[Tensor, "v 3"]) -> Int[Tensor, "f 3"]:
    """Triangles between mutual nearest neighbours (all edges of the icosahedron are equally long), outward."""
    distance = torch.cdist(vertices, vertices)
    edge = float(distance[distance > 1e-6].min())
    near = (distance - edge).abs() < 1e-6
    count = len(vertices)
    found = []
    for a in range(count):
        for b in range(a + 1, count):
            for c in range(b + 1, count):
                if near[a, b] and near[b, c] and near[a, c]:
                    outward = float(torch.linalg.det(vertices[[a, b, c]])) > 0
                    found.append([a, b, c] if outward else [a, c, b])
    return torch.tensor(found, dtype=torch.int64)


def _quartered(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]
) -> tuple[Float[Tensor, "w 3"], Int[Tensor, "g 3"]]:
    """Every face in four, new vertices pushed out to the unit sphere."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    unique, place = torch.unique(edges.sort(dim=1).values, dim=0, return_inverse=True)
    middle = torch.nn.functional.normalize(vertices[unique].sum(1), dim=1)
    ab, bc, ca = (place + len(vertices)).reshape(3, -1).unbind(0)
    a, b, c = faces.unbind(1)
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return torch.cat([vertices, middle]), torch.stack([torch.stack(part, 1) for part in parts], 1).reshape(-1, 3)


def tangent_frames(normals: Float[Tensor, "n 3"], tangents: Float[Tensor, "n 3"] | None = None) -> Tensor:
    """Proper rotations [n, 3, 3] whose third columns are the unit `normals` and whose first are as near as may be to
    `tangents` (by default, and where those vanish: the coordinate axis that leans least along the normal).
    """
    axis = torch.nn.functional.one_hot(normals.abs().argmin(dim=1), 3).to(normals)
    first = axis if tangents is None else torch.nn.functional.normalize(tangents, dim=1)
    first = first - (first * normals).sum(1, keepdim=True) * normals
    degenerate = first.norm(dim=1, keepdim=True) < 1e-4
    fallback = axis - (axis * normals).sum(1, keepdim=True) * normals
    first = torch.nn.functional.normalize(torch.where(degenerate, fallback, first), dim=1)
    return torch.stack([first, torch.linalg.cross(normals, first), normals], dim=2)
