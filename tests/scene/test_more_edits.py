"""Flooding by colour, hue and saturation, filling from another scene, textures replaced, layers placed by handles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mixed import LAYERS, SPLATS, a_camera, a_family, a_scene, in_bytes, picture

from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import FamilyError
from smalti.primitives.gaussians import Gaussians
from smalti.renderers.settings import RenderSettings
from smalti.scene import (
    EditError,
    Scene,
    box,
    delete,
    demo_scene,
    everything,
    fill,
    flood,
    hue,
    index,
    layer,
    move,
    replace_texture,
    saturate,
    where,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")
TURN = so3_exp(torch.tensor([0.3, 0.8, -0.4], dtype=torch.float64))


def colored(points: torch.Tensor, colors: torch.Tensor) -> Gaussians:
    return Gaussians.from_points(points, colors, {"sh_degree": 1, "active_sh_degree": 1, "initial_opacity": 0.8})


# -- flood ------------------------------------------------------------------------------------------------------------
def test_flood_stops_at_gaps_and_at_other_colours() -> None:
    line = torch.zeros(12, 3)
    line[:, 0] = torch.arange(12.0)
    line[9:, 0] += 5  # a gap behind the ninth
    colors = torch.tensor([[0.5, 0.2, 0.2]]).repeat(12, 1)
    colors[:, 0] += 0.01 * torch.arange(12)  # a slope, along which colours drift
    colors[6] = torch.tensor([0.1, 0.9, 0.1])
    scene = Scene()
    scene.add("line", colored(line, colors))

    def rows(tolerance: float, distance: float, seed: int = 0) -> list[int]:
        chosen = flood(index("line", [seed]), tolerance, distance)
        return torch.nonzero(chosen.masks(scene)["line"]).squeeze(1).tolist()

    assert rows(0.2, 1.1) == [0, 1, 2, 3, 4, 5]
    assert rows(0.2, 2.1) == [0, 1, 2, 3, 4, 5, 7, 8]
    assert rows(0.2, 7.1) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    assert rows(0.025, 7.1) == [0, 1, 2]  # from the seed's colour, not from the neighbour's
    assert rows(1.0, 1.1) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert rows(0.0, 9.0, seed=6) == [6]
    assert flood(~everything(), 1.0, 9.0).counts(scene) == {"line": 0}
    for tolerance, distance in ((-1.0, 1.0), (0.5, 0.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="flood: distance"):
            flood(everything(), tolerance, distance)


def test_flood_crosses_layers_and_leaves_empty_ones() -> None:
    scene = a_scene(*LAYERS)
    delete(scene, layer("superquadrics"))
    counts = flood(index("boxes", [0]), 1.0, 10.0).counts(scene)
    assert counts == scene.counts()


# -- colours ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*SPLATS, "boxes"])
def test_hue_turns_the_whole_picture(name: str) -> None:
    """Of splats in every direction: colours are linear in what is held, and pictures in colours."""
    scene = a_scene(name, double=True)
    if name in SPLATS:  # far from the zero at which colours are cut off
        family = scene.layers[name].family
        family.replace({"sh_rest": 0.2 * family.parameters["sh_rest"], "sh_dc": 0.3 * family.parameters["sh_dc"] + 0.5})
    before, camera = picture(scene, a_camera()), a_camera()
    assert hue(scene, everything(), 25.0) == len(scene)
    after = picture(scene, camera)
    matrix = so3_exp(torch.full((3,), math.radians(25.0) / math.sqrt(3), dtype=torch.float64))
    assert float((after[..., :3] - before[..., :3] @ matrix.T).abs().max()) < 1e-6
    assert torch.equal(after[..., 3], before[..., 3])
    assert float((after - before).abs().max()) > 0.01
    saturate(scene, everything(), 0.0)
    grey = picture(scene, camera)[..., :3]
    assert float((grey - grey[..., :1]).abs().max()) < 1e-6


def test_a_third_of_a_turn_exchanges_colours() -> None:
    scene = Scene()
    scene.add("red", colored(torch.rand(4, 3), torch.tensor([[0.9, 0.3, 0.1]]).repeat(4, 1)))
    hue(scene, everything(), 120.0)
    assert torch.allclose(scene["red"].family.base_colors(), torch.tensor([0.1, 0.9, 0.3]), atol=1e-5)
    hue(scene, everything(), -120.0)
    saturate(scene, everything(), 0.5)
    grey = 0.2126 * 0.9 + 0.7152 * 0.3 + 0.0722 * 0.1
    wanted = 0.5 * (grey + torch.tensor([0.9, 0.3, 0.1]))
    assert torch.allclose(scene["red"].family.base_colors(), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="saturate: expected a factor"):
        saturate(scene, everything(), -1.0)


# -- textures ---------------------------------------------------------------------------------------------------------
def test_a_picture_becomes_the_texture(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:12] = (255, 128, 0)  # the upper half
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    scene = a_scene("textured", "superquadrics", "gaussians")
    before = in_bytes(scene)
    for given in (tmp_path / "picture.png", str(tmp_path / "picture.png"), pixels, torch.from_numpy(pixels) / 255.0):
        assert replace_texture(scene, "textured", given) == 20
        texture = scene["textured"].family.parameters["raw_texture"].detach().sigmoid()
        assert texture.shape == (24, 24, 3)
        assert torch.allclose(texture, torch.from_numpy(pixels) / 255.0, atol=2e-4)
    assert replace_texture(scene, "superquadrics", pixels) == 3
    blocks = scene["superquadrics"].family.parameters["raw_textures"].detach().sigmoid()
    assert torch.allclose(blocks[1, 0, 0], torch.tensor([1.0, 0.502, 0.0]), atol=2e-3)
    with pytest.raises(FamilyError, match="no texture to replace"):
        replace_texture(scene, "gaussians", pixels)
    with pytest.raises(ValueError, match=r"expected a finite picture \[h, w, 3 or 4\], got \(24, 24\)"):
        replace_texture(scene, "textured", pixels[..., 0])
    while scene.history.done:
        scene.undo()
    assert in_bytes(scene) == before


def test_an_alpha_channel_is_heeded_where_the_texture_has_one() -> None:
    from smalti.primitives.meshes import Meshes

    scene = Scene(order="ray")
    options = {"level": 0, "texture_size": 24, "texel_opacity": True, "initial_opacity": 0.5}
    scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, options))
    replace_texture(scene, "ball", torch.full((3, 3, 3), 0.25))
    texture = scene["ball"].family.parameters["raw_texture"].detach().sigmoid()
    assert torch.allclose(texture, torch.tensor([0.25, 0.25, 0.25, 0.5]), atol=1e-5)
    replace_texture(scene, "ball", torch.full((3, 3, 4), 0.75))
    texture = scene["ball"].family.parameters["raw_texture"].detach().sigmoid()
    assert torch.allclose(texture, torch.full((4,), 0.75), atol=1e-5)


# -- fill -------------------------------------------------------------------------------------------------------------
def test_a_hole_is_filled_from_another_scene() -> None:
    scene, other = a_scene(*LAYERS), a_scene(*LAYERS)
    names = [name for name in LAYERS if name not in ("textured", "meshes")]
    for name in ("textured", "meshes"):
        scene[name].remove()
        other[name].remove()
    hole = where("x", ">", 0.1)
    whole = picture(scene, a_camera())
    went = sum(hole.counts(scene).values())
    came = fill(scene, hole, other, clear=True)
    assert 0 < sum(came.values()) == went
    assert set(came) <= set(names)
    assert scene.counts() == other.counts()
    assert float((picture(scene, a_camera()) - whole).abs().max()) < 1e-4
    assert scene.undo() == "fill"
    assert in_bytes(other) == in_bytes(scene)


def test_what_comes_is_placed() -> None:
    scene, other = Scene(order="ray"), demo_scene()
    other["chair"].position = [0.0, 1.0, 0.0]
    place = Similarity(0.5, TURN, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    scene.add("chair", demo_scene()["chair"].family.copy(), similarity=Similarity(2.0, TURN.T))
    scene.add("locked", demo_scene()["cloud"].family.copy(), locked=True)
    before = picture(scene.flattened(), a_camera())
    assert fill(scene, everything(), other, place) == {"chair": 8, "cloud": 12}
    assert scene.counts() == {"chair": 16, "locked": 12, "cloud": 12}
    expected = other.flattened()
    for held in list(expected):
        held.family.transform(place)
    flat = scene.flattened()
    for name in ("chair", "cloud"):
        wanted = expected.layers[name].family
        got = flat.layers[name].family
        for key, value in wanted.parameters.items():
            assert torch.allclose(got.parameters[key][-len(value) :], value, atol=1e-5)
    scene.undo()
    assert torch.equal(picture(scene.flattened(), a_camera()), before)


def test_what_draws_in_another_way_becomes_a_layer_of_its_own() -> None:
    scene, other = demo_scene(), Scene(order="ray")
    other.add("chair", Gaussians.from_points(torch.rand(5, 3), torch.rand(5, 3), {"sh_degree": 3}))
    other.add("blocks", a_family("superquadrics"))
    assert fill(scene, everything(), other) == {"chair-2": 5, "blocks": 3}
    assert scene.counts() == {"chair": 8, "cloud": 12, "chair-2": 5, "blocks": 3}
    with torch.no_grad():
        scene.render(a_camera().to(torch.float32))
    scene.undo()
    assert scene.counts() == {"chair": 8, "cloud": 12}
    assert fill(scene, box([9, 9, 9], [10, 10, 10]), other) == {}
    # The copies are copies.
    fill(scene, everything(), other)
    before = in_bytes(other)
    move(scene, everything(), [1, 0, 0])
    assert in_bytes(other) == before


def test_boxes_from_elsewhere_take_the_step_that_is_here() -> None:
    scene, other = a_scene("boxes"), a_scene("boxes")
    other.layers["boxes"].family.metadata["step"] = 0.02
    fill(scene, index("boxes", [1, 2]), other)
    assert {held.family.metadata["step"] for held in scene} == {0.05}
    picture(scene, a_camera())


# -- layers as a whole ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LAYERS)
def test_a_placed_layer_is_drawn_where_its_handle_says(name: str) -> None:
    scene = a_scene(name, double=True)
    handle, before = scene[name], in_bytes(scene)
    handle.position, handle.rotation, handle.scale = [0.2, -0.1, 0.3], TURN, 1.25
    assert [edit.name for edit in scene.history.done] == ["position", "rotation", "scale"]
    place = Similarity(1.25, TURN, torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64))
    still = a_scene(name, double=True)
    settings = RenderSettings(order="ray", near=0.01, transmittance_min=0.0)
    with torch.no_grad():
        moved = scene.render(place.apply_camera(a_camera()), settings=settings, backend="oracle")
        wanted = still.render(a_camera(), settings=settings, backend="oracle")
    assert float((moved.color - wanted.color).abs().max()) < 1e-7
    for _ in range(3):
        scene.undo()
    assert in_bytes(scene) == before


def test_handles_refuse_what_is_no_place() -> None:
    scene = demo_scene()
    chair = scene["chair"]
    chair.rotation = [2.0, 0.0, 0.0, 0.0]
    assert torch.equal(chair.rotation, torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="quaternion of some length"):
        chair.rotation = [0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="proper rotation"):
        chair.rotation = -torch.eye(3)
    with pytest.raises(ValueError, match="positive"):
        chair.scale = 0.0
    with pytest.raises(ValueError, match="three finite numbers"):
        chair.position = [0.0, math.nan, 0.0]
    chair.locked = True
    with pytest.raises(EditError, match="locked"):
        chair.position = [0, 0, 1]
