"""The triangle meshes of a binary glTF: places, textures, our extras. Read by own means, bounded by the file's size.

glTF is +Y up, captures are -Y up: half a turn about z at the edge, exactly. Colours and textures are taken as the
display's, neither linearised nor lit.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from smalti.files.checked import COPY_AGAIN, file_size, require_ratio
from smalti.files.glb import Accessor, Glb
from smalti.files.mesh import PIXEL_LIMIT, MeshFile, MeshPart, into_tile
from smalti.files.splats import FileFormatError
from smalti.files.strict_json import METADATA_KEY, entry, numbers

HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Our axes from glTF's, and back."""
PLACED_RATIO, PLACED_SLACK = 64, 1 << 26
"""Nodes may place a mesh again and again, up to this many times the file's bytes, plus the slack."""
PART_LIMIT = 20_000
"""Primitives that are looked at, over all nodes."""
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_REPEAT = 10497
_READ = {"KHR_materials_unlit", "KHR_gaussian_splatting", "KHR_texture_transform"}
"""Extensions that a file may require. Texture transforms are refused where a material has one."""


class GlbMeshes:
    """The triangles of an open file."""

    def __init__(self, glb: Glb) -> None:
        self.glb, self.path = glb, glb.path
        self.size = file_size(glb.stream)
        self.placed_bytes = self.pixels = 0
        self._textures: dict[int, UInt8[np.ndarray, "h w c"]] = {}
        required = glb.plain.get("extensionsRequired", [])
        unknown = [str(name)[:60] for name in required if name not in _READ] if isinstance(required, list) else []
        if unknown:
            raise FileFormatError(self.path, f"requires {', '.join(unknown[:8])}, which is not read", "Export plainly")

    def parts(self) -> list[MeshPart]:
        """All placed triangle meshes with their nodes' names, in the order of the nodes. Raises FileFormatError."""
        found: list[MeshPart] = []
        seen = 0
        for node, matrix in self.glb.placed_nodes():
            if "mesh" not in node:
                continue
            mesh = self.glb.item("meshes", node["mesh"])
            for primitive in entry(self.path, mesh, "primitives", list):
                seen += 1
                if seen > PART_LIMIT:
                    raise FileFormatError(self.path, f"places more than {PART_LIMIT} primitives", "Export it again")
                if not isinstance(primitive, dict):
                    raise FileFormatError(self.path, "a primitive is no object", COPY_AGAIN)
                if primitive.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN):
                    found += self._part(node, mesh, primitive, HALF_TURN @ matrix)
        return found

    def _part(self, node: Any, mesh: Any, primitive: Any, matrix: Float[np.ndarray, "4 4"]) -> list[MeshPart]:
        attributes = entry(self.path, primitive, "attributes", dict)
        if primitive.get("extensions"):
            problem = f"has compressed triangles ({', '.join(map(str, primitive['extensions']))[:80]})"
            raise FileFormatError(self.path, problem, "Export it without compression")
        if "POSITION" not in attributes:
            return []
        vertices = self._rows(attributes["POSITION"], "VEC3", len(attributes) * 12)
        count = len(vertices)
        faces = self._faces(primitive, count)
        if not len(faces):
            return []
        if faces.min() < 0 or faces.max() >= count:
            raise FileFormatError(self.path, "has faces that name missing vertices", COPY_AGAIN)
        if not np.isfinite(vertices).all():
            raise FileFormatError(self.path, "holds NaN or Inf among its vertices", COPY_AGAIN)
        texture, tint, wrap = self._material(primitive)
        name = str(node.get("name") or mesh.get("name") or "mesh")[:80]
        extras = node.get("extras")
        ours = extras.get(METADATA_KEY) if isinstance(extras, dict) else None
        stated = "material" in primitive
        data = self._looks(attributes, MeshFile(vertices, faces, None, None, texture), tint, stated)
        if not isinstance(ours, dict):
            return [MeshPart(name, into_tile(data, wrap), matrix, float(tint[3]), wrap[0], None, wrap[1])]
        return [MeshPart(name, data, matrix, float(tint[3]), wrap[0], ours)]

    def _looks(
        self, attributes: dict[str, Any], mesh: MeshFile, tint: Float[np.ndarray, "4"], stated: bool
    ) -> MeshFile:
        count = len(mesh.vertices)
        if mesh.texture is not None and "TEXCOORD_0" in attributes:
            uv = self._rows(attributes["TEXCOORD_0"], "VEC2", 8, count)
            if not np.isfinite(uv).all():
                raise FileFormatError(self.path, "holds NaN or Inf among its texture coordinates", COPY_AGAIN)
            texture = mesh.texture
            if (tint[:3] < 1).any():
                texture = texture.copy()
                texture[..., :3] = _dimmed(texture[..., :3], tint[:3])
            return MeshFile(mesh.vertices, mesh.faces, None, uv[mesh.faces], texture)
        colors = np.tile(tint[:3].astype(np.float32), (count, 1))
        if "COLOR_0" in attributes:
            plain = self.glb.item("accessors", attributes["COLOR_0"])
            kind = "VEC4" if plain.get("type") == "VEC4" else "VEC3"
            colors = colors * self._rows(attributes["COLOR_0"], kind, 16, count)[:, :3]
            if not np.isfinite(colors).all():
                raise FileFormatError(self.path, "holds NaN or Inf among its colours", COPY_AGAIN)
        elif not stated:
            return MeshFile(mesh.vertices, mesh.faces)
        return MeshFile(mesh.vertices, mesh.faces, colors)

    def _rows(self, index: object, kind: str, bytes_each: int, count: int | None = None) -> np.ndarray:
        accessor = self.glb.accessor(index, kind)
        self._announce(accessor, bytes_each)
        if count is not None and accessor.count != count:
            problem = f"the attributes of a primitive have {count} and {accessor.count} rows"
            raise FileFormatError(self.path, problem, COPY_AGAIN)
        return accessor.read(self.glb, 0, accessor.count)

    def _announce(self, accessor: Accessor, bytes_each: int) -> None:
        self.placed_bytes += accessor.count * bytes_each
        if self.placed_bytes > self.size * PLACED_RATIO + PLACED_SLACK:
            problem = f"places {self.placed_bytes:,} bytes of meshes out of a file of {self.size:,}"
            raise FileFormatError(self.path, problem, "Export it with fewer instances")

    def _faces(self, primitive: dict[str, Any], count: int) -> Int[np.ndarray, "f 3"]:
        row = np.arange(count, dtype=np.int64)
        if "indices" in primitive:
            accessor = self.glb.accessor(primitive["indices"], "SCALAR")
            if accessor.dtype.kind != "u":
                raise FileFormatError(self.path, "has face indices that are no whole numbers", COPY_AGAIN)
            self._announce(accessor, 8)
            row = accessor.read_integers(self.glb)
        mode = primitive.get("mode", _TRIANGLES)
        if mode == _TRIANGLES:
            return row[: len(row) // 3 * 3].reshape(-1, 3)
        if len(row) < 3:
            return np.empty((0, 3), np.int64)
        if mode == _FAN:
            return np.stack([np.full(len(row) - 2, row[0]), row[1:-1], row[2:]], axis=1)
        strip = np.stack([row[:-2], row[1:-1], row[2:]], axis=1)
        strip[1::2] = strip[1::2, [1, 0, 2]]
        return strip

    def _material(self, primitive: dict[str, Any]) -> tuple[Any, Float[np.ndarray, "4"], tuple[bool, bool]]:
        """(texture or None, factor, whether it repeats in u and in v)."""
        if "material" not in primitive:
            return None, np.ones(4), (False, False)
        material = self.glb.item("materials", primitive["material"])
        surface = material.get("pbrMetallicRoughness", {})
        if not isinstance(surface, dict):
            raise FileFormatError(self.path, "a material is no object", COPY_AGAIN)
        tint = np.clip(numbers(self.path, surface.get("baseColorFactor", [1, 1, 1, 1]), "baseColorFactor", 4), 0, 1)
        place = surface.get("baseColorTexture")
        if place is None:
            return None, tint, (False, False)
        if not isinstance(place, dict) or place.get("extensions") or place.get("texCoord", 0) != 0:
            raise FileFormatError(self.path, "has a texture with a transform or other coordinates", "Apply it first")
        texture = self.glb.item("textures", place.get("index"))
        # Without a sampler, and where it does not say, textures repeat.
        sampler = self.glb.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap, rows = (sampler.get(name, _REPEAT) == _REPEAT for name in ("wrapS", "wrapT"))
        return self._texture(texture.get("source")), tint, (wrap, rows)

    def _texture(self, index: object) -> UInt8[np.ndarray, "h w c"]:
        image = self.glb.item("images", index)
        assert isinstance(index, int)
        if index not in self._textures:
            if "bufferView" in image:
                start, length = self.glb.view(image["bufferView"])
                self.glb.stream.seek(start)
                data = self.glb.stream.read(length)
            else:
                data = self._beside(str(image.get("uri", "")))
            self._textures[index], pixels = decoded(self.path, data, PIXEL_LIMIT - self.pixels)
            self.pixels += pixels
        return self._textures[index]

    def _beside(self, name: str) -> bytes:
        target = self.path.parent / name
        if not name or Path(name).name != name or not target.is_file() or target.stat().st_size > 1 << 28:
            problem = f"names the file {name[:80]!r}, which is not beside it"
            raise FileFormatError(self.path, problem, "Put it there, or export with the pictures inside")
        return target.read_bytes()


def _dimmed(levels: UInt8[np.ndarray, "h w 3"], factor: Float[np.ndarray, "3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Multiplied in linear light, as glTF means it (IEC 61966-2-1 both ways)."""
    shown = np.arange(256) / 255
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)[:, None] * factor
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table = np.rint(np.clip(encoded, 0, 1) * 255).astype(np.uint8)
    return np.stack([table[levels[..., channel], channel] for channel in range(3)], axis=-1)


def read_glb_parts(path: Path | str) -> list[MeshPart]:
    """All triangle meshes of a binary glTF, in our axes (`MeshPart.matrix`). Raises FileFormatError for damaged or
    hostile files, compressed triangles, and pictures that are neither inside nor beside the file.
    """
    path = Path(path)
    with path.open("rb") as stream:
        return GlbMeshes(Glb.open(stream, path)).parts()


def read_glb(path: Path | str) -> tuple[list[MeshPart], dict[str, Any]]:
    """`read_glb_parts`, and what we said about the scene as a whole; empty for files of other programs."""
    path = Path(path)
    with path.open("rb") as stream:
        glb = Glb.open(stream, path)
        parts = GlbMeshes(glb).parts()
        scenes = glb.plain.get("scenes")
        extras = glb.item("scenes", glb.plain.get("scene", 0)).get("extras") if scenes else None
    ours = extras.get(METADATA_KEY) if isinstance(extras, dict) else None
    return parts, ours if isinstance(ours, dict) else {}


def decoded(path: Path, data: bytes, limit: int) -> tuple[UInt8[np.ndarray, "h w c"], int]:
    """A picture as three or four channels of bytes, and its pixels; its size is judged before it is unpacked."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            pixels = image.width * image.height
            if pixels > limit:
                problem = f"has a texture of {image.width} x {image.height}"
                raise FileFormatError(path, problem, f"Read are at most {PIXEL_LIMIT} pixels in all")
            require_ratio(path, len(data), 4 * pixels)
            clear = "A" in image.getbands() or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if clear else "RGB")), pixels
    except FileFormatError:
        raise
    except Exception as error:  # whatever the decoder stumbles over is the file's
        raise FileFormatError(path, f"its texture cannot be decoded ({str(error)[:120]})", COPY_AGAIN) from error
