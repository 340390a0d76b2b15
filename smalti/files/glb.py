"""Binary glTF 2.0 as far as splats and meshes need it: the JSON, one binary chunk, accessors read in chunks of rows."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from jaxtyping import Float, Int

from smalti.files.checked import COPY_AGAIN, file_size, read_exactly
from smalti.files.splats import FileFormatError
from smalti.files.strict_json import entry, numbers, strict_json

MAGIC, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
JSON_LIMIT = 1 << 26
"""Bytes of the JSON; that of a file of splats has a few thousand."""
NODE_LIMIT = 10_000
"""Nodes that are followed."""
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


@dataclass(frozen=True)
class Accessor:
    """Rows of numbers in the file; checked to lie inside it."""

    offset: int
    stride: int
    count: int
    dtype: np.dtype
    width: int
    normalized: bool

    def read_integers(self, glb: Glb) -> Int[np.ndarray, "count"]:
        """The first number of every row as an integer. Raises FileFormatError where the file shrank."""
        glb.stream.seek(self.offset)
        size = (self.count - 1) * self.stride + self.width * self.dtype.itemsize if self.count else 0
        block = read_exactly(glb.stream, size, glb.path, "its binary chunk")
        return np.ndarray((self.count,), self.dtype, block, 0, (self.stride,)).astype(np.int64)

    def read(self, glb: Glb, start: int, count: int) -> Float[np.ndarray, "count width"]:
        """Some rows as float32, normalised integers as fractions. Raises FileFormatError where the file shrank."""
        glb.stream.seek(self.offset + start * self.stride)
        size = (count - 1) * self.stride + self.width * self.dtype.itemsize if count else 0
        block = read_exactly(glb.stream, size, glb.path, "its binary chunk")
        shape, strides = (count, self.width), (self.stride, self.dtype.itemsize)
        values = np.ndarray(shape, self.dtype, block, 0, strides).astype(np.float32)
        if self.normalized and self.dtype.kind in "iu":
            values = np.maximum(values / np.float32(np.iinfo(self.dtype).max), np.float32(-1.0))
        return values


@dataclass(frozen=True)
class Glb:
    """An open file: its JSON and where its binary chunk lies."""

    path: Path
    stream: BinaryIO
    plain: dict[str, Any]
    start: int
    length: int

    @classmethod
    def open(cls, stream: BinaryIO, path: Path) -> Self:
        """Read header and JSON. Raises FileFormatError."""
        magic, version, total = struct.unpack("<III", read_exactly(stream, 12, path, "its header"))
        have = file_size(stream)
        if magic != MAGIC or version != 2:
            raise FileFormatError(path, f"is no binary glTF 2 (magic {magic:#x}, version {version})", COPY_AGAIN)
        if total > have:
            raise FileFormatError(path, f"is truncated: {have} of {total} bytes are there", COPY_AGAIN)
        length, kind = struct.unpack("<II", read_exactly(stream, 8, path, "its first chunk"))
        if kind != JSON_CHUNK or length > JSON_LIMIT or 20 + length > total:
            raise FileFormatError(path, f"has a first chunk of kind {kind:#x} and {length} bytes, no JSON", COPY_AGAIN)
        plain = strict_json(path, read_exactly(stream, length, path, "its JSON"), "the JSON chunk")
        start, binary = 20 + length, 0
        if start + 8 <= total:
            binary, kind = struct.unpack("<II", read_exactly(stream, 8, path, "its binary chunk"))
            start += 8
            if kind != BINARY_CHUNK or start + binary > total:
                problem = f"has a second chunk of kind {kind:#x} with {binary} bytes, {total - start} are left"
                raise FileFormatError(path, problem, COPY_AGAIN)
        return cls(path, stream, plain, start, binary)

    def item(self, key: str, index: object) -> dict[str, Any]:
        """`plain[key][index]`. Raises FileFormatError."""
        items = self.plain.get(key)
        if not isinstance(items, list) or type(index) is not int or not 0 <= index < len(items):
            raise FileFormatError(self.path, f"names `{key}` {str(index)[:40]}, which is not there", COPY_AGAIN)
        if not isinstance(items[index], dict):
            raise FileFormatError(self.path, f"`{key}` {index} is no object", COPY_AGAIN)
        return items[index]

    def view(self, index: object) -> tuple[int, int]:
        """Start in the file and length of a buffer view. Raises FileFormatError where it lies outside."""
        view = self.item("bufferViews", index)
        start, length = view.get("byteOffset", 0), view.get("byteLength", -1)
        outside = view.get("buffer") != 0 or view.get("extensions") or "uri" in self.item("buffers", 0)
        if outside or any(type(number) is not int or number < 0 for number in (start, length)):
            raise FileFormatError(self.path, f"buffer view {index} lies outside the file or is compressed", COPY_AGAIN)
        if start + length > self.length:
            raise FileFormatError(self.path, f"buffer view {index} has {length} bytes, which are not there", COPY_AGAIN)
        return self.start + start, length

    def accessor(self, index: object, kind: str) -> Accessor:
        """An accessor of this type (`VEC3`, ...). Raises FileFormatError where its rows do not lie in the file."""
        plain = self.item("accessors", index)
        if "sparse" in plain or "bufferView" not in plain:
            raise FileFormatError(
                self.path, f"accessor {index} is sparse or empty, which is not read", "Export plainly"
            )
        view = self.item("bufferViews", plain["bufferView"])
        buffer = view.get("buffer")
        if view.get("extensions") or buffer != 0 or "uri" in self.item("buffers", buffer):
            problem = f"accessor {index} lies outside the file's own binary chunk or is compressed"
            raise FileFormatError(self.path, problem, "Export it as one .glb without compression")
        dtype = np.dtype(_COMPONENTS.get(entry(self.path, plain, "componentType", int), "V1"))
        if dtype.kind == "V" or plain.get("type") != kind:
            problem = f"accessor {index} has type {str(plain.get('type'))[:20]}, expected {kind} of known components"
            raise FileFormatError(self.path, problem, COPY_AGAIN)
        row = _WIDTHS[kind] * dtype.itemsize
        places = [plain.get("byteOffset", 0), view.get("byteOffset", 0), view.get("byteStride", row)]
        sizes = [plain.get("count", -1), view.get("byteLength", -1)]
        if any(type(number) is not int or number < 0 for number in (*places, *sizes)) or places[2] < row:
            raise FileFormatError(self.path, f"accessor {index} has impossible offsets or counts", COPY_AGAIN)
        inner, outer, stride = places
        count, length = sizes
        end = inner + (count - 1) * stride + row if count else inner
        if end > length or outer + length > self.length:
            problem = f"accessor {index} announces {count} rows, which do not fit in its {length} bytes"
            raise FileFormatError(self.path, problem, COPY_AGAIN)
        return Accessor(
            self.start + outer + inner, stride, count, dtype, _WIDTHS[kind], plain.get("normalized") is True
        )

    def placed_meshes(self) -> list[tuple[dict[str, Any], Float[np.ndarray, "4 4"]]]:
        """The meshes of the scene with world-from-mesh matrices. Raises FileFormatError where nodes form no tree."""
        return [(self.item("meshes", node["mesh"]), matrix) for node, matrix in self.placed_nodes() if "mesh" in node]

    def placed_nodes(self) -> list[tuple[dict[str, Any], Float[np.ndarray, "4 4"]]]:
        """All nodes of the scene with world-from-node matrices. Raises FileFormatError where they form no tree."""
        if "scene" in self.plain or self.plain.get("scenes"):
            roots = self.item("scenes", self.plain.get("scene", 0)).get("nodes", [])
        else:
            roots = list(range(len(self.plain.get("nodes") or [])))
            below = {child for index in roots for child in map(str, self.item("nodes", index).get("children") or [])}
            roots = [index for index in roots if str(index) not in below]
        if not isinstance(roots, list):
            raise FileFormatError(self.path, "the scene's `nodes` is no list", COPY_AGAIN)
        found: list[tuple[dict[str, Any], np.ndarray]] = []
        seen: set[int] = set()
        waiting: list[tuple[object, np.ndarray]] = [(index, np.eye(4)) for index in reversed(roots)]
        while waiting:
            index, outer = waiting.pop()
            node = self.item("nodes", index)
            assert isinstance(index, int)
            if index in seen or len(seen) >= NODE_LIMIT:
                problem = f"node {index} stands in two places, or there are more than {NODE_LIMIT}"
                raise FileFormatError(self.path, problem, COPY_AGAIN)
            seen.add(index)
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = outer @ _local_matrix(self.path, node)
            if not np.isfinite(matrix).all():
                raise FileFormatError(self.path, f"node {index} has no finite place", COPY_AGAIN)
            found.append((node, matrix))
            children = node.get("children", [])
            if not isinstance(children, list):
                raise FileFormatError(self.path, f"the `children` of node {index} are no list", COPY_AGAIN)
            waiting += [(child, matrix) for child in reversed(children)]
        return found


def _local_matrix(path: Path, node: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
    if "matrix" in node:
        return numbers(path, node["matrix"], "matrix", 16).reshape(4, 4).T
    x, y, z, w = numbers(path, node.get("rotation", [0, 0, 0, 1]), "rotation", 4)
    length = x * x + y * y + z * z + w * w
    if not 0.5 < length < 2:
        raise FileFormatError(path, "a node's rotation is no unit quaternion", COPY_AGAIN)
    two = 2.0 / length
    turn = np.array(
        [
            [1 - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
            [two * (x * y + w * z), 1 - two * (x * x + z * z), two * (y * z - w * x)],
            [two * (x * z - w * y), two * (y * z + w * x), 1 - two * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * numbers(path, node.get("scale", [1, 1, 1]), "scale", 3)
    matrix[:3, 3] = numbers(path, node.get("translation", [0, 0, 0]), "translation", 3)
    return matrix
