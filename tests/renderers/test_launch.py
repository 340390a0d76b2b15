"""The calls of the driver, received by a stand-in for libcuda, compiled from C with the driver's signatures."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from smalti.renderers.engine import launch
from smalti.renderers.engine.kernel_source import GAUSSIAN, KernelSource, Variant
from smalti.renderers.engine.library import EngineError
from smalti.renderers.engine.parameters import structures

STAND_IN = r"""
#include <string.h>
typedef int CUresult, CUdevice;
typedef struct context *CUcontext;
typedef struct module *CUmodule;
typedef struct function *CUfunction;
typedef struct stream *CUstream;
enum { INVALID_CONTEXT = 201, NO_BINARY = 209, NOT_FOUND = 500 };

static __thread CUcontext current;
static CUcontext const primary = (CUcontext)0x7f0000001000;
static char names[8][64];
static int functions;
struct { unsigned grid[3], block[3], shared; CUstream stream; char name[64], parameters[64]; int count, loads; } seen;

CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = 40 + ordinal; return 0; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    *context = primary;
    return device == 43 ? 0 : INVALID_CONTEXT;
}
CUresult cuCtxGetCurrent(CUcontext *context) { *context = current; return 0; }
CUresult cuCtxSetCurrent(CUcontext context) { current = context; return 0; }
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    if (current != primary) return INVALID_CONTEXT;
    seen.loads++;
    *module = (CUmodule)0x7f0000002000;
    return strncmp(image, "for another driver", 18) ? 0 : NO_BINARY;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    if (module != (CUmodule)0x7f0000002000 || strstr(name, "missing")) return NOT_FOUND;
    strcpy(names[functions], name);
    *function = (CUfunction)names[functions++];
    return 0;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                        unsigned bz, unsigned shared, CUstream stream, void **parameters, void **extra) {
    if (current != primary) return INVALID_CONTEXT;
    if (extra || gx == 0) return 1;
    unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    memcpy(seen.grid, grid, sizeof grid);
    memcpy(seen.block, block, sizeof block);
    seen.shared = shared, seen.stream = stream;
    strcpy(seen.name, (const char *)function);
    memcpy(seen.parameters, parameters[0], 24);
    seen.count++;
    return 0;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == NOT_FOUND ? "named symbol not found" : "something else";
    return 0;
}
"""


class Seen(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("parameters", ctypes.c_char * 64),
        ("count", ctypes.c_int),
        ("loads", ctypes.c_int),
    ]


SOURCE = KernelSource((GAUSSIAN,), (Variant(3, False),), torch.float32)
STREAM = 0x7F1234567890


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the stand-in received; it is the driver, and the kernels are already compiled."""
    text, library = tmp_path / "driver.c", tmp_path / "driver.so"
    text.write_text(STAND_IN)
    compiler = os.environ.get("CC") or shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(text)], check=True)
    driver = ctypes.CDLL(str(library))
    monkeypatch.setattr(launch, "_driver", lambda: driver)
    monkeypatch.setattr(launch, "cubin_for", lambda source, capability, fresh=False: f"cubin {capability}".encode())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=STREAM))
    return Seen.in_dll(driver, "seen")


def ranges(entries: int = 5) -> ctypes.Structure:
    return structures(torch.float32).RangeParameters(tiles=0x7FAABBCCDDEE, start=0x11, entries=entries, tile_count=7)


def test_a_launch_arrives_as_it_was_meant(seen: Seen) -> None:
    device = launch.CudaDevice(3)
    device.launch(SOURCE, "tile_ranges", 1234, ranges())
    assert seen.name == b"tile_ranges"
    assert (list(seen.grid), list(seen.block), seen.shared) == ([1234, 1, 1], [256, 1, 1], 0)
    assert seen.stream == STREAM
    assert ctypes.string_at(ctypes.addressof(seen) + Seen.parameters.offset, 24) == bytes(ranges())
    device.launch(SOURCE, "emit_entries", 1, ranges())
    device.launch(SOURCE, "tile_ranges", 1, ranges())
    assert (seen.count, seen.loads) == (3, 1)


def test_nothing_is_launched_for_nothing(seen: Seen) -> None:
    launch.CudaDevice(3).launch(SOURCE, "tile_ranges", 0, ranges())
    assert seen.count == 0


def test_context_is_made_current_in_every_thread(seen: Seen) -> None:
    """The stand-in refuses launches of a thread that has no context, as the driver does."""
    device = launch.CudaDevice(3)
    device.launch(SOURCE, "tile_ranges", 1, ranges())
    thread = threading.Thread(target=device.launch, args=(SOURCE, "tile_ranges", 2, ranges()))
    thread.start()
    thread.join()
    assert (seen.count, seen.grid[0]) == (2, 2)


def test_code_that_the_driver_refuses_is_compiled_anew(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cubin(source: KernelSource, capability: int, *, fresh: bool = False) -> bytes:
        asked.append(fresh)
        return b"cubin" if fresh else b"for another driver"

    monkeypatch.setattr(launch, "cubin_for", cubin)
    launch.CudaDevice(3).launch(SOURCE, "tile_ranges", 1, ranges())
    assert asked == [False, True]
    assert seen.count == 1


def test_errors_carry_the_drivers_words(seen: Seen) -> None:
    with pytest.raises(EngineError, match=r"cuModuleGetFunction on cuda:3: named symbol not found \(code 500\)"):
        launch.CudaDevice(3).launch(SOURCE, "missing", 1, ranges())


def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(EngineError, match="install the driver"):
        launch._driver.__wrapped__()
