"""The engine's shared libraries: which one this processor can run, and its C interface as ctypes structures."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from ctypes import c_double, c_float, c_int, c_longlong, c_void_p
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

FOLDER = Path(__file__).parent / "lib"
PREFERENCE = ("avx512", "avx2", "baseline")
# What `-march=x86-64-v4` and `-v3` may emit, by the kernel's names for the flags (abm: lzcnt).
_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm"}
NEEDS = {
    "avx512": {*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "avx2": _V3,
    "baseline": set(),
    "double": set(),
}
ERRORS = {
    1: "out of memory in the engine; render fewer primitives, a smaller picture, or lower the trainer's budget",
    2: "more than 2^31 (primitive, tile) pairs; render a smaller picture or smaller primitives",
    3: "a drawable of a kind that this engine does not have",
    4: "the engine failed unexpectedly; please report what was rendered",
}


VERSION = 5
"""Of the C interface."""
KIND_TENSORS, KIND_INDICES, KIND_INTEGERS, KIND_NUMBERS = 16, 4, 16, 8
"""What a drawable may hand over (include/kinds/kind.h)."""


class EngineError(RuntimeError):
    """The engine could not be loaded or could not finish; the message says why and what to do."""


@cache
def processor_flags() -> frozenset[str]:
    """Instruction-set flags of this processor, by the Linux kernel's names; empty where they cannot be read."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def available() -> list[str]:
    """Names of the libraries that are built and that this processor can run, best first, `double` last."""
    flags = processor_flags()
    return [name for name in _built(FOLDER) if NEEDS[name] <= flags]


@cache
def _built(folder: Path) -> tuple[str, ...]:
    """Asked many times in every step, and the same as long as a process lasts."""
    return tuple(name for name in (*PREFERENCE, "double") if (folder / f"smalti_{name}.so").is_file())


_override = threading.local()


def chosen() -> str:
    """Name of the library that float32 renders use: the best available, or `SMALTI_ISA`, or `use_isa`'s."""
    wanted = getattr(_override, "name", None) or os.environ.get("SMALTI_ISA")
    names = [name for name in available() if name != "double"]
    if wanted:
        if wanted not in names:
            raise EngineError(
                f"SMALTI_ISA={wanted!r} cannot be used here; this machine runs {names or 'none of the built libraries'}"
            )
        return wanted
    if not names:
        raise EngineError(f"no engine library in {FOLDER}; reinstall smalti (from source this needs a C++17 compiler)")
    return names[0]


@contextmanager
def use_isa(name: str) -> Generator[None, None, None]:
    """Use library `name` in this thread (and for renders made in it), for tests and benchmarks."""
    before = getattr(_override, "name", None)
    _override.name = name
    try:
        yield
    finally:
        _override.name = before


def load(dtype: torch.dtype) -> SimpleNamespace:
    """The library for `dtype` (float32: `chosen()`, float64: `double`) with its structures; see `load_named`."""
    if dtype == torch.float32:
        return load_named(chosen())
    if dtype == torch.float64:
        return load_named("double")
    raise EngineError(f"the engine renders float32 and float64, not {dtype}; convert the scene")


_loaded: dict[str, SimpleNamespace] = {}


def load_named(name: str) -> SimpleNamespace:
    """`.lib`, the functions; `.real`, the ctypes scalar; `.name`; and one attribute per C structure."""
    if name not in _loaded:
        path = FOLDER / f"smalti_{name}.so"
        try:
            lib = ctypes.CDLL(str(path))
        except OSError as error:
            raise EngineError(f"cannot load {path}: {error}; reinstall smalti") from error
        real: Any = c_double if name == "double" else c_float
        if lib.smalti_real_size() != ctypes.sizeof(real) or lib.smalti_version() != VERSION:
            raise EngineError(f"{path} was built from other sources than this package; reinstall smalti")
        lib.smalti_plan_new.restype = c_void_p
        lib.smalti_plan_free.argtypes = [c_void_p]
        lib.smalti_exact_kind.restype = c_void_p
        lib.smalti_arena_bytes.restype = lib.smalti_plan_bytes.restype = c_longlong
        lib.smalti_set_threads(_threads)
        _loaded[name] = SimpleNamespace(lib=lib, real=real, name=name, **c_structures(real))
    return _loaded[name]


_threads = 0


