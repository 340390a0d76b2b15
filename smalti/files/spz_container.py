"""How `.spz` wraps its attributes: one gzip stream (versions 2 and 3) or one Zstandard frame each (version 4).

| | versions 2, 3 | version 4 |
| --- | --- | --- |
| outside | gzip around everything | nothing around the header |
| header | magic `NGSP`, u32 version, u32 splats, u8 degree, u8 fractional bits, u8 flags, u8 0 | the same 15 bytes, u8 streams, u32 offset of the table, 12 zeros |
| table | none | compressed and plain length of every stream, u64 each |
| body | positions, opacities, colours, sizes, rotations, harmonics | the same, a frame each, none of length 0 |

Between header and table of version 4, and after the body before it, there may be vendors' records (flag 2): u32 kind,
u32 length, so many bytes. Whatever is unpacked is bounded by what the header announces, and that by the file's length.
"""  # noqa: E501

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from smalti.files.checked import COPY_AGAIN, file_size, read_exactly, require_ratio
from smalti.files.splats import FileFormatError

MAGIC = b"NGSP"
GZIP_MAGIC = b"\x1f\x8b"
COMPENSATED, EXTENDED = 1, 2
"""Flags: trained with a mass-preserving screen filter; vendors' records follow."""
REST_COUNTS = (0, 3, 8, 15, 24)
_COPY_BYTES = 1 << 20
_WINDOW = 1 << 27
"""Bytes of history that a frame may ask for."""
_EXTENSION_LIMIT = 1 << 20
_LEVEL = 12


@dataclass(frozen=True)
class SpzHeader:
    """What stands before the attributes, checked."""

    version: int
    rows: int
    degree: int
    fractional_bits: int
    flags: int
    table: int = 32
    """Where the table of version 4 lies."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes a splat of positions, opacities, colours, sizes, rotations, harmonics."""
        return (9, 1, 3, 3, 3 if self.version == 2 else 4, 3 * REST_COUNTS[self.degree])


