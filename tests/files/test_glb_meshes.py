"""Hostile .glb meshes: pictures that unpack to gigabytes, meshes placed thousandfold, paths that lead elsewhere."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smalti.files.glb_build import png
from smalti.files.glb_meshes import read_glb_parts
from smalti.files.splats import FileFormatError


def made(path: Path, change: Any = None, picture: bytes = b"") -> Path:
    """A triangle with a texture, and what `change` does to its JSON."""
    corners = np.eye(3, dtype="<f4").tobytes()
    uv = np.zeros((3, 2), "<f4").tobytes()
    picture = picture or png(np.full((2, 2, 3), 128, np.uint8))
    binary = corners + uv + picture
    plain: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 2, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 36},
            {"buffer": 0, "byteOffset": 36, "byteLength": 24},
            {"buffer": 0, "byteOffset": 60, "byteLength": len(picture)},
        ],
        "buffers": [{"byteLength": len(binary)}],
    }
    if change:
        change(plain)
    text = json.dumps(plain).encode()
    text = text.ljust(-(-len(text) // 4) * 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(binary), len(text), 0x4E4F534A)
    path.write_bytes(head + text + struct.pack("<II", len(binary), 0x004E4942) + binary)
    return path


def huge_png(side: int) -> bytes:
    """A black picture: its pixels are `side` squared, its file is a thousandth of that."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(bytes(3 * side + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def placed_often(plain: dict[str, Any]) -> None:
    """Nine thousand nodes, each of them sixteen thousand triangles of the same three corners."""
    plain["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 0}, "indices": 2}]
    plain["accessors"].append({"bufferView": 2, "componentType": 5121, "count": 50_000, "type": "SCALAR"})
    plain["nodes"] = [{"mesh": 0} for _ in range(9000)]
    plain["scenes"] = [{"nodes": list(range(9000))}]


def update(*path: Any, **values: Any) -> Any:
    def change(plain: Any) -> None:
        for key in path:
            plain = plain[key]
        plain.update(values)

    return change


HOSTILE: dict[str, tuple[Any, str]] = {
    "2^31 vertices": (update("accessors", 0, count=2**31), "rows, which do not fit"),
    "more colours than vertices": (update("accessors", 1, count=2), "rows"),
    "a path": (update("images", 0, bufferView=None, uri="../secret.png"), "buffer|names"),
    "an address": (lambda p: p.update(images=[{"uri": "http://example.org/a.png"}]), "names the file"),
    "a way up": (lambda p: p.update(images=[{"uri": "../secret.png"}]), "names the file"),
    "an absolute path": (lambda p: p.update(images=[{"uri": "/etc/hostname"}]), "names the file"),
    "compressed": (
        update("meshes", 0, "primitives", 0, extensions={"KHR_draco_mesh_compression": {}}),
        "compressed triangles",
    ),
    "required": (lambda p: p.update(extensionsRequired=["EXT_meshopt_compression"]), "requires EXT_meshopt"),
    "a view outside": (update("bufferViews", 2, byteLength=2**40), "not there"),
    "no picture": (update("bufferViews", 2, byteLength=10), "cannot be decoded"),
    "indices of floats": (update("meshes", 0, "primitives", 0, indices=0), "expected SCALAR"),
    "a transform": (
        update("materials", 0, "pbrMetallicRoughness", "baseColorTexture", extensions={"KHR_texture_transform": {}}),
        "Apply it first",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(np.zeros((2, 2, 3), np.uint8)))
    (tmp_path / "inner").mkdir()
    change, said = HOSTILE[name]
    with pytest.raises(FileFormatError, match=said):
        read_glb_parts(made(tmp_path / "inner" / "a.glb", change))


def test_good_ones_are_read(tmp_path: Path) -> None:
    (part,) = read_glb_parts(made(tmp_path / "a.glb"))
    assert part.mesh.texture is not None
    assert part.mesh.texture.shape == (2, 2, 3)
    (tmp_path / "beside.png").write_bytes(png(np.zeros((3, 2, 4), np.uint8)))
    (part,) = read_glb_parts(made(tmp_path / "a.glb", lambda p: p.update(images=[{"uri": "beside.png"}])))
    assert part.mesh.texture is not None
    assert part.mesh.texture.shape == (3, 2, 4)


@pytest.mark.parametrize("case", ["picture", "instances"])
def test_bombs_are_refused_before_memory_is_taken(case: str, tmp_path: Path) -> None:
    """81 million black pixels in a megabyte, and a mesh that is placed nine thousand times."""
    if case == "picture":
        path = made(tmp_path / "a.glb", picture=huge_png(9000))
    else:
        path = made(tmp_path / "a.glb", placed_often, picture=bytes(50_000))
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=r"has a texture of 9000|places .* bytes of meshes"):
        read_glb_parts(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 20
    assert peak < 1 << 28