def set_threads(count: int) -> None:
    """Number of threads of the engine; 0 for one per core that this process may use. Results do not depend on it."""
    global _threads
    if count < 0:
        raise ValueError(f"set_threads: expected 0 or more, got {count}")
    _threads = count
    for library in list(_loaded.values()):  # another thread may be loading one
        library.lib.smalti_set_threads(count)


def get_threads() -> int:
    """Number of threads that the engine uses."""
    return load_named(chosen()).lib.smalti_get_threads()


def arena_bytes() -> int:
    """Bytes that renders hold in the engine now (projected records, tile lists, gradient slots)."""
    return sum(library.lib.smalti_arena_bytes() for library in list(_loaded.values()))


def c_structures(real: Any) -> dict[str, Any]:
    """Mirrors of the C structures, field by field; `real` is the ctypes scalar."""

    def structure(name: str, fields: list[tuple[str, Any]]) -> Any:
        return type(name, (ctypes.Structure,), {"_fields_": fields})

    pointers = lambda *names: [(name, c_void_p) for name in names]  # noqa: E731
    return {
        "GaussianInput": structure(
            "GaussianInput",
            [
                *pointers("means", "quaternions", "scales", "opacities", "sh_dc", "sh_rest", "features"),
                *[(name, c_int) for name in ("count", "sh_rest_count", "sh_degree", "feature_count")],
                ("filter_variance", real),
                ("compensated", c_int),
                ("with_depth", c_int),
            ],
        ),
        "GaussianGradient": structure(
            "GaussianGradient",
            pointers("means", "quaternions", "scales", "opacities", "sh_dc", "sh_rest", "features", "screen"),
        ),
        "CameraValues": structure(
            "CameraValues",
            [
                ("rotation", real * 9),
                ("translation", real * 3),
                *[(name, real) for name in ("fx", "fy", "cx", "cy", "near_plane")],
                ("width", c_int),
                ("height", c_int),
            ],
        ),
        "Drawable": structure("Drawable", [("kind", c_int), ("input", c_void_p)]),
        "Options": structure("Options", [("transmittance_min", real), ("smooth", c_int), ("absolute", c_int)]),
        "Summary": structure(
            "Summary",
            [("skipped", c_int), ("intersections", c_longlong)],
        ),
        "Background": structure("Background", [("values", c_void_p), ("per_pixel", c_int)]),
        "ForwardOutput": structure(
            "ForwardOutput",
            pointers("picture", "alpha", "first", "median", "dominant", "contribution_sum", "contribution_max"),
        ),
        "ImageLossInput": structure(
            "ImageLossInput",
            [
                *pointers("rendered", "target", "mask"),
                *[(name, c_int) for name in ("width", "height", "pixel_stride")],
                ("dssim", real),
            ],
        ),
        "AdamStep": structure(
            "AdamStep", [*[(name, real) for name in ("rate", "beta_1", "beta_2", "epsilon")], ("step", c_longlong)]
        ),
        "KindInput": structure(
            "KindInput",
            [
                ("tensors", c_void_p * KIND_TENSORS),
                ("indices", c_void_p * KIND_INDICES),
                ("numbers", real * KIND_NUMBERS),
                ("sizes", c_longlong * KIND_TENSORS),
                ("integers", c_int * KIND_INTEGERS),
                ("count", c_int),
            ],
        ),
        "KindGradient": structure(
            "KindGradient", [("tensors", c_void_p * KIND_TENSORS), *pointers("screen", "absolute")]
        ),
        "ExactItem": structure("ExactItem", pointers("kind", "input")),
        "ExactSettings": structure(
            "ExactSettings",
            [
                *[(name, c_int) for name in ("channels", "features", "normals", "centre", "smooth", "absolute")],
                ("transmittance_min", real),
                ("additive", c_int),
                ("depth", c_int),
            ],
        ),
        "ExactOutput": structure(
            "ExactOutput",
            pointers(
                *("picture", "alpha", "first", "median", "dominant", "depth_first", "depth_median"),
                *("contribution_sum", "contribution_max"),
            ),
        ),
        "FragmentValues": structure(
            "FragmentValues",
            pointers("primitive", "count", "thick", "z0", "z1", "value", "channels", "local", "normal", "left"),
        ),
        "BackwardInput": structure("BackwardInput", pointers("picture", "alpha", "background")),
    }


def check(code: int) -> None:
    """Turn the engine's status into an error."""
    if code:
        raise EngineError(ERRORS.get(code, f"the engine failed with code {code}"))


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Address of a contiguous tensor's data, None for none (ctypes' null)."""
    return None if tensor is None or tensor.numel() == 0 else tensor.data_ptr()
