"""What every reader and writer of splats does alike: room for a result, finite numbers, files that appear whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smalti.files.splats import PARAMETERS, FileFormatError, SplatMetadata, Splats

CHUNK_ROWS = 16384
"""Rows converted at a time: 4 MB of 3DGS PLY at degree 3."""
MAX_RATIO = 1024
"""Packed bytes may become this many times their number, plus RATIO_SLACK; no scene of real splats packs so well."""
RATIO_SLACK = 1 << 26
TINY_SIZE = 1e-10
"""A standard deviation of exactly 0, whose logarithm no file here can hold, becomes this."""
COPY_AGAIN = "Copy or export the file again"
_NAMED_ROWS = 5


class BadRows:
    """Collects where NaN and Inf stand, so that the error names them: property, count and the first rows."""

    def __init__(self, error: type[FileFormatError] = FileFormatError) -> None:
        self.error = error
        self.found: dict[str, list[int]] = {}
        self.counts: dict[str, int] = {}

    def inspect(self, part: Splats, start: int) -> None:
        """Look at the rows `start`.. of the file."""
        for name in PARAMETERS:
            values = getattr(part, name)
            if np.isfinite(values).all():
                continue
            rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1)) + start
            kept = self.found.setdefault(name, [])
            kept.extend(int(row) for row in rows[: _NAMED_ROWS - len(kept)])
            self.counts[name] = self.counts.get(name, 0) + len(rows)

    def raise_if_any(self, path: Path, remedy: str) -> None:
        """Raises the error that names them all."""
        if not self.found:
            return
        texts = []
        for name, rows in self.found.items():
            more = ", ..." if self.counts[name] > len(rows) else ""
            texts.append(f"{name} in {self.counts[name]} row(s): {', '.join(map(str, rows))}{more}")
        raise self.error(path, f"NaN or Inf in {'; '.join(texts)} (rows count from 0)", remedy)


def empty_splats(count: int, rest_count: int, metadata: SplatMetadata, notices: tuple[str, ...] = ()) -> Splats:
    """Room for `count` rows with `rest_count` coefficients beyond degree 0; memory is taken as rows are filled in."""
    return Splats(
        means=np.empty((count, 3), np.float32),
        log_scales=np.empty((count, 3), np.float32),
        quaternions=np.empty((count, 4), np.float32),
        logit_opacities=np.empty(count, np.float32),
        sh_dc=np.empty((count, 3), np.float32),
        sh_rest=np.empty((count, rest_count, 3), np.float32),
        metadata=metadata,
        notices=notices,
    )


def with_notices(splats: Splats, *texts: str) -> Splats:
    """The same splats, with what else there is to say about the file."""
    return replace(splats, notices=(*splats.notices, *(text for text in texts if text)))


def parts_of(
    splats: Splats, transform: Callable[[Splats], Splats] | None, rows: int = CHUNK_ROWS
) -> Iterator[tuple[int, Splats]]:
    """Start row and transformed rows, one chunk after the other."""
    for start in range(0, len(splats), rows):
        part = splats.rows(start, start + rows)
        yield start, transform(part) if transform else part


def read_exactly(stream: BinaryIO, count: int, path: Path, what: str) -> bytes:
    """`count` bytes. Raises FileFormatError where the file ends before."""
    block = stream.read(count)
    if len(block) < count:
        raise FileFormatError(path, f"is truncated in {what}: {len(block)} of {count} bytes are there", COPY_AGAIN)
    return block


def file_size(stream: BinaryIO) -> int:
    """Bytes of an open file; its position stays."""
    position = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(position)
    return size


def require_ratio(path: Path, packed: int, unpacked: int) -> None:
    """Raises FileFormatError where a header announces more than packed data can honestly hold."""
    if unpacked > packed * MAX_RATIO + RATIO_SLACK:
        problem = f"announces {unpacked:,} bytes of splats in a file of {packed:,}: more than any scene packs to"
        raise FileFormatError(path, problem, "The header is damaged or the file is hostile; export it again")


@contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """A stream to write `path` with; the file appears when the block ends without an error, whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with scratch.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
