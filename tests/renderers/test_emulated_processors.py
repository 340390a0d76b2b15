"""The libraries run on processors that have just what they ask for: under an emulated CPU, without torch.

A library that used an instruction outside its set would die here with SIGILL, whatever this machine's own processor
has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smalti.renderers.engine import library

EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")

# Plain ctypes, so that nothing but the library itself needs the emulated processor's instructions.
PROGRAM = r"""
import ctypes, math, sys
lib = ctypes.CDLL(sys.argv[1])
real = {4: ctypes.c_float, 8: ctypes.c_double}[lib.smalti_real_size()]
lib.smalti_plan_new.restype = ctypes.c_void_p
lib.smalti_set_threads(1)
plan = ctypes.c_void_p(lib.smalti_plan_new())
array = lambda values: (real * len(values))(*values)
ints = lambda values: (ctypes.c_int * len(values))(*values)
n, size = 40, 32
mean = array([v for k in range(n) for v in (3.0 + 0.7 * k, 30.0 - 0.6 * k)])
conic = array([v for k in range(n) for v in (0.02 + 0.001 * k, 0.004, 0.03)])
opacity, colour = array([0.02 * (k + 1) for k in range(n)]), array([0.01 * k for k in range(3 * n)])
ids = ints(list(range(n)) * 4)
start = ints([0, n, 2 * n, 3 * n, 4 * n])
assert lib.smalti_plan_from_lists(plan, n, size, size, mean, conic, opacity, colour, start, ids) == 0
picture, alpha = array([0.0] * (3 * size * size)), array([0.0] * (size * size))
assert lib.smalti_lists_forward(plan, picture, alpha) == 0
sums = array([0.0] * (12 * n))
assert lib.smalti_lists_backward(plan, picture, alpha, sums) == 0
for y in (0, 13, 31):
    for x in (0, 16, 29):
        T, c = 1.0, 0.0
        for k in range(n):
            dx, dy = x + 0.5 - mean[2 * k], y + 0.5 - mean[2 * k + 1]
            power = 0.5 * (conic[3 * k] * dx * dx + conic[3 * k + 2] * dy * dy) + conic[3 * k + 1] * dx * dy
            a = min(0.99, opacity[k] * math.exp(-power))
            if a >= 1 / 255:
                c += T * a * colour[3 * k]
                T *= 1 - a
        assert abs(alpha[y * size + x] - (1 - T)) < 1e-5, (x, y)
        assert abs(picture[3 * (y * size + x)] - c) < 1e-5, (x, y)
assert all(math.isfinite(v) for v in sums) and any(sums)
print("fine")
"""


@pytest.mark.skipif(EMULATOR is None, reason="qemu-user is not installed (Debian package qemu-user)")
@pytest.mark.parametrize(("isa", "processor"), [("baseline", "qemu64"), ("double", "qemu64"), ("avx2", "Haswell")])
def test_library_on_an_emulated_processor(isa: str, processor: str) -> None:
    path = Path(library.FOLDER) / f"smalti_{isa}.so"
    command = [str(EMULATOR), "-cpu", processor, sys.executable, "-S", "-c", PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "fine"
