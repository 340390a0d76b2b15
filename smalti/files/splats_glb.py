"""Splats in binary glTF with KHR_gaussian_splatting (Khronos, kernel `ellipse`), all numbers float32.

A point primitive with the attributes POSITION, COLOR_0 (for viewers without the extension) and, after the prefix
`KHR_gaussian_splatting:`,

| attribute | meaning |
| --- | --- |
| ROTATION | unit quaternion x y z w |
| SCALE | standard deviations (not their logarithms) |
| OPACITY | 0 to 1 (not the logit) |
| SH_DEGREE_d_COEF_n | coefficient n = 0..2d of degree d, red green blue |

glTF is +Y up; 3DGS data are -Y up. Reading and writing therefore make a half turn about z, exactly (only signs change),
unless `axes="gltf"` says that the numbers are to stay. Our metadata stand in the primitive's `extras.smalti`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from smalti.cameras.similarity import Similarity
from smalti.files.bytewise import colours_of_dc, opacity_bytes, unit
from smalti.files.checked import CHUNK_ROWS, COPY_AGAIN, TINY_SIZE, BadRows, empty_splats, parts_of, whole_file
from smalti.files.glb import BINARY_CHUNK, JSON_CHUNK, MAGIC, Accessor, Glb
from smalti.files.ply import LOGIT_LIMIT
from smalti.files.splats import FileFormatError, SplatMetadata, Splats, similarity_transform
from smalti.files.strict_json import (
    METADATA_KEY,
    degree_of,
    entry,
    metadata_from_plain,
    metadata_to_plain,
    rest_count_of,
)

EXTENSION = "KHR_gaussian_splatting"
PART_LIMIT = 20_000
"""Primitives that are looked at, over all nodes."""
BYTES_PER_ROW = 8
"""A Gaussian takes 33 bytes and more; a file that places the same ones again and again may come down to these."""
_TURN_REST = np.array([-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1], np.float32)[:, None]
_LOG_SIZES = -87.0, 88.0
"""float32 holds sizes in this range of logarithms."""
_FIXED = (("POSITION", "VEC3"), ("ROTATION", "VEC4"), ("SCALE", "VEC3"), ("OPACITY", "SCALAR"))


@dataclass(frozen=True)
class _Primitive:
    columns: dict[str, Accessor]
    count: int
    degree: int
    transform: Callable[[Splats], Splats] | None
    extras: object


def half_turn(splats: Splats, back: bool = False) -> Splats:
    """Turned by 180 degrees about z (-180 with `back`), which carries +Y up to -Y up. Exact: only signs change."""
    w, x, y, z = splats.quaternions.T
    turned = [z, y, -x, -w] if back else [-z, -y, x, w]
    return replace(
        splats,
        means=splats.means * np.array([-1, -1, 1], np.float32),
        quaternions=np.stack(turned, axis=1),
        sh_rest=splats.sh_rest * _TURN_REST[: splats.sh_rest.shape[1]],
    )


def read_splats_glb(path: Path | str, axes: str = "3dgs", meshes_elsewhere: bool = False) -> Splats:
    """Read all Gaussians of a binary glTF's scene, placed by its nodes. Memory: the result plus one chunk.

    Args:
        path: the file.
        axes: `3dgs` (-Y up, half a turn about z from the file) or `gltf` (+Y up, as in the file).
        meshes_elsewhere: whoever calls reads the file's meshes too, so that leaving them out needs no notice.

    Opacities of exactly 0 and 1 become logits of +-20. Raises FileFormatError for damaged or hostile files, other
    kernels, compressed data, and nodes that shear or mirror.
    """
    path = Path(path)
    _check_axes(axes)
    with path.open("rb") as stream:
        glb = Glb.open(stream, path)
        notices: list[str] = []
        primitives: list[_Primitive] = []
        count = 0
        for primitive in _primitives(glb, notices):
            primitives.append(primitive)
            count += primitive.count
            if count * BYTES_PER_ROW > glb.length:
                raise FileFormatError(path, f"places {count} Gaussians out of {glb.length} bytes", "Export it again")
        if meshes_elsewhere:
            notices = [text for text in notices if not text.endswith("without Gaussians were left out")]
        if not primitives:
            raise FileFormatError(path, f"holds no primitive with {EXTENSION}", "Is it a mesh?")
        rest_count = rest_count_of(max(primitive.degree for primitive in primitives))
        if any(primitive.extras != primitives[0].extras for primitive in primitives):
            notices.append("its parts have different metadata; the defaults were taken")
            metadata = SplatMetadata()
        else:
            metadata = metadata_from_plain(path, primitives[0].extras, SplatMetadata(), rest_count)
        result = empty_splats(count, rest_count, metadata, tuple(notices))
        start, bad = 0, BadRows()
        for primitive in primitives:
            for first in range(0, primitive.count, CHUNK_ROWS):
                rows = min(CHUNK_ROWS, primitive.count - first)
                part = _read_rows(glb, primitive, first, rows)
                bad.inspect(part, start)
                if primitive.transform:
                    part = primitive.transform(part)
                _copy(half_turn(part, back=True) if axes == "3dgs" else part, result.rows(start, start + rows))
                start += rows
        bad.raise_if_any(path, "Remove these splats or export the file again")
    return result


def _check_axes(axes: str) -> None:
    if axes not in ("3dgs", "gltf"):
        raise ValueError(f"axes: expected 3dgs or gltf, got {axes!r}")


def _primitives(glb: Glb, notices: list[str]) -> Iterator[_Primitive]:
    required = glb.plain.get("extensionsRequired", [])
    unknown = [str(name)[:60] for name in required if name != EXTENSION] if isinstance(required, list) else []
    if unknown:
        raise FileFormatError(glb.path, f"requires {', '.join(unknown[:8])}, which is not read", "Export it plainly")
    seen = other = 0
    for mesh, matrix in glb.placed_meshes():
        for plain in entry(glb.path, mesh, "primitives", list):
            seen += 1
            if seen > PART_LIMIT:
                raise FileFormatError(glb.path, f"places more than {PART_LIMIT} primitives", "Export it again")
            extensions = plain.get("extensions") if isinstance(plain, dict) else None
            if isinstance(extensions, dict) and EXTENSION in extensions:
                yield _primitive(glb, plain, _similarity(glb.path, matrix), notices)
            else:
                other += 1
    if other:
        notices.append(f"{other} primitives without Gaussians were left out")


def _primitive(
    glb: Glb, plain: dict[str, Any], transform: Callable[[Splats], Splats] | None, notices: list[str]
) -> _Primitive:
    extension = entry(glb.path, plain["extensions"], EXTENSION, dict)
    if extension.get("kernel", "ellipse") != "ellipse" or extension.get("extensions") or plain.get("mode") != 0:
        problem = f"a primitive has kernel {str(extension.get('kernel'))[:40]!r}, mode {str(plain.get('mode'))[:9]}"
        raise FileFormatError(glb.path, f"{problem} or extensions of its own", "Read are points with kernel `ellipse`")
    if extension.get("colorSpace", "srgb_rec709_display") != "srgb_rec709_display":
        notices.append(f"colours are {str(extension['colorSpace'])[:40]} and were left as they are")
    attributes = entry(glb.path, plain, "attributes", dict)
    if f"{EXTENSION}:SH_DEGREE_4_COEF_0" in attributes:
        notices.append("spherical harmonics beyond degree 3 were left out")
    degrees = [degree for degree in range(4) if f"{EXTENSION}:SH_DEGREE_{degree}_COEF_0" in attributes]
    degree = max(degrees, default=0)
    kinds = dict(_FIXED) | {name: "VEC3" for name in _coefficients(degree)}
    columns: dict[str, Accessor] = {}
    for name, kind in kinds.items():
        full = name if name == "POSITION" else f"{EXTENSION}:{name}"
        if full not in attributes:
            raise FileFormatError(glb.path, f"a primitive has no attribute {full}", "Was it written by a draft?")
        columns[name] = glb.accessor(attributes[full], kind)
    counts = {column.count for column in columns.values()}
    if len(counts) != 1:
        raise FileFormatError(glb.path, f"the attributes of a primitive have {sorted(counts)[:4]} rows", COPY_AGAIN)
    extras = plain.get("extras")
    ours = extras.get(METADATA_KEY) if isinstance(extras, dict) else None
    return _Primitive(columns, counts.pop(), degree, transform, ours)


def _coefficients(degree: int) -> list[str]:
    return [f"SH_DEGREE_{band}_COEF_{place}" for band in range(degree + 1) for place in range(2 * band + 1)]


def _similarity(path: Path, matrix: Float[np.ndarray, "4 4"]) -> Callable[[Splats], Splats] | None:
    if np.array_equal(matrix, np.eye(4)):
        return None
    linear = matrix[:3, :3]
    scale = float(np.cbrt(np.linalg.det(linear)))
    if not scale > 0 or not np.allclose(linear @ linear.T, scale**2 * np.eye(3), rtol=0, atol=1e-4 * scale**2):
        raise FileFormatError(path, "a node shears, mirrors or stretches its Gaussians", "Apply it before exporting")
    turn, _, back = np.linalg.svd(linear)
    return similarity_transform(
        Similarity(scale, torch.from_numpy(turn @ back), torch.from_numpy(matrix[:3, 3].copy()))
    )


def _read_rows(glb: Glb, primitive: _Primitive, start: int, count: int) -> Splats:
    values = {name: column.read(glb, start, count) for name, column in primitive.columns.items()}
    scales, opacities = values["SCALE"].astype(np.float64), values["OPACITY"][:, 0].astype(np.float64)
    if (scales < 0).any():
        raise FileFormatError(glb.path, "holds negative sizes; a draft stored their logarithms", "Export it again")
    if ((opacities < -1e-6) | (opacities > 1 + 1e-6)).any():
        raise FileFormatError(glb.path, "holds opacities outside 0..1", "Export it again")
    opacities = np.clip(opacities, 0, 1)
    with np.errstate(divide="ignore"):
        logits = np.clip(np.log(opacities) - np.log1p(-opacities), -LOGIT_LIMIT, LOGIT_LIMIT)
    names = _coefficients(primitive.degree)
    rest = np.stack([values[name] for name in names[1:]], axis=1) if names[1:] else np.empty((count, 0, 3), np.float32)
    return Splats(
        means=values["POSITION"],
        log_scales=np.log(np.maximum(scales, TINY_SIZE)).astype(np.float32),
        quaternions=values["ROTATION"][:, [3, 0, 1, 2]],
        logit_opacities=logits.astype(np.float32),
        sh_dc=values[names[0]],
        sh_rest=rest,
    )


def _copy(part: Splats, target: Splats) -> None:
    target.means[:], target.log_scales[:], target.quaternions[:] = part.means, part.log_scales, part.quaternions
    target.logit_opacities[:], target.sh_dc[:] = part.logit_opacities, part.sh_dc
    held = part.sh_rest.shape[1]
    target.sh_rest[:, :held], target.sh_rest[:, held:] = part.sh_rest, 0


def write_splats_glb(
    path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None, axes: str = "3dgs"
) -> None:
    """Write a binary glTF; the file appears whole or not at all. Memory: one chunk.

    Args:
        path: target, replaced if present.
        splats: what to write, with the metadata of the *written* frame. Quaternions are written at unit length.
        transform: applied to every chunk of rows.
        axes: of `splats`: `3dgs` (turned by half a turn about z on the way) or `gltf` (written as they are).

    Raises FileFormatError where a number is NaN or Inf, where there are no Gaussians, and beyond 4 GB.
    """
    path = Path(path)
    _check_axes(axes)
    n, layout, offset = len(splats), {}, 0
    for name, size in splat_layout(splats.sh_rest.shape[1]).items():
        layout[name] = (offset, size)
        offset += n * size
    room = len(_json(splats, layout, [[-1.2345678901234567e-300] * 3] * 2))
    room += -room % 4
    total = 28 + room + offset
    if not n or total >= 1 << 32:
        raise FileFormatError(path, f"a binary glTF cannot hold {n} Gaussians", "Write another format")
    bad, low, high = BadRows(), np.full(3, np.inf), np.full(3, -np.inf)
    with whole_file(path) as stream:
        for start, part in parts_of(splats, transform):
            bad.inspect(part, start)
            if bad.found:
                continue
            turned = half_turn(part) if axes == "3dgs" else part
            low, high = np.minimum(low, turned.means.min(axis=0)), np.maximum(high, turned.means.max(axis=0))
            for name, block in splat_columns(turned):
                place, size = layout[name]
                stream.seek(28 + room + place + start * size)
                stream.write(np.ascontiguousarray(block).data)
        bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers")
        text = _json(splats, layout, [low.tolist(), high.tolist()]).ljust(room)
        stream.seek(0)
        stream.write(struct.pack("<IIIII", MAGIC, 2, total, room, JSON_CHUNK) + text)
        stream.write(struct.pack("<II", offset, BINARY_CHUNK))


def splat_layout(rest_count: int) -> dict[str, int]:
    """Attributes in the order of the file and their bytes for one Gaussian."""
    sizes = {"POSITION": 12, "COLOR_0": 4, "ROTATION": 16, "SCALE": 12, "OPACITY": 4}
    return sizes | dict.fromkeys(_coefficients(degree_of(rest_count)), 12)


def splat_columns(part: Splats) -> Iterator[tuple[str, np.ndarray]]:
    """The attributes of some rows, in the order of `splat_layout`."""
    wide = np.clip(part.logit_opacities.astype(np.float64), -700, 700)
    colors = np.rint(np.clip(colours_of_dc(part.sh_dc), 0, 1) * 255).astype(np.uint8)
    yield "POSITION", part.means
    yield "COLOR_0", np.concatenate([colors, opacity_bytes(part.logit_opacities)[:, None]], axis=1)
    yield "ROTATION", unit(part.quaternions)[:, [1, 2, 3, 0]].astype("<f4")
    yield "SCALE", np.exp(np.clip(part.log_scales.astype(np.float64), *_LOG_SIZES)).astype("<f4")
    yield "OPACITY", (1 / (1 + np.exp(-wide))).astype("<f4")
    names = _coefficients(degree_of(part.sh_rest.shape[1]))
    yield names[0], part.sh_dc
    for place, name in enumerate(names[1:]):
        yield name, part.sh_rest[:, place]


def splat_accessors(count: int, layout: dict[str, tuple[int, int]], bounds: list[list[float]]) -> list[dict[str, Any]]:
    """One per attribute, in the order of `layout` ((offset, bytes a row) by name), as are the buffer views."""
    kinds = {4: "SCALAR", 12: "VEC3", 16: "VEC4"}
    accessors: list[dict[str, Any]] = []
    for view, (name, (_, size)) in enumerate(layout.items()):
        accessor = {"bufferView": view, "componentType": 5126, "count": count, "type": kinds[size]}
        if name == "COLOR_0":
            accessor |= {"componentType": 5121, "type": "VEC4", "normalized": True}
        elif name == "POSITION":
            accessor |= {"min": bounds[0], "max": bounds[1]}
        accessors.append(accessor)
    return accessors


def splat_primitive(splats: Splats, names: Iterable[str], first: int) -> dict[str, Any]:
    """The mesh primitive whose attributes are the accessors from `first` on, in the order of `names`."""
    prefixed = [name if name in ("POSITION", "COLOR_0") else f"{EXTENSION}:{name}" for name in names]
    return {
        "mode": 0,
        "attributes": {name: first + index for index, name in enumerate(prefixed)},
        "extensions": {
            EXTENSION: {
                "kernel": "ellipse",
                "colorSpace": "srgb_rec709_display",
                "projection": "perspective",
                "sortingMethod": "cameraDistance",
            }
        },
        "extras": {METADATA_KEY: metadata_to_plain(splats)},
    }


def _json(splats: Splats, layout: dict[str, tuple[int, int]], bounds: list[list[float]]) -> bytes:
    from smalti import __version__

    n = len(splats)
    plain = {
        "asset": {"version": "2.0", "generator": f"smalti {__version__}"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [splat_primitive(splats, layout, 0)]}],
        "accessors": splat_accessors(n, layout, bounds),
        "bufferViews": [
            {"buffer": 0, "byteOffset": offset, "byteLength": n * size, "target": 34962}
            for offset, size in layout.values()
        ],
        "buffers": [{"byteLength": sum(n * size for _, size in layout.values())}],
    }
    return json.dumps(plain, separators=(",", ":")).encode()
