"""Smalti: differentiable rendering of mixed primitive families, on CPU and CUDA from one kernel source.

Importing this package compiles nothing, starts no thread and prints nothing; public names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOME, for type checkers and editors
    from smalti.cameras.camera import Camera
    from smalti.renderers.drawables import GaussianDrawable
    from smalti.renderers.frame import Frame
    from smalti.renderers.render import render
    from smalti.renderers.settings import RenderSettings

__version__ = "0.1.0"

_HOME = {
    "Camera": "smalti.cameras.camera",
    "Frame": "smalti.renderers.frame",
    "GaussianDrawable": "smalti.renderers.drawables",
    "RenderSettings": "smalti.renderers.settings",
    "render": "smalti.renderers.render",
}
__all__ = ["Camera", "Frame", "GaussianDrawable", "RenderSettings", "render"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'smalti' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
