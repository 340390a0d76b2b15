"""The PLY of 3DGS: binary little endian, one float32 row per Gaussian, read and written in chunks.

| columns | meaning |
| --- | --- |
| x y z | centre |
| nx ny nz | zeros; written because some tools expect them, optional when reading |
| f_dc_0..2 | spherical harmonics of degree 0, red green blue |
| f_rest_0..3k-1 | degree 1..3, **channel-major**: all k coefficients of red, then green, then blue; k = 0, 3, 8, 15 |
| opacity | logit |
| scale_0..2 | natural logarithm of the standard deviations |
| rot_0..3 | quaternion w x y z |

`comment smalti.<key> <value>` lines carry the metadata (`SplatMetadata`); a file without them means the 3DGS defaults.
Tools that do not know them skip comments, as the format demands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from smalti.files.checked import CHUNK_ROWS, BadRows, empty_splats, parts_of, whole_file, with_notices
from smalti.files.ply_header import Header, PlyError, header_of, metadata_comments, read_elements
from smalti.files.splats import Splats

LOGIT_LIMIT = 20.0
"""Infinite logits (opacity exactly 0 or 1 in another tool) become this: sigmoid(20) = 1 - 2e-9."""


def column_names(rest_count: int) -> list[str]:
    """The columns in the order of 3DGS for `rest_count` coefficients beyond degree 0."""
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(3 * rest_count)]
    return [*names, "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def read_ply(path: Path | str) -> Splats:
    """Read a 3DGS PLY, or a compressed one (`ply_compressed`). Memory: the result plus one chunk.

    Infinite opacities are clamped to logits of +-20 and said in `notices`, so are columns that were not read.
    Raises PlyError for ascii or big-endian files, missing properties, a wrong length, and NaN or Inf
    anywhere else, naming property and rows.
    """
    path = Path(path)
    with path.open("rb") as stream:
        found = read_elements(stream, path)
        if "chunk" in found.names:
            from smalti.files.ply_compressed import read_packed

            return read_packed(stream, found)
        header = header_of(stream, found)
        rest_count = header.rest_count()
        n = header.rows
        splats = empty_splats(n, rest_count, header.metadata(rest_count), header.notices(rest_count))
        clamped, bad = 0, BadRows(PlyError)
        for start in range(0, n, CHUNK_ROWS):
            count = min(CHUNK_ROWS, n - start)
            block = stream.read(count * header.dtype.itemsize)
            if len(block) < count * header.dtype.itemsize:  # the file shrank while it was read
                raise PlyError(path, f"ends inside row {start + len(block) // header.dtype.itemsize}", "Copy it again")
            table = np.frombuffer(block, header.dtype)
            part = splats.rows(start, start + count)
            _unpack(table, part, rest_count)
            infinite = np.isinf(part.logit_opacities)
            clamped += int(infinite.sum())
            np.clip(part.logit_opacities, -LOGIT_LIMIT, LOGIT_LIMIT, out=part.logit_opacities, where=infinite)
            bad.inspect(part, start)
        bad.raise_if_any(path, "Remove these splats (any splat editor can) or export the file again")
    if clamped:
        text = f"{clamped} opacities were infinite as logits (exactly 0 or 1) and became sigmoid(+-{LOGIT_LIMIT:g})"
        splats = with_notices(splats, text)
    return splats


def write_ply(path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None) -> None:
    """Write a 3DGS PLY; the file appears whole or not at all. Memory: one chunk.

    Args:
        path: target, replaced if present.
        splats: what to write, with the metadata of the *written* frame.
        transform: applied to every chunk of rows, for instance `similarity_transform(input_from_scene)`.

    Raises PlyError where a number is NaN or Inf, naming property and rows; an existing file is then untouched.
    """
    path = Path(path)
    rest_count = splats.sh_rest.shape[1]
    bad = BadRows(PlyError)
    with whole_file(path) as stream:
        stream.write(_header_text(splats).encode("ascii"))
        for start, part in parts_of(splats, transform):
            bad.inspect(part, start)
            _write_rows(stream, part, rest_count)
        bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers")


def _header_text(splats: Splats) -> str:
    lines = ["ply", "format binary_little_endian 1.0", *metadata_comments(splats), f"element vertex {len(splats)}"]
    lines += [f"property float {name}" for name in column_names(splats.sh_rest.shape[1])]
    return "\n".join([*lines, "end_header", ""])


def _write_rows(stream: BinaryIO, part: Splats, rest_count: int) -> None:
    n = len(part)
    rows = np.zeros((n, len(column_names(rest_count))), "<f4")
    end = 9 + 3 * rest_count
    rows[:, 0:3] = part.means
    rows[:, 6:9] = part.sh_dc
    rows[:, 9:end] = part.sh_rest.transpose(0, 2, 1).reshape(n, 3 * rest_count)  # channel-major
    rows[:, end] = part.logit_opacities
    rows[:, end + 1 : end + 4] = part.log_scales
    rows[:, end + 4 : end + 8] = part.quaternions
    stream.write(rows.data)


def _unpack(table: np.ndarray, part: Splats, rest_count: int) -> None:
    """Scatter one chunk of file rows into the rows of `part` (views of the result)."""
    groups: tuple[tuple[Float[np.ndarray, "n c"], tuple[str, ...]], ...] = (
        (part.means, ("x", "y", "z")),
        (part.log_scales, ("scale_0", "scale_1", "scale_2")),
        (part.quaternions, ("rot_0", "rot_1", "rot_2", "rot_3")),
        (part.sh_dc, ("f_dc_0", "f_dc_1", "f_dc_2")),
    )
    for target, names in groups:
        for column, name in enumerate(names):
            target[:, column] = table[name]
    part.logit_opacities[:] = table["opacity"]
    for channel in range(3):
        for k in range(rest_count):
            part.sh_rest[:, k, channel] = table[f"f_rest_{channel * rest_count + k}"]


__all__ = ["CHUNK_ROWS", "Header", "PlyError", "column_names", "read_ply", "write_ply"]
