"""Primitive assemblies as PrimitiveAnything writes them (Ye et al. 2025): JSON, read into superquadrics and written.

{"operation": 0, "type": 1, "scene_id": null, "group": [{"type_id": ..., "data": {"location": [3], "rotation":
[x, y, z, w], "scale": [3], "color": ["808080"]}}]}: a point of the unit primitive (half extents 1) goes to
R diag(scale) x + location, z is up.

| type_id | primitive | exponents (0.101: as near to 0.1, their limit, as training can leave again) |
| --- | --- | --- |
| 1101002001034001 | cuboid | (0.101, 0.101): 98.9 % of its volume, edges 3.4 %, corners 5.4 % inside |
| 1101002001034010 | ellipsoid | (1, 1), exact |
| 1101002001034002 | elliptical cylinder about z | (0.101, 1): 99.2 % of its volume, rims 3.4 % inside |

A block of another shape is written as the nearest of these, with its own exponents as `data.exponents` [e1, e2] beside
what PrimitiveAnything knows: read here, it has its shape again. Assemblies of exported parts say as `data.name` which
part, picture and file a primitive is.

The scene's axes are right, down, forward: z up becomes y down, x is negated (the half turn that glTF files get, after
their y up). The text of what was read stays in the metadata `assembly`: a block that nobody has touched is written as
it stood there, value by value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.files.block_files import drawn_rows
from smalti.files.checked import COPY_AGAIN, whole_file
from smalti.files.splats import FileFormatError, quaternion_of
from smalti.files.strict_json import entry, numbers, strict_json
from smalti.primitives.superquadrics import FLOOR, Superquadrics
from smalti.primitives.texture import logit

TYPES = {1101002001034001: "cuboid", 1101002001034010: "ellipsoid", 1101002001034002: "cylinder"}
SHAPES = {"cuboid": (0.101, 0.101), "ellipsoid": (1.0, 1.0), "cylinder": (0.101, 1.0)}
"""(e1 from pole to pole, e2 around); the poles of our blocks are their y axis, the cylinder's its z."""
SIZE_LIMIT = 1 << 24
"""Bytes of a file; an assembly has at most a few hundred primitives of 200 bytes."""
ROW_LIMIT = 10_000
SAME_SHAPE = 2e-3
"""Exponents that differ by less are those of a shape."""
LEAST = 1e-6
"""Scales below are flat."""
SCENE_FROM_Z_UP = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])
_BLOCK_FROM_PRIMITIVE = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""The block's y axis is the primitive's z."""
_LEVEL = 3
"""Of the icosphere: 1,280 faces a block."""
_TEXELS = 4


@dataclass(frozen=True)
class Primitive:
    """One of an assembly, z up."""

    shape: str
    location: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    scale: Float[np.ndarray, "3"]
    color: Float[np.ndarray, "3"]
    """0..1."""
    exponents: tuple[float, float] | None = None
    """Where they are not those of the shape."""


@dataclass(frozen=True)
class _Columns:
    translations: list[np.ndarray] = field(default_factory=list)
    rotations: list[np.ndarray] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)
    exponents: list[tuple[float, float]] = field(default_factory=list)
    colors: list[np.ndarray] = field(default_factory=list)


def is_assembly(path: Path | str) -> bool:
    """Whether a .json file is an assembly: an object with a list `group`."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size > SIZE_LIMIT:
        return False
    try:
        plain = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(plain, dict) and isinstance(plain.get("group"), list)


