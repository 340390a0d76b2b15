"""Triangle meshes as .glb, .obj and .ply, and the family `meshes`; the latter two through trimesh
(`pip install smalti[mesh]`).

Colours and textures are the display's, 8 bits a channel, neither linearised nor lit. Texture coordinates are those of
kind `triangle`: v runs down the picture's rows. `.ply` holds colours per vertex, no texture; `.obj` puts its material
and texture beside itself (NAME.mtl, NAME.png). `.glb` is +Y up, captures are -Y up: it is turned by half a turn about z
at the edge, both ways, as splats in glTF are; the others are left as they are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from smalti.files.checked import COPY_AGAIN, whole_file
from smalti.files.glb_build import write_glb_parts
from smalti.files.glb_meshes import read_glb_parts
from smalti.files.mesh import MeshFile, MeshPart, joined, leaves, merged
from smalti.files.splats import FileFormatError
from smalti.files.trimesh_values import NoMesh, from_trimesh, to_trimesh
from smalti.primitives.texture import logit

if TYPE_CHECKING:
    from smalti.primitives.family import Family
    from smalti.primitives.meshes import Meshes

EXTENSIONS = (".glb", ".obj", ".ply")
SIZE_LIMIT = 1 << 31
"""Bytes of a mesh file: trimesh holds it whole."""


def read_mesh(path: Path | str) -> MeshFile:
    """Read a mesh; vertices at the same place and of the same colour become one, so that seams do not open.

    Several meshes of a file are joined unless they have textures. A mesh without colours is mid grey. Raises
    FileFormatError for other extensions, damaged or hostile files, and several textures.
    """
    path = Path(path)
    _check(path)
    glb = path.suffix.lower() == ".glb"
    parts = [part.placed() for part in read_glb_parts(path)] if glb else _loaded(path)
    if not parts:
        raise FileFormatError(path, "holds no triangles", "Are they splats or points?")
    if len(parts) > 1 and any(part.texture is not None for part in parts):
        problem = f"holds {len(parts)} meshes with textures"
        # Only a .glb is read as a scene with a layer for each.
        other = "read the file as a scene (`smalti view`, `open_scene`)" if glb else "save it as .glb, read as a scene"
        raise FileFormatError(path, problem, f"Join them with one texture first, or {other}")
    return merged(joined(parts))


def write_mesh(path: Path | str, mesh: MeshFile) -> None:
    """Write a mesh; with a texture, vertices are doubled where their corners have different coordinates.

    Raises FileFormatError for other extensions and for a texture in `.ply`.
    """
    path = Path(path)
    _check(path)
    extension = path.suffix.lower()
    if extension == ".glb":
        write_glb_parts(path, [MeshPart(path.stem, mesh)])
        return
    from trimesh.exchange.obj import export_obj

    beside: dict[str, Any] = {}
    data: Any
    if extension == ".ply" and mesh.texture is not None:
        raise FileFormatError(path, "a .ply holds no texture", "Write .glb or .obj")
    made = to_trimesh(mesh, path.stem)
    if extension == ".obj":
        # trimesh writes eight digits; a float32 needs nine
        exported: Any = export_obj(made, return_texture=True, mtl_name=f"{path.stem}.mtl", digits=9)
        data, beside = exported[0].encode(), exported[1]
    else:
        data = made.export(file_type="ply")
    for name, content in beside.items():
        with whole_file(path.with_name(Path(name).name)) as stream:
            stream.write(content)
    with whole_file(path) as stream:
        stream.write(data)


def meshes_from_file(path: Path | str, metadata: Mapping[str, Any] | None = None) -> Meshes:
    """A layer of family `meshes` from a file; the picture of a textured one is the file's, texel by texel."""
    return meshes_of(read_mesh(path), metadata)


def meshes_of(mesh: MeshFile, metadata: Mapping[str, Any] | None = None) -> Meshes:
    """A layer of family `meshes`. FamilyError for metadata that mean nothing."""
    from smalti.primitives.meshes import Meshes

    values = Meshes.checked_metadata(metadata or {})
    faces, vertices = torch.from_numpy(np.ascontiguousarray(mesh.faces)), torch.from_numpy(mesh.vertices)
    if mesh.texture is None or mesh.uvs is None:
        colors = torch.full_like(vertices, 0.5) if mesh.colors is None else torch.from_numpy(mesh.colors)
        plain = {"texture_size": 0, "initial_opacity": 1.0}
        return Meshes.from_mesh(vertices, faces, colors, {**values, **plain})
    texture = logit(torch.from_numpy(mesh.texture.astype(np.float32) / 255))
    constants = {"faces": faces, "uvs": torch.from_numpy(np.ascontiguousarray(mesh.uvs))}
    return Meshes({"vertices": vertices, "raw_texture": texture}, values, constants)


