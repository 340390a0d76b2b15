"""The backends that tests run over: the oracle in float32, and every build of the engine that this machine can load."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from scenes import Scene

from smalti.renderers.frame import Frame
from smalti.renderers.render import render

LIBRARY = "smalti.renderers.engine.library"


@dataclass(frozen=True)
class Backend:
    """One way to draw."""

    name: str
    """As test ids show it."""
    backend: str
    """As `render` takes it."""
    dtype: torch.dtype
    isa: str = ""
    """Build of the engine's library; empty for the loader's own choice."""
    device: str = "cpu"

    @property
    def image_tolerance(self) -> float:
        """Relative to the largest value of a plane."""
        return 2e-5 if self.dtype == torch.float32 else 1e-8

    @property
    def gradient_tolerance(self) -> float:
        """Relative to the largest gradient of a parameter group."""
        return 1e-3 if self.dtype == torch.float32 else 1e-6

    def render(self, scene: Scene) -> Frame:
        """Draw a scene whose tensors have this backend's dtype."""
        with self.chosen():
            return render(
                scene.drawables,
                scene.camera,
                background=scene.background,
                settings=scene.settings,
                backend=self.backend,
            )

    def chosen(self) -> AbstractContextManager[Any]:
        """Inside, the engine is the build of this backend; the backward pass must run inside as well."""
        return import_module(LIBRARY).use_isa(self.isa) if self.isa not in ("", "double") else nullcontext()


ORACLE = Backend("oracle-float64", "oracle", torch.float64)
"""The specification."""


def found_backends() -> list[Backend]:
    """What can run here. The oracle is among them, in float32 too, because it tests these tests."""
    backends = [Backend("oracle-float32", "oracle", torch.float32), ORACLE]
    if find_spec(LIBRARY) is not None:
        for isa in import_module(LIBRARY).available():
            dtype = torch.float64 if isa == "double" else torch.float32
            backends.append(Backend(f"cpu-{isa}", "cpu", dtype, isa))
    return backends