def read_assembly(path: Path | str, axes: str = "z-up") -> Superquadrics:
    """An assembly as superquadrics of one colour each, opaque.

    Args:
        path: the file.
        axes: of the file: `z-up` (turned into the scene's) or `scene` (taken as they are).

    Raises FileFormatError for what is no such JSON, unknown types, flat scales, and quaternions not of unit length.
    """
    path, turn = Path(path), _turn(axes)
    if path.stat().st_size > SIZE_LIMIT:
        raise FileFormatError(path, f"has {path.stat().st_size:,} bytes, read are {SIZE_LIMIT:,}", "Is it an assembly?")
    text = path.read_bytes()
    plain = strict_json(path, text, "the assembly")
    group = entry(path, plain, "group", list)
    if not 0 < len(group) <= ROW_LIMIT:
        raise FileFormatError(path, f"holds {len(group)} primitives, expected 1 to {ROW_LIMIT}", COPY_AGAIN)
    columns = _Columns()
    for row, item in enumerate(group):
        _place(_primitive(path, row, item), turn, columns)
    return _blocks(columns, {"assembly": json.dumps({**plain, "smalti.axes": axes}, separators=(",", ":"))})


def write_assembly(
    path: Path | str, blocks: Superquadrics, axes: str = "z-up", names: Mapping[int, str] | None = None
) -> tuple[str, ...]:
    """Write the drawn blocks as an assembly; returns sentences on what it does not hold. A block whose shape is none of
    the three becomes the nearest, in exponents. Where `names` has its row, `data.name` is what it is called.
    """
    path, turn = Path(path), _turn(axes)
    kept, whole = _remembered(blocks, turn, axes)
    rows, group, other, painted = drawn_rows(blocks), list[Any](), list[str](), 0
    if not rows:
        raise FileFormatError(path, "no block is drawn, and an assembly holds one at least", "Write a scene folder")
    for row in rows:
        size = blocks.sizes().detach()[row].cpu()
        known = [item for was, item in kept.get(_signature(blocks, row), ()) if torch.allclose(was, size, rtol=1e-5)]
        if known:
            group.append(_called(known[0], row, names))
            continue
        primitive, distance = _of_block(blocks, row, turn)
        if distance > 0.25:
            e1, e2 = primitive.exponents or SHAPES[primitive.shape]
            other.append(f"{row} ({e1:.2f}, {e2:.2f}) as {primitive.shape}")
        texels = blocks.parameters["raw_textures"].detach()[row].sigmoid()
        painted += int(float((texels - texels.mean(dim=(0, 1))).abs().max()) > 1.5 / 255)
        group.append(_called(_item(primitive), row, names))
    plain = {**whole, "group": group}
    with whole_file(path) as stream:
        stream.write(json.dumps(plain, indent=1, allow_nan=False).encode())
    return _notices(blocks, rows, (other, painted))


def _called(item: dict[str, Any], row: int, names: Mapping[int, str] | None) -> dict[str, Any]:
    return {**item, "data": {**item["data"], "name": names[row]}} if names and row in names else item


def _notices(blocks: Superquadrics, rows: Sequence[int], lost: tuple[list[str], int]) -> tuple[str, ...]:
    other, painted = lost
    told: list[str] = []
    if other:
        named = ", ".join(other[:5]) + (", ..." if len(other) > 5 else "")
        told.append(f"{len(other)} blocks are no cuboid, ellipsoid or cylinder but to Smalti: block {named}")
    if painted:
        told.append(f"the textures of {painted} blocks became their mean colour")
    if len(rows) < len(blocks):
        told.append(f"{len(blocks) - len(rows)} blocks that are not drawn were left out")
    opacity = blocks.opacities().detach()[list(rows)]
    if not blocks.metadata["binary"] and float(opacity.min()) < 0.99:
        told.append(f"{int((opacity < 0.99).sum())} blocks that one can see through became opaque")
    low = float(blocks.positions().detach()[list(rows)].abs().max())
    if low > 1 or float(blocks.sizes().detach()[list(rows)].max()) > 1:
        told.append("places or scales lie beyond -1..1, which PrimitiveAnything itself stays within")
    return tuple(told)


def _turn(axes: str) -> Float[np.ndarray, "3 3"]:
    if axes not in ("z-up", "scene"):
        raise ValueError(f"axes: expected z-up or scene, got {axes!r}")
    return SCENE_FROM_Z_UP if axes == "z-up" else np.eye(3)


