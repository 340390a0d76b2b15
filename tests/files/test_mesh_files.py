"""Mesh files: what trimesh reads back, equal renders, seams, axes, several meshes, hostile files."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.files.mesh_files import MeshFile, meshes_from_file, read_mesh, write_mesh, write_meshes
from smalti.files.splats import FileFormatError
from smalti.primitives.meshes import Meshes
from smalti.primitives.surface import icosphere
from smalti.renderers.render import render
from smalti.scene.exchange import export_scene
from smalti.scene.open_file import open_scene
from smalti.scene.scene import Scene

trimesh = pytest.importorskip("trimesh")
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def ball(texture_size: int, **metadata: Any) -> Meshes:
    """A coloured icosphere, off centre; with a texture of noise if it has one."""
    shape = icosphere(1)
    generator = torch.Generator().manual_seed(0)
    colors = torch.rand(len(shape.vertices), 3, generator=generator)
    vertices = shape.vertices.float() * torch.tensor([1.0, 0.8, 0.6]) + torch.tensor([0.1, 0.3, -0.2])
    made = Meshes.from_mesh(vertices, shape.faces, colors, {"texture_size": texture_size, **metadata})
    if texture_size:
        noise = torch.randn(made.parameters["raw_texture"].shape, generator=generator)
        made.replace({**made.parameters, "raw_texture": noise})
    return made


def picture(meshes: Meshes) -> torch.Tensor:
    position = torch.tensor([0.5, -1.0, -3.0])
    camera = Camera.look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.9, (48, 40))
    with torch.no_grad():
        return render(meshes.drawables(camera), camera, backend="oracle").color


@pytest.mark.parametrize(("extension", "size"), [(".glb", 0), (".obj", 0), (".ply", 0), (".glb", 64), (".obj", 64)])
def test_written_and_read_back_looks_the_same(tmp_path: Path, extension: str, size: int) -> None:
    meshes = ball(size)
    assert write_meshes(tmp_path / f"a{extension}", meshes) == ()
    back = meshes_from_file(tmp_path / f"a{extension}")
    assert len(back) == len(meshes) == 80
    assert len(back.parameters["vertices"]) == 42  # no seams: antialiased edges need whole surfaces
    assert torch.equal(back.corners(), meshes.corners())
    assert ("raw_texture" in back.parameters) == bool(size)
    if size:
        torch.testing.assert_close(back.constants["uvs"], meshes.constants["uvs"], rtol=0, atol=1e-6)
    seen, expected = picture(back), picture(meshes)
    assert expected.std() > 0.1
    assert float((seen - expected).abs().max()) < 1.5 / 255
    assert not list(tmp_path.glob(".*"))


def test_trimesh_reads_vertices_faces_and_colours(tmp_path: Path) -> None:
    """Reopened with trimesh alone: glTF is +Y up, the others as they are."""
    meshes = ball(0)
    surface = meshes.surface()
    vertices, colors = surface.vertices.numpy(), surface.colors.numpy()
    for extension, turn in {".glb": (-1, -1, 1), ".obj": (1, 1, 1), ".ply": (1, 1, 1)}.items():
        write_meshes(tmp_path / f"a{extension}", meshes)
        found = trimesh.load(tmp_path / f"a{extension}", force="mesh", process=False)
        np.testing.assert_allclose(found.vertices, vertices * turn, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(found.faces, surface.faces.numpy())
        assert np.abs(found.visual.vertex_colors[:, :3] / 255 - colors).max() <= 0.51 / 255
        assert found.is_watertight
        assert found.volume == pytest.approx(float(surface.volume()), rel=1e-6)  # the faces' sense is kept


def test_trimesh_reads_the_texture_where_we_mean_it(tmp_path: Path) -> None:
    """The colour that trimesh finds at a corner is the texel that our coordinates name: v runs downwards here."""
    texture = np.zeros((4, 4, 3), np.uint8)
    texture[0], texture[3], texture[:, 3, 2] = (255, 0, 0), (0, 255, 0), 255
    uvs = np.array([[[0.125, 0.125], [0.875, 0.875], [0.125, 0.875]]], np.float32)
    mesh = MeshFile(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]), None, uvs, texture)
    for name in ("a.glb", "a.obj"):
        write_mesh(tmp_path / name, mesh)
        found = trimesh.load(tmp_path / name, force="mesh", process=False)
        colors = found.visual.to_color().vertex_colors[found.faces[0]][:, :3]
        np.testing.assert_array_equal(colors, [[255, 0, 0], [0, 255, 255], [0, 255, 0]])
        back = read_mesh(tmp_path / name)
        np.testing.assert_allclose(back.uvs, uvs, atol=1e-6)
        np.testing.assert_array_equal(back.texture, texture)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.glb", "a.mtl", "a.obj", "a.png"]


def test_opacity_of_texels_travels_and_that_of_faces_is_said(tmp_path: Path) -> None:
    meshes = ball(32, texel_opacity=True, initial_opacity=0.5)
    assert write_meshes(tmp_path / "a.glb", meshes) == ()
    back = meshes_from_file(tmp_path / "a.glb")
    difference = back.parameters["raw_texture"].detach().sigmoid() - meshes.parameters["raw_texture"].detach().sigmoid()
    assert back.parameters["raw_texture"].shape[2] == 4
    assert float(difference.abs().max()) <= 0.51 / 255
    assert "opacities" in write_meshes(tmp_path / "b.ply", ball(0, initial_opacity=0.5))[0]


def test_several_meshes_of_a_scene_are_joined_where_their_nodes_put_them(tmp_path: Path) -> None:
    one = trimesh.creation.box()
    one.visual.vertex_colors = [255, 0, 0, 255]
    scene = trimesh.Scene()
    scene.add_geometry(one)
    scene.add_geometry(one, transform=trimesh.transformations.translation_matrix([5, 7, 9]))
    scene.export(tmp_path / "a.glb")
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.faces.shape == (24, 3)
    assert mesh.vertices.shape == (16, 3)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), [0.5, 0.5, 9.5])
    np.testing.assert_allclose(mesh.vertices.min(axis=0), [-5.5, -7.5, -0.5])
    np.testing.assert_allclose(mesh.colors, np.tile([1.0, 0, 0], (16, 1)))


def test_that_a_texture_goes_on_around_only_glb_says(tmp_path: Path) -> None:
    meshes = ball(32, wrap=True)
    assert write_meshes(tmp_path / "inside.obj", meshes) == ()
    meshes.constants["uvs"] = meshes.constants["uvs"] + torch.tensor([0.25, 0.0])  # whole cells of the texture
    assert write_meshes(tmp_path / "a.glb", meshes) == ()
    (said,) = write_meshes(tmp_path / "a.obj", meshes)
    assert said.startswith("that the texture of 'a' goes on around in u, and not in v, only .glb says")
    scene = Scene(order="ray")
    scene.add("ball", meshes)
    assert export_scene(scene, tmp_path / "b.obj").notices == (said.replace("'a'", "'ball'"),)
    assert export_scene(scene, tmp_path / "b.glb").notices == ()
    back = open_scene(tmp_path / "b.obj").scene.layers["meshes"].family  # ours reads what most programs mean
    assert isinstance(back, Meshes)
    assert float((picture(back) - picture(meshes)).abs().max()) < 1.5 / 255


def test_a_texture_does_not_fit_in_ply(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="holds no texture"):
        write_meshes(tmp_path / "a.ply", ball(32))
    with pytest.raises(FileFormatError, match="no mesh format"):
        read_mesh(tmp_path / "a.stl")
    assert list(tmp_path.iterdir()) == []


def test_several_textures_are_refused_with_what_can_be_done(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("one", "two"):
        Image.new("RGB", (2, 2), (200, 100, 50)).save(tmp_path / f"{name}.png")
    materials = [f"newmtl {name}\nmap_Kd {name}.png\n" for name in ("one", "two")]
    (tmp_path / "both.mtl").write_text("".join(materials))
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 2\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "o a\nusemtl one\nf 1/1 2/2 3/3\no b\nusemtl two\nf 1/1 2/2 4/3\n"
    (tmp_path / "both.obj").write_text("mtllib both.mtl\n" + corners + faces)
    with pytest.raises(FileFormatError, match=r"both.obj.*2 meshes with textures.*save it as .glb, read as a scene"):
        read_mesh(tmp_path / "both.obj")
    scene = Scene(order="ray")
    scene.add("one", ball(32))
    scene.add("two", ball(32))
    export_scene(scene, tmp_path / "both.glb")
    with pytest.raises(FileFormatError, match=r"both.glb.*2 meshes with textures.*`open_scene`"):
        read_mesh(tmp_path / "both.glb")
    assert len(open_scene(tmp_path / "both.glb").scene.layers) == 2


def test_an_obj_reads_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write_meshes(tmp_path / "a.obj", ball(32))
    text = (tmp_path / "a.obj").read_text()
    (inner / "a.obj").write_text(text.replace("mtllib a.mtl", "mtllib ../a.mtl"))
    with pytest.raises(FileFormatError, match=r"names the file '../a.mtl'"):
        read_mesh(inner / "a.obj")
    (inner / "a.obj").write_text(text)
    with pytest.raises(FileFormatError, match=r"names the file 'a.mtl'"):
        read_mesh(inner / "a.obj")


def test_faces_that_name_missing_vertices_of_a_textured_mesh(tmp_path: Path) -> None:
    write_meshes(tmp_path / "a.obj", ball(32))
    text = (tmp_path / "a.obj").read_text()
    (tmp_path / "a.obj").write_text(f"{text}\nf 1/1 2/2 99999/3\n")
    with pytest.raises(FileFormatError):
        read_mesh(tmp_path / "a.obj")


def test_splats_are_no_mesh(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(FileFormatError, match="holds no triangles"):
        read_mesh(shared_data / "splat_samples" / "converted" / "playbot8k.glb")


def glb(plain: dict[str, Any]) -> bytes:
    text = json.dumps(plain).encode()
    text = text.ljust(-(-len(text) // 4) * 4)
    return struct.pack("<IIIII", 0x46546C67, 2, 20 + len(text), len(text), 0x4E4F534A) + text


HOSTILE = {
    "rows.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 2147483648\nproperty float x\nproperty float y\n"
    b"property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n" + bytes(100),
    "faces.ply": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 4000000000\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n",
    "missing.ply": b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n",
    "nan.ply": b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n",
    "empty.ply": b"",
    "empty.obj": b"",
    "far.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999\n",
    "flat.obj": b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n",
    "noise.obj": bytes(range(256)) * 20,
    "noise.glb": bytes(range(256)) * 20,
    "rows.glb": glb({"accessors": [{"count": 2**31, "type": "VEC3", "componentType": 5126}]}),
    "accessors.glb": glb({"accessors": 7}),
    "cycle.glb": glb({"scenes": [{"nodes": [0]}], "nodes": [{"children": [0]}]}),
    "nothing.glb": glb({}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    start = time.perf_counter()
    with pytest.raises(FileFormatError):
        read_mesh(tmp_path / name)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(("extension", "size"), [(".glb", 32), (".obj", 0), (".ply", 0)])
def test_damaged_files_never_raise_anything_else(tmp_path: Path, extension: str, size: int) -> None:
    path = tmp_path / f"a{extension}"
    write_meshes(path, ball(size))
    raw = path.read_bytes()
    for end in range(0, len(raw) // 2, len(raw) // 12):
        path.write_bytes(raw[:end])
        with pytest.raises(FileFormatError):
            read_mesh(path)
    rng = np.random.default_rng(0)
    for trial in range(80):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw) if trial % 2 else min(len(raw), 2000), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            mesh = read_mesh(path)
        except FileFormatError:
            continue
        assert mesh.faces.max() < len(mesh.vertices)
