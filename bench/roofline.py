"""How far the AVX-512 compositor is from the multiply-add pipes' limit: `python bench/roofline.py --json`.

Measures this core's sustained rate of 512-bit fused multiply-adds with a small C program (g++ or $CXX), times the
compositor on the prototype's lists, and divides. The numbers of operations are properties of code and scene,
not of the machine: block visits were counted once by an instrumented build, operations in the compiled inner loops
(multiplications and fused operations; additions, comparisons, loads and stores use other pipes).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

from prototype import Prototype
from raster import ListsDoor
from timing import cpu_milliseconds

from smalti.renderers.engine import library

BLOCK_VISITS = 5_239_861
"""Of 16 pixels each, per pass, 100 k Gaussians at 800 x 800."""
FORWARD_OPERATIONS, BACKWARD_OPERATIONS = 12, 28
"""Multiplications and fused multiply-adds per block visit, three channels."""
PROGRAM = r"""
#include <stdio.h>
#include <time.h>
#include <immintrin.h>
static double now() {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
int main() {
    __m512 v[20], m = _mm512_set1_ps(0.999f);
    for (int k = 0; k < 20; k++) v[k] = _mm512_set1_ps(1.0f + k);
    double best = 1e9;
    for (int r = 0; r < 40; r++) {
        double start = now();
        for (long i = 0; i < 3000000; i++)
#pragma GCC unroll 20
            for (int k = 0; k < 20; k++) __asm__ volatile("vfmadd213ps %1,%1,%0" : "+v"(v[k]) : "v"(m));
        double spent = now() - start;
        if (spent < best) best = spent;
    }
    printf("%.4f\n", 6e7 / best / 1e9);
}
"""


def multiply_adds() -> float:
    """Sustained 512-bit fused multiply-adds per second on one core, in units of 10^9; best of 40."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "rate.cpp", Path(folder) / "rate"
        source.write_text(PROGRAM)
        subprocess.check_call([os.environ.get("CXX", "g++"), "-O2", "-mavx512f", str(source), "-o", str(program)])
        return float(subprocess.check_output([str(program)], text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if "avx512" not in library.available():
        raise SystemExit("this processor has no AVX-512; the counts are for that library")
    library.set_threads(1)
    ours = ListsDoor(Prototype(), "avx512")
    times = cpu_milliseconds({"forward": ours.forward, "backward": ours.backward}, 9)
    rate = multiply_adds()
    result: dict[str, float] = {"multiply_adds_per_nanosecond": rate}
    for name, operations in (("forward", FORWARD_OPERATIONS), ("backward", BACKWARD_OPERATIONS)):
        limit = 1e-6 * BLOCK_VISITS * operations / rate
        result |= {f"{name}_ms": times[name], f"{name}_limit_ms": limit, f"{name}_share": limit / times[name]}
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