@torch.no_grad()
def family_mesh(family: Family) -> MeshFile | None:
    """What a family draws as triangles, with its texture or else its colours at the vertices; None where it draws none.

    >>> from smalti.primitives.meshes import Meshes
    >>> ball = family_mesh(Meshes.sphere(torch.zeros(3), 1.0, {"level": 1, "texture_size": 32}))
    >>> ball.faces.shape, ball.texture.shape, ball.colors
    ((80, 3), (32, 32, 3), None)
    """
    surface, texture = family.surface(), family.texture()
    if surface is None:
        return None
    vertices, faces = surface.vertices.cpu().float().numpy(), surface.faces.cpu().long().numpy()
    if texture is not None and surface.uvs is not None:
        levels = (texture.cpu().float() * 255).round().byte().numpy()
        return MeshFile(vertices, faces, None, surface.uvs.cpu().float().numpy(), levels)
    return MeshFile(vertices, faces, None if surface.colors is None else surface.colors.cpu().float().numpy())


def goes_around(family: Family, mesh: MeshFile) -> bool:
    """Whether what the family draws depends on its texture's going on around in u, which of our formats .glb alone
    says.
    """
    return bool(family.metadata.get("wrap")) and leaves(mesh, 0)


def meshes_part(name: str, meshes: Meshes) -> tuple[MeshPart, tuple[str, ...]]:
    """A layer of family `meshes` as a part of a file, with its metadata; and sentences on what it does not hold."""
    mesh = family_mesh(meshes)
    assert mesh is not None
    lost = (f"the opacities of the faces of {name!r} were left out",) if "logit_opacities" in meshes.parameters else ()
    extras = {"family": meshes.name, "layer": name, "metadata": meshes.metadata}
    return MeshPart(name, mesh, wrap=bool(meshes.metadata["wrap"]), extras=extras), lost


def write_meshes(path: Path | str, meshes: Meshes) -> tuple[str, ...]:
    """Write a layer of family `meshes`; returns sentences on what the file does not hold."""
    part, lost = meshes_part(Path(path).stem, meshes)
    if Path(path).suffix.lower() == ".glb":
        write_glb_parts(path, [part])
        return lost
    write_mesh(path, part.mesh)
    return (*lost, *around_notice(part.name, meshes, part.mesh))


def around_notice(name: str, family: Family, mesh: MeshFile) -> tuple[str, ...]:
    """A sentence where a format other than .glb loses how a texture goes on."""
    if not goes_around(family, mesh):
        return ()
    return (
        f"that the texture of {name!r} goes on around in u, and not in v, only .glb says; where nothing is said, most "
        "programs repeat it in both",
    )


def _check(path: Path) -> None:
    if path.suffix.lower() not in EXTENSIONS:
        raise FileFormatError(path, f"no mesh format `{path.suffix}`", f"Formats: {', '.join(EXTENSIONS)}")
    if path.suffix.lower() != ".glb" and find_spec("trimesh") is None:
        raise FileFormatError(path, "mesh files need trimesh", "pip install smalti[mesh]")


def _loaded(path: Path) -> list[MeshFile]:
    """The file's meshes, placed by their nodes; trimesh reads bytes that were judged before."""
    import trimesh
    from trimesh.resolvers import Resolver

    missing: list[str] = []

    class Beside(Resolver):
        """Gives files of the same folder and no others."""

        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def get(self, key: str) -> bytes:
            target = self.folder / key
            if Path(key).name != key or not target.is_file() or target.stat().st_size > SIZE_LIMIT:
                missing.append(key)  # trimesh may go on without it; we do not
                raise FileNotFoundError(key)
            return target.read_bytes()

        def namespaced(self, namespace: str) -> Resolver:
            return self

        def write(self, name: str, data: bytes) -> None:
            raise NotImplementedError

        def keys(self) -> list[str]:
            return []

    _bounded(path)
    try:
        data = io.BytesIO(path.read_bytes())
        scene = trimesh.load_scene(data, file_type=path.suffix.lower()[1:], resolver=Beside(path.parent), process=False)
        found = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
        meshes = [from_trimesh(mesh) for mesh in found]
    except NoMesh as error:
        raise FileFormatError(path, str(error), COPY_AGAIN) from error
    except Exception as error:  # trimesh promises none: whatever it stumbles over is the file's
        raise FileFormatError(
            path, f"cannot be read ({type(error).__name__}: {str(error)[:120]})", COPY_AGAIN
        ) from error
    if missing:
        raise FileFormatError(path, f"names the file {missing[0][:80]!r}, which is not beside it", "Put it there")
    return meshes


def _bounded(path: Path) -> None:
    """Refuse announcements that do not fit in the file, before trimesh takes memory for them."""
    size = path.stat().st_size
    if size > SIZE_LIMIT:
        raise FileFormatError(path, f"has {size} bytes, read are {SIZE_LIMIT}", "Split it")
    extension = path.suffix.lower()
    with path.open("rb") as stream:
        if extension == ".ply":
            head = stream.read(65536).split(b"end_header")[0]
            for line in head.splitlines():
                words = line.split()
                if words[:1] == [b"element"] and not (len(words) == 3 and words[2].isdigit() and int(words[2]) <= size):
                    problem = f"announces {line[:60].decode(errors='replace')!r} in {size} bytes"
                    raise FileFormatError(path, problem, COPY_AGAIN)
