"""The CUDA kernels on the CPU, for tests only: compiled by g++ on request, driven by the launch sequence of cuda.py.

device = Emulator(folder)      # a folder for the compiled libraries
with device.selected():
    smalti.render(..., backend="emulator")
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from smalti.renderers.backends import BackendError
from smalti.renderers.engine.kernel_source import ALL_VARIANTS, INCLUDE, KernelSource
from smalti.renderers.engine.library import EngineError

FLAGS = (
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing"),
    *("-DSMALTI_EMULATE_CUDA=1", "-Wall", "-Wextra", "-Wno-unknown-pragmas"),
)


class Emulator:
    """Runs kernels on CPU tensors, block after block in this thread (see `launch.Device`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.direction = 1
        """1 or -1: the order in which the threads of a block take turns. Right kernels do not depend on it."""
        self.block_direction = 1
        """1 or -1: the order in which blocks run. Sums of floats by atomics depend on both in their last digits."""
        self.variants = ALL_VARIANTS
        """Compiled into each library: all, so that few libraries have to be compiled."""
        self.libraries: dict[KernelSource, ctypes.CDLL] = {}

    def launch(self, source: KernelSource, kernel: str, blocks: int, parameters: ctypes.Structure) -> None:
        """See `launch.Device`."""
        source = replace(source, variants=self.variants)
        if source not in self.libraries:
            self.libraries[source] = ctypes.CDLL(str(self.build(source)))
        library = self.libraries[source]
        library.smalti_emulator_direction(self.direction, self.block_direction)
        status = getattr(library, kernel)(blocks, 256, ctypes.byref(parameters))
        if status:
            raise EngineError(f"emulator: {kernel}: a barrier was not reached by all threads of a block")

    def build(self, source: KernelSource) -> Path:
        """The library of `source`, compiled unless that was done before; EngineError with the compiler's words."""
        runtime = (Path(__file__).parent / "runtime.h").read_bytes()
        key = hashlib.sha256(source.digest().encode() + runtime + " ".join(FLAGS).encode()).hexdigest()
        target = self.folder / f"emulator_{key[:24]}.so"
        if target.exists():
            return target
        compiler = os.environ.get("CXX") or shutil.which("g++") or "g++"
        text = target.with_suffix(".cpp")
        text.write_text('#include "runtime.h"\n' + source.text())
        folders = [f"-I{INCLUDE}", f"-I{Path(__file__).parent}"]
        scratch = target.with_suffix(f".{os.getpid()}.tmp")
        done = subprocess.run(
            [compiler, *FLAGS, *folders, str(text), "-o", str(scratch)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise EngineError(f"compiling the emulator failed:\n{done.stderr}")
        os.replace(scratch, target)
        return target

    @contextmanager
    def selected(self) -> Generator[Emulator, None, None]:
        """Inside, `backend="emulator"` means this one."""
        before = _selected[0]
        _selected[0] = self
        try:
            yield self
        finally:
            _selected[0] = before


_selected: list[Emulator | None] = [None]


def selected_emulator() -> Emulator:
    """The one whose `selected()` is entered. Raises BackendError where there is none."""
    found = _selected[0]
    if found is None:
        raise BackendError("the back end 'emulator' is for tests: enter `Emulator(folder).selected()` first")
    return found


def check_device(device: torch.device) -> None:
    """Raises BackendError for tensors that are not on the CPU."""
    if device.type != "cpu":
        raise BackendError(f"the back end 'emulator' draws tensors on cpu, but these are on {device}")
