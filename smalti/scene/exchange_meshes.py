"""Layers of triangles in files: meshes, superquadrics, whatever draws a surface; beside Gaussians in one .glb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from smalti.cameras.similarity import Similarity
from smalti.files.block_files import block_parts, blocks_mesh
from smalti.files.glb_build import GlbBuilder
from smalti.files.mesh import MeshFile, MeshPart, joined
from smalti.files.mesh_files import around_notice, family_mesh, meshes_part, write_mesh
from smalti.files.splats import SplatMetadata
from smalti.primitives.family import Family
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene.exchange_splats import gathered_splats
from smalti.scene.parts import part_names
from smalti.scene.scene import Layer, Scene

Written = tuple[int, SplatMetadata | None, tuple[str, ...]]
"""Triangles, metadata of the splats, notices."""


def has_triangles(family: Family) -> bool:
    """Whether mesh files can hold what the family draws."""
    return isinstance(family, Meshes | Superquadrics) or family.surface() is not None


def write_layers(scene: Scene, layers: list[Layer], path: Path, move: Similarity) -> Written:
    """Write layers, moved by `move`, to a .glb, .obj, .ply or .json. ValueError where a format cannot hold one.

    Nodes of a .glb that are parts of the scene are called as those (`part_names`).
    """
    extension = path.suffix.lower()
    if extension == ".json":
        return write_assembly_of(layers, path, move)
    foreign = [layer for layer in layers if not layer.family.is_splats and not has_triangles(layer.family)]
    if extension != ".glb":
        foreign = [layer for layer in layers if not has_triangles(layer.family)]
    if foreign:
        _refuse(foreign[0], layers, extension)
    if extension == ".glb":
        return _glb(scene, layers, path, move)
    notices, meshes = list[str](), list[MeshFile]()
    for layer in layers:
        mesh, told = _plain_mesh(layer, moved(layer, move), extension)
        meshes.append(mesh)
        notices += told
    textured = [layer.name for layer, mesh in zip(layers, meshes, strict=True) if mesh.texture is not None]
    if textured and len(layers) > 1:
        raise ValueError(
            f"export: {extension} is written with one texture at most, and layer {textured[0]!r} is not alone. "
            f"Write .glb, or that layer by itself (--layers {textured[0]})"
        )
    whole = joined(meshes)
    write_mesh(path, whole)
    return len(whole.faces), None, tuple(notices)


def moved(layer: Layer, move: Similarity) -> Family:
    """The layer's family where it stands in the file; a copy where anything moves."""
    whole = move @ layer.similarity
    if whole.is_identity:
        return layer.family
    family = layer.family.copy()
    family.transform(whole)
    return family


def _refuse(layer: Layer, layers: list[Layer], extension: str) -> None:
    fit = [
        each.name for each in layers if has_triangles(each.family) or (each.family.is_splats and extension == ".glb")
    ]
    only = f"It can hold the layers {', '.join(fit)} (--layers {','.join(fit)}); " if fit else ""
    mixed = "write .glb, which holds both; " if layer.family.is_splats else ""
    raise ValueError(
        f"export: layer {layer.name!r} is of family {layer.family.name!r}, which {extension} cannot hold. "
        f"{only}{mixed}a scene folder or a .smalti file holds every layer"
    )


def _glb(scene: Scene, layers: list[Layer], path: Path, move: Similarity) -> Written:
    notices, faces, metadata = list[str](), 0, None
    said = {"order": scene.order, "near": scene.near, "background": scene.background}
    names = part_names(scene)
    with GlbBuilder(path) as builder:
        for layer in layers:
            if layer.family.is_splats:
                continue
            parts, told = _parts(layer, moved(layer, move), names.get(layer.name, {}))
            notices += told
            for part in parts:
                builder.add_part(part, placed_by_node=isinstance(layer.family, Superquadrics))
                faces += len(part.mesh.faces)
        splats = [layer for layer in layers if layer.family.is_splats]
        if splats:
            gathered, transform = gathered_splats(splats, scene.order, move)
            metadata, said["splats"] = gathered.metadata, splats[0].name
            if len(splats) > 1:
                notices.append(f"the layers {', '.join(layer.name for layer in splats)} became one")
            builder.add_splats(splats[0].name, gathered, transform, {"layer": splats[0].name})
        builder.write(said)
    return faces, metadata, tuple(notices)


def _parts(layer: Layer, family: Family, names: Mapping[int, str]) -> tuple[list[MeshPart], tuple[str, ...]]:
    if isinstance(family, Superquadrics):
        return block_parts(layer.name, family, names)
    if isinstance(family, Meshes):
        part, told = meshes_part(layer.name, family)
        return [part], told
    mesh, told = _surface_mesh(layer, family)
    return [MeshPart(layer.name, mesh)], told


def _plain_mesh(layer: Layer, family: Family, extension: str) -> tuple[MeshFile, tuple[str, ...]]:
    if isinstance(family, Meshes):
        part, told = meshes_part(layer.name, family)
        return part.mesh, (*told, *around_notice(layer.name, family, part.mesh))
    if isinstance(family, Superquadrics) and extension == ".obj":
        blocks = f"the blocks of {layer.name!r} were written as triangles; .glb keeps what they were made from"
        return blocks_mesh(family), (blocks, *_clear(layer, family))
    mesh, told = _surface_mesh(layer, family)
    return mesh, (*told, *_clear(layer, family))


def _clear(layer: Layer, family: Family) -> tuple[str, ...]:
    """A sentence where primitives that one can see through become opaque."""
    if isinstance(family, Superquadrics) and family.metadata["binary"]:
        return ()
    opacities = family.opacities().detach()
    count = int((opacities < 0.99).sum())
    return (f"{count:,} primitives of {layer.name!r} that one can see through became opaque",) if count else ()


def _surface_mesh(layer: Layer, family: Family) -> tuple[MeshFile, tuple[str, ...]]:
    mesh = family_mesh(family)
    assert mesh is not None
    if mesh.texture is not None:
        return mesh, ()
    return mesh, (f"layer {layer.name!r} was written as triangles with a colour per vertex",)


def write_assembly_of(
    layers: list[Layer], path: Path, move: Similarity, names: Mapping[int, str] | None = None
) -> Written:
    """Write the one layer of superquadrics as an assembly, its primitives called as `names` says of their rows.
    ValueError where it is not one such layer.
    """
    from smalti.files.assembly import write_assembly

    blocks = [layer for layer in layers if isinstance(layer.family, Superquadrics)]
    if len(layers) != 1 or not blocks:
        alone = f" Write one alone: --layers {blocks[0].name}" if blocks else ""
        raise ValueError(
            f"export: a .json assembly holds one layer of superquadrics, and these are "
            f"{', '.join(f'{layer.name} ({layer.family.name})' for layer in layers)}.{alone}"
        )
    family = moved(layers[0], move)
    assert isinstance(family, Superquadrics)
    return 0, None, write_assembly(path, family, names=names)
