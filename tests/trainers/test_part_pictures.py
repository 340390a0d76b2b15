"""What is made of separate parts at the end of a run: pictures and meshes, each checked for what it shows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.cameras.camera import Camera
from smalti.cameras.framing import ELEVATIONS, MARGIN, framed, turntable
from smalti.cameras.similarity import Similarity
from smalti.configs.config import TrainConfig
from smalti.datasets.images import ImageCache, LoadedView
from smalti.files.assembly import read_assembly, write_assembly
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene import Scene, demo_camera, demo_scene, duplicate, layer, move, parts_of, split_parts
from smalti.scene.contents import contents
from smalti.scene.exchange import export_scene
from smalti.scene.exchange_parts import export_parts
from smalti.trainers import finish, flat_pictures, part_marks, part_pictures, sheets
from smalti.trainers.clock import Clock
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

trimesh = pytest.importorskip("trimesh")
UP = torch.tensor([0.0, -1.0, 0.0])


def blocks_scene(count: int = 3) -> Scene:
    """Over a floor that is no part; the last block is dead."""
    generator = torch.Generator().manual_seed(3)
    bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    options = {"texture_size": 8, "binary": True, "edges": "hard", "initial_size": 1.2}
    blocks = Superquadrics.at_random(bounds, count + 1, generator, options)
    logits = torch.full((count + 1,), 3.0)
    logits[-1] = -3.0
    textures = torch.randn(count + 1, 8, 8, 3, generator=generator)
    blocks.replace({"logit_opacities": logits, "raw_textures": textures})
    corners = torch.tensor([[-3.0, 1.3, -3.0], [3.0, 1.3, -3.0], [3.0, 1.3, 3.0], [-3.0, 1.3, 3.0]])
    scene = Scene(order="ray", background=(1.0, 1.0, 1.0))
    scene.add("floor", Meshes.from_mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.full((4, 3), 0.4), {}))
    scene.add("toy", blocks)
    return scene


def places(camera: Camera, points: torch.Tensor) -> torch.Tensor:
    """-1..1 across the picture and down it."""
    local = points.double() @ camera.rotation.double().T + camera.translation.double()
    assert bool((local[:, 2] > 0).all())
    pixels = local[:, :2] / local[:, 2:] * camera.intrinsics[:2] + camera.intrinsics[2:]
    return pixels / torch.tensor([camera.width, camera.height]) * 2 - 1


def test_a_turntable_shows_all_of_it_all_round() -> None:
    points = parts_of(blocks_scene()).boxes.reshape(-1, 3)
    path = turntable(points, 24, UP, torch.tensor([0.3, -0.2, 1.0]), (80, 60))
    seen = torch.stack([places(camera, points) for camera in path])
    assert float(seen.abs().max()) == pytest.approx(1 - MARGIN, abs=1e-6)  # no nearer in any, as near as may be in one
    middle = 0.5 * (points.amin(dim=0) + points.amax(dim=0))
    offsets = torch.stack([camera.centre for camera in path]) - middle
    assert float(offsets.norm(dim=1).std()) < 1e-9
    assert float((offsets @ UP.double()).std()) < 1e-9
    turned = torch.nn.functional.cosine_similarity(offsets, offsets.roll(1, dims=0))
    assert float(turned.std()) < 1e-9
    assert float(offsets.mean(dim=0).norm()) < float(offsets.norm(dim=1)[0])
    assert float(offsets[0] @ torch.tensor([0.3, 0.0, 1.0]).double()) > 0


@pytest.mark.parametrize("start", [[0.0, -1.0, 0.0], [0.0, 1.0, 0.1], [1.0, 0.0, 0.0]])
def test_views_from_above_and_below_become_views_from_the_side(start: Sequence[float]) -> None:
    points = parts_of(blocks_scene()).boxes.reshape(-1, 3)
    (camera,) = turntable(points, 1, UP, torch.tensor(start), (60, 80))
    offset = torch.nn.functional.normalize(camera.centre - 0.5 * (points.amin(dim=0) + points.amax(dim=0)), dim=0)
    elevation = math.asin(float(offset @ UP.double()))
    assert ELEVATIONS[0] - 1e-9 <= elevation <= ELEVATIONS[1] + 1e-9
    assert float(places(camera, points).abs().max()) == pytest.approx(1 - MARGIN, abs=1e-6)
    assert float(places(framed(points, offset, UP, (60, 80)), points).abs().max()) == pytest.approx(1 - MARGIN)


def test_flat_colors_over_a_photograph() -> None:
    """Outside of all parts the photograph; inside one six tenths of its color; a part behind another thing is not
    shown.
    """
    scene = blocks_scene(2)
    parts, camera = parts_of(scene), demo_camera(96, 72)
    photograph = torch.rand(72, 96, 3, generator=torch.Generator().manual_seed(0))
    flat, numbers = flat_pictures.flat_over(parts, camera, photograph)
    cells = numbers.reshape(72, 2, 96, 2)
    nothing = (cells < 0).all(axis=(1, 3))
    assert 0.2 < nothing.mean() < 0.99
    np.testing.assert_allclose(flat[nothing], photograph.numpy()[nothing], atol=1e-6)
    for place, part in enumerate(parts.parts):
        inside = torch.from_numpy((cells == place).all(axis=(1, 3))).float()[None, None]
        inside = -torch.nn.functional.max_pool2d(-inside, 5, stride=1, padding=2)[0, 0].numpy() > 0.5
        assert inside.sum() > 20
        expected = 0.6 * np.array(part.color) + 0.4 * photograph.numpy()[inside]
        np.testing.assert_allclose(flat[inside], expected, atol=1e-5)
        alone = scene.render(camera).alpha
        assert float(alone[torch.from_numpy(inside)].detach().min()) == 1.0
    clear = blocks_scene(2)
    clear.layers["toy"].family.metadata["binary"] = False
    clear.layers["toy"].family.parameters["logit_opacities"].data[0] = -1.0
    seen = np.unique(flat_pictures.flat_over(parts_of(clear), camera, photograph)[1])
    assert seen.tolist() == [-1, 1]  # one that is more transparent than not has no colour; the dead one neither
    wall = torch.tensor([[-9.0, -9.0, -3.0], [9.0, -9.0, -3.0], [9.0, 9.0, -3.0], [-9.0, 9.0, -3.0]])
    scene.add("wall", Meshes.from_mesh(wall, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.zeros(4, 3), {}))
    hidden, none = flat_pictures.flat_over(parts_of(scene), camera, photograph)
    assert (none == -1).all()
    np.testing.assert_allclose(hidden, photograph.numpy(), atol=1e-6)


def test_large_photographs_are_reduced_and_fit_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 101 x 75 pixels squares of three become one: the render of the reduced camera is the reduced render."""
    monkeypatch.setattr(sheets, "PANEL_PIXELS", 40)
    monkeypatch.setattr(flat_pictures, "LEAST_SIDE", 20)
    scene, camera = blocks_scene(), demo_camera(101, 75)
    levels = (scene.render(camera).color.detach().clamp(0, 1) * 255).round().byte()
    view = LoadedView(camera, levels)
    images = cast(ImageCache, SimpleNamespace(get=lambda row: view))
    row = flat_pictures.flat_row(scene, parts_of(scene), images, 0, "auto")
    assert row.photograph.shape == row.render.shape == row.flat.shape == (25, 33, 3)
    assert row.numbers.shape == (50, 66)
    assert row.name == camera.name
    difference = np.abs(row.photograph - row.render).mean()
    assert difference < 0.02
    assert np.abs(row.photograph - np.roll(row.render, 1, axis=1)).mean() > 3 * difference
    monkeypatch.setattr(flat_pictures, "LEAST_SIDE", 100)
    large = flat_pictures.flat_row(scene, parts_of(scene), images, 0, "auto")
    np.testing.assert_array_equal(large.photograph[::4, ::4], row.photograph)
    assert large.render.shape == large.flat.shape == (100, 132, 3)
    assert np.abs(large.photograph - large.render).mean() < 0.04


