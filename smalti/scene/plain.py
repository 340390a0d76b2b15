"""What is read from outside becomes a scene, or an error that says what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.files.splats import FileFormatError
from smalti.primitives.registry import FamilyError
from smalti.scene.scene import SCENE_VERSION, Scene

EXPORT_AGAIN = "Save or export the scene again"


class SceneFileError(FileFormatError):
    """A scene that cannot be read or written: which file, what is wrong, what to do about it."""


def scene_from(path: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Scene:
    """The inverse of `Scene.state` for values from a file. SceneFileError for a version from the future, families that
    are not there, tensors that are missing or nobody's, and values that mean nothing.

    >>> from pathlib import Path
    >>> from smalti.scene import demo_scene
    >>> from smalti.scene.plain import scene_from
    >>> scene_from(Path("here"), *demo_scene().state()).counts()
    {'chair': 8, 'cloud': 12}
    """
    version = plain.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SceneFileError(path, f"states no version that there was ({str(version)[:40]})", EXPORT_AGAIN)
    if version > SCENE_VERSION:
        problem = f"is a scene of version {version}, newer than this program reads ({SCENE_VERSION})"
        raise SceneFileError(path, problem, "Update smalti, or export it with this version")
    _require(path, plain.get("order") in ("centre", "ray"), "order", "`centre` or `ray`")
    _require(path, _is_number(plain.get("near")) and plain["near"] > 0, "near", "a positive number")
    background = plain.get("background")
    colors = isinstance(background, list) and len(background) == 3 and all(map(_is_number, background))
    _require(path, background is None or colors, "background", "three numbers or null")
    if plain.get("canonical_from_scene") is not None:
        _check_similarity(path, plain["canonical_from_scene"], "canonical_from_scene")
    layers = plain.get("layers")
    _require(path, isinstance(layers, list), "layers", "a list")
    assert isinstance(layers, list)
    names = [_checked_layer(path, number, layer) for number, layer in enumerate(layers)]
    _require(path, len(set(names)) == len(names), "layers", "layers with names of their own")
    orphans = sorted(name for name in tensors if name.split("/", 1)[0] not in names)
    if orphans:
        raise SceneFileError(path, f"the tensor {orphans[0][:80]!r} belongs to no layer", EXPORT_AGAIN)
    try:
        return Scene.from_state(dict(tensors), {**plain, "background": background})
    except FamilyError as error:
        raise SceneFileError(path, str(error), EXPORT_AGAIN) from error
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        problem = f"its values do not fit together ({type(error).__name__}: {str(error)[:200]})"
        raise SceneFileError(path, problem, EXPORT_AGAIN) from error


def _checked_layer(path: Path, number: int, layer: object) -> str:
    where = f"layers[{number}]"
    _require(path, isinstance(layer, dict), where, "an object")
    assert isinstance(layer, dict)
    for key, kind in (("name", str), ("family", str), ("metadata", dict), ("visible", bool), ("locked", bool)):
        _require(path, isinstance(layer.get(key), kind), f"{where}.{key}", f"of type {kind.__name__}")
    _check_similarity(path, layer.get("similarity"), f"{where}.similarity")
    return layer["name"]


def _check_similarity(path: Path, place: object, where: str) -> None:
    _require(path, isinstance(place, dict), where, "an object")
    assert isinstance(place, dict)
    flat = [place.get("scale"), *_flat(place.get("rotation")), *_flat(place.get("translation"))]
    fits = len(flat) == 13 and all(map(_is_number, flat))
    _require(path, fits, where, "scale, rotation (3 x 3) and translation (3), finite")


def _flat(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) != 3:
        return []
    return [each for row in value for each in (row[:4] if isinstance(row, list) else [row])]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(path: Path, fits: bool, what: str, expected: str) -> None:
    if not fits:
        raise SceneFileError(path, f"`{what}` should be {expected}", EXPORT_AGAIN)
