"""trimesh (the extra `mesh`): meshes, point clouds and scenes, both ways. Axes and units stay as they are.

Its texture coordinates run up the picture, ours down its rows; its colours have 8 bits a channel, display-encoded, as
ours are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from smalti.bridges import package
from smalti.bridges.plain import family_of, family_on_points, mesh_of, points_of, warn
from smalti.files.mesh import MeshFile, MeshPart
from smalti.files.trimesh_values import NoMesh, from_trimesh, to_trimesh
from smalti.primitives.family import Family
from smalti.primitives.meshes import Meshes
from smalti.scene.scene import Scene

_REMEDY = "pip install 'smalti[mesh]'"


def from_mesh(mesh: Any, metadata: Mapping[str, Any] | None = None) -> Meshes:
    """A layer of family `meshes` from a `trimesh.Trimesh`, with its texture or colours; mid grey without any.

    The vertices of a textured one that differ in nothing but their texture coordinates become one; all others keep
    their numbers. Warns where colours are per face or have an alpha.
    """
    return family_of(_read(mesh, np.eye(4)), metadata)


def to_mesh(family: Family) -> Any:
    """A `trimesh.Trimesh` of a family that draws triangles (`meshes`, `superquadrics`), in its own frame.

    Raises ValueError for others, BridgeUnavailable without trimesh; warns of opacities.
    """
    package("trimesh", _REMEDY)
    return to_trimesh(mesh_of(family))


def from_cloud(cloud: Any, family: str = "gaussians", metadata: Mapping[str, Any] | None = None) -> Family:
    """A family started from a `trimesh.PointCloud`, as training starts from points; mid grey without colours."""
    colors = np.asarray(cloud.colors)
    shades = colors[:, :3] / 255 if len(colors) == len(cloud.vertices) else None
    return family_on_points(family, np.asarray(cloud.vertices), shades, metadata)


def to_cloud(family: Family) -> Any:
    """A `trimesh.PointCloud` of the primitives' centres, in their colours seen from nowhere in particular."""
    positions, colors = points_of(family)
    levels = np.rint(255 * colors.clip(0, 1)).astype(np.uint8)
    return package("trimesh", _REMEDY).PointCloud(positions, colors=levels)


def from_scene(scene: Any, metadata: Mapping[str, Any] | None = None) -> Scene:
    """A layer for each node of a `trimesh.Scene` that holds a mesh or points (which become Gaussians), where it stands.

    `metadata` is that of the meshes. The scene is composited in the exact order. Warns of geometry of other sorts.
    """
    made = Scene(order="ray")
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if hasattr(geometry, "faces"):
            family: Family = family_of(_read(geometry, np.asarray(matrix, np.float64)), metadata)
        elif type(geometry).__name__ == "PointCloud":
            family = from_cloud(geometry.copy().apply_transform(matrix))
        else:
            warn(f"{node!r} is a {type(geometry).__name__}, which no family draws; it was left out")
            continue
        made.add(_free(made, str(node)), family)
    return made


def to_scene(scene: Scene) -> Any:
    """A `trimesh.Scene` with the visible layers by name: meshes and superquadrics as meshes, all others as points, with
    a warning. Layer transforms are applied.
    """
    trimesh = package("trimesh", _REMEDY)
    made = trimesh.Scene()
    for layer in scene.flattened().visible_layers():
        if layer.family.surface() is None:
            warn(f"layer {layer.name!r}: {layer.family.name} became points, one for each")
            made.add_geometry(to_cloud(layer.family), node_name=layer.name, geom_name=layer.name)
        else:
            made.add_geometry(to_mesh(layer.family), node_name=layer.name, geom_name=layer.name)
    return made


def _free(scene: Scene, name: str) -> str:
    """A layer's name like `name` that is free: without slashes, with a number where it is taken."""
    name = name.replace("/", "-") or "layer"
    numbered = (f"{name}-{k}" for k in range(2, len(scene.layers) + 3))
    return name if name not in scene.layers else next(each for each in numbered if each not in scene.layers)


def _read(mesh: Any, matrix: np.ndarray) -> MeshFile:
    """Placed by `matrix`; a mirror turns the faces inside out. ValueError for what is no mesh."""
    try:
        found = from_trimesh(mesh, warn)
    except NoMesh as error:
        raise ValueError(f"the mesh {error}") from error
    if found.texture is not None and found.texture.shape[2] == 4 and int(found.texture[..., 3].min()) == 255:
        found = replace(found, texture=found.texture[..., :3].copy())
    return MeshPart("mesh", found, matrix).placed()
