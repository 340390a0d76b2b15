"""NVRTC, NVIDIA's run-time compiler, by ctypes: where it lies, and kernel source to machine code.

It needs neither a GPU nor a driver.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from smalti.renderers.backends import BackendError

REMEDY = "install it with `pip install nvidia-cuda-nvrtc` (CUDA 12: nvidia-cuda-nvrtc-cu12), or name it in SMALTI_NVRTC"


class CompileError(RuntimeError):
    """NVRTC refused the kernels; the message is its log."""


@dataclass(frozen=True)
class Compiled:
    """Machine code for one architecture."""

    code: bytes
    """A cubin, or PTX where this NVRTC does not know the device yet."""
    log: str
    """What the compiler said: warnings, and with `verbose` registers and spills per kernel."""


def candidates() -> Iterator[Path]:
    """Places where NVRTC may lie, best first: $SMALTI_NVRTC, packages of torch's CUDA, torch's own copy, the system."""
    given = os.environ.get("SMALTI_NVRTC")
    if given:
        yield Path(given)
        return
    found: list[Path] = []
    for entry in sys.path:
        # CUDA 12: nvidia/cuda_nvrtc/lib; CUDA 13: nvidia/cu13/lib. Never `alt`: a build for other host libraries.
        found += [p for p in Path(entry or ".").glob("nvidia/*/lib/libnvrtc.so*") if "alt" not in p.name]
    own = torch.version.cuda.split(".")[0] if torch.version.cuda else ""
    # What torch was built for goes first: a driver that runs torch runs its machine code.
    yield from sorted(found, key=lambda p: (p.name.split(".so.")[-1] != own, -_major(p), str(p)))
    yield from sorted(
        p for p in (Path(torch.__file__).parent / "lib").glob("libnvrtc*.so*") if "builtins" not in p.name
    )
    # Not ctypes.util.find_library: it starts ldconfig and a compiler.
    listed = [entry for entry in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if entry]
    for folder in (*listed, "/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"):
        yield from sorted(Path(folder).glob("libnvrtc.so*"))


def _major(path: Path) -> int:
    text = path.name.split(".so.")[-1].split(".")[0]
    return int(text) if text.isdigit() else 0


def find() -> Path | None:
    """NVRTC's shared library, or None; nothing is loaded."""
    return next(candidates(), None)


class Nvrtc:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # NVRTC opens its builtins by bare name, which finds them only where they are loaded already.
        for builtins in sorted(path.parent.glob("libnvrtc-builtins*.so*")):
            if "alt" not in builtins.name:
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(path))
        self.lib.nvrtcGetErrorString.restype = c_char_p
        major, minor = c_int(), c_int()
        self._check(self.lib.nvrtcVersion(byref(major), byref(minor)))
        self.version = f"{major.value}.{minor.value}"

    def _check(self, status: int) -> None:
        if status:
            raise CompileError(f"NVRTC: {self.lib.nvrtcGetErrorString(status).decode()}")

    @property
    def architectures(self) -> list[int]:
        """Compute capabilities that this version compiles for, ascending: 75, 80, ..."""
        count = c_int()
        self._check(self.lib.nvrtcGetNumSupportedArchs(byref(count)))
        values = (c_int * count.value)()
        self._check(self.lib.nvrtcGetSupportedArchs(values))
        return sorted(values)

    def target(self, capability: int) -> str:
        """Value of `--gpu-architecture` for a device: its machine code, or PTX of the newest known."""
        known = self.architectures
        if capability in known:
            return f"sm_{capability}"
        # Machine code runs on later minor versions of the same major one.
        relatives = [a for a in known if a // 10 == capability // 10 and a < capability]
        if relatives:
            return f"sm_{relatives[-1]}"
        older = [a for a in known if a < capability]
        if not older:
            raise BackendError(
                f"the device has compute capability {capability / 10}, but NVRTC {self.version} ({self.path}) "
                f"compiles for {known[0] / 10} and later only. Use an older CUDA, or the CPU"
            )
        return f"compute_{older[-1]}"

    def compile(self, source: str, target: str, options: Sequence[str] = (), *, verbose: bool = False) -> Compiled:
        """Compile `source` for `target` (`sm_90`, `compute_90`); raises CompileError with the log."""
        arguments = [f"--gpu-architecture={target}", *options, *(["--ptxas-options=-v"] if verbose else [])]
        program = c_void_p()
        text = source.encode()
        self._check(self.lib.nvrtcCreateProgram(byref(program), text, b"smalti.cu", 0, None, None))
        try:
            flags = (c_char_p * len(arguments))(*[a.encode() for a in arguments])
            status = self.lib.nvrtcCompileProgram(program, len(arguments), flags)
            log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
            if status:
                raise CompileError(f"NVRTC {self.version} could not compile the kernels for {target}:\n{log}")
            return Compiled(self._bytes(program, "CUBIN" if target.startswith("sm_") else "PTX"), log)
        finally:
            self.lib.nvrtcDestroyProgram(byref(program))

    def _bytes(self, program: c_void_p, what: str) -> bytes:
        size = c_size_t()
        self._check(getattr(self.lib, f"nvrtcGet{what}Size")(program, byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(self.lib, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw


@cache
def load() -> Nvrtc:
    """The NVRTC of this machine. Raises BackendError where there is none that can be loaded."""
    tried = []
    for path in candidates():
        try:
            return Nvrtc(path)
        except OSError as error:
            tried.append(f"{path}: {error}")
    reason = f"none could be loaded ({'; '.join(tried)})" if tried else "it was not found"
    raise BackendError(f"the CUDA back end needs the run-time compiler NVRTC, but {reason}; {REMEDY}")
