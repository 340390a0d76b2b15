"""Sparse points from a PLY file (ASCII or binary): positions x y z and, where present, red green blue."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from smalti.datasets.dataset import DatasetError, Points

TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2"},
    **{"uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4"},
    **{"double": "f8", "float64": "f8"},
}
REMEDY = "Write the points again as a PLY with x y z red green blue"


def read_point_ply(path: Path) -> Points:
    """Positions and colours (grey where the file has none). Raises `DatasetError`."""
    data = path.read_bytes()
    end = data.find(b"end_header")
    start = data.find(b"\n", end) + 1
    if not data.startswith(b"ply") or end < 0 or start == 0:
        raise DatasetError(path, "header", "this is no PLY file", REMEDY)
    order, count, fields = _header(path, data[:end].decode("ascii", "replace").splitlines())
    layout = np.dtype([(name, order + kind) for name, kind in fields])
    if order == "":
        try:
            table = (
                np.loadtxt(io.BytesIO(data[start:]), ndmin=2, max_rows=count) if count else np.zeros((0, len(fields)))
            )
        except ValueError as error:
            raise DatasetError(path, "vertices", f"a row cannot be read ({error})", REMEDY) from error
        if table.shape != (count, len(fields)):
            raise DatasetError(path, "vertices", f"expected {count} rows of {len(fields)} values", REMEDY)
        columns = {name: table[:, row] for row, (name, _) in enumerate(fields)}
    else:
        if len(data) - start < count * layout.itemsize:
            raise DatasetError(path, "vertices", f"the file ends before its {count} vertices", REMEDY)
        rows = np.frombuffer(data, layout, count, start)
        columns = {name: rows[name] for name, _ in fields}
    if not {"x", "y", "z"} <= columns.keys():
        raise DatasetError(path, "vertices", "there is no x y z", REMEDY)
    positions = np.stack([columns[name] for name in "xyz"], 1).astype(np.float64)
    if not np.isfinite(positions).all():
        raise DatasetError(path, "vertices", "positions hold NaN or Inf", REMEDY)
    colors = np.full((count, 3), 128, np.uint8)
    if {"red", "green", "blue"} <= columns.keys():
        values = np.stack([columns[name] for name in ("red", "green", "blue")], 1)
        colors = (np.clip(values * 255 + 0.5, 0, 255) if values.dtype.kind == "f" and order else values).astype(
            np.uint8
        )
    return Points(positions, colors)


def _header(path: Path, lines: list[str]) -> tuple[str, int, list[tuple[str, str]]]:
    orders = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
    order, count, fields, element = None, 0, [], ""
    for line in lines:
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            order = orders.get(words[1])
        elif words[:1] == ["element"] and len(words) == 3:
            if not element and words[1] != "vertex":
                raise DatasetError(path, "header", f"the first element is {words[1]}, not vertex", REMEDY)
            element = words[1]
            if element == "vertex":
                if not words[2].isdigit():
                    raise DatasetError(path, "header", f"{words[2]} is no number of vertices", REMEDY)
                count = int(words[2])
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in TYPES:
                raise DatasetError(path, "header", f"a vertex property cannot be read: {line}", REMEDY)
            fields.append((words[2], TYPES[words[1]]))
    if order is None:
        raise DatasetError(path, "header", "the encoding is not known", REMEDY)
    return order, count, fields