class Attribute:
    """One attribute's bytes, unpacked as they are asked for."""

    def __init__(self, stream: Any, path: Path, name: str) -> None:
        self.stream, self.path, self.name = stream, path, name

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises FileFormatError where there are fewer, or where they are damaged."""
        pieces: list[bytes] = []
        missing = count
        while missing:
            piece = self._some(missing)
            if not piece:
                problem = f"ends inside its {self.name}: {missing:,} bytes are missing"
                raise FileFormatError(self.path, problem, COPY_AGAIN)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def rest(self, limit: int) -> bytes:
        """The bytes that are left, `limit` + 1 of them at most."""
        pieces, missing = [b""], limit + 1
        while missing:
            piece = self._some(missing)
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _some(self, count: int) -> bytes:
        from zstandard import ZstdError

        try:
            return self.stream.read(min(count, _COPY_BYTES))
        except (BadGzipFile, EOFError, zlib.error, ZstdError) as error:
            raise FileFormatError(self.path, f"its {self.name} cannot be unpacked: {error}", COPY_AGAIN) from error


NAMES = ("positions", "opacities", "colours", "sizes", "rotations", "harmonics")


@contextmanager
def opened(path: Path) -> Generator[tuple[SpzHeader, list[Attribute], dict[int, bytes]]]:
    """Header, the six attributes, to be read to their ends one after the other, and vendors' records by kind.

    The records are complete when the block has ended. Raises FileFormatError.
    """
    records: dict[int, bytes] = {}
    with path.open("rb") as stream, ExitStack() as stack:
        head = stream.read(4)
        stream.seek(0)
        if head.startswith(GZIP_MAGIC):
            body = Attribute(stack.enter_context(GzipFile(fileobj=stream, mode="rb")), path, "header")
            header = _header(body.read(16), path, (2, 3))
            require_ratio(path, file_size(stream), header.rows * sum(header.widths))
            yield header, [Attribute(body.stream, path, name) for name in NAMES], records
            allowed = _EXTENSION_LIMIT if header.flags & EXTENDED else 0
            left = Attribute(body.stream, path, "end").rest(allowed)
            if len(left) > allowed:
                raise FileFormatError(
                    path, "goes on after its last attribute", "Header and data do not belong together"
                )
            records.update(_records(left, path))
        elif head == MAGIC:
            header, attributes = _framed(stream, path, stack)
            stream.seek(32)
            if header.flags & EXTENDED:
                records.update(_records(stream.read(header.table - 32), path))
            yield header, attributes, records
            for attribute in attributes:
                if attribute.rest(0):
                    problem = f"its {attribute.name} are longer than the header says"
                    raise FileFormatError(path, problem, "Header and data do not belong together")
        else:
            raise FileFormatError(path, "does not begin like an SPZ file (gzip or `NGSP`)", COPY_AGAIN)


def _header(raw: bytes, path: Path, versions: tuple[int, ...]) -> SpzHeader:
    magic, version, rows, degree, bits, flags = struct.unpack("<4sIIBBB", raw[:15])
    if magic != MAGIC:
        raise FileFormatError(path, "its unpacked data do not begin with `NGSP`", "Is it another format?")
    if version not in versions:
        if version in (1, 2, 3):
            problem = f"is version {version} of SPZ, {'half floats' if version == 1 else 'but not packed by gzip'}"
        else:
            problem = f"is version {version} of SPZ, in the container of versions {versions[0]}..{versions[-1]}"
        raise FileFormatError(path, problem, "Versions 2 and 3 (in gzip) and 4 are read; export it again")
    if degree >= len(REST_COUNTS):
        raise FileFormatError(path, f"announces harmonics of degree {degree}; 0..4 exist", COPY_AGAIN)
    if bits > 24:
        raise FileFormatError(path, f"announces {bits} fractional bits of 24", COPY_AGAIN)
    return SpzHeader(version, rows, degree, bits, flags)


def _records(raw: bytes, path: Path) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while raw:
        kind, length = struct.unpack("<II", raw[:8]) if len(raw) >= 8 else (0, len(raw))
        if len(raw) < 8 or 8 + length > len(raw):
            raise FileFormatError(path, f"a vendor's record of {length} bytes does not fit its place", COPY_AGAIN)
        found[kind], raw = raw[8 : 8 + length], raw[8 + length :]
    return found


def _framed(stream: BinaryIO, path: Path, stack: ExitStack) -> tuple[SpzHeader, list[Attribute]]:
    import zstandard

    size = file_size(stream)
    # The version comes first: an unpacked version 2 is shorter than the header of version 4.
    raw = read_exactly(stream, 15, path, "its header")
    header = _header(raw, path, (4,))
    count, table = struct.unpack("<BI", read_exactly(stream, 5, path, "its header"))
    expected = [header.rows * width for width in header.widths if header.rows * width]
    if count != len(expected):
        raise FileFormatError(path, f"has {count} streams, expected {len(expected)}", COPY_AGAIN)
    if not 32 <= table <= min(size - 16 * count, 32 + _EXTENSION_LIMIT):
        raise FileFormatError(path, f"its table of streams lies at byte {table} of {size}", COPY_AGAIN)
    stream.seek(table)
    entries = struct.unpack(f"<{2 * count}Q", read_exactly(stream, 16 * count, path, "its table"))
    if list(entries[1::2]) != expected:
        raise FileFormatError(path, f"its streams unpack to {entries[1::2]}, expected {expected}", COPY_AGAIN)
    start = table + 16 * count
    if start + sum(entries[::2]) != size:
        problem = f"is truncated or overlong: {size} bytes, its streams end at {start + sum(entries[::2])}"
        raise FileFormatError(path, problem, COPY_AGAIN)
    require_ratio(path, size, sum(expected))
    attributes: list[Attribute] = []
    names = [name for name, width in zip(NAMES, header.widths, strict=True) if header.rows * width]
    for name, packed in zip(names, entries[::2], strict=True):
        part = stack.enter_context(path.open("rb"))
        part.seek(start)
        frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(cast(IO[bytes], _Slice(part, packed)))
        attributes.append(Attribute(frame, path, name))
        start += packed
    return replace(header, table=table), attributes


class _Slice:
    """A file's next `size` bytes as a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.left = stream, size

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes, none at the end."""
        piece = self.stream.read(self.left if count < 0 else min(count, self.left))
        self.left -= len(piece)
        return piece


class Packer:
    """Writes version 4: six compressors, each into a scratch file, joined behind header and table at the end."""

    def __init__(self, header: SpzHeader, scratch: list[IO[bytes]]) -> None:
        import zstandard

        self.header, self.scratch = header, scratch
        sizes = [header.rows * width for width in header.widths]
        self.packers = [zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=size) for size in sizes]

    def add(self, blocks: list[bytes]) -> None:
        """The next rows of every attribute."""
        for packer, scratch, block in zip(self.packers, self.scratch, blocks, strict=True):
            scratch.write(packer.compress(block))

    def finish(self, out: BinaryIO) -> None:
        """The whole file."""
        header, plain, packed = self.header, [], []
        for packer, scratch, width in zip(self.packers, self.scratch, header.widths, strict=True):
            scratch.write(packer.flush())
            if header.rows * width:
                plain.append(header.rows * width)
                packed.append(scratch)
        head = struct.pack("<4sIIBBB", MAGIC, 4, header.rows, header.degree, header.fractional_bits, header.flags)
        out.write(head + struct.pack("<BI12x", len(plain), 32))
        for size, scratch in zip(plain, packed, strict=True):
            out.write(struct.pack("<QQ", scratch.tell(), size))
        for scratch in packed:
            scratch.seek(0)
            while block := scratch.read(_COPY_BYTES):
                out.write(block)
