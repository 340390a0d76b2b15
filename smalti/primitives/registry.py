"""Families by name: those of this package and those that installed packages register (`smalti.families`)."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.primitives.family import Family


class FamilyError(ValueError):
    """A family, parameter or plain option that does not exist, or a value it cannot have; says what to write instead.
    The command line exits with code 2.
    """


def family_names() -> list[str]:
    """Names of all registered families, built in or installed."""
    return sorted({*_built_in(), *_registered()})


def find_family(name: str) -> type[Family]:
    """The family class registered under `name`; a FamilyError names the near miss or lists the others."""
    registered = _registered()
    if name in registered:
        return registered[name].load()
    if name in _built_in():
        return import_module(f"smalti.primitives.{name}").FAMILY
    near = get_close_matches(name, family_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"registered are: {', '.join(family_names())}"
    raise FamilyError(f"no primitive family is called {name!r}; {hint}")


def _registered() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group="smalti.families")}


def _built_in() -> list[str]:
    """Families of this package, also where it runs from a source tree whose entry points are not installed."""
    package = import_module("smalti.primitives")
    names = [module.name for module in iter_modules(package.__path__)]
    return [name for name in names if hasattr(import_module(f"smalti.primitives.{name}"), "FAMILY")]