def test_one_part_has_nothing_to_be_apart_from(tmp_path: Path) -> None:
    sizes: list[tuple[int, int]] = []
    for count in (1, 2):
        parts = parts_of(blocks_scene(count))
        part_pictures.draw_exploded(tmp_path / "a.png", parts, part_pictures.stand_of(parts, []))
        sizes.append(Image.open(tmp_path / "a.png").size)
    assert sizes[1] == (2 * sizes[0][0], sizes[0][1])


def test_the_innermost_pixel() -> None:
    mask = np.zeros((60, 90), bool)
    mask[10:51, 20:31] = True
    row, column = part_marks.innermost(mask)
    assert (row, column) == (pytest.approx(30.5, abs=6), pytest.approx(25.5, abs=1))
    mask[10:51, 20:31] = False
    mask[0, 0] = True
    assert part_marks.innermost(mask) == (0.5, 0.5)
    large = np.zeros((600, 900), bool)
    large[100:300, 500:700] = True
    assert part_marks.innermost(large) == (pytest.approx(200, abs=6), pytest.approx(600, abs=6))


def test_upright_by_the_canonical_frame_or_else_by_the_cameras() -> None:
    scene, camera = blocks_scene(), demo_camera()
    towards = part_pictures.stand_of(parts_of(scene), [camera])
    assert float(towards.up @ UP.double()) > 0.9
    assert float(camera.rotation[2].double() @ towards.direction) < -0.9
    turn = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).double()
    scene.canonical_from_scene = Similarity(0.5, turn)
    assert part_pictures.stand_of(parts_of(scene), [camera]).up.tolist() == [1.0, 0.0, 0.0]
    assert parts_of(scene).alone.canonical_from_scene is scene.canonical_from_scene
    alone = part_pictures.stand_of(parts_of(scene), [])
    assert alone.direction.tolist() == pytest.approx([0.4, 1.0, 0.5])


