"""Families by name: those of this package and those that installed packages register (`smalti.families`)."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from smalti.primitives.family import Family


class FamilyError(ValueError):
    """A family, parameter or plain option that does not exist, or a value it cannot have; says what to write instead.
    The command line exits with code 2.
    """


def check_points(family: str, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], least: int = 0) -> None:
    """FamilyError where these are no points to start from: other shapes, NaN or Inf, fewer than `least`."""
    shapes = tuple(positions.shape), tuple(colors.shape)
    if positions.dim() != 2 or shapes[0] != (len(positions), 3) or shapes[1] != shapes[0]:
        raise FamilyError(f"family {family}: expected positions and colors [n, 3], got {shapes[0]} and {shapes[1]}")
    bad = int((~positions.isfinite()).any(dim=1).sum())
    if bad or len(positions) < least:
        what = f"{bad} of the points are not finite" if bad else f"it starts from {least} point or more, got none"
        raise FamilyError(f"family {family}: {what}")


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
