"""Scenes of meshes, blocks and splats written to files of other programs and opened again: the same picture."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity
from smalti.files.splats import FileFormatError
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import icosphere
from smalti.primitives.surfels import Surfels
from smalti.scene.exchange import export_scene
from smalti.scene.open_file import open_scene
from smalti.scene.scene import Scene

trimesh = pytest.importorskip("trimesh")
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def blocks(count: int = 3, seed: int = 0, **metadata: Any) -> Superquadrics:
    generator = torch.Generator().manual_seed(seed)
    given = {"level": 2, "edges": "antialiased", "texture_size": 16, "binary": True, **metadata}
    made = Superquadrics.at_random(torch.tensor([[-1.0] * 3, [1.0] * 3]), count, generator, given)
    noise = torch.randn(made.parameters["raw_textures"].shape, generator=generator)
    exponents = torch.randn(count, 2, generator=generator)
    opaque = torch.full((count,), 3.0)
    made.replace({**made.parameters, "raw_textures": noise, "raw_exponents": exponents, "logit_opacities": opaque})
    return made


def ball(texture_size: int = 0, at: float = 0.9) -> Meshes:
    shape, generator = icosphere(1), torch.Generator().manual_seed(1)
    colors = torch.rand(len(shape.vertices), 3, generator=generator)
    vertices = 0.5 * shape.vertices.float() + torch.tensor([at, 0.2, 0.0])
    made = Meshes.from_mesh(vertices, shape.faces, colors, {"texture_size": texture_size})
    if texture_size:
        noise = torch.randn(made.parameters["raw_texture"].shape, generator=generator)
        made.replace({**made.parameters, "raw_texture": noise})
    return made


def cloud() -> Gaussians:
    generator = torch.Generator().manual_seed(2)
    positions = torch.rand(60, 3, generator=generator) - torch.tensor([1.5, 0.5, 0.5])
    made = Gaussians.from_points(positions, torch.rand(60, 3, generator=generator), {"sh_degree": 1})
    made.parameters["sh_rest"].data.normal_(generator=generator).mul_(0.2)
    return made


def scene_of(**layers: Any) -> Scene:
    scene = Scene(order="ray", near=0.02, background=(0.25, 0.5, 0.75))
    for name, family in layers.items():
        scene.add(name, family)
    return scene


def picture(scene: Scene) -> torch.Tensor:
    camera = Camera.look_at(
        torch.tensor([0.4, -1.2, -4.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, (56, 44)
    )
    with torch.no_grad():
        return scene.render(camera).color


def test_a_mix_in_one_glb_is_the_same_scene_again(tmp_path: Path) -> None:
    """Layers, order, background and picture; blocks bit for bit, for nodes hold their raw parameters."""
    scene = scene_of(blocks=blocks(), ball=ball(), cloth=ball(32, -0.3), cloud=cloud())
    done = export_scene(scene, tmp_path / "mix.glb")
    assert done.faces == 3 * 320 + 80 + 80
    assert done.notices == ()
    opened = open_scene(tmp_path / "mix.glb")
    assert opened.notices == ()
    assert {layer.name: layer.family.name for layer in opened.scene} == {
        **{"blocks": "superquadrics", "ball": "meshes", "cloth": "meshes", "cloud": "gaussians"}
    }
    assert (opened.scene.order, opened.scene.near, opened.scene.background) == ("ray", 0.02, (0.25, 0.5, 0.75))
    for name in ("translations", "rotations", "raw_scales", "raw_exponents", "logit_opacities"):
        expected = scene.layers["blocks"].family.parameters[name]
        assert torch.equal(opened.scene.layers["blocks"].family.parameters[name], expected)
    assert opened.scene.layers["blocks"].family.metadata == scene.layers["blocks"].family.metadata
    seen, expected = picture(opened.scene), picture(scene)
    assert float((seen - expected).abs().max()) < 2.5 / 255
    assert float(expected.std()) > 0.1


def test_other_programs_see_closed_blocks_where_they_are(tmp_path: Path) -> None:
    """trimesh alone: a watertight mesh for each block, of the volume that the drawn mesh encloses, +Y up."""
    family = blocks()
    export_scene(scene_of(blocks=family), tmp_path / "a.glb")
    found = trimesh.load_scene(tmp_path / "a.glb")
    assert len(found.geometry) == 3
    vertices = family.block_vertices().detach().double().numpy() * [-1, -1, 1]
    for row in range(3):
        place, name = found.graph.get(f"block-{row:02d}")
        mesh = found.geometry[name].copy().apply_transform(place)
        assert mesh.visual.material.baseColorTexture.size == (16, 16)
        closed = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        closed.merge_vertices(merge_tex=True, merge_norm=True)
        assert closed.is_watertight
        whole = trimesh.Trimesh(vertices[row], family.shape.faces.numpy(), process=False)
        assert closed.volume == pytest.approx(whole.volume, rel=1e-4)
        np.testing.assert_allclose(np.sort(closed.bounds, axis=0), whole.bounds, atol=1e-5)


def edited(path: Path, change: Any) -> None:
    """Rewrites a .glb's JSON as another program would."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<I", raw, 12)
    plain = json.loads(raw[20 : 20 + length])
    change(plain)
    text = json.dumps(plain).encode()
    text = text.ljust(-(-len(text) // 4) * 4)
    rest = raw[20 + length :]
    head = struct.pack("<IIIII", 0x46546C67, 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    path.write_bytes(head + text + rest)


def test_a_block_that_another_program_moved_is_read_where_it_stands(tmp_path: Path) -> None:
    family = blocks()
    export_scene(scene_of(blocks=family), tmp_path / "a.glb")

    def move(plain: dict[str, Any]) -> None:
        node = plain["nodes"][1]
        node["translation"] = [node["translation"][0] + 0.5, node["translation"][1] + 0.25, node["translation"][2]]
        node["scale"] = [0.5 * node["scale"][0], 0.05 * node["scale"][1], -node["scale"][2]]

    edited(tmp_path / "a.glb", move)
    back = open_scene(tmp_path / "a.glb").scene.layers["blocks"].family
    assert isinstance(back, Superquadrics)
    moved = family.positions()[1] + torch.tensor([-0.5, -0.25, 0.0])  # +Y up is half a turn about z away
    torch.testing.assert_close(back.positions()[1], moved, rtol=0, atol=1e-5)
    torch.testing.assert_close(back.sizes()[1], family.sizes()[1] * torch.tensor([0.5, 0.05, 1.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(back.sizes()[[0, 2]], family.sizes()[[0, 2]], rtol=1e-5, atol=0)
    for row in (0, 2):
        assert torch.equal(back.positions()[row], family.positions()[row])

    edited(
        tmp_path / "a.glb",
        lambda plain: plain["nodes"][0].update(matrix=[1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
    )
    with pytest.raises(FileFormatError, match="shears"):
        open_scene(tmp_path / "a.glb")


@pytest.mark.parametrize(
    "damage", [{"rotations": [1, 2]}, {"raw_scales": "x"}, {"metadata": {"ratio": -1}}, {"metadata": 3}]
)
def test_damaged_extras_are_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    export_scene(scene_of(blocks=blocks()), tmp_path / "a.glb")
    edited(tmp_path / "a.glb", lambda plain: plain["nodes"][0]["extras"]["smalti"].update(damage))
    with pytest.raises(FileFormatError):
        open_scene(tmp_path / "a.glb")


@pytest.mark.parametrize("extension", [".obj", ".ply"])
def test_blocks_as_plain_meshes(extension: str, tmp_path: Path) -> None:
    scene = scene_of(blocks=blocks())
    done = export_scene(scene, tmp_path / f"a{extension}")
    assert "triangles" in done.notices[0]
    opened = open_scene(tmp_path / f"a{extension}").scene
    (layer,) = opened
    assert layer.family.name == "meshes"
    assert len(layer.family) == done.faces == 960
    opened.background = scene.background
    error = (picture(opened) - picture(scene)).abs()
    if extension == ".obj":  # with the texture; seams of the atlas apart
        assert float(error.max()) < 0.05
        assert float(error.mean()) < 2e-3
    else:
        assert float(error.mean()) < 0.05


def test_blocks_that_become_opaque_are_said(tmp_path: Path) -> None:
    """A material holds an opacity, an .obj of ours does not."""
    family = blocks(binary=False)
    family.parameters["logit_opacities"].data[1] = 0.0
    scene = scene_of(blocks=family)
    assert (
        "3 primitives of 'blocks' that one can see through became opaque"
        in export_scene(scene, tmp_path / "a.ply").notices
    )
    assert export_scene(scene, tmp_path / "a.glb").notices == ()
    materials = trimesh.load_scene(tmp_path / "a.glb").geometry.values()
    alphas = sorted(int(mesh.visual.material.baseColorFactor[3]) for mesh in materials)
    assert alphas == [128, 243, 243]  # sigmoid(0), sigmoid(3)


def test_blocks_that_are_not_drawn_are_left_out_and_said(tmp_path: Path) -> None:
    family = blocks()
    family.parameters["logit_opacities"].data[1] = -2.0
    done = export_scene(scene_of(blocks=family), tmp_path / "a.glb")
    assert done.notices == ("1 blocks of 'blocks' that are not drawn were left out",)
    assert len(open_scene(tmp_path / "a.glb").scene) == 2


def test_a_layers_own_place_and_the_frame(tmp_path: Path) -> None:
    """A layer's similarity is applied; a file whose axes are said to be others is turned on the way, both ways."""
    scene = scene_of(blocks=blocks(), ball=ball(), cloud=cloud())
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    for layer in scene:
        layer.similarity = Similarity(0.8, turn, torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64))
    expected = picture(scene.flattened())
    for frame in (None, "scene", "z-up"):
        export_scene(scene, tmp_path / "a.glb", frame=frame)
        assert float((picture(open_scene(tmp_path / "a.glb", frame).scene) - expected).abs().max()) < 2.5 / 255
    plain = trimesh.load_scene(tmp_path / "a.glb")  # z-up: our -y is its z
    export_scene(scene, tmp_path / "b.glb", frame="scene")
    ours = trimesh.load_scene(tmp_path / "b.glb")
    np.testing.assert_allclose(plain.bounds[:, 2], -ours.bounds[::-1, 1], atol=1e-5)


def test_a_scenes_own_layers_are_turned_where_they_stand(tmp_path: Path) -> None:
    """The axes of a scene file turn the scene, not each layer about its own origin."""
    scene = scene_of(cloud=cloud(), ball=ball())
    turn = so3_exp(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    scene["cloud"].similarity = Similarity(1.5, turn, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    scene.save(tmp_path / "a.smalti")
    opened = open_scene(tmp_path / "a.smalti", "gltf").scene.flattened()
    flip = torch.tensor([-1.0, -1.0, 1.0])
    for layer in scene.flattened():
        found = opened.layers[layer.name].family.positions()
        torch.testing.assert_close(found, layer.family.positions() * flip, rtol=1e-5, atol=1e-5)


def test_foreign_meshes_become_a_layer_for_every_texture(tmp_path: Path) -> None:
    from PIL import Image

    whole = trimesh.Scene()
    for name, level in (("red", 200), ("dark", 30)):
        box = trimesh.creation.box()
        image = Image.fromarray(np.full((4, 4, 3), level, np.uint8))
        uv = np.zeros((len(box.vertices), 2))
        box.visual = trimesh.visual.TextureVisuals(uv=uv, image=image)
        whole.add_geometry(box, node_name=name, transform=trimesh.transformations.translation_matrix([level, 0, 0]))
    place = trimesh.transformations.translation_matrix
    for shift in (1, 2):
        plain = trimesh.creation.icosphere(subdivisions=1)
        plain.visual.vertex_colors = [0, 255, 0, 255]
        whole.add_geometry(plain, node_name=f"plain{shift}", transform=place([0, shift, 0]))
    whole.export(tmp_path / "a.glb")
    scene = open_scene(tmp_path / "a.glb").scene
    assert [(layer.name, len(layer.family)) for layer in scene] == [("red", 12), ("dark", 12), ("plain1", 160)]
    texture = scene.layers["red"].family.parameters["raw_texture"].sigmoid()
    # trimesh writes a factor of 0.4, which glTF means in linear light: 200 shows as 132
    torch.testing.assert_close(texture, torch.full_like(texture, 132 / 255), rtol=0, atol=0.6 / 255)
    assert scene.layers["red"].family.positions()[:, 0].mean().item() == pytest.approx(-200)


@pytest.mark.parametrize("extension", [".glb", ".obj"])
def test_a_texture_that_repeats_is_looked_up_where_others_do(extension: str, tmp_path: Path) -> None:
    """Other programs' faces may lie in any copy of a texture; what cannot be drawn so is said."""
    trimesh = pytest.importorskip("trimesh")
    from PIL import Image

    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    texels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    inside = np.array([[0.2, 0.3], [0.7, 0.3], [0.2, 0.6]])

    def opened(uv: Any) -> Any:
        visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.fromarray(texels))
        mesh = trimesh.Trimesh(corners, [[0, 1, 2]], visual=visual, process=False)
        mesh.export(tmp_path / f"a{extension}")
        return open_scene(tmp_path / f"a{extension}")

    def uvs(found: Any) -> torch.Tensor:
        (held,) = found.scene
        return held.family.constants["uvs"]

    here, away = opened(inside), opened(inside + np.array([3.0, -2.0]))
    torch.testing.assert_close(uvs(away), uvs(here), rtol=0, atol=1e-6)
    assert away.notices == here.notices == ()
    across, down = opened(inside * np.array([3.0, 1.0])), opened(inside * np.array([1.0, 3.0]))
    assert next(iter(across.scene)).family.metadata["wrap"] is True
    assert across.notices == ()
    assert "repeats from top to bottom" in down.notices[0]


def test_24_axis_maps_of_meshes_and_blocks(tmp_path: Path) -> None:
    """Vertices come back where the map puts them, exactly where only signs and places change; blocks to rounding."""
    from itertools import permutations, product

    family, mesh = blocks(1), ball()
    taken = 0
    for axes, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = torch.zeros(3, 3, dtype=torch.float64)
        for row, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
            turn[row, axis] = sign
        if torch.linalg.det(turn) < 0:
            continue
        taken += 1
        scene = scene_of(blocks=family, ball=mesh)
        for layer in scene:
            layer.similarity = Similarity(1.0, turn)
        export_scene(scene, tmp_path / "a.glb")
        back = open_scene(tmp_path / "a.glb").scene
        again, block = back.layers["ball"].family, back.layers["blocks"].family
        assert isinstance(again, Meshes)
        assert isinstance(block, Superquadrics)
        assert torch.equal(again.corners(), mesh.corners() @ turn.float().T)
        expected = family.block_vertices() @ turn.float().T
        torch.testing.assert_close(block.block_vertices(), expected, rtol=0, atol=1e-5)
    assert taken == 24


def test_a_mirroring_node_leaves_the_outside_out(tmp_path: Path) -> None:
    export_scene(scene_of(ball=ball()), tmp_path / "a.glb")
    edited(tmp_path / "a.glb", lambda plain: plain["nodes"][0].update(scale=[-1, 2, 1]))
    surface = open_scene(tmp_path / "a.glb").scene.layers["ball"].family.surface()
    expected = ball().surface()
    assert surface is not None
    assert surface.volume() == pytest.approx(2 * expected.volume(), rel=1e-5)
    assert surface.volume() > 0


def test_what_a_format_cannot_hold_is_named_with_a_remedy(tmp_path: Path) -> None:
    scene = scene_of(odd=Surfels.from_points(torch.rand(5, 3), torch.rand(5, 3), {}), blocks=blocks(), cloud=cloud())
    for name, said in (
        ("a.glb", r"'odd' is of family 'surfels', which .glb cannot hold. .*--layers blocks,cloud"),
        ("a.ply", r"'odd' is of family 'surfels'"),
        ("a.spz", r"splat files cannot hold. .*--layers cloud"),
        ("a.json", r"one layer of superquadrics.* --layers blocks"),
    ):
        with pytest.raises(ValueError, match=said):
            export_scene(scene, tmp_path / name)
    with pytest.raises(ValueError, match=r"which .obj cannot hold. .*write .glb"):
        export_scene(scene, tmp_path / "a.obj", ["cloud", "blocks"])
    with pytest.raises(ValueError, match="one texture at most"):
        export_scene(scene_of(a=ball(32), b=ball()), tmp_path / "a.obj")
    assert list(tmp_path.iterdir()) == []
    export_scene(scene, tmp_path / "a.glb", ["cloud", "blocks"])
    export_scene(scene, tmp_path / "b.glb", ["cloud"])
    assert open_scene(tmp_path / "b.glb").splats is not None


def test_files_are_told_apart_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "a.xyz").write_text("1 2 3")
    for name, said in (("a.json", "expected an object"), ("a.xyz", "no reader")):
        with pytest.raises(FileFormatError, match=said):
            open_scene(tmp_path / name)
    export_scene(scene_of(a=ball()), tmp_path / "mesh.ply")
    export_scene(scene_of(a=cloud()), tmp_path / "splats.ply")
    assert open_scene(tmp_path / "mesh.ply").title == "PLY mesh"
    assert open_scene(tmp_path / "splats.ply").title == "3DGS PLY"
