"""Any file as a scene: splats, meshes, blocks, assemblies, mixes of them in one .glb, and scenes themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.files import FORMATS, extension_of, read_scene_file
from smalti.files.contents import ASSEMBLY, SPLATS, TITLES, contents_of
from smalti.files.frames import reframing
from smalti.files.mesh import MeshPart, into_tile, joined, leaves, merged
from smalti.files.splats import FileFormatError, Splats
from smalti.files.strict_json import numbers
from smalti.primitives.family import Family, FamilyError, find_family
from smalti.scene.folder import is_scene
from smalti.scene.scene import Scene

MOST_LAYERS = 64
"""Textured meshes of a file; each is a layer."""


@dataclass(frozen=True, eq=False)
class OpenedFile:
    """A file as a scene, and what there is to say about it."""

    scene: Scene
    title: str
    """The format in words."""
    notices: tuple[str, ...] = ()
    splats: Splats | None = None
    """What a file of splats alone said."""


def open_scene(path: Path | str, frame: str | None = None) -> OpenedFile:
    """The scene in a file of any format that is read, or in a scene folder.

    Args:
        path: the file or folder. Formats that hold several things are told apart by their content.
        frame: the axes of the file, where they are not the format's usual ones (`smalti.files.frames.FRAMES`).

    A glTF's meshes become a layer for every texture and one for all that have none; what this program wrote becomes the
    layers that it was. Raises FileFormatError for damaged, hostile and unknown files.

    >>> import tempfile
    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.open_file import open_scene
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = demo_scene().save(folder)
    ...     open_scene(folder).scene.counts()
    {'chair': 8, 'cloud': 12}
    """
    path = Path(path)
    if is_scene(path):
        opened = OpenedFile(Scene.load(path), "scene folder" if path.is_dir() else "scene file")
    elif path.is_dir():
        opened = _of_splats(read_scene_file(path), "SOG folder")
    else:
        opened = _of_file(path, contents_of(path))
    move = reframing(path, frame)
    if not move.is_identity:
        opened.scene.turn_canonical(move)
        for layer in opened.scene:
            if layer.similarity.is_identity:
                layer.family.transform(move)
            else:
                layer.similarity = move @ layer.similarity
    return opened


def splat_family(splats: Splats, kind: type[Family] | None = None) -> Family:
    """A layer of splats (by default Gaussians) with the metadata that a file states."""
    family = kind or find_family("gaussians")
    stated = {
        "filter_variance": splats.metadata.filter_variance,
        "compensated": splats.metadata.compensated,
        "sh_degree": splats.held_degree,
        "active_sh_degree": splats.sh_degree,
    }
    known = family.default_metadata()
    return family(splats.to_parameters(), {key: value for key, value in stated.items() if key in known})


def _of_splats(splats: Splats, title: str = "splats") -> OpenedFile:
    scene = Scene(order="ray" if splats.metadata.order == "ray" else "centre")
    scene.add("gaussians", splat_family(splats))
    return OpenedFile(scene, title, splats.notices, splats)


def _of_file(path: Path, contents: frozenset[str]) -> OpenedFile:
    if contents == frozenset({SPLATS}):
        return _of_splats(read_scene_file(path), FORMATS[extension_of(path) or ".ply"].title)
    title = TITLES[path.suffix.lower()]
    if ASSEMBLY in contents:
        from smalti.files.assembly import read_assembly

        scene = Scene(order="ray")
        scene.add("blocks", read_assembly(path))
        return OpenedFile(scene, title)
    if path.suffix.lower() != ".glb":
        from smalti.files.mesh_files import read_mesh

        scene, told = Scene(order="ray"), list[str]()
        repeats = path.suffix.lower() == ".obj"  # where a material does not say otherwise
        part = MeshPart("meshes", into_tile(read_mesh(path), (repeats, repeats)), wrap=repeats, wrap_rows=repeats)
        scene.add("meshes", _mesh_family(path, [part], told))
        return OpenedFile(scene, title, tuple(told))
    return _of_glb(path, SPLATS in contents)


def _of_glb(path: Path, with_splats: bool) -> OpenedFile:
    from smalti.files.glb_meshes import read_glb
    from smalti.files.splats_glb import read_splats_glb

    parts, stated = read_glb(path)
    scene, notices, title = _stated_scene(path, stated), list[str](), "glTF with meshes"
    for name, family in _layers(path, parts, notices):
        scene.add(_free(scene, name), family)
    if with_splats:
        splats = read_splats_glb(path, meshes_elsewhere=True)
        notices += splats.notices
        name = str(stated.get("splats") or "gaussians")
        scene.add(_free(scene, name), splat_family(splats))
        title += " and splats"
    return OpenedFile(scene, title, tuple(notices))


def _stated_scene(path: Path, stated: dict[str, Any]) -> Scene:
    scene = Scene(order="centre" if stated.get("order") == "centre" else "ray")
    near, background = stated.get("near"), stated.get("background")
    if isinstance(near, int | float) and not isinstance(near, bool) and 0 < near < math.inf:
        scene.near = float(near)
    if background is not None:
        red, green, blue = numbers(path, background, "background", 3)
        scene.background = (float(red), float(green), float(blue))
    return scene


def _layers(path: Path, parts: Sequence[MeshPart], notices: list[str]) -> Iterable[tuple[str, Family]]:
    """Our own layers by their names; what is foreign by its textures."""
    from smalti.files.block_files import blocks_from_parts, is_block

    groups: dict[tuple[str, Any], list[MeshPart]] = {}
    for part in parts:
        said = (part.extras or {}).get("layer")
        if isinstance(said, str) and is_block(part):
            key = ("blocks", said)
        elif isinstance(said, str):
            key = ("layer", said)
        else:
            key = ("foreign", None if part.mesh.texture is None else id(part.mesh.texture))
        groups.setdefault(key, []).append(part)
    if len(groups) > MOST_LAYERS:
        problem = f"holds meshes with {len(groups)} textures or layers"
        raise FileFormatError(path, problem, f"At most {MOST_LAYERS}; join some of them")
    for (kind, said), group in groups.items():
        if kind == "blocks":
            yield str(said), blocks_from_parts(path, group)
        else:
            yield str(said) if kind == "layer" else group[0].name, _mesh_family(path, group, notices)


def _mesh_family(path: Path, group: Sequence[MeshPart], notices: list[str]) -> Family:
    from smalti.files.mesh_files import meshes_of

    mesh = merged(joined([part.placed() for part in group]))
    extras = group[0].extras or {}
    clear = [part.name for part in group if part.opacity < 1]
    if clear:
        notices.append(f"the opacity of the material of {clear[0]!r} was not read")
    metadata, wrap = extras.get("metadata"), group[0].wrap and leaves(mesh, 0)
    if group[0].wrap_rows and not extras and leaves(mesh, 1):
        notices.append(f"the texture of {group[0].name!r} repeats from top to bottom, which is not drawn")
    try:
        return meshes_of(mesh, metadata if isinstance(metadata, dict) else {"wrap": wrap})
    except FamilyError as error:
        raise FileFormatError(
            path, f"its layer {group[0].name!r} has no meaning: {error}", "Export it again"
        ) from error


def _free(scene: Scene, name: str) -> str:
    plain = name.replace("/", "_").strip() or "layer"
    number, found = 2, plain
    while found in scene.layers:
        number, found = number + 1, f"{plain} {number}"
    return found


__all__ = ["OpenedFile", "is_scene", "open_scene", "splat_family"]
