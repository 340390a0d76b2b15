"""Open3D's legacy geometry: point clouds and triangle meshes, both ways. Axes and units stay as they are.

What comes from there is read by its attributes; to make its objects the package is needed (`pip install open3d`). It
holds textures upside down (its readers and writers turn them), so that its coordinates run down the rows that it holds,
as ours do: coordinates and rows are handed over as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from smalti.bridges import package
from smalti.bridges.plain import family_of, family_on_points, mesh_of, points_of, warn
from smalti.files.mesh import MeshFile
from smalti.primitives.family import Family
from smalti.primitives.meshes import Meshes

_REMEDY = "pip install open3d"


def from_point_cloud(cloud: Any, family: str = "gaussians", metadata: Mapping[str, Any] | None = None) -> Family:
    """A family started from an `open3d.geometry.PointCloud`, as training starts from points. Normals are left out."""
    positions, colors = np.asarray(cloud.points), np.asarray(cloud.colors)
    return family_on_points(family, positions, colors if len(colors) == len(positions) else None, metadata)


def to_point_cloud(family: Family) -> Any:
    """An `open3d.geometry.PointCloud` of the primitives' centres, in their colours seen from nowhere in particular.

    Raises BridgeUnavailable where Open3D is not installed.
    """
    open3d = package("open3d", _REMEDY)
    positions, colors = points_of(family)
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(positions)
    cloud.colors = open3d.utility.Vector3dVector(colors.clip(0, 1))
    return cloud


def from_triangle_mesh(mesh: Any, metadata: Mapping[str, Any] | None = None) -> Meshes:
    """A layer of family `meshes` from an `open3d.geometry.TriangleMesh`, with its texture or vertex colours; mid grey
    without any.

    The vertices of a textured one that lie at one place become one; all others keep their numbers. Raises ValueError
    for several textures.
    """
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int64)
    textures = [np.asarray(texture) for texture in getattr(mesh, "textures", ())]
    textures = [texture for texture in textures if texture.ndim > 1]  # materials without one have an empty one
    corners = np.asarray(getattr(mesh, "triangle_uvs", ()), np.float32)
    if len(textures) > 1:
        raise ValueError(
            f"from_triangle_mesh: the mesh has {len(textures)} textures, a layer has one; take it apart first"
        )
    if textures and len(corners) == 3 * len(faces):
        return family_of(MeshFile(vertices, faces, None, corners.reshape(-1, 3, 2), _channels(textures[0])), metadata)
    colors = np.asarray(mesh.vertex_colors, np.float32)
    return family_of(MeshFile(vertices, faces, colors if len(colors) == len(vertices) else None), metadata)


def to_triangle_mesh(family: Family) -> Any:
    """An `open3d.geometry.TriangleMesh` of a family that draws triangles (`meshes`, `superquadrics`).

    Raises ValueError for others, BridgeUnavailable where Open3D is not installed; warns of opacities.
    """
    open3d = package("open3d", _REMEDY)
    found, utility = mesh_of(family), open3d.utility
    mesh = open3d.geometry.TriangleMesh()
    mesh.vertices = utility.Vector3dVector(found.vertices.astype(np.float64))
    mesh.triangles = utility.Vector3iVector(found.faces.astype(np.int32))
    if found.uvs is None or found.texture is None:
        colors = np.full_like(found.vertices, 0.5) if found.colors is None else found.colors
        mesh.vertex_colors = utility.Vector3dVector(colors.clip(0, 1).astype(np.float64))
        return mesh
    mesh.triangle_uvs = utility.Vector2dVector(found.uvs.reshape(-1, 2).astype(np.float64))
    mesh.triangle_material_ids = utility.IntVector(np.zeros(len(found.faces), np.int32))
    if found.texture.shape[2] == 4:
        warn("the opacities of the texels were left out")
    mesh.textures = [open3d.geometry.Image(np.ascontiguousarray(found.texture[..., :3]))]
    return mesh


def _channels(texture: np.ndarray) -> np.ndarray:
    """Three or four channels of 8 bits, of grey ones or pictures of numbers 0..1 too."""
    if np.issubdtype(texture.dtype, np.floating):
        texture = np.rint(255 * texture.clip(0, 1)).astype(np.uint8)
    if texture.dtype != np.uint8:
        raise ValueError(f"from_triangle_mesh: expected a texture of 8 bits or of numbers 0..1, got {texture.dtype}")
    texture = texture[..., None] if texture.ndim == 2 else texture
    return np.array(np.repeat(texture, 3, axis=2) if texture.shape[2] == 1 else texture)
