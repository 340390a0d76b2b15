"""The backends that tests run over: the oracle, every build of the engine that this machine can load, the CUDA kernels.

The CUDA kernels run on a device where there is one, and everywhere on the CPU in their emulator.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from scenes import Scene
from torch import Tensor

from smalti.renderers.engine.emulator import Emulator
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
        if self.device != "cpu":
            drawables = tuple(moved(d, self.device) for d in scene.drawables)
            background = None if scene.background is None else scene.background.to(self.device)
            scene = replace(scene, drawables=drawables, background=background)
        with self.chosen():
            frame = render(
                scene.drawables,
                scene.camera,
                background=scene.background,
                settings=scene.settings,
                backend=self.backend,
            )
        return (
            frame if self.device == "cpu" else replace(moved(frame, "cpu"), visibility=moved(frame.visibility, "cpu"))
        )

    def chosen(self) -> AbstractContextManager[Any]:
        """Inside, the engine is the build of this backend; the backward pass must run inside as well."""
        if self.backend == "emulator":
            return emulator().selected()
        return import_module(LIBRARY).use_isa(self.isa) if self.isa not in ("", "double") else nullcontext()


def moved(value: Any, device: str) -> Any:
    """A dataclass with its tensors (those in dictionaries, too) on `device`, differentiably.

    The dictionary of screen gradients stays the same object, because the backward pass fills it.
    """
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    new: dict[str, Any] = {name: v.to(device) for name, v in found.items() if isinstance(v, Tensor)}
    if "ids" in found:
        new["ids"] = {name: v.to(device) for name, v in found["ids"].items()}
    return replace(value, **new)


@cache
def emulator() -> Emulator:
    """The kernels' emulator, compiled at its first render into a folder that goes when the tests end."""
    folder = tempfile.mkdtemp(prefix="smalti-emulator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Emulator(Path(folder))


ORACLE = Backend("oracle-float64", "oracle", torch.float64)
"""The specification."""
ORACLE_SINGLE = Backend("oracle-float32", "oracle", torch.float32)
"""The same in float32: shows what rounding alone does, and that the comparison allows for it."""


def found_backends() -> list[Backend]:
    """What can run here; the oracle is among them, because it must pass the tests of the others."""
    backends = [ORACLE]
    if find_spec(LIBRARY) is not None:
        for isa in import_module(LIBRARY).available():
            dtype = torch.float64 if isa == "double" else torch.float32
            backends.append(Backend(f"cpu-{isa}", "cpu", dtype, isa))
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        backends.append(Backend(f"emulator-{name}", "emulator", dtype))
        if torch.cuda.is_available():
            backends.append(Backend(f"cuda-{name}", "cuda", dtype, device="cuda"))
    return backends
