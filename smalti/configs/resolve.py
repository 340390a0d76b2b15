"""From preset, file and command line to one checked configuration; errors name the key and the near miss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from smalti.configs.config import LayerConfig, TrainConfig
from smalti.configs.layers import BARE, LayerError, full_layer_name, in_present_form, with_field, with_former_rates
from smalti.configs.stretch import stretched

SPELLED_OUT = ("exchange",)
"""Sections that take no short name from another (`every`, `growth` are common words): theirs are written in full."""


class ConfigError(ValueError):
    """A bad configuration: says where, what and what to write instead. The command line exits with code 2."""


class UnknownConfig(ConfigError):
    """Of a key or a value that there is not, as files of other versions of this program may hold them."""


def preset_names() -> list[str]:
    """Presets that come with this package, and with those that register under `smalti.presets`."""
    return sorted(_presets())


def _presets() -> dict[str, Traversable]:
    """YAML files by name: ours, and those beside the module that an entry point of `smalti.presets` names; a name that
    is taken stays with its first owner.
    """
    folders = [files("smalti.configs"), *(files(point.module) for point in entry_points(group="smalti.presets"))]
    found: dict[str, Traversable] = {}
    for entry in (entry for folder in folders for entry in folder.iterdir()):
        if entry.name.endswith(".yaml"):
            found.setdefault(entry.name.removesuffix(".yaml"), entry)
    return found


def fields() -> Iterator[tuple[str, str, Any]]:
    """(dotted name, documentation, default) of every option but the layers'."""
    default = TrainConfig()
    for name, info in TrainConfig.model_fields.items():
        if name == "scene":
            continue
        section = getattr(default, name)
        if not isinstance(section, BaseModel):
            yield name, info.description or "", section
            continue
        for inner, inner_info in type(section).model_fields.items():
            yield f"{name}.{inner}", inner_info.description or "", getattr(section, inner)


def choices(name: str) -> tuple[str, ...]:
    """The words that the option `name` (dotted) takes or, as a list, is made of; none where it is free."""
    info: Any = TrainConfig
    parts = name.split(".")
    if parts[0] == "scene":
        info, parts = LayerConfig, parts[2:]
    for part in parts:
        info = getattr(info, "annotation", info).model_fields[part]
    kind = info.annotation
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    return get_args(kind) if get_origin(kind) is Literal else ()


def resolve(source: str = "", overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of a preset's name or a YAML file (which may name its own `preset`), with dotted `overrides`
    on top.

    Raises ConfigError for unknown presets, unknown keys and values of the wrong type.
    """
    values: dict[str, Any] = {}
    for origin, part in _sources(source):
        present = _in_present_form(part, values.get("scene"), origin)
        _check_keys(present, origin)
        if "scene" in present and "scene" in values:
            present["scene"] = with_former_rates(present["scene"], values["scene"])
        values = _merged(values, present)
    for name, value in (overrides or {}).items():
        values = _overridden(values, full_name(name), value)
    return stretched(validated(values, "command line" if overrides else source))


def _overridden(values: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    if dotted.startswith("scene."):
        try:
            return {**values, "scene": with_field(values.get("scene") or [], dotted, value)}
        except LayerError as error:
            raise ConfigError(str(error)) from None
    nested: Any = value
    for part in reversed(dotted.split(".")):
        nested = {part: nested}
    return _merged(values, nested)


def _in_present_form(values: Mapping[str, Any], before: Any, origin: str) -> dict[str, Any]:
    try:
        return in_present_form(values, before)
    except LayerError as error:
        raise ConfigError(f"{origin}: {error}") from None


def validated(values: Mapping[str, Any], origin: str) -> TrainConfig:
    """The model of plain `values`; every problem in one ConfigError."""
    values = _in_present_form(values, None, origin)
    _check_keys(values, origin)
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "configuration"
            lines.append(f"{where}: {problem['msg']} (got {problem['input']!r})")
        raise UnknownConfig(f"{origin or 'configuration'}: " + "; ".join(lines)) from None


def full_name(name: str) -> str:
    """`steps` -> `run.steps` where only one section (`SPELLED_OUT` aside) has it; dotted names are checked. Dashes are
    underscores.

    Fields of layers become `scene.NAME.FIELD`, with `*` for the only layer where none is named.
    """
    known = ["scene", *(dotted for dotted, _, _ in fields())]
    name = name.replace("-", "_")
    if name in known:
        return name
    try:
        of_layer = full_layer_name(name)
    except LayerError as error:
        raise ConfigError(str(error)) from None
    if of_layer:
        return of_layer
    ending = [dotted for dotted in known if dotted.split(".")[-1] == name]
    meant = [dotted for dotted in ending if dotted.split(".")[0] not in SPELLED_OUT] or ending
    if len(meant) == 1:
        return meant[0]
    if ending:
        raise ConfigError(f"option {name!r} is in several sections: write one of {', '.join(ending)}")
    near = get_close_matches(name, [*known, *(dotted.split(".")[-1] for dotted in known), *BARE], 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else "`smalti train --help` lists all options"
    raise ConfigError(f"unknown option {name!r}; {hint}")


def parse_value(text: str) -> Any:
    """A command-line value, read as YAML (numbers in any notation, lists, true, null); otherwise the text itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 does not take 1e-3 for a number
        try:
            return float(value)
        except ValueError:
            return value
    return value


def save(config: TrainConfig, path: Path) -> None:
    """The fully resolved configuration as YAML; `resolve(str(path))` gives it back."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def load(path: Path) -> TrainConfig:
    """A configuration that `save` wrote: complete, so that no preset is consulted."""
    return validated(_read(path), str(path))


def _sources(source: str) -> list[tuple[str, dict[str, Any]]]:
    if not source:
        return []
    presets = _presets()
    if source in presets:
        values = yaml.safe_load(presets[source].read_text(encoding="utf-8"))
        return [*_sources(values.get("preset", "")), (f"preset {source}", {**values, "preset": source})]
    path = Path(source)
    if not path.is_file():
        near = get_close_matches(source, presets, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"presets are {', '.join(sorted(presets))}"
        raise ConfigError(f"{source!r} is neither a preset nor a file; {hint}")
    values = _read(path)
    base = str(values.get("preset") or "")
    return [*(_sources(base) if base in presets else []), (str(path), values)]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    return values


def _check_keys(values: Mapping[str, Any], origin: str) -> None:
    for name, value in values.items():
        _known(name, list(TrainConfig.model_fields), origin, "")
        if name == "scene":
            _check_layers(value, origin)
            continue
        annotation = TrainConfig.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"{origin}: {name}: expected a section with keys, got {value!r}")
        for inner in value:
            _known(inner, list(annotation.model_fields), origin, f"{name}.")


def _check_layers(value: Any, origin: str) -> None:
    if not isinstance(value, list) or not all(isinstance(layer, Mapping) for layer in value):
        raise ConfigError(f"{origin}: scene: expected a list of layers, each with its keys, got {value!r}")
    for number, layer in enumerate(value):
        for key in layer:
            _known(key, list(LayerConfig.model_fields), origin, f"scene.{layer.get('name', number)}.")


def _known(name: Any, known: list[str], origin: str, prefix: str) -> None:
    if name in known:
        return
    near = get_close_matches(str(name), known, 1, 0.5)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"it has {', '.join(known)}"
    raise UnknownConfig(f"{origin}: unknown key {prefix}{name}; {hint}")


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else deepcopy(value)
    return result
