"""The text at the head of a PLY file: strict, and with errors that say what stands there and what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smalti.files.splats import FileFormatError, SplatMetadata, Splats

HEADER_LIMIT = 65536
"""A header longer than this is no header."""
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip
_REQUIRED = (
    "x",
    "y",
    "z",
    "f_dc_0",
    "f_dc_1",
    "f_dc_2",
    "opacity",
    "scale_0",
    "scale_1",
    "scale_2",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
)
_UNUSED = {"nx", "ny", "nz"}
_EXPORT = "Export it as an uncompressed 3DGS PLY (SuperSplat: Export, PLY)"


class PlyError(FileFormatError):
    """A PLY file that is not a usable 3DGS scene."""


@dataclass(frozen=True)
class Header:
    """What the header says, checked: one vertex element first, scalar properties, the file's length."""

    path: Path
    rows: int
    dtype: np.dtype
    """Of one row of the file, little endian and packed."""
    comments: tuple[str, ...]
    skipped_elements: tuple[str, ...]
    """Elements after the vertices; present in the file, not read."""

    def rest_count(self) -> int:
        """Coefficients per channel beyond degree 0. Raises PlyError where properties are missing or fit no degree."""
        names = self.dtype.names or ()
        missing = [name for name in _REQUIRED if name not in names]
        if "packed_position" in names:
            raise PlyError(
                self.path,
                "has a packed_position without an element `chunk` before it: a damaged *compressed* PLY",
                _EXPORT,
            )
        if missing and {"red", "green", "blue"} & set(names):
            raise PlyError(
                self.path,
                f"is a coloured point cloud, not Gaussians: no property {missing[0]}",
                _EXPORT,
            )
        if missing:
            raise PlyError(self.path, f"misses the vertex properties {', '.join(missing)}", _EXPORT)
        rest = [name for name in names if name.startswith("f_rest_")]
        if len(rest) not in (0, 9, 24, 45) or set(rest) != {f"f_rest_{i}" for i in range(len(rest))}:
            raise PlyError(
                self.path,
                f"has {len(rest)} f_rest properties; expected f_rest_0.. in a number of 0, 9, 24 or 45",
                _EXPORT,
            )
        for name in (*_REQUIRED, *rest):
            if self.dtype[name].kind != "f":
                raise PlyError(self.path, f"property {name} has type {self.dtype[name]}; expected float", _EXPORT)
        return len(rest) // 3

    def notices(self, rest_count: int) -> tuple[str, ...]:
        """Sentences about what is in the file and not read."""
        known = {*_REQUIRED, *_UNUSED, *(f"f_rest_{i}" for i in range(3 * rest_count))}
        extra = [name for name in self.dtype.names or () if name not in known]
        texts = []
        if extra:
            texts.append(f"vertex properties not read: {', '.join(extra)}")
        if self.skipped_elements:
            texts.append(f"elements not read: {', '.join(self.skipped_elements)}")
        return tuple(texts)

    def metadata(self, rest_count: int) -> SplatMetadata:
        """From `smalti.<key> <value>` comments; absent keys mean what a plain 3DGS file means. Raises PlyError."""
        return metadata_of(self.path, self.comments, rest_count)


def metadata_of(path: Path, comments: tuple[str, ...], rest_count: int) -> SplatMetadata:
    """From `smalti.<key> <value>` comments; absent keys mean what a plain 3DGS file means. Raises PlyError."""
    found: dict[str, str] = {}
    for comment in comments:
        key, _, value = comment.partition(" ")
        if key.startswith("smalti."):
            found[key.removeprefix("smalti.")] = value.strip()
    try:
        result = SplatMetadata(
            filter_variance=float(found.get("filter_variance", "0.3")),
            compensated={"0": False, "1": True}[found.get("compensated", "0")],
            sh_degree=int(found["sh_degree"]) if "sh_degree" in found else None,
            order=found.get("order", "centre"),
            frame=found.get("frame", "input"),
        )
    except (ValueError, KeyError) as error:
        raise PlyError(
            path,
            f"a `comment smalti.*` line has no meaning: {error}",
            "Delete that line or write the file again",
        ) from error
    if result.sh_degree is not None and (result.sh_degree + 1) ** 2 - 1 > rest_count:
        problem = f"says sh_degree {result.sh_degree}, but has {rest_count} coefficients per channel beyond degree 0"
        raise PlyError(path, problem, "Correct the comment or export it again")
    return result


def metadata_comments(splats: Splats) -> list[str]:
    """The header lines that `metadata_of` reads."""
    data = splats.metadata
    return [
        f"comment smalti.filter_variance {data.filter_variance!r}",
        f"comment smalti.compensated {int(data.compensated)}",
        f"comment smalti.sh_degree {splats.sh_degree}",
        f"comment smalti.order {data.order}",
        f"comment smalti.frame {data.frame}",
    ]


