"""The compressed PLY of PlayCanvas and SuperSplat: 16 bytes a Gaussian, in chunks of 256 with ranges of their own.

| element | properties |
| --- | --- |
| `chunk`, one for every 256 rows | float minimum and maximum of x y z, of the log sizes, and of r g b (absent before 2025: 0..1) |
| `vertex` | uint `packed_position` 11 10 11 bits of the range; `packed_rotation` 2 bits: which of w x y z is left out as the largest, then 3 x 10 bits over -sqrt(1/2)..sqrt(1/2); `packed_scale` 11 10 11 bits of the range of log sizes; `packed_color` r g b of the range, opacity, 8 bits each |
| `sh`, if any | uchar `f_rest_*`, channel-major as in the 3DGS PLY, 256 steps over -4..4 |

Axes and unit are those of the 3DGS PLY. The first component stands in the highest bits. Steps: a 2047th (y: a 1023rd)
of the chunk's extent for means and log sizes, 0.0014 for quaternions, 1/255 of the chunk's range for colours, 1/255
for opacities, 1/32 for the harmonics. Our metadata travel as comments, as in the 3DGS PLY.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int, UInt32

from smalti.files.bytewise import (
    Cut,
    colours_of_dc,
    dc_of_colours,
    from_smallest_three,
    logits_of_bytes,
    opacity_bytes,
    smallest_three,
    unit,
)
from smalti.files.checked import CHUNK_ROWS, BadRows, empty_splats, read_exactly, whole_file
from smalti.files.ply_header import Elements, PlyError, metadata_comments, metadata_of, require_length
from smalti.files.splats import PARAMETERS, Splats

GROUP = 256
"""Rows that share ranges."""
_RANGES = tuple(
    f"{side}_{name}" for names in (("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b"))
    for side in ("min", "max") for name in names
)  # fmt: skip
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_REMEDY = "Export it again, or as an uncompressed PLY"


def read_compressed_ply(path: Path | str) -> Splats:
    """Read a PLY, compressed or not: the header decides, not the name. Raises PlyError."""
    from smalti.files.ply import read_ply

    return read_ply(path)


def read_packed(stream: BinaryIO, found: Elements) -> Splats:
    """The rows after a header that announces `chunk`. Memory: the result plus one chunk. Raises PlyError."""
    rows, rest_count = _layout(found)
    require_length(stream, found)
    path, start = found.path, stream.tell()
    groups = -(-rows // GROUP)
    width = found.elements[0][2].itemsize
    raw = np.frombuffer(read_exactly(stream, groups * width, path, "its chunks"), "<f4").reshape(groups, width // 4)
    ranges = np.tile(np.repeat(np.array([0, 1], np.float32), 3), (groups, 3))
    ranges[:, : raw.shape[1]] = raw
    splats = empty_splats(rows, rest_count, metadata_of(path, found.comments, rest_count))
    bad = BadRows(PlyError)
    vertices = start + groups * width
    for first in range(0, rows, CHUNK_ROWS):
        part = splats.rows(first, first + CHUNK_ROWS)
        n = len(part)
        stream.seek(vertices + 16 * first)
        packed = np.frombuffer(read_exactly(stream, 16 * n, path, "its rows"), "<u4").reshape(n, 4)
        _unpack(packed, ranges[(first + np.arange(n)) // GROUP], part)
        if rest_count:
            stream.seek(vertices + 16 * rows + 3 * rest_count * first)
            block = read_exactly(stream, 3 * rest_count * n, path, "its harmonics")
            steps = np.frombuffer(block, np.uint8).reshape(n, 3, rest_count).transpose(0, 2, 1)
            part.sh_rest[:] = _HARMONICS[steps]
        bad.inspect(part, first)
    bad.raise_if_any(path, _REMEDY)
    return splats


def write_compressed_ply(
    path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None
) -> tuple[str, ...]:
    """Write a compressed PLY, whole or not at all; returns sentences on what its ranges did not hold.

    Rows are written along a Morton curve of the means (a chunk's ranges are those of neighbours), so their order is
    not that of `splats`. Memory: one chunk and 16 bytes a row for the order. Raises PlyError for NaN and Inf.
    """
    path = Path(path)
    rest_count, rows = splats.sh_rest.shape[1], len(splats)
    order, bad, cut = _curve(splats.means), BadRows(PlyError), Cut()
    groups = -(-rows // GROUP)
    with whole_file(path) as stream:
        stream.write(_header_text(splats).encode("ascii"))
        start = stream.tell()
        vertices = start + groups * 4 * len(_RANGES)
        for first in range(0, rows, CHUNK_ROWS):
            index = order[first : first + CHUNK_ROWS]
            part = replace(splats, **{name: getattr(splats, name)[index] for name in PARAMETERS})
            part = transform(part) if transform else part
            bad.inspect(part, first)
            if bad.found:
                continue
            ranges, packed = _pack(part)
            stream.seek(start + (first // GROUP) * 4 * len(_RANGES))
            stream.write(ranges.astype("<f4").tobytes())
            stream.seek(vertices + 16 * first)
            stream.write(packed.astype("<u4").tobytes())
            if rest_count:
                stream.seek(vertices + 16 * rows + 3 * rest_count * first)
                steps = np.floor((part.sh_rest.astype(np.float64) / 8 + 0.5) * 256)
                block = cut.bytes_of(steps, "spherical harmonics beyond +-4")
                stream.write(block.transpose(0, 2, 1).tobytes())
        bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers (rows along a Morton curve)")
    return cut.notices()


_steps = np.arange(256)
_HARMONICS = ((np.where(_steps == 0, 0, np.where(_steps == 255, 256, _steps + 0.5)) / 256 - 0.5) * 8).astype(np.float32)
"""The middle of each of the 256 steps, the outermost two at the ends of the range."""


def _layout(found: Elements) -> tuple[int, int]:
    """Rows, coefficients per channel beyond degree 0. Raises PlyError."""
    path, names = found.path, found.names
    if names not in (["chunk", "vertex"], ["chunk", "vertex", "sh"]):
        raise PlyError(path, f"has the elements {names}; a compressed PLY has chunk, vertex and perhaps sh", _REMEDY)
    (_, groups, chunk), (_, rows, vertex) = found.elements[:2]
    if chunk.names not in (_RANGES, _RANGES[:12]) or chunk != np.dtype([(name, "<f4") for name in chunk.names or ()]):
        raise PlyError(path, f"its chunks have the properties {', '.join(chunk.names or ())}", _REMEDY)
    if vertex.names != _PACKED or vertex != np.dtype([(name, "<u4") for name in _PACKED]):
        raise PlyError(path, f"its vertices have the properties {', '.join(vertex.names or ())}", _REMEDY)
    if groups != -(-rows // GROUP):
        raise PlyError(path, f"has {groups} chunks for {rows} rows; expected one for every {GROUP}", _REMEDY)
    rest = 0
    if len(names) == 3:
        _, count, row = found.elements[2]
        rest = len(row.names or ())
        expected = tuple(f"f_rest_{i}" for i in range(rest))
        if count != rows or rest not in (9, 24, 45) or row.names != expected or row.itemsize != rest:
            problem = f"its element sh has {count} rows of {rest} properties; expected {rows} rows of 9, 24 or 45 uchar"
            raise PlyError(path, problem, _REMEDY)
    return rows, rest // 3


def _unpack(packed: UInt32[np.ndarray, "n 4"], ranges: Float[np.ndarray, "n 18"], part: Splats) -> None:
    position, rotation, size, colour = packed.T
    with np.errstate(all="ignore"):  # ranges that are not finite are found, and named, afterwards
        part.means[:] = _within(ranges[:, 0:6], _split_11(position))
        part.log_scales[:] = _within(ranges[:, 6:12], _split_11(size))
        shown = np.stack([(colour >> shift) & 255 for shift in (24, 16, 8)], axis=1) / 255.0
        part.sh_dc[:] = dc_of_colours(_within(ranges[:, 12:18], shown))
    part.logit_opacities[:] = logits_of_bytes((colour & 255).astype(np.uint8))
    others = np.stack([(rotation >> shift) & 1023 for shift in (20, 10, 0)], axis=1) / 1023.0 * 2 - 1
    part.quaternions[:] = from_smallest_three(rotation >> 30, others)


def _pack(part: Splats) -> tuple[Float[np.ndarray, "g 18"], UInt32[np.ndarray, "n 4"]]:
    n = len(part)
    values = [part.means.astype(np.float64), part.log_scales.astype(np.float64), colours_of_dc(part.sh_dc)]
    starts = np.arange(0, n, GROUP)
    sides = [
        side for value in values for side in (np.minimum.reduceat(value, starts), np.maximum.reduceat(value, starts))
    ]
    ranges = np.concatenate(sides, axis=1).astype(np.float32)
    own = ranges[np.arange(n) // GROUP].astype(np.float64)
    position, size, colour = (_share(value, own[:, 6 * i : 6 * i + 6]) for i, value in enumerate(values))
    largest, others = smallest_three(unit(part.quaternions))
    tens = np.rint((others * 0.5 + 0.5) * 1023).clip(0, 1023).astype(np.uint32)
    bytes_ = np.rint(colour * 255).astype(np.uint32)
    packed = np.empty((n, 4), np.uint32)
    packed[:, 0], packed[:, 2] = _join_11(position), _join_11(size)
    packed[:, 1] = largest << 30 | tens[:, 0] << 20 | tens[:, 1] << 10 | tens[:, 2]
    packed[:, 3] = bytes_[:, 0] << 24 | bytes_[:, 1] << 16 | bytes_[:, 2] << 8 | opacity_bytes(part.logit_opacities)
    return ranges, packed


def _within(ranges: Float[np.ndarray, "n 6"], share: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    low, high = ranges[:, :3].astype(np.float64), ranges[:, 3:].astype(np.float64)
    return low + share * (high - low)


def _share(values: Float[np.ndarray, "n 3"], ranges: Float[np.ndarray, "n 6"]) -> Float[np.ndarray, "n 3"]:
    extent = ranges[:, 3:] - ranges[:, :3]
    return np.clip((values - ranges[:, :3]) / np.where(extent > 0, extent, 1), 0, 1)


def _split_11(word: UInt32[np.ndarray, "n"]) -> Float[np.ndarray, "n 3"]:
    return np.stack([(word >> 21) / 2047.0, ((word >> 11) & 1023) / 1023.0, (word & 2047) / 2047.0], axis=1)


def _join_11(share: Float[np.ndarray, "n 3"]) -> UInt32[np.ndarray, "n"]:
    steps = np.rint(share * [2047, 1023, 2047]).astype(np.uint32)
    return steps[:, 0] << 21 | steps[:, 1] << 11 | steps[:, 2]


def _header_text(splats: Splats) -> str:
    rows, rest = len(splats), 3 * splats.sh_rest.shape[1]
    lines = ["ply", "format binary_little_endian 1.0", *metadata_comments(splats)]
    lines += [f"element chunk {-(-rows // GROUP)}", *(f"property float {name}" for name in _RANGES)]
    lines += [f"element vertex {rows}", *(f"property uint {name}" for name in _PACKED)]
    if rest:
        lines += [f"element sh {rows}", *(f"property uchar f_rest_{i}" for i in range(rest))]
    return "\n".join([*lines, "end_header", ""])


def _curve(means: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    """Rows in the order of their Morton codes (21 bits an axis); rows that are not finite stand anywhere."""
    n = len(means)
    if not n:
        return np.zeros(0, np.int64)
    with np.errstate(all="ignore"):
        low = np.nan_to_num(np.nanmin(means, axis=0).astype(np.float64), nan=0, posinf=0, neginf=0)
        extent = max(float(np.nan_to_num(np.nanmax(means, axis=0) - low, nan=0, posinf=0).max()), 1e-30)
    codes = np.zeros(n, np.uint64)
    for first in range(0, n, CHUNK_ROWS):
        cell = np.nan_to_num((means[first : first + CHUNK_ROWS] - low) / extent, nan=0, posinf=0, neginf=0)
        steps = (np.clip(cell, 0, 1) * ((1 << 21) - 1)).astype(np.uint64)
        for axis in range(3):
            codes[first : first + CHUNK_ROWS] |= _spread(steps[:, axis]) << np.uint64(axis)
    return np.argsort(codes, kind="stable")


def _spread(bits: np.ndarray) -> np.ndarray:
    """Two zeros between any two of 21 bits."""
    for shift, mask in (
        (32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3), (2, 0x1249249249249249),
    ):  # fmt: skip
        bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
    return bits
