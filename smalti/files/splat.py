"""The `.splat` of the first web viewers: 32 bytes a Gaussian, no header, no spherical harmonics.

| bytes | meaning |
| --- | --- |
| 12 | float32 x y z |
| 12 | float32 standard deviations (not their logarithms) |
| 4 | r g b of the colour 0.5 + SH_0 * dc over 0..1, opacity |
| 4 | quaternion w x y z, unit length: byte = 128 + 128 q |

Axes and unit are those of the 3DGS PLY. Steps: 1/255 for colours and opacities, 1/128 for quaternions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from smalti.files.bytewise import Cut, colours_of_dc, dc_of_colours, logits_of_bytes, opacity_bytes, unit
from smalti.files.checked import (
    CHUNK_ROWS,
    COPY_AGAIN,
    TINY_SIZE,
    BadRows,
    empty_splats,
    file_size,
    parts_of,
    read_exactly,
    whole_file,
    with_notices,
)
from smalti.files.splats import FileFormatError, SplatMetadata, Splats

_ROW = np.dtype([("means", "<f4", 3), ("sizes", "<f4", 3), ("colour", "u1", 4), ("rotation", "u1", 4)])
_MAGIC = {b"ply": "a PLY file", b"PK\x03\x04": "a zip archive", b"NGSP": "an SPZ file", b"\x1f\x8b": "a gzip stream"}


def read_splat(path: Path | str) -> Splats:
    """Read a `.splat` file. Memory: the result plus one chunk.

    Raises FileFormatError for a length that is no multiple of 32, NaN and Inf, and negative sizes. Sizes and
    quaternions of exactly 0 are replaced, with a notice.
    """
    path = Path(path)
    with path.open("rb") as stream:
        size = file_size(stream)
        head = stream.read(4)
        stream.seek(0)
        for magic, kind in _MAGIC.items():
            if head.startswith(magic):
                raise FileFormatError(path, f"is {kind}, not a .splat", "Give it the extension of its format")
        if size == 0 or size % _ROW.itemsize:
            problem = "is empty" if size == 0 else f"has {size} bytes, no multiple of {_ROW.itemsize}"
            raise FileFormatError(path, problem, COPY_AGAIN)
        splats = empty_splats(size // _ROW.itemsize, 0, SplatMetadata())
        bad, zeros, turns = BadRows(), 0, 0
        for start in range(0, len(splats), CHUNK_ROWS):
            part = splats.rows(start, start + CHUNK_ROWS)
            table = np.frombuffer(read_exactly(stream, len(part) * _ROW.itemsize, path, "its rows"), _ROW)
            part.means[:] = table["means"]
            zeros += log_sizes(table["sizes"], part.log_scales, path)
            part.logit_opacities[:] = logits_of_bytes(table["colour"][:, 3])
            part.sh_dc[:] = dc_of_colours(table["colour"][:, :3] / 255.0)
            part.quaternions[:] = (table["rotation"].astype(np.float32) - 128) / 128
            turns += whole_turns(part)
            bad.inspect(part, start)
        bad.raise_if_any(path, "Remove these splats (any splat editor can) or export the file again")
    return with_notices(splats, *zero_notices(zeros, turns))


def write_splat(
    path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None
) -> tuple[str, ...]:
    """Write a `.splat` file, whole or not at all; returns sentences on what the format did not hold.

    Memory: one chunk. Raises FileFormatError for NaN and Inf, sizes that float32 cannot hold included.
    """
    path = Path(path)
    bad, cut, silent = BadRows(), Cut(), 0
    with whole_file(path) as stream:
        for start, part in parts_of(splats, transform):
            bad.inspect(part, start)
            if bad.found:
                continue
            table = np.empty(len(part), _ROW)
            table["means"] = part.means
            with np.errstate(over="ignore"):
                table["sizes"] = np.exp(part.log_scales)
            if not np.isfinite(table["sizes"]).all():
                raise FileFormatError(path, "sizes beyond float32 cannot be written", "Remove these splats")
            table["colour"][:, :3] = cut.bytes_of(255 * colours_of_dc(part.sh_dc), "colours beyond 0..1")
            table["colour"][:, 3] = opacity_bytes(part.logit_opacities)
            table["rotation"] = np.rint(128 + 128 * unit(part.quaternions)).clip(0, 255)
            silent += int(part.sh_rest.any(axis=(1, 2)).sum()) if part.sh_rest.size else 0
            stream.write(table.tobytes())
        bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers")
    lost = f"the spherical harmonics of {silent:,} splats were left out: .splat holds one colour each" if silent else ""
    return (*cut.notices(), *([lost] if lost else []), *unsaid(splats.metadata))


def unsaid(metadata: SplatMetadata) -> tuple[str, ...]:
    """A sentence where a format without metadata makes other programs draw something else."""
    plain = SplatMetadata()
    look = ("filter_variance", "compensated", "order")
    lost = [f"{name} {getattr(metadata, name)}" for name in look if getattr(metadata, name) != getattr(plain, name)]
    return (f"this format cannot say: {', '.join(lost)}",) if lost else ()


def log_sizes(sizes: np.ndarray, out: np.ndarray, path: Path) -> int:
    """Logarithms of standard deviations into `out`; returns how many rows had a 0. Raises FileFormatError below 0."""
    if (sizes < 0).any():
        raise FileFormatError(path, "has splats of negative size", "Is it another format with this extension?")
    zero = sizes == 0
    with np.errstate(all="ignore"):
        out[:] = np.log(np.where(zero, TINY_SIZE, sizes.astype(np.float64)))
    return int(zero.any(axis=1).sum())


def whole_turns(part: Splats) -> int:
    """Quaternions of length 0 become the identity; returns how many."""
    zero = ~part.quaternions.any(axis=1)
    part.quaternions[zero] = (1, 0, 0, 0)
    return int(zero.sum())


def zero_notices(zeros: int, turns: int) -> tuple[str, str]:
    """Sentences about sizes and quaternions of 0, empty where there were none."""
    return (
        f"{zeros:,} splats had a size of 0, which became {TINY_SIZE:g}" if zeros else "",
        f"{turns:,} splats had a quaternion of length 0, which became the identity" if turns else "",
    )
