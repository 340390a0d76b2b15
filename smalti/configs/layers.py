"""The layers of a configuration as plain values: the form that knew one family alone, and what the command line says.

`model.family`, `model.metadata` and `optimizer.learning_rates` were the options of a scene of one layer; runs and files
that hold them are read as `scene:` with that layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, get_origin

from smalti.configs.config import LayerConfig

ALONE = "*"
"""In place of a layer's name: the only one."""
FORMER = {
    ("model", "family"): "family",
    ("model", "metadata"): "metadata",
    ("optimizer", "learning_rates"): "learning_rates",
}
"""(section, key) of the former options -> field of a layer."""
BARE = ("family", "metadata", "initializer", "settings", "learning_rates", "regularizers", "frozen")
"""Fields that need no layer's name where there is one layer."""


BELONGS = {"family": ("metadata", "learning_rates", "regularizers"), "initializer": ("settings",)}
"""Field -> what was said for its former value and goes when the command line changes it."""


class LayerError(ValueError):
    """A layer or a field of one that does not exist; says which there are."""


def layer_fields() -> dict[str, tuple[str, Any]]:
    """Field -> (documentation, annotation)."""
    return {name: (info.description or "", info.annotation) for name, info in LayerConfig.model_fields.items()}


def in_present_form(values: Mapping[str, Any], before: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """`values` with the former options as layers, given the layers that they are put over. LayerError where it is not
    clear which layer is meant.
    """
    result, given = deepcopy(dict(values)), {}
    for (section, key), field in FORMER.items():
        if isinstance(result.get(section), dict) and key in result[section]:
            value = result[section].pop(key)
            if value not in ("", {}, None):
                given[field] = value
    if not given:
        return result
    if "scene" in result:
        raise LayerError("scene: the former options model.family, model.metadata and optimizer.learning_rates belong "
                         "to a scene of one layer; write them into the layer")  # fmt: skip
    same = before is not None and len(before) == 1 and given.get("family") in (None, before[0].get("family"))
    if not same and "family" not in given:
        raise LayerError(
            f"{next(iter(given))}: the scene has not one layer but {len(before or ())}; write it into a layer"
        )
    result["scene"] = [_merged(before[0], given) if same and before else given]
    return result


def with_former_rates(layers: Sequence[Any], before: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A list of layers that replaces `before`, with the learning rates that a layer of the same name and family had
    there, or the only one of its family: rates are set for a preset's length, not for a layer. Its own come first.
    """
    result: list[Any] = []
    for layer in layers:
        mapping = isinstance(layer, Mapping)
        alike = [each for each in before if mapping and each.get("family") == layer.get("family")]
        named = [each for each in alike if each.get("name") and each.get("name") == layer.get("name")]
        former = (named or (alike if len(alike) == 1 else [{}]))[0].get("learning_rates") if alike else None
        given = layer.get("learning_rates") if mapping else None
        if former and (given is None or isinstance(given, Mapping)):
            layer = {**layer, "learning_rates": {**former, **(given or {})}}
        result.append(layer)
    return result


def full_layer_name(name: str) -> str | None:
    """The full dotted name (`scene.NAME.FIELD`, NAME `*` for the only layer) of what means a layer's field; None where
    `name` does not. LayerError for fields that do not exist.
    """
    parts = name.split(".")
    for (section, key), field in FORMER.items():
        if parts[:2] == [section, key]:
            parts = ["scene", ALONE, field, *parts[2:]]
    if parts[0] in BARE:
        parts = ["scene", ALONE, *parts]
    if parts[0] != "scene" or len(parts) == 1:
        return None
    known = layer_fields()
    if len(parts) < 3 or parts[2] not in known:
        near = get_close_matches(parts[2] if len(parts) > 2 else parts[1], known, 1, 0.5)
        hint = f"did you mean scene.{parts[1]}.{near[0]}?" if near else f"a layer has {', '.join(known)}"
        raise LayerError(f"unknown option {name!r}; write scene.NAME.FIELD: {hint}")
    mapping = get_origin(known[parts[2]][1]) is dict
    if len(parts) > (4 if mapping else 3):
        raise LayerError(f"unknown option {name!r}; {'.'.join(parts[:3])} takes a value")
    return ".".join(parts)


def with_field(layers: Sequence[Mapping[str, Any]], full_name: str, value: Any) -> list[dict[str, Any]]:
    """The layers after `scene.NAME.FIELD[.KEY] = value`. LayerError where there is no such layer."""
    _, wanted, field, *key = full_name.split(".")
    names = [str(layer.get("name") or layer.get("family") or "") for layer in layers]
    if wanted == ALONE and len(layers) != 1:
        raise LayerError(f"{'.'.join([field, *key])}: the scene has the layers {', '.join(names) or '(none)'}; "
                         f"write scene.NAME.{'.'.join([field, *key])}")  # fmt: skip
    plain = [name.replace("-", "_") for name in names]
    if wanted != ALONE and wanted.replace("-", "_") not in plain:
        near = get_close_matches(wanted, names, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
        raise LayerError(f"scene: no layer is called {wanted!r}; {hint}")
    row = 0 if wanted == ALONE else plain.index(wanted.replace("-", "_"))
    result = [deepcopy(dict(layer)) for layer in layers]
    layer = result[row]
    if key:
        layer[field] = {**(layer.get(field) or {}), key[0]: value}
    elif layer.get(field) != value:
        layer[field] = value
        for other in BELONGS.get(field, ()):
            layer.pop(other, None)
    return result


def _merged(layer: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = deepcopy(dict(layer))
    for field, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(field), Mapping)
        result[field] = {**result[field], **value} if both else deepcopy(value)
    return result
