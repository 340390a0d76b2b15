"""trimesh's meshes and our exchange value, both ways. Its texture coordinates run up the picture, ours down its rows;
its colours have 8 bits a channel, display-encoded, as ours are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from smalti.files.mesh import PIXEL_LIMIT, MeshFile, unshared_corners


class NoMesh(ValueError):
    """What is there is no mesh of triangles; the message begins with a verb, for a file or an object before it."""


def from_trimesh(mesh: Any, tell: Callable[[str], None] = lambda sentence: None) -> MeshFile:
    """A `trimesh.Trimesh` with its texture or colours, in its own coordinates; `tell` is handed sentences on what is
    left out. NoMesh for shapes, numbers and textures that make none.
    """
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise NoMesh(f"has vertices of shape {vertices.shape} and faces of shape {faces.shape}")
    if not np.isfinite(vertices).all():
        raise NoMesh("holds NaN or Inf among its vertices")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise NoMesh("has faces that name missing vertices")
    visual = getattr(mesh, "visual", None)
    kind = getattr(visual, "kind", None)
    if visual is None or kind is None:
        return MeshFile(vertices, faces)
    if kind != "texture":
        if kind == "face":
            tell("colours of faces became colours of their vertices, averaged")
        levels = np.asarray(visual.vertex_colors)
        if bool((levels[:, 3:] < 255).any()):
            tell("the alpha of vertex colours was left out")
        return MeshFile(vertices, faces, levels[:, :3].astype(np.float32) / 255)
    material, uv = visual.material, visual.uv
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None or uv is None:
        color = np.asarray(material.main_color, np.float32)[:3] / 255
        return MeshFile(vertices, faces, np.tile(color, (len(vertices), 1)))
    if image.width * image.height > PIXEL_LIMIT:
        raise NoMesh(f"has a texture of {image.width} x {image.height}, and at most {PIXEL_LIMIT} pixels are read")
    try:
        texture = np.array(image.convert("RGBA" if "A" in image.getbands() else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise NoMesh(f"has a texture that cannot be decoded ({error})") from error
    corners = np.asarray(uv, np.float32)[faces]
    if not np.isfinite(corners).all():
        raise NoMesh("holds NaN or Inf among its texture coordinates")
    corners[..., 1] = 1 - corners[..., 1]
    return MeshFile(vertices, faces, None, corners, texture)


def to_trimesh(mesh: MeshFile, name: str = "material") -> Any:
    """A `trimesh.Trimesh`; with a texture, vertices are doubled where their corners have different coordinates, and the
    material is called `name`.
    """
    import trimesh
    from PIL import Image
    from trimesh.visual import ColorVisuals, TextureVisuals
    from trimesh.visual.material import SimpleMaterial

    if mesh.texture is None or mesh.uvs is None:
        colors = np.full((len(mesh.vertices), 3), 0.5) if mesh.colors is None else mesh.colors
        levels = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
        made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        made.visual = ColorVisuals(made, vertex_colors=levels)
        return made
    rows, uvs, faces = unshared_corners(mesh)
    made = trimesh.Trimesh(mesh.vertices[rows], faces, process=False)
    material = SimpleMaterial(image=Image.fromarray(mesh.texture), diffuse=[255, 255, 255, 255], name=name)
    made.visual = TextureVisuals(uv=np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1), material=material)
    return made
