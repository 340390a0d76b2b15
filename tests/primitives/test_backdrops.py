"""Family `backdrops`: where the published ground and dome stand, what they show, and the way into files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_families import a_similarity, backdrops
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.files.glb_meshes import read_glb_parts
from smalti.files.mesh_files import read_mesh
from smalti.primitives.backdrops import Backdrops, dome_template, plane_template
from smalti.primitives.family import FamilyError, LossContext
from smalti.primitives.surface import Surface
from smalti.primitives.texture import texture_lookup
from smalti.renderers.render import render
from smalti.scene.exchange import export_scene
from smalti.scene.scene import Scene

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CUBE = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def made(form: str, bounds: Tensor = CUBE, **options: object) -> Backdrops:
    return Backdrops.at_random(bounds, 1, torch.Generator(), {"form": form, "texture_size": 16, **options})


def context() -> LossContext:
    return LossContext(1.0, torch.Generator().manual_seed(0))


def test_the_published_ground_and_dome() -> None:
    """dbw.md, section 2: 128 faces of half side 10 at (0, -0.9, 0); 162 vertices and 320 faces of radius 10."""
    ground, dome = made("plane"), made("dome")
    assert ground.surface().faces.shape == (128, 3)
    assert (len(dome_template().directions), len(dome_template().faces)) == (162, 320)
    assert ground.bounds()[0].tolist() == [[-10, pytest.approx(-0.9), -10], [10, pytest.approx(-0.9), 10]]
    assert torch.allclose(dome.surface().vertices.norm(dim=1), torch.tensor(10.0))
    assert float(ground.areas()[0]) == pytest.approx(400)
    assert torch.equal(ground.axes().detach()[0], torch.eye(3))
    assert (ground.surface().normals()[:, 1] == 1).all()
    assert Surface(dome.surface().vertices, dome.surface().faces).volume() == pytest.approx(-4047, rel=0.03)
    colors = made("plane", texture_size=256).parameters["raw_textures"].detach()
    assert float(colors.mean()) == pytest.approx(0, abs=1e-3)
    assert float(colors.std()) == pytest.approx(0.1, rel=0.01)


def test_bounds_stand_for_the_cube_and_a_unit_for_their_half_side() -> None:
    bounds = torch.tensor([[1.0, 2.0, 3.0], [5.0, 4.0, 5.0]])
    ground = made("plane", bounds)
    assert ground.metadata["ratio"] == 2.0
    assert ground.positions().detach()[0].tolist() == pytest.approx([3.0, 3.0 - 1.8, 4.0])
    assert ground.sizes()[0].tolist() == [20, 0, 20]
    assert made("dome", bounds).positions().detach()[0].tolist() == [3, 3, 4]
    assert made("dome", bounds, ratio=0.5).sizes()[0].tolist() == [5, 5, 5]
    from_points = Backdrops.from_points(bounds, torch.tensor([[1.0, 0, 0], [0, 1, 0]]), {"texture_size": 4})
    assert torch.equal(from_points.positions(), ground.positions())
    assert from_points.base_colors()[0].tolist() == pytest.approx([0.5, 0.5, 0], abs=0.02)


def test_lengths_follow_a_similarity() -> None:
    family, move = backdrops(), a_similarity()
    before = family.backdrop_vertices().detach()
    family.transform(move)
    assert family.metadata["ratio"] == pytest.approx(move.scale)
    assert torch.allclose(family.backdrop_vertices().detach(), move.apply(before), atol=1e-9)


def test_u_goes_with_x_and_v_with_z() -> None:
    shape = plane_template()
    spots = shape.directions[shape.faces]
    assert torch.equal(shape.uvs, 0.5 * (spots[..., [0, 2]] + 1))
    ground = made("plane", reach=1.0, initial_height=0.0, texture_size=2)
    colors = torch.tensor([[[0.1, 0.1, 0.1], [0.9, 0.1, 0.1]], [[0.1, 0.9, 0.1], [0.9, 0.9, 0.1]]])
    ground.replace({"raw_textures": torch.logit(colors)[None]})
    from_above = Camera.look_at(torch.tensor([0.0, 4, 0]), torch.zeros(3), torch.tensor([0.0, 0, 1]), 0.2, (8, 8))
    seen = render(ground.drawables(from_above), from_above, backend="oracle").color.detach()
    # Up in the picture is +z; seen from above with +z up, +x is to the left.
    assert seen[0, 0].tolist() == pytest.approx([0.9, 0.9, 0.1], abs=0.15)
    assert seen[-1, -1].tolist() == pytest.approx([0.1, 0.1, 0.1], abs=0.15)
    assert float(seen[0, -1, 0]) < 0.3 < 0.7 < float(seen[0, -1, 1])


def test_a_dome_is_seen_all_around_from_inside_without_a_seam() -> None:
    dome = made("dome", texture_size=64)
    across = (torch.arange(64) + 0.5) / 64
    wave = 0.5 + 0.4 * torch.cos(2 * torch.pi * across)
    dome.replace({"raw_textures": torch.logit(wave)[None, None, :, None].expand(1, 64, 64, 3)})
    for direction in ((1.0, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1)):
        camera = Camera.look_at(torch.zeros(3), torch.tensor(direction), torch.tensor([0.0, 1, 0]), 1.2, (40, 20))
        frame = render(dome.drawables(camera), camera, backend="cpu")
        assert bool((frame.alpha.detach() == 1).all())
        focal = camera.matrix[0, 0]
        y, x = torch.meshgrid(torch.arange(20) - 9.5, torch.arange(40) - 19.5, indexing="ij")
        rays = torch.stack([x / focal, y / focal, torch.ones_like(x)], dim=-1) @ camera.world_from_camera[:3, :3].T
        x, z = rays[..., 0], rays[..., 2]
        u = (torch.atan2(x, z) + torch.pi) / (2 * torch.pi)
        wanted = 0.5 + 0.4 * torch.cos(2 * torch.pi * u)
        assert float((frame.color.detach()[..., 0] - wanted).abs().max()) < 0.06


def test_the_planes_sides_do_not_mix_and_the_domes_do() -> None:
    """A step from the last column to the first is none on a plane."""
    step = torch.zeros(1, 4, 8, 3)
    step[:, :, 3:] = 1
    for form, wanted in (("plane", 4 * 3 / 28), ("dome", 2 * 4 * 3 / 32)):
        family = made(form)
        family.replace({"raw_textures": 40 * (step - 0.5)})
        assert family.default_regularizers() == {"total_variation": 0.1}
        assert float(family.regularizers(context())["total_variation"]().detach()) == pytest.approx(wanted, abs=1e-6)
        surface, texture = family.surface(), family.texture()
        assert surface.uvs is not None
        left = texture_lookup(texture, surface.uvs.reshape(-1, 2)).reshape(-1, 3, 3)
        at_left = (family.shape.uvs[..., 0] == 0).nonzero()
        assert len(at_left)
        shown = left[at_left[:, 0], at_left[:, 1], 0]
        assert torch.allclose(shown, torch.full_like(shown, 0.0 if form == "plane" else 0.5), atol=1e-5)


def test_textures_are_pooled_in_the_first_part_of_a_run() -> None:
    family = made("plane")
    fine = family.texture()
    family.begin_step(0.1, torch.Generator())
    coarse = family.texture()
    assert torch.allclose(coarse[1:9, 1:9], fine[1:9, 1:9].mean((0, 1)).expand(8, 8, 3), atol=1e-6)
    family.end_step()
    assert torch.equal(family.texture(), fine)
    family.begin_step(0.4, torch.Generator())
    assert torch.equal(family.texture(), fine)


@pytest.mark.parametrize("form", ["plane", "dome"])
@pytest.mark.parametrize("extension", ["glb", "obj"])
def test_mesh_files_hold_the_texture(form: str, extension: str, tmp_path: Path) -> None:
    family, scene = made(form), Scene()
    scene.add("behind", family)
    export_scene(scene, tmp_path / f"file.{extension}")
    mesh = read_mesh(tmp_path / f"file.{extension}")
    if extension == "glb":
        assert [part.name for part in read_glb_parts(tmp_path / "file.glb")] == ["behind"]
    assert mesh.texture is not None
    assert mesh.uvs is not None
    surface = family.surface()
    assert surface.uvs is not None
    assert np.abs(mesh.texture / 255 - family.texture().numpy()).max() < 1 / 255
    middles = torch.from_numpy(mesh.vertices[mesh.faces].mean(1)).double(), surface.corners.mean(1).double()
    distance, order = torch.cdist(*middles).min(dim=1)
    assert len(middles[0]) == len(middles[1])
    assert float(distance.max()) < 1e-3
    shown = texture_lookup(torch.from_numpy(mesh.texture / 255).float(), torch.from_numpy(mesh.uvs.mean(1)).float())
    wanted = texture_lookup(family.texture(), surface.uvs.mean(1))[order]
    assert float((shown - wanted).abs().max()) < 0.01


def test_wrong_shapes_are_refused() -> None:
    values = {key: value.detach() for key, value in made("plane").parameters.items()}
    for name, wrong in (("rotations", torch.zeros(1, 4)), ("raw_textures", torch.zeros(1, 4, 4, 4))):
        with pytest.raises(FamilyError, match=name):
            Backdrops({**values, name: wrong})