@dataclass(frozen=True)
class Elements:
    """A header as it stands: what is announced, before it is asked what it means."""

    path: Path
    comments: tuple[str, ...]
    elements: tuple[tuple[str, int, np.dtype], ...]
    """Name, rows, and the type of one row (little endian, packed), in the file's order."""

    @property
    def names(self) -> list[str]:
        """Of the elements, in order."""
        return [name for name, _, _ in self.elements]


def read_elements(stream: BinaryIO, path: Path) -> Elements:
    """Parse up to `end_header` and leave the stream at the first row. Raises PlyError."""
    lines = _lines(stream, path)
    if lines[0] != "ply":
        raise PlyError(path, "does not begin with `ply`", "Is it another format with this extension?")
    _require_binary_little_endian(lines, path)
    comments: list[str] = []
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if not words:
            raise PlyError(path, f"header line {number} is empty", "Export the file again")
        if words[0] in ("comment", "obj_info"):
            comments.append(line[len(words[0]) :].strip())
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal():
            elements.append((words[1], int(words[2]), []))
        elif words[0] == "property" and len(words) == 3 and words[1] in _TYPES and elements:
            elements[-1][2].append((words[2], _TYPES[words[1]]))
        elif words[0] == "property" and len(words) == 5 and words[1] == "list":
            raise PlyError(path, f"header line {number}: a list property (`{line}`), as in a mesh", _EXPORT)
        else:
            raise PlyError(path, f"header line {number} makes no sense: `{line[:80]}`", "Export the file again")
    for name, _, properties in elements:
        columns = [column for column, _ in properties]
        twice = {column for column in columns if columns.count(column) > 1}
        if twice:
            raise PlyError(path, f"element {name} names the property {sorted(twice)[0]} twice", "Export the file again")
    typed = tuple((name, count, np.dtype(properties)) for name, count, properties in elements)
    return Elements(path, tuple(comments), typed)


def header_of(stream: BinaryIO, found: Elements) -> Header:
    """The header of an uncompressed 3DGS PLY; checks the file's length against it. Raises PlyError."""
    if found.names[:1] != ["vertex"] or found.names.count("vertex") != 1:
        raise PlyError(found.path, f"has the elements {found.names}; expected `vertex` first", _EXPORT)
    require_length(stream, found)
    return Header(found.path, found.elements[0][1], found.elements[0][2], found.comments, tuple(found.names[1:]))


def require_length(stream: BinaryIO, found: Elements) -> None:
    """Raises PlyError where the bytes after the header are not those it announces."""
    position = stream.tell()
    have, need = stream.seek(0, 2) - position, sum(count * row.itemsize for _, count, row in found.elements)
    stream.seek(position)
    if have < need:
        _, rows, row = found.elements[0]
        complete = min(have // max(row.itemsize, 1), rows)
        raise PlyError(
            found.path,
            f"is truncated: {rows} rows announced, {have} of {need} bytes follow ({complete} whole rows)",
            "Copy it again",
        )
    if have > need:
        raise PlyError(
            found.path,
            f"has {have - need} bytes after its last row",
            "Header and data do not belong together; export it again",
        )


def _lines(stream: BinaryIO, path: Path) -> list[str]:
    lines: list[str] = []
    while stream.tell() < HEADER_LIMIT:
        raw = stream.readline(HEADER_LIMIT)
        if not raw:
            break
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            break
        if line == "end_header":
            if lines and raw.endswith(b"\n"):
                return lines
            break
        lines.append(line)
        if lines[0] != "ply":
            raise PlyError(path, "does not begin with `ply`", "Is it another format with this extension?")
    problem = (
        "is empty"
        if not lines and stream.tell() == 0
        else f"has no `end_header` within its first {HEADER_LIMIT} bytes; the header is truncated or damaged"
    )
    raise PlyError(path, problem, "Copy or export the file again")


def _require_binary_little_endian(lines: list[str], path: Path) -> None:
    words = lines[1].split() if len(lines) > 1 else []
    if words[:1] != ["format"] or len(words) != 3:
        raise PlyError(path, "has no `format` line after `ply`", "Export the file again")
    if words[1] in ("ascii", "binary_big_endian"):
        raise PlyError(path, f"is `{words[1]}`; only binary_little_endian is read", _EXPORT)
    if words[1:] != ["binary_little_endian", "1.0"]:
        raise PlyError(path, f"has the unknown format `{' '.join(words[1:])}`", _EXPORT)
