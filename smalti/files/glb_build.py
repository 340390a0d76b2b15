"""Binary glTF made piece by piece: meshes with textures, and Gaussians, each a node; blocks wait in a scratch file.

Materials are unlit (KHR_materials_unlit), for textures here are what the display shows. Everything is turned from our
axes to +Y up by the nodes or, where they stand at the identity, exactly in the vertices.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from smalti.files.checked import BadRows, parts_of, whole_file
from smalti.files.glb import BINARY_CHUNK, JSON_CHUNK, MAGIC
from smalti.files.glb_meshes import HALF_TURN
from smalti.files.mesh import MeshPart, unshared_corners
from smalti.files.splats import FileFormatError, Splats, quaternion_of
from smalti.files.splats_glb import (
    EXTENSION,
    half_turn,
    splat_accessors,
    splat_columns,
    splat_layout,
    splat_primitive,
)
from smalti.files.strict_json import METADATA_KEY

UNLIT = "KHR_materials_unlit"
_REPEAT, _CLAMP, _LINEAR = 10497, 33071, 9729
_VERTICES, _INDICES = 34962, 34963


class GlbBuilder:
    """A file in the making; `add_*` append nodes, `write` ends it. Memory: one part, or one chunk of Gaussians."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scratch = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self.bytes = 0
        keys = ("nodes", "meshes", "accessors", "bufferViews", "materials", "textures", "images", "samplers")
        self.lists: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
        self.extensions: set[str] = set()

    def _append(self, key: str, plain: dict[str, Any]) -> int:
        self.lists[key].append(plain)
        return len(self.lists[key]) - 1

    def _view(self, size: int, target: int | None = None) -> int:
        """Room for `size` bytes at the end."""
        view = {"buffer": 0, "byteOffset": self.bytes, "byteLength": size}
        self.bytes += size + -size % 4
        if self.bytes >= (1 << 32) - (1 << 27):
            raise FileFormatError(self.path, "a binary glTF holds 4 GB at most", "Write fewer layers")
        return self._append("bufferViews", view if target is None else {**view, "target": target})

    def _block(self, data: bytes, target: int | None = None) -> int:
        self.scratch.seek(self.bytes)
        self.scratch.write(data)
        return self._view(len(data), target)

    def _array(self, values: np.ndarray, component: int, target: int, **more: Any) -> int:
        view = self._block(np.ascontiguousarray(values).tobytes(), target)
        kind = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        plain = {"bufferView": view, "componentType": component, "count": len(values), "type": kind}
        return self._append("accessors", {**plain, **more})

    def add_part(self, part: MeshPart, placed_by_node: bool = False) -> None:
        """A node with a mesh. `placed_by_node`: with translation, rotation and scale of its own (the matrix must have
        no more); else its vertices stand where they are.
        """
        mesh = part.mesh if placed_by_node else part.placed()
        vertices = mesh.vertices.astype("<f4")
        if not placed_by_node:
            vertices = vertices * np.array([-1, -1, 1], "<f4")
        if not np.isfinite(vertices).all():
            raise FileFormatError(self.path, f"part {part.name!r} has vertices that are NaN or Inf", "Remove them")
        faces, attributes = mesh.faces, {}
        if mesh.texture is not None:
            rows, uvs, faces = unshared_corners(mesh)
            vertices = vertices[rows]
            attributes["TEXCOORD_0"] = self._array(uvs.astype("<f4"), 5126, _VERTICES)
        else:
            colors = np.full((len(vertices), 3), 0.5) if mesh.colors is None else mesh.colors
            levels = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
            opaque = np.full((len(levels), 1), 255, np.uint8)
            made = np.concatenate([levels, opaque], axis=1)
            attributes["COLOR_0"] = self._array(made, 5121, _VERTICES, normalized=True)
        bounds = {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
        attributes["POSITION"] = self._array(vertices, 5126, _VERTICES, **bounds)
        indices = self._array(faces.reshape(-1).astype("<u4"), 5125, _INDICES)
        primitive: dict[str, Any] = {"attributes": attributes, "indices": indices}
        if mesh.texture is not None or part.opacity < 1:  # trimesh drops colours per vertex where there is a material
            primitive["material"] = self._material(part)
        place = _place(part.matrix) if placed_by_node else {}
        self._node(part.name, primitive, {**place, **_extras(part.extras)})

    def _node(self, name: str, primitive: dict[str, Any], more: dict[str, Any]) -> None:
        mesh = self._append("meshes", {"name": name, "primitives": [primitive]})
        self._append("nodes", {"name": name, "mesh": mesh, **more})

    def _material(self, part: MeshPart) -> int:
        texture = part.mesh.texture
        surface: dict[str, Any] = {"metallicFactor": 0.0, "baseColorFactor": [1, 1, 1, float(part.opacity)]}
        if texture is not None:
            wrap = _REPEAT if part.wrap else _CLAMP
            sampler = {"wrapS": wrap, "wrapT": _CLAMP, "magFilter": _LINEAR, "minFilter": _LINEAR}
            same = [row for row, other in enumerate(self.lists["samplers"]) if other == sampler]
            place = same[0] if same else self._append("samplers", sampler)
            image = self._append("images", {"bufferView": self._block(png(texture)), "mimeType": "image/png"})
            surface["baseColorTexture"] = {"index": self._append("textures", {"source": image, "sampler": place})}
        clear = part.opacity < 1 or (texture is not None and texture.shape[2] == 4)
        self.extensions.add(UNLIT)
        plain = {"name": part.name, "pbrMetallicRoughness": surface, "extensions": {UNLIT: {}}, "doubleSided": True}
        return self._append("materials", {**plain, **({"alphaMode": "BLEND"} if clear else {})})

    def add_splats(
        self, name: str, splats: Splats, transform: Callable[[Splats], Splats] | None, extras: Mapping[str, Any]
    ) -> None:
        """A node with Gaussians. Raises FileFormatError where a number is NaN or Inf."""
        sizes = splat_layout(splats.sh_rest.shape[1])
        views = {key: self._view(len(splats) * size, _VERTICES) for key, size in sizes.items()}
        starts = {key: self.lists["bufferViews"][view]["byteOffset"] for key, view in views.items()}
        bad, low, high = BadRows(), np.full(3, np.inf), np.full(3, -np.inf)
        for start, part in parts_of(splats, transform):
            bad.inspect(part, start)
            if bad.found:
                continue
            turned = half_turn(part)
            low, high = np.minimum(low, turned.means.min(axis=0)), np.maximum(high, turned.means.max(axis=0))
            for key, block in splat_columns(turned):
                self.scratch.seek(starts[key] + start * sizes[key])
                self.scratch.write(np.ascontiguousarray(block).data)
        bad.raise_if_any(self.path, "Nothing was written; the scene itself holds these numbers")
        layout = {key: (starts[key], size) for key, size in sizes.items()}
        first, first_view = len(self.lists["accessors"]), next(iter(views.values()))
        for plain in splat_accessors(len(splats), layout, [low.tolist(), high.tolist()]):
            self._append("accessors", {**plain, "bufferView": plain["bufferView"] + first_view})
        self.extensions.add(EXTENSION)
        self._node(name, splat_primitive(splats, layout, first), _extras(extras))

    def write(self, scene_extras: Mapping[str, Any] | None = None) -> None:
        """The file, whole or not at all."""
        from smalti import __version__

        nodes = list(range(len(self.lists["nodes"])))
        plain = {
            "asset": {"version": "2.0", "generator": f"smalti {__version__}"},
            "extensionsUsed": sorted(self.extensions),
            "scene": 0,
            "scenes": [{"nodes": nodes, **_extras(scene_extras)}],
            **{key: value for key, value in self.lists.items() if value},
            "buffers": [{"byteLength": self.bytes}],
        }
        text = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
        text = text.ljust(len(text) + -len(text) % 4)
        with whole_file(self.path) as stream:
            total = 28 + len(text) + self.bytes
            stream.write(struct.pack("<IIIII", MAGIC, 2, total, len(text), JSON_CHUNK) + text)
            stream.write(struct.pack("<II", self.bytes, BINARY_CHUNK))
            self.scratch.truncate(self.bytes)
            self.scratch.seek(0)
            shutil.copyfileobj(self.scratch, stream, 1 << 20)

    def __enter__(self) -> GlbBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self.scratch.close()


def write_glb_parts(path: Path | str, parts: Sequence[MeshPart]) -> None:
    """A binary glTF of these meshes, their vertices where they stand."""
    with GlbBuilder(Path(path)) as builder:
        for part in parts:
            builder.add_part(part)
        builder.write()


def png(texture: UInt8[np.ndarray, "h w c"]) -> bytes:
    """The picture as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(texture).save(stream, format="PNG")
    return stream.getvalue()


def _extras(plain: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"extras": {METADATA_KEY: dict(plain)}} if plain else {}


def _place(matrix: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    """Translation, rotation and scale of a node, +Y up."""
    turned = HALF_TURN @ matrix
    scale = np.linalg.norm(turned[:3, :3], axis=0)
    w, x, y, z = quaternion_of(turned[:3, :3] / scale)
    return {"translation": turned[:3, 3].tolist(), "rotation": [x, y, z, w], "scale": scale.tolist()}
