"""The exchange values between mesh files and scenes: plain arrays, and what a file of several meshes says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

PIXEL_LIMIT = 1 << 26
"""Pixels of all textures of a file."""
EDGE = 1e-4
"""Texture coordinates as far outside of 0..1 are rounded, not meant to repeat."""


@dataclass(frozen=True, eq=False)
class MeshFile:
    """What a mesh file says."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: Float[np.ndarray, "v 3"] | None = None
    """0..1; None with a texture."""
    uvs: Float[np.ndarray, "f 3 2"] | None = None
    """Per corner; (0, 0) is the outer corner of the first row's first texel."""
    texture: UInt8[np.ndarray, "h w c"] | None = None
    """Three channels, or four with opacity."""


@dataclass(frozen=True, eq=False)
class MeshPart:
    """One of the meshes of a file, and where it stands."""

    name: str
    mesh: MeshFile
    """In the part's own coordinates."""
    matrix: Float[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    """scene_from_part."""
    opacity: float = 1.0
    """Of the whole part, besides that of texels."""
    wrap: bool = False
    """The texture goes on around in u."""
    extras: Mapping[str, Any] | None = None
    """What we say about it in the file."""
    wrap_rows: bool = False
    """The texture was meant to go on in v too, which no family draws."""

    def placed(self) -> MeshFile:
        """The mesh in the scene; exact where the matrix is the identity."""
        if np.array_equal(self.matrix, np.eye(4)):
            return self.mesh
        vertices = self.mesh.vertices.astype(np.float64) @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        faces, uvs = self.mesh.faces, self.mesh.uvs
        if np.linalg.det(self.matrix[:3, :3]) < 0:  # a mirror turns the faces inside out
            faces, uvs = faces[:, ::-1], None if uvs is None else uvs[:, ::-1]
        return MeshFile(vertices.astype(np.float32), faces, self.mesh.colors, uvs, self.mesh.texture)


def merged(mesh: MeshFile) -> MeshFile:
    """One vertex where there were several at one place and of one colour, in the order of their first appearance."""
    rows = mesh.vertices if mesh.colors is None else np.concatenate([mesh.vertices, mesh.colors], axis=1)
    _, first, inverse = np.unique(rows + 0.0, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    kept = first[order]
    colors = None if mesh.colors is None else mesh.colors[kept]
    return MeshFile(mesh.vertices[kept], place[inverse.reshape(-1)][mesh.faces], colors, mesh.uvs, mesh.texture)


def into_tile(mesh: MeshFile, repeats: tuple[bool, bool]) -> MeshFile:
    """Where a texture repeats (in u, in v), faces whose middle lies in another copy of it are moved into the first."""
    if mesh.uvs is None or not len(mesh.faces):
        return mesh
    low, high = mesh.uvs.min(axis=1, keepdims=True), mesh.uvs.max(axis=1, keepdims=True)
    away = ((low < -EDGE) | (high > 1 + EDGE)) & np.array(repeats)
    shift = np.where(away, np.floor(0.5 * (low + high)), 0).astype(mesh.uvs.dtype)
    return replace(mesh, uvs=mesh.uvs - shift) if shift.any() else mesh


def leaves(mesh: MeshFile, axis: int) -> bool:
    """Whether texture coordinates leave 0..1 in u (0) or v (1), so that it matters whether the texture goes on."""
    return mesh.uvs is not None and bool(np.any((mesh.uvs[..., axis] < -EDGE) | (mesh.uvs[..., axis] > 1 + EDGE)))


def joined(meshes: list[MeshFile]) -> MeshFile:
    """Several meshes as one: without textures, or all with the same one. Those without colours are mid grey."""
    if len(meshes) == 1:
        return meshes[0]
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)])
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    if meshes[0].texture is not None:
        uvs = np.concatenate([mesh.uvs for mesh in meshes if mesh.uvs is not None])
        return MeshFile(vertices, faces, None, uvs, meshes[0].texture)
    colors = [np.full_like(mesh.vertices, 0.5) if mesh.colors is None else mesh.colors for mesh in meshes]
    return MeshFile(vertices, faces, np.concatenate(colors))


def unshared_corners(mesh: MeshFile) -> tuple[Int[np.ndarray, "w"], Float[np.ndarray, "w 2"], Int[np.ndarray, "f 3"]]:
    """(rows of vertices, their coordinates, faces): a vertex for every pair of place and coordinates that occurs."""
    assert mesh.uvs is not None
    corners = np.concatenate([mesh.faces.reshape(-1, 1), mesh.uvs.reshape(-1, 2).astype(np.float64)], axis=1)
    rows, inverse = np.unique(corners, axis=0, return_inverse=True)
    return rows[:, 0].astype(np.int64), rows[:, 1:], inverse.reshape(-1, 3)
