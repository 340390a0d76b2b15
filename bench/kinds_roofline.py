"""What the multiply-add pipes alone would need for each thin or bounded kind: `python bench/kinds_roofline.py --json`.

Compiles every kind's `emit` and `emit_back` alone, for AVX-512, counts the multiplications and fused operations of the
listing (additions, comparisons, loads and stores use other pipes), and adds what the compositor itself needs for a thin
event. Pictures of 20,000 bodies at 400 x 400 give the number of events; a block of 16 pixels is visited for at least a
sixteenth of them. The share is that limit over the measured time (in the general compositor, EWA too), torch's part,
projection and lists included.
Not counted: triangles and boxes, whose work hangs on modes, textures and the number of voxels met (`lookups`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import kind_scenes as scenes
import torch
from kinds import RAY, covered, general, job, times
from roofline import multiply_adds

from smalti.renderers.engine import library
from smalti.renderers.engine.flags import FLAGS, variants

INCLUDE = Path(library.__file__).parent / "include"
KINDS = {
    "gaussian": ("GaussianExact", "gaussian_exact.h", "r.smooth = r.absolute = 0"),
    "gaussian_ray": ("GaussianRayKind", "gaussian_ray.h", "r.smooth = r.absolute = r.integral = 0"),
    "surfel": ("SurfelKind", "surfel.h", "r.smooth = r.absolute = 0"),
    "neural": ("NeuralKind", "neural.h", "r.smooth = r.absolute = 0, r.width = 8, r.cap = 1, r.leak = 0"),
}
"""Struct, header, and the options of the scenes below, so that branches not taken are not counted."""
FORWARD_EVENT, BACKWARD_EVENT = 5, 9
"""Of the compositor for a thin event of three channels: weight, T, colours; replayed T, cotangents, d alpha, behind."""
PROGRAM = """
#include "kinds/table.h"
#include "kinds/{header}"
using namespace smalti;
struct Sink {{
    int channels;
    bool wants_local;
    F* out;
    SM_FN void thin(F z, F alpha, const F*) {{ out[0] = z, out[1] = alpha; }}
    SM_FN void thick(F z0, F z1, F tau, const F*, bool) {{ out[0] = z0, out[1] = z1, out[2] = tau; }}
    SM_FN void local(const F*, const F*) {{}}
}};
struct Back {{
    EventGradient gradient;
    SM_FN const EventGradient& next() {{ return gradient; }}
}};
typedef {kind}::Record Record;
extern "C" void forward(const KindInput& in, const CameraValues& camera, const Record& given, const Rays& rays,
                        F* out) {{
    Record r = given;
    {options};
    Sink sink = {{3, false, out}};
    {kind}::emit(in, camera, r, 0, rays, sink);
}}
extern "C" void backward(const KindInput& in, const CameraValues& camera, const Record& given, const Rays& rays,
                         const EventGradient& gradient, F* sums) {{
    Record r = given;
    {options};
    Back back = {{gradient}};
    back.gradient.local = nullptr;
    {kind}::emit_back(in, camera, r, 0, rays, back, sums);
}}
"""
UNROLLED = ["--param", "max-completely-peeled-insns=1000000", "--param", "max-completely-peel-times=64"]


def operations(name: str) -> Counter[str]:
    """Multiplications and fused operations of 512 bits in the two functions of a kind, as g++ (or $CXX) makes them."""
    kind, header, options = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        source, listing = Path(folder) / "kind.cpp", Path(folder) / "kind.s"
        source.write_text(PROGRAM.format(kind=kind, header=header, options=options))
        flags = [flag for flag in (*FLAGS, *variants("x86_64")["avx512"]) if flag != "-shared" and "static" not in flag]
        command = [os.environ.get("CXX", "g++"), *flags, "-w", *UNROLLED, f"-I{INCLUDE}", "-S", str(source)]
        subprocess.check_call([*command, "-o", str(listing)])
        lines = listing.read_text().splitlines()
    found: Counter[str] = Counter()
    function = None
    for line in lines:
        if begin := re.match(r"(forward|backward):", line):
            function = begin[1]
        elif re.match(r"\s+\.size", line):
            function = None
        elif function and "zmm" in line and re.match(r"\s+(vfn?m(add|sub)\w+|vmulps)\s", line):
            found[function] += 1
    return found


def row_of(name: str, rate: float, repeats: int) -> dict[str, Any]:
    """The limit and the measured time of one kind, forward and backward."""
    count = operations(name)
    drawable, camera = scenes.KINDS[name](scenes.Cloud(20_000, 400, 10)), scenes.camera_of(400)
    spent = times({"own": job([drawable], camera, RAY, general)}, repeats)["own"]
    visits = covered([drawable], camera) / 16
    forward = count["forward"] + FORWARD_EVENT
    # Back: the events again without their colours, then the derivative, which finds its event anew.
    backward = count["forward"] + 1 + count["backward"] + BACKWARD_EVENT
    row: dict[str, Any] = {"kind": name, "events": round(16 * visits), "forward": forward, "backward": backward}
    for way in ("forward", "backward"):
        limit = 1e-6 * visits * row[way] / rate
        row |= {f"{way}_limit_ms": limit, f"{way}_ms": spent[f"{way}_ms"], f"{way}_share": limit / spent[f"{way}_ms"]}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if "avx512" not in library.available():
        raise SystemExit("this processor has no AVX-512; the counts are for that library")
    library.set_threads(1)
    torch.set_num_threads(1)
    rate = multiply_adds()
    rows = [row_of(name, rate, arguments.repeats) for name in KINDS]
    print(json.dumps({"multiply_adds_per_nanosecond": rate, "kinds": rows}, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