def _primitive(path: Path, row: int, item: Any) -> Primitive:
    where = f"primitive {row}"
    kind = item.get("type_id") if isinstance(item, dict) else None
    shape = TYPES.get(int(kind)) if isinstance(kind, str) and kind.isdigit() and len(kind) < 20 else None
    shape = TYPES.get(kind) if type(kind) is int else shape
    if shape is None:
        known = ", ".join(f"{key} {name}" for key, name in TYPES.items())
        raise FileFormatError(path, f"{where} has type_id {str(kind)[:40]}", f"Known are {known}")
    data = entry(path, item, "data", dict)
    location, scale = numbers(path, data.get("location"), "location", 3), numbers(path, data.get("scale"), "scale", 3)
    x, y, z, w = numbers(path, data.get("rotation"), "rotation", 4)
    length = math.sqrt(x * x + y * y + z * z + w * w)
    if not 0.9 < length < 1.1:
        raise FileFormatError(path, f"the rotation of {where} is no unit quaternion (length {length:.3g})", COPY_AGAIN)
    if not (scale.min() >= LEAST and scale.max() <= 1e6 and np.abs(location).max() <= 1e6):
        problem = f"{where} has the scale {scale.tolist()} at {location.tolist()}"
        raise FileFormatError(path, problem, f"Expected are scales of {LEAST:g} to 1e6, places within 1e6")
    x, y, z, w = (each / length for each in (x, y, z, w))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    exponents = None
    if data.get("exponents") is not None:
        e1, e2 = numbers(path, data["exponents"], "exponents", 2)
        if not (min(e1, e2) >= 0.1 and max(e1, e2) <= 1.9):
            raise FileFormatError(path, f"{where} has the exponents {[e1, e2]}, expected are 0.1 to 1.9", COPY_AGAIN)
        exponents = (float(e1), float(e2))
    return Primitive(shape, location, rotation, scale, _color(path, data.get("color"), where), exponents)


def _color(path: Path, plain: object, where: str) -> Float[np.ndarray, "3"]:
    if plain is None:
        return np.full(3, 128 / 255)
    text = plain[0] if isinstance(plain, list) and plain else plain
    digits = text.removeprefix("#") if isinstance(text, str) else ""
    if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise FileFormatError(path, f'the color of {where} is {str(plain)[:40]}, expected ["808080"]', COPY_AGAIN)
    return np.array([int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)])


def _place(primitive: Primitive, turn: Float[np.ndarray, "3 3"], columns: _Columns) -> None:
    axes = turn @ primitive.rotation @ _BLOCK_FROM_PRIMITIVE.T
    columns.translations.append(turn @ primitive.location)
    columns.rotations.append(axes[:, :2].T.reshape(-1))
    columns.sizes.append(np.abs(_BLOCK_FROM_PRIMITIVE) @ primitive.scale)
    columns.exponents.append(primitive.exponents or SHAPES[primitive.shape])
    columns.colors.append(primitive.color)


def _blocks(columns: _Columns, metadata: Mapping[str, Any]) -> Superquadrics:
    sizes = torch.from_numpy(np.stack(columns.sizes))
    ratio = float(sizes.min()) / (2 * FLOOR)
    # As near to their limits as training can leave again.
    shares = ((torch.tensor(columns.exponents, dtype=torch.float64) - 0.1) / 1.8).clamp(5e-4, 1 - 5e-4)
    colors = logit(torch.from_numpy(np.stack(columns.colors)).float())
    parameters = {
        "translations": torch.from_numpy(np.stack(columns.translations)).float(),
        "rotations": torch.from_numpy(np.stack(columns.rotations)).float(),
        "raw_scales": (sizes / ratio - FLOOR).log().float(),
        "raw_exponents": torch.logit(shares).float(),
        "logit_opacities": torch.full((len(sizes),), 10.0),
        "raw_textures": colors[:, None, None, :].expand(-1, _TEXELS, _TEXELS, 3).contiguous(),
    }
    given = {"ratio": ratio, "level": _LEVEL, "edges": "antialiased", "binary": True, "texture_size": _TEXELS}
    return Superquadrics(parameters, {**given, **metadata})


