"""A scene, or a part of it, as the bytes of a file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from smalti.primitives.rows import RowMap
from smalti.scene.changes import shallow
from smalti.scene.scene import Layer, Scene
from smalti.scene.selection import Selection

FORMATS = (".ply", ".spz", ".sog", ".splat", ".glb", ".obj", ".json", ".smalti")
"""By extension; `smalti.scene.exchange` says which holds what. `.smalti` holds everything."""


def part_of(scene: Scene, selection: Selection | None = None) -> Scene:
    """A scene of its own, of visible layers: of what is selected in them, or all."""
    masks = None if selection is None else selection.masks(scene)
    part = scene.like()
    for held in scene.visible_layers():
        family = held.family
        if masks is not None:
            if not bool(masks[held.name].any()):
                continue
            family = shallow(family)
            family.rearrange(RowMap.keep(masks[held.name]))
        part.layers[held.name] = Layer(held.name, family.copy(), locked=held.locked, similarity=held.similarity)
    return part


def bytes_of(part: Scene, extension: str) -> tuple[bytes, tuple[str, ...]]:
    """(content, what the format does not hold) of a file. ValueError where there is nothing to write, or where the
    format cannot hold a family.
    """
    from smalti.scene.exchange import export_scene

    if not len(part):
        raise ValueError("there is nothing to write: no visible layer has a primitive of it")
    with tempfile.TemporaryDirectory(prefix="smalti-") as folder:
        path = Path(folder) / f"scene{extension}"
        if extension == ".smalti":
            part.save(path)
            return path.read_bytes(), ()
        done = export_scene(part, path)
        return path.read_bytes(), done.notices
