"""The `.ksplat` of GaussianSplats3D, read only: sections of buckets in three levels of compression.

A header of 4096 bytes (versions 0.x; sections at byte 4, splats at 16, level u16 at 20, float range of 8-bit harmonics
at 36 and 40, zeros: +-1.5), 1024 bytes for every section, then the sections' data: the lengths of the partly filled
buckets (u32), the buckets' middles (3 floats each), the splats.

| level | mean | sizes | quaternion w x y z | r g b, opacity | a coefficient |
| --- | --- | --- | --- | --- | --- |
| 0 | 3 float32 | 3 float32 | 4 float32 | 4 bytes | float32 |
| 1 | 3 u16 around the bucket's middle | 3 float16 | 4 float16 | 4 bytes | float16 |
| 2 | as 1 | as 1 | as 1 | as 1 | 1 byte of the header's range |

A u16 is 32767 in the middle; half the bucket's side is 32767 steps. Sizes are not logarithms; coefficients stand degree
by degree, red before green before blue in each. Axes and unit are those of the 3DGS PLY.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from smalti.files.bytewise import dc_of_colours, logits_of_bytes
from smalti.files.checked import (
    CHUNK_ROWS,
    COPY_AGAIN,
    BadRows,
    empty_splats,
    file_size,
    read_exactly,
    with_notices,
)
from smalti.files.splat import log_sizes, whole_turns, zero_notices
from smalti.files.splats import FileFormatError, SplatMetadata, Splats

_HEADER, _SECTION_HEADER = 4096, 1024
_MIDDLE = 32767
_SPANS = ((0, 3), (3, 8), (8, 15))
"""Coefficients of degree 1, 2, 3 among those beyond degree 0."""


@dataclass(frozen=True)
class _Section:
    rows: int
    start: int
    """First byte of the splats."""
    row: np.dtype
    rest_count: int
    step: float
    """Of the means in the buckets; unused at level 0."""
    bucket_ends: np.ndarray
    middles: np.ndarray


def read_ksplat(path: Path | str) -> Splats:
    """Read a `.ksplat` file. Memory: the result, the buckets' middles and one chunk. Raises FileFormatError."""
    path = Path(path)
    with path.open("rb") as stream:
        level, total, sections, harmonics = _sections(stream, path)
        rest_count = max((section.rest_count for section in sections), default=0)
        splats = empty_splats(total, rest_count, SplatMetadata())
        bad, zeros, turns, first = BadRows(), 0, 0, 0
        for section in sections:
            for start in range(0, section.rows, CHUNK_ROWS):
                count = min(CHUNK_ROWS, section.rows - start)
                part = splats.rows(first, first + count)
                stream.seek(section.start + start * section.row.itemsize)
                block = read_exactly(stream, count * section.row.itemsize, path, "its splats")
                table = np.frombuffer(block, section.row)
                _means(table, section, start, part) if level else np.copyto(part.means, table["means"])
                zeros += log_sizes(table["sizes"], part.log_scales, path)
                part.quaternions[:] = table["rotation"]
                turns += whole_turns(part)
                part.sh_dc[:] = dc_of_colours(table["colour"][:, :3] / 255.0)
                part.logit_opacities[:] = logits_of_bytes(table["colour"][:, 3])
                _rest(table, section.rest_count, harmonics if level == 2 else None, part)
                bad.inspect(part, first)
                first += count
        bad.raise_if_any(path, "Export the file again")
    return with_notices(splats, *zero_notices(zeros, turns))


def _sections(stream: BinaryIO, path: Path) -> tuple[int, int, list[_Section], tuple[float, float]]:
    """Level, rows in all, the sections that hold any, and the range of 8-bit harmonics."""
    size = file_size(stream)
    head = read_exactly(stream, _HEADER, path, "its header")
    major, minor = head[0], head[1]
    count, total = struct.unpack_from("<I", head, 4)[0], struct.unpack_from("<I", head, 16)[0]
    level = struct.unpack_from("<H", head, 20)[0]
    low, high = struct.unpack_from("<2f", head, 36)
    harmonics = (low or -1.5, high or 1.5)
    if major != 0 or minor < 1:
        raise FileFormatError(path, f"is version {major}.{minor} of ksplat; 0.1 and later 0.x are read", COPY_AGAIN)
    if level > 2:
        raise FileFormatError(path, f"announces compression level {level}; 0, 1, 2 exist", COPY_AGAIN)
    position = _HEADER + count * _SECTION_HEADER
    if position > size:
        raise FileFormatError(path, f"is truncated: {count} sections announced in {size} bytes", COPY_AGAIN)
    sections: list[_Section] = []
    for index in range(count):
        stream.seek(_HEADER + index * _SECTION_HEADER)
        raw = read_exactly(stream, _SECTION_HEADER, path, f"the header of section {index}")
        if not any(raw[:8]):
            continue  # room for a section that was never filled
        section, position = _section(stream, path, raw, (level, position, size))
        sections.append(section)
    found = sum(section.rows for section in sections)
    if found != total:
        raise FileFormatError(path, f"announces {total} splats, its sections hold {found}", COPY_AGAIN)
    return level, total, sections, harmonics


