"""Splats in glTF: another tool's file, exact round trips, axes and nodes, integer attributes, hostile files."""

from __future__ import annotations

import json
import math
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from splat_cases import opacities, random_similarity, random_splats, unit_rows

from smalti.cameras.similarity import Similarity
from smalti.files import read_scene_file, write_scene_file
from smalti.files.checked import CHUNK_ROWS
from smalti.files.ply import read_ply
from smalti.files.splats import FileFormatError, SplatMetadata, Splats, quaternion_of, similarity_transform
from smalti.files.splats_glb import half_turn, read_splats_glb, write_splats_glb

KHR = "KHR_gaussian_splatting"


def parts_of(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    length = struct.unpack("<I", raw[12:16])[0]
    return json.loads(raw[20 : 20 + length]), raw[28 + length :]


def assemble(path: Path, plain: dict[str, Any] | bytes, binary: bytes) -> Path:
    text = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
    text = text.ljust(-(-len(text) // 4) * 4)
    head = struct.pack("<IIIII", 0x46546C67, 2, 28 + len(text) + len(binary), len(text), 0x4E4F534A)
    path.write_bytes(head + text + struct.pack("<II", len(binary), 0x004E4942) + binary)
    return path


def assert_close(got: Splats, expected: Splats, atol: float = 1e-6) -> None:
    """Bit for bit but for what glTF stores otherwise: sizes, opacities, and quaternions of unit length."""
    np.testing.assert_array_equal(got.means, expected.means)
    np.testing.assert_array_equal(got.sh_dc, expected.sh_dc)
    np.testing.assert_array_equal(got.sh_rest, expected.sh_rest)
    np.testing.assert_allclose(got.log_scales, expected.log_scales, rtol=0, atol=atol)
    np.testing.assert_allclose(opacities(got), opacities(expected), rtol=0, atol=1e-7)
    np.testing.assert_allclose(got.quaternions, unit_rows(expected), rtol=0, atol=2e-7)


def test_another_tools_file_is_its_ply(shared_data: Path) -> None:
    folder = shared_data / "splat_samples" / "converted"
    got, expected = read_scene_file(folder / "playbot8k.glb"), read_ply(folder / "playbot8k.ply")
    assert_close(got, expected)
    assert got.notices == ()
    assert got.metadata == SplatMetadata()


def test_written_as_the_other_tool_writes(shared_data: Path, tmp_path: Path) -> None:
    """Same attributes, types, orders and numbers, in the binary chunk byte for byte but for rounding."""
    folder = shared_data / "splat_samples" / "converted"
    write_splats_glb(tmp_path / "a.glb", read_ply(folder / "playbot8k.ply"))
    (ours, our_bytes), (theirs, their_bytes) = parts_of(tmp_path / "a.glb"), parts_of(folder / "playbot8k.glb")
    mine, their = (plain["meshes"][0]["primitives"][0] for plain in (ours, theirs))
    assert mine["attributes"] == their["attributes"]
    assert mine["extensions"] == their["extensions"]
    assert mine["mode"] == their["mode"]
    for index, (a, b) in enumerate(zip(ours["accessors"], theirs["accessors"], strict=True)):
        assert {k: v for k, v in a.items() if k != "byteOffset"} == {k: v for k, v in b.items() if k != "byteOffset"}
        views = [plain["bufferViews"][index] for plain in (ours, theirs)]
        assert views[0]["byteOffset"] == views[1]["byteOffset"]
        dtype = "<f4" if a["componentType"] == 5126 else "u1"
        columns = [
            np.frombuffer(data, dtype, view["byteLength"] // np.dtype(dtype).itemsize, view["byteOffset"])
            for data, view in zip((our_bytes, their_bytes), views, strict=True)
        ]
        np.testing.assert_allclose(
            *(c.astype(np.float64) for c in columns), rtol=1e-6, atol=1 if dtype == "u1" else 2e-7
        )


@pytest.mark.parametrize("rest", [0, 3, 8, 15])
def test_written_and_read_back(tmp_path: Path, rest: int) -> None:
    splats = random_splats(
        CHUNK_ROWS + 3, rest, filter_variance=0.1, compensated=True, sh_degree=0, order="ray", frame="scene"
    )
    write_scene_file(tmp_path / "a.glb", splats)
    back = read_scene_file(tmp_path / "a.glb")
    assert_close(back, splats)
    assert back.metadata == splats.metadata
    assert [path.name for path in tmp_path.iterdir()] == ["a.glb"]
    raw = (tmp_path / "a.glb").read_bytes()
    assert struct.unpack("<I", raw[8:12])[0] == len(raw)
    assert len(raw) % 4 == 0
    plain, _ = parts_of(tmp_path / "a.glb")
    turned = half_turn(splats).means
    np.testing.assert_array_equal(plain["accessors"][0]["min"], turned.min(axis=0).tolist())
    np.testing.assert_array_equal(plain["accessors"][0]["max"], turned.max(axis=0).tolist())


def test_half_a_turn_is_the_rotation_that_it_says() -> None:
    splats = random_splats(50, 15)
    turn = Similarity(1.0, torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)))
    expected, got = similarity_transform(turn)(splats), half_turn(splats)
    np.testing.assert_allclose(got.means, expected.means, atol=1e-6)
    np.testing.assert_allclose(got.sh_rest, expected.sh_rest, atol=1e-5)
    assert np.abs((unit_rows(got) * unit_rows(expected)).sum(axis=1)).min() > 1 - 1e-6
    back = half_turn(got, back=True)
    for name in ("means", "quaternions", "sh_rest"):
        np.testing.assert_array_equal(getattr(back, name), getattr(splats, name))


def test_axes_as_in_the_file(tmp_path: Path) -> None:
    splats = random_splats(20, 8)
    write_splats_glb(tmp_path / "a.glb", splats, axes="gltf")
    assert_close(read_splats_glb(tmp_path / "a.glb", axes="gltf"), splats)
    turned = half_turn(splats, back=True)
    np.testing.assert_array_equal(read_splats_glb(tmp_path / "a.glb").means, turned.means)
    np.testing.assert_array_equal(read_splats_glb(tmp_path / "a.glb").sh_rest, turned.sh_rest)
    with pytest.raises(ValueError, match="3dgs or gltf"):
        read_splats_glb(tmp_path / "a.glb", axes="y-up")


def test_trimesh_opens_it_as_points(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    splats = random_splats(100, 3)
    write_splats_glb(tmp_path / "a.glb", splats, axes="gltf")
    (cloud,) = trimesh.load(tmp_path / "a.glb").geometry.values()
    np.testing.assert_array_equal(cloud.vertices.astype(np.float32), splats.means)
    expected = np.clip(0.5 + 0.28209479177387814 * splats.sh_dc, 0, 1) * 255
    assert np.abs(cloud.colors[:, :3] - expected).max() <= 0.51


def test_nodes_place_their_gaussians(tmp_path: Path) -> None:
    """A tree of two nodes, one with a matrix and one with parts: the product of both, in glTF's axes."""
    splats = random_splats(30, 15)
    write_splats_glb(tmp_path / "a.glb", splats, axes="gltf")
    plain, binary = parts_of(tmp_path / "a.glb")
    outer, inner = random_similarity(1), random_similarity(2)
    w, x, y, z = quaternion_of(inner.rotation.numpy()).tolist()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = outer.scale * outer.rotation.numpy(), outer.translation.numpy()
    placed = {
        "rotation": [x, y, z, w],
        "scale": [inner.scale] * 3,
        "translation": inner.translation.tolist(),
        "mesh": 0,
    }
    plain["nodes"] = [{"children": [2], "matrix": matrix.T.ravel().tolist()}, {"mesh": 0}, placed]
    plain["scenes"] = [{"nodes": [0, 1]}]
    got = read_splats_glb(assemble(tmp_path / "b.glb", plain, binary), axes="gltf")
    expected = similarity_transform(outer @ inner)(splats)
    assert len(got) == 60
    np.testing.assert_allclose(got.means[:30], expected.means, atol=2e-6)
    np.testing.assert_allclose(got.log_scales[:30], expected.log_scales, atol=2e-6)
    np.testing.assert_allclose(got.sh_rest[:30], expected.sh_rest, atol=1e-5)
    assert np.abs((unit_rows(got.rows(0, 30)) * unit_rows(expected)).sum(axis=1)).min() > 1 - 1e-6
    np.testing.assert_array_equal(got.means[30:], splats.means)


def test_integer_attributes_and_strides(tmp_path: Path) -> None:
    """What the extension allows beside floats: bytes and shorts for rotations, sizes, opacities; interleaved rows."""
    n, rng = 9, np.random.default_rng(0)
    dtype = np.dtype([("p", "<f4", 3), ("r", "<i2", 4), ("s", "i1", 3), ("o", "u1"), ("c", "<f4", 3)])
    table = np.zeros(n, dtype)
    table["p"], table["c"] = rng.standard_normal((n, 3)), rng.standard_normal((n, 3))
    table["r"], table["s"] = rng.integers(-32767, 32768, (n, 4)), rng.integers(0, 128, (n, 3))
    table["s"][0], table["o"] = 0, [0, 255, 1, 2, 3, 77, 128, 200, 254]
    names = {"p": "POSITION", "r": f"{KHR}:ROTATION", "s": f"{KHR}:SCALE", "o": f"{KHR}:OPACITY"}
    names["c"] = f"{KHR}:SH_DEGREE_0_COEF_0"
    kinds = {"p": (5126, "VEC3"), "r": (5122, "VEC4"), "s": (5120, "VEC3"), "o": (5121, "SCALAR"), "c": (5126, "VEC3")}
    fields = dtype.fields
    assert fields is not None
    plain = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {
                        "mode": 0,
                        "attributes": {full: index for index, full in enumerate(names.values())},
                        "extensions": {KHR: {"kernel": "ellipse", "colorSpace": "lin_rec709_display"}},
                    }
                ]
            }
        ],
        "accessors": [
            {
                "bufferView": 0,
                "byteOffset": fields[key][1],
                "componentType": component,
                "type": kind,
                "count": n,
                "normalized": component != 5126,
            }
            for key, (component, kind) in kinds.items()
        ],
        "bufferViews": [{"buffer": 0, "byteLength": n * dtype.itemsize, "byteStride": dtype.itemsize}],
        "buffers": [{"byteLength": n * dtype.itemsize}],
    }
    got = read_splats_glb(assemble(tmp_path / "a.glb", plain, table.tobytes()), axes="gltf")
    np.testing.assert_array_equal(got.means, table["p"])
    np.testing.assert_allclose(got.quaternions, table["r"][:, [3, 0, 1, 2]] / 32767, atol=1e-6)
    np.testing.assert_allclose(np.exp(got.log_scales[1:]), table["s"][1:] / 127, rtol=1e-5, atol=2e-10)
    np.testing.assert_allclose(got.log_scales[0], math.log(1e-10), rtol=1e-6)
    np.testing.assert_allclose(opacities(got), table["o"] / 255, atol=1e-6)
    assert np.isfinite(got.logit_opacities).all()
    assert "lin_rec709_display" in got.notices[0]


