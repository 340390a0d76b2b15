"""Bridges to packages that people already have: one module each, which imports its package where it is used.

They may use scene, files, primitives, renderers and cameras; nothing imports them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class BridgeWarning(UserWarning):
    """Something of what was handed over has no counterpart on the other side and was left out; the message says what.

    `warnings.simplefilter("error", BridgeWarning)` makes it an error.
    """


class BridgeUnavailable(RuntimeError):
    """The package on the other side is not installed; the message says how to install it."""


def package(name: str, remedy: str) -> Any:
    """A module of the package on the other side; BridgeUnavailable with the remedy where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise BridgeUnavailable(f"{name.split('.')[0]} cannot be imported ({error}); {remedy}") from error
