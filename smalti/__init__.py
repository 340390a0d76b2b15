"""Smalti: differentiable rendering of mixed primitive families, on CPU and CUDA from one kernel source.

Importing this package compiles nothing, starts no thread and prints nothing; public names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names as in _HOME, for type checkers and editors
    from smalti.cameras.camera import Camera
    from smalti.renderers.drawables import (
        BoxDrawable,
        GaussianDrawable,
        NeuralDrawable,
        RayGaussianDrawable,
        SurfelDrawable,
        TriangleDrawable,
    )
    from smalti.renderers.fragments import Fragments, composite, fragments
    from smalti.renderers.frame import Frame
    from smalti.renderers.render import render
    from smalti.renderers.settings import RenderSettings

__version__ = "0.1.0"

_HOME = {
    "BoxDrawable": "smalti.renderers.drawables",
    "Camera": "smalti.cameras.camera",
    "Fragments": "smalti.renderers.fragments",
    "Frame": "smalti.renderers.frame",
    "GaussianDrawable": "smalti.renderers.drawables",
    "NeuralDrawable": "smalti.renderers.drawables",
    "RayGaussianDrawable": "smalti.renderers.drawables",
    "RenderSettings": "smalti.renderers.settings",
    "SurfelDrawable": "smalti.renderers.drawables",
    "TriangleDrawable": "smalti.renderers.drawables",
    "composite": "smalti.renderers.fragments",
    "fragments": "smalti.renderers.fragments",
    "render": "smalti.renderers.render",
}
__all__ = [
    "BoxDrawable",
    "Camera",
    "Fragments",
    "Frame",
    "GaussianDrawable",
    "NeuralDrawable",
    "RayGaussianDrawable",
    "RenderSettings",
    "SurfelDrawable",
    "TriangleDrawable",
    "composite",
    "fragments",
    "render",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'smalti' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