def change(*path: Any, to: Any) -> Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]:
    """Replaces one value of the JSON."""

    def apply(plain: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
        target: Any = plain
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = to
        return plain, binary

    return apply


def poke(value: float, column: int, size: int) -> Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]:
    """Replaces the first number of a column."""

    def apply(plain: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
        start = plain["bufferViews"][column]["byteOffset"]
        return plain, binary[:start] + struct.pack("<f", value) + binary[start + 4 :]

    return apply


def doubled_children(plain: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
    """2^40 instances, were nodes allowed to stand in two places."""
    plain["nodes"] = [{"children": [i + 1, i + 1]} for i in range(40)] + [{"mesh": 0}]
    return plain, binary


def many_instances(plain: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
    plain["nodes"] = [{"mesh": 0} for _ in range(9000)]
    plain["scenes"] = [{"nodes": list(range(9000))}]
    return plain, binary


def many_primitives(plain: dict[str, Any], binary: bytes) -> tuple[dict[str, Any], bytes]:
    """Each of many nodes places a mesh of many primitives that are no Gaussians."""
    plain["meshes"][0]["primitives"] = [{} for _ in range(5000)]
    return many_instances(plain, binary)


PRIMITIVE = ("meshes", 0, "primitives", 0)
HOSTILE: dict[str, tuple[str, Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]]] = {
    "count 2^31": ("do not fit", change("accessors", 0, "count", to=2**31)),
    "count of all": (r"have \[50, 60\] rows", change("accessors", 0, "count", to=50)),
    "negative count": ("impossible", change("accessors", 0, "count", to=-1)),
    "count as text": ("impossible", change("accessors", 0, "count", to="60")),
    "negative offset": ("impossible", change("bufferViews", 0, "byteOffset", to=-4)),
    "stride 0": ("impossible", change("bufferViews", 0, "byteStride", to=0)),
    "view beyond": ("do not fit", change("bufferViews", 0, "byteOffset", to=10**9)),
    "no view": ("bufferViews` 99", change("accessors", 0, "bufferView", to=99)),
    "no accessor": ("accessors` 99", change(*PRIMITIVE, "attributes", "POSITION", to=99)),
    "boolean index": ("accessors` True", change(*PRIMITIVE, "attributes", "POSITION", to=True)),
    "another file": ("outside", change("buffers", 0, "uri", to="file:///etc/passwd")),
    "compressed view": ("compressed", change("bufferViews", 0, "extensions", to={"EXT_meshopt_compression": {}})),
    "sparse": ("sparse", change("accessors", 0, "sparse", to={})),
    "component": ("known components", change("accessors", 0, "componentType", to=5130)),
    "type": ("expected VEC3", change("accessors", 0, "type", to="VEC4")),
    "kernel": ("kernel", change(*PRIMITIVE, "extensions", KHR, "kernel", to="box")),
    "triangles": ("mode 4", change(*PRIMITIVE, "mode", to=4)),
    "required": ("requires KHR_draco", change("extensionsRequired", to=["KHR_draco_mesh_compression"])),
    "packed splats": ("of its own", change(*PRIMITIVE, "extensions", KHR, "extensions", to={"spz": {}})),
    "degree 2 in part": ("SH_DEGREE_2_COEF_1", change(*PRIMITIVE, "attributes", f"{KHR}:SH_DEGREE_2_COEF_0", to=5)),
    "a mesh": ("holds no primitive", change(*PRIMITIVE, "extensions", to={})),
    "no nodes": ("nodes` 0", change("nodes", to=[])),
    "cycle": ("two places", change("nodes", 0, "children", to=[0])),
    "doubled": ("two places", doubled_children),
    "instances": ("Gaussians out of", many_instances),
    "primitives": ("more than 20000", many_primitives),
    "shear": ("shears", change("nodes", 0, "matrix", to=[1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])),
    "mirror": ("mirrors", change("nodes", 0, "scale", to=[-1, 1, 1])),
    "flat": ("shears", change("nodes", 0, "scale", to=[0, 0, 0])),
    "rotation": ("unit quaternion", change("nodes", 0, "rotation", to=[0, 0, 0, 0])),
    "metadata": ("no meaning", change(*PRIMITIVE, "extras", "smalti", to={"filter_variance": -1})),
    "NaN": (r"means in 1 row\(s\): 0", poke(math.nan, 0, 3)),
    "infinite size": (r"log_scales in 1 row", poke(math.inf, 3, 3)),
    "size below 0": ("negative sizes", poke(-3.0, 3, 3)),
    "opacity of 2": ("outside 0..1", poke(2.0, 4, 1)),
    "opacity NaN": ("logit_opacities in 1 row", poke(math.nan, 4, 1)),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("glb") / "sample.glb"
    write_splats_glb(path, random_splats(60, 3))
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case: str, sample: Path, tmp_path: Path) -> None:
    expected, apply = HOSTILE[case]
    path = assemble(tmp_path / "a.glb", *apply(*parts_of(sample)))
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=expected):
        read_splats_glb(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000
    assert time.perf_counter() - start < 3


def test_broken_heads(sample: Path, tmp_path: Path) -> None:
    raw, path = sample.read_bytes(), tmp_path / "a.glb"
    for damaged, expected in {
        b"": "truncated",
        b"ply\n" + raw[4:]: "no binary glTF",
        raw[:4] + struct.pack("<I", 1) + raw[8:]: "no binary glTF",
        raw[:12] + struct.pack("<I", 2**32 - 4) + raw[16:]: "no JSON",
        raw[:20] + b"[" * 200 + raw[220:]: "not valid JSON",
        raw[:-1]: "truncated",
    }.items():
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=expected):
            read_splats_glb(path)


def test_damaged_files_never_raise_anything_else(sample: Path, tmp_path: Path) -> None:
    raw, path, refused = sample.read_bytes(), tmp_path / "a.glb", 0
    rng = np.random.default_rng(0)
    head = 28 + struct.unpack("<I", raw[12:16])[0]
    for trial in range(400):
        damaged = bytearray(raw)
        for place in rng.integers(0, head if trial % 2 else len(raw), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_splats_glb(path)
        except FileFormatError:
            refused += 1
    assert refused > 100


def test_memory_is_a_chunk(tmp_path: Path) -> None:
    splats = random_splats(4 * CHUNK_ROWS, 15)
    transform = similarity_transform(random_similarity())
    write_splats_glb(tmp_path / "a.glb", splats.rows(0, 10), transform)  # imports
    tracemalloc.start()
    write_splats_glb(tmp_path / "a.glb", splats, transform)
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    back = read_splats_glb(tmp_path / "a.glb")
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    row = 4 * (14 + 45)
    assert len(back) == len(splats)
    assert written < 5 * row * CHUNK_ROWS  # float64 inside the transform
    assert read < row * (len(splats) + 4 * CHUNK_ROWS)


def test_what_is_not_finite_or_empty_is_not_written(tmp_path: Path) -> None:
    splats = random_splats(10, 0)
    splats.means[3, 1] = np.inf
    (tmp_path / "a.glb").write_bytes(b"old")
    with pytest.raises(FileFormatError, match=r"means in 1 row\(s\): 3"):
        write_splats_glb(tmp_path / "a.glb", splats)
    with pytest.raises(FileFormatError, match="cannot hold 0"):
        write_splats_glb(tmp_path / "a.glb", random_splats(0))
    assert (tmp_path / "a.glb").read_bytes() == b"old"
