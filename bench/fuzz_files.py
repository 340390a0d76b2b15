"""Damaged files, for every reader: `python bench/fuzz_files.py [--rounds N] [--seed S] [--only WORD] [FILE ...]`.

Every kind of file that is read (splats of every format, meshes, blocks and mixes in .glb, assemblies, scene files) is
made by its writer from small random scenes, FILEs of the extension come on top; each is changed: bytes, words of
notable value, pieces cut out, doubled or exchanged, truncated; where it is text or has JSON inside, numbers too.
Demanded: a scene whose numbers are finite, or a FileFormatError; within 5 seconds; without more than 256 MB that Python
or numpy asked for. Ends with 1 and keeps the offending file where something else happens.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
from pathlib import Path

import numpy as np
import torch

from smalti.files import FORMATS, extension_of, write_scene_file
from smalti.files.splats import FileFormatError, Splats
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene.exchange import export_scene
from smalti.scene.open_file import open_scene
from smalti.scene.scene import Scene

WORDS = (0, 1, 2, 127, 255, 256, 65535, 1 << 16, 1 << 24, 0x7F800000, 0x7FC00000, 0xFF800000, 1 << 31, (1 << 32) - 1)
SECONDS, BYTES = 5.0, 1 << 28


def seeds(folder: Path, given: list[Path], rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Good files by the end of their name."""
    found: dict[str, list[bytes]] = {extension: [] for extension, row in FORMATS.items() if row.reader}
    for path in given:
        extension = extension_of(path)
        if extension in found:
            found[extension].append(path.read_bytes())
    for extension in found:
        if not FORMATS[extension].writer:
            continue
        for rest in (0, 8):
            path = folder / f"seed{extension}"
            write_scene_file(path, some_splats(rng, rest))
            found[extension].append(path.read_bytes())
    found |= {f"-scene{extension}": files for extension, files in scene_seeds(folder, rng).items()}
    return {extension: files for extension, files in found.items() if files}


def some_splats(rng: np.random.Generator, rest: int) -> Splats:
    """300 of them, normal deviates."""
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    return Splats(draw(300, 3), draw(300, 3) - 4, draw(300, 4), draw(300), draw(300, 3), draw(300, rest, 3))


def scene_seeds(folder: Path, rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Meshes, blocks and splats in the formats that hold them."""
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    scene = Scene(order="ray")
    blocks = {"texture_size": 4, "level": 1, "binary": True, "initial_opacity": 0.9}
    scene.add("blocks", Superquadrics.at_random(bounds, 3, generator, blocks))
    scene.add("ball", Meshes.sphere(torch.zeros(3), 0.5, {"level": 1}))
    scene.add("cloth", Meshes.sphere(torch.ones(3), 0.5, {"level": 1, "texture_size": 32}))
    scene.add("cloud", Gaussians(some_splats(rng, 3).to_parameters(), {"sh_degree": 1}))
    found: dict[str, list[bytes]] = {}
    wanted: list[tuple[str, list[str]]] = [
        (".glb", ["blocks"]), (".glb", ["cloth", "ball"]), (".glb", ["blocks", "ball", "cloth", "cloud"]),
        (".obj", ["ball"]), (".ply", ["ball"]), (".ply", ["blocks"]), (".json", ["blocks"]),
    ]  # fmt: skip
    for extension, layers in wanted:
        path = folder / f"seed-scene{extension}"
        export_scene(scene, path, layers)
        found.setdefault(extension, []).append(path.read_bytes())
    scene.save(folder / "seed.smalti")
    found[".smalti"] = [(folder / "seed.smalti").read_bytes()]
    return found


NUMBERS = re.compile(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
STRANGE = (b"0", b"-1", b"2147483648", b"4294967295", b"1e308", b"1e999", b"-1e38", b"1e-320", b"NaN", b"null", b"[]",
           b'"x"', b"{}", b"99999999999999999999", b"0.5", b"true")  # fmt: skip


def rewritten(raw: bytes, rng: np.random.Generator) -> bytes:
    """One to three numbers of the text (of a .glb: of its JSON, whose length is mended) become something else."""
    start, end = 0, len(raw)
    if raw[:4] == b"glTF":
        start, end = 20, 20 + struct.unpack_from("<I", raw, 12)[0]
    elif raw[8:9] == b"{":  # a scene file: eight bytes of length, then JSON
        start, end = 8, 8 + struct.unpack_from("<Q", raw)[0]
    text = raw[start:end]
    for _ in range(int(rng.integers(1, 4))):
        places = list(NUMBERS.finditer(text))
        if places:
            place = places[int(rng.integers(0, len(places)))]
            text = text[: place.start()] + STRANGE[int(rng.integers(0, len(STRANGE)))] + text[place.end() :]
    if start == 20:
        text += b" " * (-len(text) % 4)
        head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(raw) - end, len(text), 0x4E4F534A)
        return head + text + raw[end:]
    return (struct.pack("<Q", len(text)) if start == 8 else b"") + text + raw[end:]


def changed(raw: bytes, rng: np.random.Generator) -> bytes:
    """One to five changes, most of them near the beginning; or numbers of a text."""
    textual = raw[:4] == b"glTF" or raw[:1] in (b"{", b"#", b"v") or raw[8:9] == b"{"
    if textual and rng.random() < 0.5:
        return rewritten(raw, rng)
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
        layers = list(open_scene(path).scene)
        # a scene of ours is given back as it was saved, so that a training that went wrong can be looked at
        finite = path.suffix == ".smalti" or all(
            bool(value.isfinite().all()) for layer in layers for value in layer.family.parameters.values()
        )
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
    parser.add_argument("--only", default="", metavar="WORD", help="kinds of files whose name's end holds this")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for extension, good in seeds(folder, arguments.files, rng).items():
            if arguments.only not in extension:
                continue
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
