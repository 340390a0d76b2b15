"""Damaged scene files, for every reader: `python bench/fuzz_files.py [--rounds N] [--seed S] [FILE ...]`.

Every format with a reader is fed with files that its writer made (small random scenes) and with FILEs of its extension,
each changed: bytes, words of notable value, pieces cut out, doubled or exchanged, truncated. Demanded: splats whose
numbers are finite, or a FileFormatError; within 5 seconds; without more than 256 MB that Python or numpy asked for.
Ends with 1 and keeps the offending file where something else happens.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
from pathlib import Path

import numpy as np

from smalti.files import FORMATS, extension_of, read_scene_file, write_scene_file
from smalti.files.splats import PARAMETERS, FileFormatError, Splats

WORDS = (0, 1, 2, 127, 255, 256, 65535, 1 << 16, 1 << 24, 0x7F800000, 0x7FC00000, 0xFF800000, 1 << 31, (1 << 32) - 1)
SECONDS, BYTES = 5.0, 1 << 28


def seeds(folder: Path, given: list[Path], rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Good files by extension."""
    found: dict[str, list[bytes]] = {extension: [] for extension, row in FORMATS.items() if row.reader}
    for path in given:
        extension = extension_of(path)
        if extension in found:
            found[extension].append(path.read_bytes())
    for extension in found:
        if not FORMATS[extension].writer:
            continue
        for rest in (0, 8):
            draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
            splats = Splats(draw(300, 3), draw(300, 3) - 4, draw(300, 4), draw(300), draw(300, 3), draw(300, rest, 3))
            path = folder / f"seed{extension}"
            write_scene_file(path, splats)
            found[extension].append(path.read_bytes())
    return {extension: files for extension, files in found.items() if files}


def changed(raw: bytes, rng: np.random.Generator) -> bytes:
    """One to five changes, most of them near the beginning."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 6))):
        if len(data) < 8:
            break
        end = len(data) - 4 if rng.random() < 0.3 else min(len(data) - 4, int(rng.choice([16, 64, 256, 2048, 5200])))
        place, kind = int(rng.integers(0, end + 1)), rng.random()
        if kind < 0.4:
            data[place] = int(rng.integers(0, 256))
        elif kind < 0.75:
            width = int(rng.choice([1, 2, 4]))
            data[place : place + width] = struct.pack("<I", int(rng.choice(WORDS)))[:width]
        elif kind < 0.85:
            del data[place : place + int(rng.integers(1, 64))]
        elif kind < 0.95:
            data[place:place] = data[place : place + int(rng.integers(1, 64))]
        else:
            del data[place:]
    return bytes(data)


def verdict(path: Path) -> str:
    """`read`, `refused`, or what went wrong."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        splats = read_scene_file(path)
        finite = all(np.isfinite(getattr(splats, name)).all() for name in PARAMETERS)
        result = "read" if finite else "numbers that are not finite were let through"
    except FileFormatError:
        result = "refused"
    except Exception:
        result = traceback.format_exc()
    peak, seconds = tracemalloc.get_traced_memory()[1], time.monotonic() - start
    tracemalloc.stop()
    if seconds > SECONDS or peak > BYTES:
        return f"took {seconds:.1f} s and {peak / 1e6:.0f} MB"
    return result


def main() -> int:
    """Prints a line for every format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for extension, good in seeds(folder, arguments.files, rng).items():
            counts = {"read": 0, "refused": 0}
            for index in range(arguments.rounds):
                path = folder / f"changed{extension}"
                path.write_bytes(changed(good[index % len(good)], rng))
                result = verdict(path)
                if result in counts:
                    counts[result] += 1
                    continue
                kept = Path(tempfile.gettempdir()) / f"offending-{arguments.seed}-{index}{extension}"
                kept.write_bytes(path.read_bytes())
                print(f"{extension}: {kept}: {result}")
                failed = True
            print(f"{extension}: {counts['read']} read, {counts['refused']} refused of {arguments.rounds}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
