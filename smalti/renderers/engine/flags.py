"""Compiler flags of the engine, by library: read by `build_engine.py` (as a file, before anything is installed) and by
`outside.py`, so that a kind compiled on demand is made as the engine was. Imports nothing.
"""

# No -ffast-math: a library linked with it turns denormals to zero in the whole process.
# No contraction either: forward and backward must round alike, so fused operations are written out.
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-ffp-contract=off"),
    "-fno-math-errno",
    "-fno-trapping-math",
    # Lanes are vectors already, so there is nothing to gain (measured); and GCC 12 made the comparison of two gathered
    # numbers per lane wrong in one lane (AVX2): a segment's end was sorted before its begin.
    "-fno-tree-slp-vectorize",
    "-static-libstdc++",
    "-static-libgcc",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",  # of GCC 12's own immintrin.h
]
X86 = {
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "avx2": ["-march=x86-64-v3"],
    "baseline": ["-march=x86-64"],
    "double": ["-march=x86-64", "-DSMALTI_DOUBLE=1"],
}
OTHER = {"baseline": [], "double": ["-DSMALTI_DOUBLE=1"]}


def variants(machine: str) -> dict[str, list[str]]:
    """Name of each library and the compiler flags that make it."""
    return X86 if machine in ("x86_64", "AMD64", "amd64") else OTHER