def test_views_are_named_by_their_ends(tmp_path: Path) -> None:
    assert flat_pictures.ending("left/0001.png") == "left/0001.png"
    long = "a/very/long/way/to/the/pictures/of/the/second/camera/0001.png"
    assert flat_pictures.ending(long) == "..." + long[-45:]
    trainer = ended(tmp_path, blocks_scene())
    sizes: list[tuple[int, int]] = []
    for rows in (trainer.train_rows[:1], trainer.train_rows[:2]):
        flat_pictures.draw_flat(tmp_path / "a.png", trainer.scene, parts_of(trainer.scene), trainer.cache, rows)
        sizes.append(Image.open(tmp_path / "a.png").size)
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] > 1.5 * sizes[0][1]


def test_views_are_spread() -> None:
    assert flat_pictures.chosen_views(list(range(30))) == [0, 10, 20]
    assert flat_pictures.chosen_views([4, 7]) == [4, 7]


# -- the end of a run --------------------------------------------------------------------------------------------------
def ended(tmp_path: Path, scene: Scene) -> Trainer:
    """What `finish` asks of a trainer."""
    config = TrainConfig()
    config.data.path, config.data.downscale = "demo", 8
    config.run.finish = ["parts", "turntable", "exploded", "flat"]
    run = Run.create(tmp_path / "run", config)
    dataset = run.dataset()
    cache = ImageCache(dataset, downscale=8)
    train, test = run.split(dataset)
    cameras = [cache.camera(row) for row in train]
    facts: dict[str, Any] = {"dataset": dataset, "cache": cache, "train_rows": train, "test_rows": test}
    facts |= {"clock": Clock()}
    return cast(Trainer, SimpleNamespace(run=run, config=config, scene=scene, backend="auto", cameras=cameras, **facts))


def test_the_end_says_what_a_scene_is_made_of(tmp_path: Path) -> None:
    trainer = ended(tmp_path, blocks_scene())
    trainer.config.run.finish = ["export"]
    begun: list[str] = []
    (line,) = finish.finish(trainer, begun.append)
    assert line.startswith(f"scene folder: {trainer.run.path / 'scene'} (floor 2, toy 4 blocks (3 drawn), ")
    assert begun == ["export"]
    scene = Scene(order="ray")
    scene.add("blocks", blocks_scene(1).layers["toy"].family)
    assert contents(scene) == "2 blocks (1 drawn)"
    blocks = scene.layers["blocks"].family
    blocks.prune(torch.tensor([False, True]))
    assert contents(scene) == "1 block"


def test_a_run_leaves_its_parts_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import imageio.v2 as imageio

    monkeypatch.setattr(finish, "VIDEO_FRAMES", 4)
    monkeypatch.setattr(part_pictures, "SIZE", (64, 48))
    monkeypatch.setattr(part_pictures, "OUT_AND_BACK", 6)
    scene = blocks_scene()
    trainer = ended(tmp_path, scene)
    lines = finish.finish(trainer)
    folder = trainer.run.path
    assert not [line for line in lines if "not made" in line]
    assert lines[0].startswith("3 parts: ")
    assert {path.name for path in (folder / "parts").iterdir()} == {f"block-0{k}.glb" for k in range(3)}
    for name, frames in (("turntable.mp4", 4), ("exploded.mp4", 6)):
        with imageio.get_reader(folder / name) as reader:
            pictures = [np.asarray(frame).astype(int) for frame in cast(Any, reader)]
        assert len(pictures) == frames
        assert all((picture < 200).any() and (picture[0, 0] > 225).all() for picture in pictures)
        assert max(np.abs(picture - pictures[0]).mean() for picture in pictures) > 1
    for name in ("exploded.png", "flat.png"):
        assert min(Image.open(folder / name).size) > 100
    assert len(read_assembly(folder / "assembly.json")) == 3