def _remembered(
    blocks: Superquadrics, turn: Float[np.ndarray, "3 3"], axes: str
) -> tuple[dict[bytes, list[tuple[Tensor, Any]]], dict[str, Any]]:
    """What was read, by the place, size, shape and colour that it has as a block; and the object around it."""
    frame: dict[str, Any] = {"operation": 0, "type": 1, "scene_id": None}
    text = blocks.metadata["assembly"]
    if not text:
        return {}, frame
    plain = strict_json("metadata `assembly`", text.encode(), "it")
    frame = {key: value for key, value in plain.items() if key not in ("smalti.axes", "group")}
    if plain.get("smalti.axes") != axes:
        return {}, frame
    columns = _Columns()
    group = entry("metadata `assembly`", plain, "group", list)
    for row, item in enumerate(group):
        _place(_primitive(Path("metadata `assembly`"), row, item), turn, columns)
    made = _blocks(columns, {})
    found: dict[bytes, list[tuple[Tensor, Any]]] = {}
    for row, item in enumerate(group):
        found.setdefault(_signature(made, row), []).append((made.sizes().detach()[row], item))
    return found, frame


def _signature(blocks: Superquadrics, row: int) -> bytes:
    """The same for blocks of one place, turn, shape (to the bit) and colour (to a level); sizes apart, whose raw
    numbers follow the layer's `ratio`.
    """
    names = ("translations", "rotations", "raw_exponents")
    exact = [blocks.parameters[name].detach()[row].float().cpu().numpy().tobytes() for name in names]
    color = blocks.parameters["raw_textures"].detach()[row].float().sigmoid().mean(dim=(0, 1))
    return b"".join([*exact, (color * 255).round().byte().cpu().numpy().tobytes()])


def _of_block(blocks: Superquadrics, row: int, turn: Float[np.ndarray, "3 3"]) -> tuple[Primitive, float]:
    """The nearest of the three shapes where the block stands, and how far its exponents are from that."""
    with torch.no_grad():
        exponents = blocks.exponents()[row].tolist()
        axes = blocks.axes()[row].double().cpu().numpy()
        size = blocks.sizes()[row].double().cpu().numpy()
        centre = blocks.positions()[row].double().cpu().numpy()
        color = blocks.parameters["raw_textures"][row].sigmoid().mean(dim=(0, 1)).double().cpu().numpy()
    distances = {name: max(abs(a - b) for a, b in zip(exponents, pair, strict=True)) for name, pair in SHAPES.items()}
    shape = min(distances, key=lambda name: distances[name])
    rotation = turn.T @ axes @ _BLOCK_FROM_PRIMITIVE
    scale = np.abs(_BLOCK_FROM_PRIMITIVE).T @ size
    own = (exponents[0], exponents[1]) if distances[shape] > SAME_SHAPE else None
    return Primitive(shape, turn.T @ centre, rotation, scale, color, own), distances[shape]


def _item(primitive: Primitive) -> dict[str, Any]:
    w, x, y, z = quaternion_of(primitive.rotation).tolist()
    kind = next(key for key, name in TYPES.items() if name == primitive.shape)
    levels = np.rint(np.clip(primitive.color, 0, 1) * 255).astype(int).tolist()
    data = {
        "location": primitive.location.tolist(),
        "rotation": [x, y, z, w],
        "scale": primitive.scale.tolist(),
        "color": ["".join(f"{level:02x}" for level in levels)],
    }
    if primitive.exponents is not None:
        data["exponents"] = list(primitive.exponents)
    return {"type_id": kind, "data": data}
