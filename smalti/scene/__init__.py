"""Scenes: layers, selections, edits with undo, folders. Public names load on first use (`docs/editing.md`)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOME, for type checkers and editors
    from smalti.scene.budgets import simplify
    from smalti.scene.changes import EditError
    from smalti.scene.conversions.convert import convert_layer
    from smalti.scene.demo import demo_camera, demo_scene
    from smalti.scene.edits import apply_to, middle, mirror, move, rotate, scale, transform
    from smalti.scene.filling import fill
    from smalti.scene.handles import LayerHandle, add_layer
    from smalti.scene.history import History
    from smalti.scene.looks import expose, fade, hue, recolor, replace_texture, saturate, set_opacity, tint
    from smalti.scene.nearby import connected, flood, nearest
    from smalti.scene.parts import NoParts, Part, Parts, parts_of, split_parts
    from smalti.scene.plain import SceneFileError
    from smalti.scene.scene import Layer, Scene
    from smalti.scene.screen import contributing, contributions, in_polygon, in_rectangle, total_contributions
    from smalti.scene.selection import Selection, box, everything, half_space, index, layer, sphere, visible
    from smalti.scene.structure import array, crop, delete, duplicate, merge, split
    from smalti.scene.values import Values, where

_HOME = {
    "EditError": "smalti.scene.changes",
    "History": "smalti.scene.history",
    "Layer": "smalti.scene.scene",
    "LayerHandle": "smalti.scene.handles",
    "NoParts": "smalti.scene.parts",
    "Part": "smalti.scene.parts",
    "Parts": "smalti.scene.parts",
    "Scene": "smalti.scene.scene",
    "SceneFileError": "smalti.scene.plain",
    "Selection": "smalti.scene.selection",
    "Values": "smalti.scene.values",
    "add_layer": "smalti.scene.handles",
    "apply_to": "smalti.scene.edits",
    "array": "smalti.scene.structure",
    "box": "smalti.scene.selection",
    "connected": "smalti.scene.nearby",
    "contributing": "smalti.scene.screen",
    "contributions": "smalti.scene.screen",
    "convert_layer": "smalti.scene.conversions.convert",
    "crop": "smalti.scene.structure",
    "delete": "smalti.scene.structure",
    "demo_camera": "smalti.scene.demo",
    "demo_scene": "smalti.scene.demo",
    "duplicate": "smalti.scene.structure",
    "everything": "smalti.scene.selection",
    "expose": "smalti.scene.looks",
    "fade": "smalti.scene.looks",
    "fill": "smalti.scene.filling",
    "flood": "smalti.scene.nearby",
    "half_space": "smalti.scene.selection",
    "hue": "smalti.scene.looks",
    "in_polygon": "smalti.scene.screen",
    "in_rectangle": "smalti.scene.screen",
    "index": "smalti.scene.selection",
    "layer": "smalti.scene.selection",
    "merge": "smalti.scene.structure",
    "middle": "smalti.scene.edits",
    "mirror": "smalti.scene.edits",
    "move": "smalti.scene.edits",
    "nearest": "smalti.scene.nearby",
    "parts_of": "smalti.scene.parts",
    "recolor": "smalti.scene.looks",
    "replace_texture": "smalti.scene.looks",
    "rotate": "smalti.scene.edits",
    "saturate": "smalti.scene.looks",
    "scale": "smalti.scene.edits",
    "set_opacity": "smalti.scene.looks",
    "simplify": "smalti.scene.budgets",
    "sphere": "smalti.scene.selection",
    "split": "smalti.scene.structure",
    "split_parts": "smalti.scene.parts",
    "tint": "smalti.scene.looks",
    "total_contributions": "smalti.scene.screen",
    "transform": "smalti.scene.edits",
    "visible": "smalti.scene.selection",
    "where": "smalti.scene.values",
}
__all__ = [
    "EditError",
    "History",
    "Layer",
    "LayerHandle",
    "NoParts",
    "Part",
    "Parts",
    "Scene",
    "SceneFileError",
    "Selection",
    "Values",
    "add_layer",
    "apply_to",
    "array",
    "box",
    "connected",
    "contributing",
    "contributions",
    "convert_layer",
    "crop",
    "delete",
    "demo_camera",
    "demo_scene",
    "duplicate",
    "everything",
    "expose",
    "fade",
    "fill",
    "flood",
    "half_space",
    "hue",
    "in_polygon",
    "in_rectangle",
    "index",
    "layer",
    "merge",
    "middle",
    "mirror",
    "move",
    "nearest",
    "parts_of",
    "recolor",
    "replace_texture",
    "rotate",
    "saturate",
    "scale",
    "set_opacity",
    "simplify",
    "sphere",
    "split",
    "split_parts",
    "tint",
    "total_contributions",
    "transform",
    "visible",
    "where",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'smalti.scene' has no attribute {name!r}")
    # Kept: the next time it is found without this function.
    globals()[name] = value = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