def test_every_part_is_a_closed_textured_mesh_for_others(tmp_path: Path) -> None:
    """Reopened by trimesh, its seam put together again: watertight, of the volume and at the place of the block, with
    its very texture. The joint file holds the same.
    """
    scene = blocks_scene()
    done = export_parts(scene, tmp_path)
    blocks = scene.layers["toy"].family
    assert isinstance(blocks, Superquadrics)
    assert [path.name for path in done.files] == ["block-00.glb", "block-01.glb", "block-02.glb"]
    joint = list(trimesh.load_scene(done.joint).dump())
    assert len(joint) == 3
    for row, path in enumerate(done.files):
        (mesh,) = trimesh.load_scene(path).dump()
        texture = np.asarray(mesh.visual.material.baseColorTexture)[..., :3]
        expected = (blocks.parameters["raw_textures"][row].detach().sigmoid() * 255).round().byte().numpy()
        np.testing.assert_array_equal(texture, expected)
        assert not mesh.is_watertight  # doubled along the seam of the texture
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        vertices = blocks.block_vertices()[row].detach()
        faces = blocks.shape.faces
        a, b, c = vertices.double()[faces].unbind(1)
        assert mesh.volume == pytest.approx(float((a * torch.linalg.cross(b, c)).sum()) / 6, rel=1e-4)
        turned = vertices * torch.tensor([-1.0, -1.0, 1.0])  # glTF is +Y up
        low, high = turned.amin(dim=0).numpy(), turned.amax(dim=0).numpy()
        np.testing.assert_allclose(mesh.bounds, [low, high], atol=1e-5)
        assert sum(np.allclose(each.bounds, mesh.bounds, atol=1e-5) for each in joint) == 1


def test_parts_that_an_edit_made_layers_of_are_one_assembly_still(tmp_path: Path) -> None:
    scene = blocks_scene()
    before = export_parts(scene, tmp_path / "before")
    split_parts(scene, "toy")
    after = export_parts(scene, tmp_path / "after")
    assert [path.name for path in after.files] == [path.name for path in before.files]
    assert before.assembly is not None
    assert after.assembly is not None
    assert json.loads(after.assembly.read_bytes()) == json.loads(before.assembly.read_bytes())


def node_names(path: Path) -> list[str]:
    data = path.read_bytes()
    plain = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert [each["name"] for each in plain["meshes"]] == [each["name"] for each in plain["nodes"]]
    return [each["name"] for each in plain["nodes"]]


def test_a_part_has_one_name_in_all_files(tmp_path: Path) -> None:
    """That of its own file and of the pictures: in the joint file, the assembly, and a file of the whole scene; also
    where names are taken, numbers have gaps, and an edit took parts out.
    """
    scene = blocks_scene(4)
    scene.add("more", scene.layers["toy"].family.copy())
    move(scene, layer("more"), [0.0, -2.0, 0.0])
    scene.layers["toy"].family.parameters["logit_opacities"].data[1] = -3.0
    split_parts(scene, "toy")
    duplicate(scene, layer("block-03"), [3.0, 0.0, 0.0])
    done = export_parts(scene, tmp_path)
    names = ["block-00", "block-02", "block-03-00", "block-03-01", "more-00", "more-01", "more-02", "more-03"]
    assert sorted(parts_of(scene).names) == names
    assert sorted(path.stem for path in done.files) == names
    assert sorted(node_names(done.joint)) == names
    for path in done.files:
        assert node_names(path) == [path.stem]
    assert done.assembly is not None
    group = json.loads(done.assembly.read_bytes())["group"]
    assert sorted(each["data"]["name"] for each in group) == names
    places = {each["data"]["name"]: each["data"]["location"] for each in group}
    for part in parts_of(scene).parts:
        middle = part.box.mean(dim=0) * torch.tensor([-1.0, -1.0, -1.0])
        assert places[part.name] == pytest.approx(middle[[0, 2, 1]].tolist(), abs=0.05)
    export_scene(scene, tmp_path / "all.glb")
    assert sorted(node_names(tmp_path / "all.glb")) == sorted([*names, "floor"])
    again = read_assembly(done.assembly)
    write_assembly(tmp_path / "again.json", again)
    assert json.loads((tmp_path / "again.json").read_bytes())["group"] == group
    write_assembly(tmp_path / "again.json", again, names={0: "seat"})
    renamed = json.loads((tmp_path / "again.json").read_bytes())["group"]
    assert [each["data"]["name"] for each in renamed] == ["seat", *(each["data"]["name"] for each in group[1:])]


def test_without_parts_every_word_says_why(tmp_path: Path) -> None:
    lines = finish.finish(ended(tmp_path, demo_scene()))
    assert [line.split(":")[0] for line in lines] == ["parts", "turntable", "exploded", "flat"]
    assert all("not made: the scene has no separate parts" in line for line in lines)
    assert "'chair': primitives of family 'gaussians' are no solids of their own" in lines[0]
    assert not (tmp_path / "run" / "parts").exists()
