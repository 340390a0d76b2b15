"""A scene as a file for other programs: what is visible, in the input's frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smalti.files import extension_of, write_scene_file
from smalti.files.contents import TITLES
from smalti.files.frames import reframing
from smalti.files.splats import SplatMetadata
from smalti.scene.exchange_meshes import has_triangles, write_layers
from smalti.scene.exchange_splats import gathered_splats
from smalti.scene.scene import Layer, Scene


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    primitives: int
    bytes: int
    metadata: SplatMetadata | None
    """Of the splats; None where there are none."""
    layers: tuple[str, ...]
    notices: tuple[str, ...] = ()
    """What the format did not hold, in sentences."""
    faces: int = 0
    """Triangles that were written."""


def export_scene(
    scene: Scene, path: Path | str, names: Sequence[str] | None = None, frame: str | None = None
) -> Exported:
    """Write the visible layers (those in `names`, by default all) to `path`, by its extension; layer transforms are
    applied. What no file format holds, the scene folder does (`smalti.scene.folder`).

    Splat formats take layers of Gaussians, several become one. `.obj` and `.ply` take layers of triangles, `.json` one
    layer of superquadrics, `.glb` all of these, each layer as nodes of its own. `frame` names the axes of the file
    where they are not to be the format's usual ones (`smalti.files.frames.FRAMES`).

    Colour coefficients beyond the degree in use are written as zeros, so that other programs show the same picture.
    Raises ValueError where nothing is visible, where a format cannot hold a layer's family, or where layers differ in
    screen filter; FileFormatError for an unknown extension or numbers that are NaN.
    """
    path = Path(path)
    layers = chosen_layers(scene, names)
    move = reframing(path, frame, writing=True)
    extension = path.suffix.lower()
    both = extension in TITLES and extension_of(path) != ".compressed.ply"
    if extension in (".obj", ".json") or (both and any(has_triangles(layer.family) for layer in layers)):
        path.parent.mkdir(parents=True, exist_ok=True)
        primitives = sum(len(layer.family) for layer in layers)
        faces, metadata, notices = write_layers(scene, layers, path, move)
        written = tuple(layer.name for layer in layers)
        return Exported(path, primitives, path.stat().st_size, metadata, written, notices, faces)
    _require_splats(layers)
    splats, transform = gathered_splats(layers, scene.order, move)
    notices = write_scene_file(path, splats, transform)
    return Exported(
        path, len(splats), path.stat().st_size, splats.metadata, tuple(layer.name for layer in layers), notices
    )


def chosen_layers(scene: Scene, names: Sequence[str] | None) -> list[Layer]:
    """Visible layers with primitives, those in `names` where some are given. ValueError where there are none."""
    layers = [layer for layer in scene.visible_layers() if names is None or layer.name in names]
    missing = sorted(set(names or ()) - {layer.name for layer in layers})
    if missing:
        there = ", ".join(layer.name for layer in scene.visible_layers())
        raise ValueError(f"export: there is no visible layer {missing[0]!r} with primitives; there are {there}")
    if not layers:
        raise ValueError("export: there is nothing to write; no visible layer has a primitive")
    return layers


def _require_splats(layers: list[Layer]) -> None:
    foreign = [layer for layer in layers if not layer.family.is_splats]
    if not foreign:
        return
    fit = [layer.name for layer in layers if layer.family.is_splats]
    only = f"they can hold the layers {', '.join(fit)} (--layers {','.join(fit)}); " if fit else ""
    meshes = ".glb holds meshes, superquadrics and Gaussians together; " if has_triangles(foreign[0].family) else ""
    raise ValueError(
        f"export: layer {foreign[0].name!r} is of family {foreign[0].family.name!r}, which splat files cannot hold; "
        f"{only}{meshes}a scene folder holds every layer (give a path without an extension), or one file: .smalti"
    )
