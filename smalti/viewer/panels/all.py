"""Which panels a page has, in their order."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView
    from smalti.viewer.panels import Panel

MODULES = ("layers", "picture", "time", "cameras", "path", "edit", "training")
"""Files of this folder, each with one class whose `name` is told at /state."""


def make_panels(view: ClientView) -> list[Panel]:
    """All panels of a new client; one that cannot be made is told on the page and left out."""
    made: list[Panel] = []
    for name in MODULES:
        try:
            module = importlib.import_module(f"smalti.viewer.panels.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"smalti.viewer.panels.{name}":
                raise
            continue
        found = [
            thing
            for thing in vars(module).values()
            if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, "refresh")
        ]
        for panel in found:
            try:
                made.append(panel(view))
            except Exception as error:  # the page is of use without it
                view.say(f"{name}: {error}", problem=True)
    return made
