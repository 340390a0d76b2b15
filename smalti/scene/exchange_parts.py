"""Separate parts as files: one closed, textured mesh each, all of them in one file, and the assembly as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smalti.files.frames import reframing
from smalti.scene.changes import shallow
from smalti.scene.exchange import export_scene
from smalti.scene.exchange_meshes import write_assembly_of
from smalti.scene.parts import part_names, parts_of
from smalti.scene.scene import Layer, Scene
from smalti.scene.structure import merge


@dataclass(frozen=True)
class ExportedParts:
    """What was written."""

    files: tuple[Path, ...]
    """One .glb for each part."""
    joint: Path
    """All parts in one .glb, each a node."""
    assembly: Path | None
    """None where the parts' families have no JSON."""
    bytes: int
    """Of all of them."""
    notices: tuple[str, ...]
    """What the files do not hold, in sentences."""

    def __str__(self) -> str:
        first, *others = self.files
        also = [path.name for path in (self.joint, self.assembly) if path is not None]
        many = f"{1 + len(others)} parts: {first} to {others[-1].name}" if others else f"one part: {first}"
        return f"{many}, {', '.join(also)} ({self.bytes / 1e6:.1f} MB)"


def export_parts(
    scene: Scene, folder: Path | str, beside: Path | str | None = None, frame: str | None = None
) -> ExportedParts:
    """Write `PART.glb` for every separate part of the visible layers into `folder`, and into `beside` (by default the
    same folder) `parts.glb` (`all-parts.glb` where a part has that name) with all of them and `assembly.json`.

    Files of a former export into that folder that bear a part's name are replaced, others stay. `frame`: axes of the
    .glb files (`export_scene`). NoParts where the scene has none.

    >>> import tempfile, torch
    >>> from smalti.primitives.family import find_family
    >>> from smalti.scene import Scene
    >>> from smalti.scene.exchange_parts import export_parts
    >>> scene, generator = Scene(order="ray"), torch.Generator().manual_seed(0)
    >>> bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> held = scene.add("toy", find_family("superquadrics").at_random(bounds, 2, generator, {"texture_size": 4}))
    >>> with tempfile.TemporaryDirectory() as place:
    ...     done = export_parts(scene, place)
    ...     [path.name for path in done.files], done.joint.name, done.assembly.name
    (['block-00.glb', 'block-01.glb'], 'parts.glb', 'assembly.json')
    """
    folder = Path(folder)
    around = folder if beside is None else Path(beside)
    parts = parts_of(scene)
    files = [folder / f"{name}.glb" for name in parts.names]
    for name, path in zip(parts.names, files, strict=True):
        export_scene(parts.scene, path, [name], frame)
    joint = around / "parts.glb"
    if joint in files:  # a part that is called so
        joint = around / "all-parts.glb"
    told = list(export_scene(scene, joint, _sources(scene), frame).notices)
    assembly: Path | None = around / "assembly.json"
    try:
        together, named = _together(scene)
        _, _, notices = write_assembly_of(together, assembly, reframing(assembly, None, writing=True), named)
        told += [f"assembly.json: {notice}" for notice in notices]
    except ValueError as error:
        told.append(f"assembly.json was not written: {error}")
        assembly = None
    written = [*files, joint, *([] if assembly is None else [assembly])]
    size = sum(path.stat().st_size for path in written)
    return ExportedParts(tuple(files), joint, assembly, size, tuple(told))


def _sources(scene: Scene) -> list[str]:
    return [held.name for held in scene.visible_layers() if held.family.separate_parts() is not None]


def _together(scene: Scene) -> tuple[list[Layer], dict[int, str]]:
    """The layers with parts alone, those of one family joined: parts that an edit has put into layers of their own are
    one assembly still; and the parts' names by their rows in it. ValueError where they cannot be joined.
    """
    result, families, named, before = scene.like(), dict[str, list[str]](), dict[int, str](), 0
    for name, rows in part_names(scene).items():
        held = scene.layers[name]
        result.layers[name] = Layer(name, shallow(held.family), similarity=held.similarity)
        families.setdefault(held.family.name, []).append(name)
        named |= {before + row: called for row, called in rows.items()}
        before += len(held.family)
    for names in families.values():
        if len(names) > 1:
            merge(result, names)
    return list(result.layers.values()), named
