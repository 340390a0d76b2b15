"""What we write, read by another tool: `python bench/splat_transform.py [FILE] [--package NAME@VERSION]`.

Writes FILE (any scene file; by default the sample of 8,000 splats, else random ones) in every format that has a writer,
has PlayCanvas' `splat-transform` (npm, fetched by npx) turn it into a PLY, and compares that, column by column, with
what we ourselves read back. Version 3.7.0 does not turn the axes of SPZ, and differs there. Ends with 1 where anything
differs, with 0 and a message where npm or the network is missing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from smalti.files import FORMATS, read_scene_file, write_scene_file
from smalti.files.splats import Splats

SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/splat_samples/converted/playbot8k.ply"
LIMITS = {
    "means": 1e-6,
    "log_scales": 1e-5,
    "quaternions": 0.0065,
    "opacities": 0.5 / 255,
    "sh_dc": 1e-5,
    "sh_rest": 1e-5,
}
"""Greatest differences: float32; other ends of byte opacities; in .splat the other tool reads bytes as 255 steps."""


def random_splats(count: int) -> Splats:
    """Stand-ins where there is no sample."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    return Splats(
        draw(count, 3), draw(count, 3) - 4, draw(count, 4), draw(count), draw(count, 3), 0.2 * draw(count, 8, 3)
    )


def differences(ours: Splats, theirs: Splats) -> dict[str, float]:
    """Greatest difference by column; quaternions as lines, opacities as they are seen."""
    units = [s.quaternions / np.linalg.norm(s.quaternions, axis=1, keepdims=True) for s in (ours, theirs)]
    sign = np.where((units[0] * units[1]).sum(axis=1, keepdims=True) < 0, -1, 1)
    alphas = [1 / (1 + np.exp(-s.logit_opacities.astype(np.float64))) for s in (ours, theirs)]
    pairs = {
        "means": (ours.means, theirs.means),
        "log_scales": (ours.log_scales, theirs.log_scales),
        "quaternions": (units[0], sign * units[1]),
        "opacities": tuple(alphas),
        "sh_dc": (ours.sh_dc, theirs.sh_dc),
        "sh_rest": (ours.sh_rest, theirs.sh_rest),
    }
    return {name: float(np.abs(a - b).max()) if a.size or b.size else 0.0 for name, (a, b) in pairs.items()}


def main() -> int:
    """Prints a line for every format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--package", default="@playcanvas/splat-transform@2.7.1")
    arguments = parser.parse_args()
    npx = shutil.which("npx")
    if npx is None:
        print("skipped: npx (Node.js) is not installed")
        return 0
    call = [npx, "--yes", arguments.package]
    tried = subprocess.run([*call, "--version"], capture_output=True, text=True, timeout=300, check=False)
    if tried.returncode:
        print(f"skipped: {arguments.package} could not be fetched: {tried.stderr.strip().splitlines()[-1:]}")
        return 0
    path = arguments.file or (SAMPLE if SAMPLE.is_file() else None)
    splats = read_scene_file(path) if path else random_splats(8000)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for extension, row in FORMATS.items():
            if not (row.writer and row.reader):
                continue
            written, turned = Path(folder) / f"ours{extension}", Path(folder) / f"theirs{extension[1:]}.ply"
            write_scene_file(written, splats)
            done = subprocess.run([*call, str(written), str(turned)], capture_output=True, text=True, check=False)
            if "Unsupported input file type" in done.stdout + done.stderr:
                print(f"{extension}: not compared, {arguments.package} does not read it")
                continue
            if not turned.is_file():
                print(f"{extension}: refused: {(done.stdout + done.stderr).strip()[-300:]}")
                failed = True
                continue
            found = differences(read_scene_file(written), read_scene_file(turned))
            bad = [name for name, value in found.items() if not value <= LIMITS[name]]
            failed |= bool(bad)
            numbers = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
            numbers += f"; DIFFERENT: {', '.join(bad)}" if bad else ""
            print(f"{extension}: {written.stat().st_size:,} bytes; {numbers}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
