"""The prototype of ../shared/prototype, built with the flags of its own run.py, as a yardstick inside the same run."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(os.environ.get("SMALTI_PROTOTYPE", Path(__file__).resolve().parents[2] / "shared" / "prototype"))
FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-ffp-contract=fast",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-pthread",
]
MARCH = {"avx512": "native", "avx2": "x86-64-v3", "baseline": "x86-64"}


class Prototype:
    """Its compositor on its own benchmark scene of `count` Gaussians; `forward()` and `backward()` run it once."""

    def __init__(self, count: int = 100_000, isa: str = "avx512", threads: int = 1) -> None:
        if not FOLDER.is_dir():
            raise SystemExit(f"prototype not found at {FOLDER}; set SMALTI_PROTOTYPE to its folder")
        sys.path.insert(0, str(FOLDER))
        from scene import H, W, make  # pyright: ignore[reportMissingImports]

        self.data: dict[str, Any] = make(count)
        self.width, self.height, self.count = W, H, count
        target = Path(tempfile.mkdtemp()) / f"prototype_{isa}.so"
        march = MARCH[isa]
        subprocess.check_call(["g++", f"-march={march}", *FLAGS, str(FOLDER / "primv2_cpu.cpp"), "-o", str(target)])
        library = ctypes.CDLL(str(target))
        self.picture = np.zeros((H, W, 3), np.float32)
        self.transmittance = np.zeros((H, W), np.float32)
        self.last = np.zeros((H, W), np.int32)
        self.gradient = np.zeros((count, 9), np.float32)
        address = lambda a: a.ctypes.data_as(ctypes.c_void_p)  # noqa: E731
        d = self.data
        scene = [address(d[k]) for k in ("mean", "conic", "opac", "rgb", "start", "ids")]
        out = [address(self.picture), address(self.transmittance), address(self.last)]
        cotangents = [address(d["v_rgb"]), address(d["v_alpha"]), address(self.gradient)]
        self.forward = lambda: library.rfwd(*scene, W, H, *out, threads)
        self.backward = lambda: library.rbwd(*scene, W, H, out[1], out[2], *cotangents, count, threads)