def _section(stream: BinaryIO, path: Path, raw: bytes, place: tuple[int, int, int]) -> tuple[_Section, int]:
    level, position, size = place
    rows, room, bucket_rows, buckets = struct.unpack_from("<4I", raw, 0)
    side, bucket_bytes = struct.unpack_from("<fH", raw, 16)
    scale = struct.unpack_from("<I", raw, 24)[0] or _MIDDLE
    full, partial = struct.unpack_from("<2I", raw, 32)
    degree = struct.unpack_from("<H", raw, 40)[0]
    if degree > 3:
        raise FileFormatError(path, f"a section announces harmonics of degree {degree}; 0..3 exist", COPY_AGAIN)
    rest_count = (0, 3, 8, 15)[degree]
    row = _row(level, rest_count)
    start = position + 4 * partial + bucket_bytes * buckets
    end = start + room * row.itemsize
    if rows > room or end > size:
        problem = f"a section of {rows} splats in room for {room} and {buckets} buckets ends at byte {end} of {size}"
        raise FileFormatError(path, problem, COPY_AGAIN)
    ends, middles = np.zeros(0, np.int64), np.zeros((0, 3), np.float32)
    if level:
        if bucket_bytes != 12 or full + partial > buckets:
            problem = f"a section of {full} + {partial} buckets has room for {buckets} of {bucket_bytes} bytes"
            raise FileFormatError(path, problem, COPY_AGAIN)
        stream.seek(position)
        lengths = np.frombuffer(read_exactly(stream, 4 * partial, path, "its buckets"), "<u4").astype(np.int64)
        raw_middles = read_exactly(stream, 12 * buckets, path, "its buckets")
        middles = np.frombuffer(raw_middles, "<f4").reshape(buckets, 3)
        ends = np.cumsum(np.concatenate([np.full(full, bucket_rows, np.int64), lengths]))
        if not (len(ends) and ends[-1] >= rows) and rows:
            held = int(ends[-1]) if len(ends) else 0
            raise FileFormatError(path, f"a section of {rows} splats has buckets for {held}", COPY_AGAIN)
    return _Section(rows, start, row, rest_count, side / 2 / scale, ends, middles), end


def _row(level: int, rest_count: int) -> np.dtype:
    mean, number, coefficient = (("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1"))[level]
    return np.dtype(
        [
            ("means", mean, 3),
            ("sizes", number, 3),
            ("rotation", number, 4),
            ("colour", "u1", 4),
            ("rest", coefficient, (3 * rest_count,)),
        ]
    )


def _means(table: np.ndarray, section: _Section, start: int, part: Splats) -> None:
    bucket = np.searchsorted(section.bucket_ends, start + np.arange(len(table)), side="right")
    with np.errstate(all="ignore"):  # what is not finite is found, and named, afterwards
        offsets = (table["means"].astype(np.float64) - _MIDDLE) * section.step
        part.means[:] = section.middles[bucket] + offsets


def _rest(table: np.ndarray, rest_count: int, harmonics: tuple[float, float] | None, part: Splats) -> None:
    part.sh_rest[:, rest_count:] = 0  # sections of lower degree than others
    if not rest_count:
        return
    values: Float[np.ndarray, "n k"] = table["rest"].astype(np.float32)
    if harmonics:
        low, high = harmonics
        values = low + values / 255 * (high - low)
    for begin, end in _SPANS:
        if begin < rest_count:
            band = values[:, 3 * begin : 3 * end].reshape(len(table), 3, end - begin)
            part.sh_rest[:, begin:end] = band.transpose(0, 2, 1)
