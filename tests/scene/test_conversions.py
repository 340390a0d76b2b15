"""Conversions between families: closed forms, and an image error that is what it says."""

from __future__ import annotations

import doctest
import math
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import torch
from torch import Tensor

import smalti.scene.conversions
from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.boxes import Boxes
from smalti.primitives.family import Family
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import Surface, icosphere
from smalti.primitives.surfels import Surfels
from smalti.scene import EditError, Scene, demo_scene
from smalti.scene.conversions import cameras_around, convert, convert_layer, image_error, route_for
from smalti.scene.conversions.sources import extent
from smalti.scene.conversions.triangles import drawn_triangles, even_samples

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SIZE = (96, 96)
MODULES = sorted(module.name for module in iter_modules(smalti.scene.conversions.__path__))


def ball_block(opacity: float = 0.0) -> Superquadrics:
    """One block that is the unit sphere times 0.7, at (0.2, 0, 0); raw exponents 0 are exponents of 1."""
    point, color = torch.tensor([[0.2, 0.0, 0.0]]), torch.tensor([[0.8, 0.3, 0.2]])
    made = Superquadrics.from_points(point, color, {"texture_size": 8, "level": 3, "ratio": 0.5})
    made.replace(
        {
            "raw_scales": torch.full((1, 3), math.log(0.7 / 0.5 - 0.2)),
            "logit_opacities": torch.full((1,), 20.0 if opacity == 0 else math.log(opacity / (1 - opacity))),
        }
    )
    return made


def checkered_quad(cells: int = 4) -> Meshes:
    """A square of edge 2 in the plane z = 0 with a texture of `cells` x `cells` patches."""
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    uvs = ((vertices[:, :2] + 1) / 2)[faces]
    board = (torch.arange(cells)[:, None] + torch.arange(cells)) % 2
    texture = torch.where(board[..., None] > 0, torch.tensor([0.9, 0.8, 0.1]), torch.tensor([0.1, 0.2, 0.7]))
    texture = texture.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return Meshes({"vertices": vertices, "raw_texture": torch.logit(texture)}, {}, {"faces": faces, "uvs": uvs})


def ball_of_gaussians(count: int = 3000) -> Gaussians:
    ball = icosphere(4)
    mesh = Meshes.from_mesh(ball.vertices.float(), ball.faces, (ball.vertices.float() + 1) / 2, {})
    made = convert(mesh, "gaussians", [front()], count=count).family
    assert isinstance(made, Gaussians)
    return made


def front(size: tuple[int, int] = SIZE) -> Camera:
    return Camera.look_at(torch.tensor([0.0, 0.0, -4.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, size)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(import_module(f"smalti.scene.conversions.{name}")).failed == 0


# -- the error --------------------------------------------------------------------------------------------------------
def test_the_error_is_that_of_a_known_difference() -> None:
    """Two quads that fill the picture and differ by 0.1 in every channel: 20 dB; one of them half transparent."""
    vertices = torch.tensor([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    one, two = (Meshes.from_mesh(vertices, faces, torch.full((4, 3), value), {}) for value in (0.4, 0.5))
    error = image_error(one, two, [front()])
    assert error.psnr == pytest.approx(20.0, abs=1e-3)
    assert error.psnr_covered == pytest.approx(20.0, abs=1e-3)
    assert error.alpha == 0
    half = Meshes.from_mesh(vertices, faces, torch.full((4, 3), 0.4), {"initial_opacity": 0.5})
    assert image_error(one, half, [front()]).alpha == pytest.approx(0.5, abs=1e-3)


def test_empty_background_flatters_one_number_and_not_the_other() -> None:
    one, two = ball_block(), ball_block()
    two.replace({"raw_textures": two.parameters["raw_textures"].detach() + 0.5})
    near, far = cameras_around(extent(one), 1, SIZE)[0], front((192, 192))
    close, small = (image_error(one, two, [camera]) for camera in (near, far))
    assert small.psnr > close.psnr + 2
    assert small.psnr_covered == pytest.approx(close.psnr_covered, abs=1.0)


def test_cameras_around_see_the_whole_box() -> None:
    bounds = torch.tensor([[-1.0, 2.0, 0.0], [3.0, 2.5, 1.0]])
    corners = torch.cartesian_prod(*bounds.T)
    for size in ((160, 100), (100, 160)):
        for camera in cameras_around(bounds, 14, size):
            local = corners @ camera.rotation.T + camera.translation
            focal, middle = camera.intrinsics[:2], camera.intrinsics[2:]
            pixels = local[:, :2] / local[:, 2:] * focal + middle
            assert bool((pixels >= 0).all())
            assert bool((pixels <= torch.tensor(size)).all())


# -- exact triangles --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("edges", ["soft", "hard", "antialiased"])
def test_blocks_become_the_very_triangles(edges: str) -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(3, 3, generator=generator)
    blocks = Superquadrics.from_points(
        points, torch.rand(3, 3, generator=generator), {"texture_size": 16, "level": 2, "edges": edges}
    )
    done = convert(blocks, "meshes")
    assert done.route == "triangles"
    assert done.error.held_out
    assert done.error.psnr > 100
    assert len(done.family) == 3 * 320


def test_a_block_with_exponents_of_one_is_a_sphere() -> None:
    """A level-3 icosphere lies within 1 % below its sphere; volume within 2 %."""
    mesh = convert(ball_block(), "meshes").family
    assert isinstance(mesh, Meshes)
    radius = (mesh.parameters["vertices"].detach() - torch.tensor([0.2, 0.0, 0.0])).norm(dim=1)
    assert float((radius - 0.7).abs().max()) < 1e-5
    assert mesh.surface().volume() == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=0.02)
    assert float(mesh.opacities().min()) > 0.999


def test_a_binary_block_becomes_exactly_opaque() -> None:
    blocks = ball_block(0.8)
    blocks.metadata["binary"] = True
    mesh = convert(blocks, "meshes").family
    assert "logit_opacities" not in mesh.parameters


# -- triangles to splats ----------------------------------------------------------------------------------------------
def test_samples_keep_their_distance_and_lie_on_the_surface() -> None:
    drawn = drawn_triangles(checkered_quad())
    assert drawn is not None
    patches = even_samples(drawn, 400, 0)
    assert len(patches.positions) == 400
    assert float(patches.positions[:, 2].abs().max()) < 1e-6
    distances = torch.cdist(patches.positions, patches.positions).fill_diagonal_(torch.inf).amin(1)
    # Independent points have 0.5 spacings to their nearest in the mean, and some have next to none.
    spacing = math.sqrt(4.0 / 400)
    assert float(distances.mean()) > 0.65 * spacing
    assert float(distances.min()) > 0.4 * spacing
    corners = torch.stack([(patches.positions[:, :2] * sign > 0).all(1).sum() for sign in (1, -1)])
    assert bool(((corners - 100).abs() < 12).all())


@pytest.mark.parametrize("kind", ["gaussians", "ray_gaussians", "surfels"])
def test_a_textured_quad_keeps_its_texture(kind: str) -> None:
    # Splats of half a pixel, each thinned by the screen filter's compensation, let a tenth through.
    limits = {"gaussians": (22.0, 0.05), "ray_gaussians": (23.0, 0.03), "surfels": (23.0, 0.03)}
    done = convert(checkered_quad(), kind, [front((128, 128))], count=4000)
    assert done.route == "surface"
    assert done.error.psnr > limits[kind][0]
    assert done.error.alpha < limits[kind][1]
    # A fit helps, on the very views that are measured.
    fitted = convert(checkered_quad(), kind, [front((128, 128))], count=4000, steps=40)
    assert fitted.error.psnr > done.error.psnr + 0.5


def test_splats_are_flat_and_face_as_the_faces_do() -> None:
    done = convert(checkered_quad(), "gaussians", [front()], density=50.0)
    assert isinstance(done.family, Gaussians)
    assert len(done.family) == 200
    sizes = done.family.sizes()
    assert torch.allclose(sizes[:, 2], 0.05 * sizes[:, 0])
    low, high = done.family.bounds().unbind(1)
    assert float((high - low)[:, 2].max()) < 0.1 * float((high - low)[:, 0].max())


def test_a_half_transparent_face_stays_so() -> None:
    quad = checkered_quad()
    quad = Meshes({**quad.parameters, "logit_opacities": torch.zeros(2)}, quad.metadata, quad.constants)
    camera = front()
    done = convert(quad, "ray_gaussians", [camera], count=3000)
    middle = done.family.drawables(camera)
    from smalti.renderers.render import render

    alpha = render(middle, camera).alpha[30:66, 30:66].detach()
    assert float(alpha.mean()) == pytest.approx(0.5, abs=0.06)


# -- splats to splats -------------------------------------------------------------------------------------------------
def test_the_shortest_axis_becomes_the_normal() -> None:
    """Three Gaussians with their short axis along x, y and z."""
    scales = torch.tensor([[0.01, 0.3, 0.2], [0.3, 0.01, 0.2], [0.3, 0.2, 0.01]])
    made = Gaussians.from_points(torch.eye(3) * 2, torch.rand(3, 3), {"sh_degree": 1})
    made.replace({"log_scales": scales.log(), "sh_rest": torch.rand(3, 3, 3)})
    surfels = convert(made, "surfels").family
    assert isinstance(surfels, Surfels)
    from smalti.cameras.rotations import matrix_from_quaternion

    normals = matrix_from_quaternion(surfels.parameters["quaternions"])[:, :, 2]
    assert torch.allclose(normals.abs(), torch.eye(3), atol=1e-5)
    assert torch.allclose(surfels.sizes(), torch.tensor([[0.3, 0.2]] * 3), atol=1e-6)
    for name in ("means", "sh_dc", "sh_rest", "logit_opacities"):
        assert torch.equal(surfels.parameters[name], made.parameters[name])


def test_flat_gaussians_and_surfels_look_alike() -> None:
    """One disk seen square on: the same picture, but for the screen filter of the Gaussian."""
    made = Gaussians.from_points(torch.zeros(1, 3), torch.tensor([[0.9, 0.5, 0.1]]), {"sh_degree": 0})
    made.replace({"log_scales": torch.tensor([[0.4, 0.3, 1e-3]]).log(), "logit_opacities": torch.tensor([3.0])})
    error = convert(made, "surfels", [front()]).error
    assert error.psnr > 40
    back = convert(convert(made, "surfels").family, "gaussians", [front()])
    assert back.route == "axes"
    assert image_error(made, back.family, [front()]).psnr > 45


# -- fusion -----------------------------------------------------------------------------------------------------------
def test_a_ball_of_gaussians_becomes_a_mesh_within_a_voxel() -> None:
    done = convert(ball_of_gaussians(), "meshes", resolution=48)
    assert done.route == "fusion"
    mesh = done.family
    assert isinstance(mesh, Meshes)
    low, high = extent(ball_of_gaussians()).unbind(0)
    voxel = float((high - low).max()) / 48
    radius = mesh.parameters["vertices"].detach().norm(dim=1)
    assert float((radius - 1.0).abs().max()) < voxel
    assert float(radius.mean()) == pytest.approx(1.0, abs=0.4 * voxel)
    assert mesh.surface().volume() == pytest.approx(4 / 3 * math.pi, rel=0.05)
    assert done.error.psnr > 24
    assert done.error.alpha < 0.015


def test_the_fused_mesh_is_closed_unless_it_should_not_be() -> None:
    from smalti.primitives.topology import face_neighbours

    ball, half = ball_of_gaussians(), [front()]
    closed = convert(ball, "meshes", half, resolution=24).family
    assert isinstance(closed, Meshes)
    assert int((face_neighbours(closed.faces) < 0).sum()) == 0
    opened = convert(ball, "meshes", half, resolution=24, closed=False).family
    assert isinstance(opened, Meshes)
    assert int((face_neighbours(opened.faces) < 0).sum()) > 0
    # One camera in front of the ball: what it did not see has no surface.
    assert float(opened.parameters["vertices"].detach()[:, 2].max()) < 0.5
    assert float(closed.parameters["vertices"].detach()[:, 2].max()) > 0.8


def test_several_layers_are_fused_together() -> None:
    scene = Scene(order="ray")
    scene.add("ball", ball_block())
    place = Similarity(0.5, translation=torch.tensor([-1.0, 0.0, 0.0]).double())
    scene.add("other", Meshes.sphere(torch.zeros(3), 1.0), similarity=place)
    done = convert(scene, "meshes", resolution=48)
    assert done.route == "fusion"
    low, high = extent(done.family).unbind(0)
    assert float(low[0]) == pytest.approx(-1.5, abs=0.1)
    assert float(high[0]) == pytest.approx(0.9, abs=0.1)
    assert done.error.psnr > 20


# -- boxes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", [ball_block, ball_of_gaussians])
def test_anything_becomes_boxes(source: type) -> None:
    original: Family = source()
    done = convert(original, "boxes", resolution=32, steps=40, points=60_000)
    assert isinstance(done.family, Boxes)
    plain = convert(original, "boxes", resolution=32, steps=0, points=60_000)
    assert plain.error.psnr > 17
    assert done.error.psnr > 22
    assert done.error.alpha < plain.error.alpha


def test_boxes_become_a_mesh_and_splats() -> None:
    cube = Boxes.on_grid(
        torch.tensor([[-0.5] * 3, [0.5] * 3]), (1, 1, 1), {"voxels": 4, "fade_scale": 0.0, "step": 0.02}
    )
    cube.replace({"raw_densities": torch.full((1, 4, 4, 4), 60.0)})
    mesh = convert(cube, "meshes", resolution=32)
    assert isinstance(mesh.family, Meshes)
    assert mesh.family.surface().volume() == pytest.approx(1.0, rel=0.1)
    assert mesh.error.psnr > 22
    splats = convert(cube, "surfels", count=3000)
    assert splats.route == "fused surface"
    assert splats.error.psnr > 20


# -- in a scene -------------------------------------------------------------------------------------------------------
def state(scene: Scene) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in scene.state()[0].items()}


@pytest.mark.parametrize("to", ["gaussians", "meshes", "boxes"])
def test_the_unit_of_length_does_not_matter(to: str) -> None:
    """A source of a few thousandths of a unit lies within the usual near plane, and is converted as any other."""
    settings: dict[str, Any] = {"meshes": {"resolution": 24}, "gaussians": {"count": 300}}.get(to, {})
    if to == "boxes":
        settings = {"resolution": 16, "points": 20_000, "steps": 5}
    errors: list[float] = []
    for scale in (1.0, 1e-3):
        source = Meshes.sphere(torch.zeros(3), 1.0) if to == "gaussians" else ball_of_gaussians(300)
        source.transform(Similarity(scale))
        errors.append(convert(source, to, **settings).error.psnr)
    assert errors[1] == pytest.approx(errors[0], abs=0.1)
    assert errors[1] < 60


def test_an_error_is_stated_only_of_what_is_seen() -> None:
    away = Camera.look_at(
        torch.tensor([0.0, 0, -9]), torch.tensor([0.0, 0, -99]), torch.tensor([0.0, -1, 0]), 0.8, SIZE
    )
    with pytest.raises(ValueError, match="none of the cameras sees anything"):
        convert(Meshes.sphere(torch.zeros(3), 1.0), "gaussians", [away], count=50)


def test_a_layer_is_converted_in_place_and_back() -> None:
    scene = demo_scene()
    scene["cloud"].similarity = Similarity(2.0, translation=torch.tensor([0.0, 0.5, 0.0]).double())
    before, plain = state(scene), scene.state()[1]
    done = convert_layer(scene, "cloud", "gaussians", [front()])
    assert list(scene.layers) == ["chair", "cloud"]
    assert scene["cloud"].family is done.family
    assert scene["cloud"].similarity.scale == 2.0
    assert len(scene.history.done) == 2
    assert scene.undo() == "convert"
    after = state(scene)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert scene.state()[1] == plain
    scene.redo()
    assert scene["cloud"].family is done.family


def test_the_cameras_of_a_layer_stand_in_the_scene() -> None:
    """A layer far away from its own origin is measured where the scene has it."""
    scene = Scene(order="ray")
    scene.add("ball", ball_block(), similarity=Similarity(translation=torch.tensor([50.0, 0.0, 0.0]).double()))
    eye = torch.tensor([50.2, 0.0, -4.0])
    camera = Camera.look_at(eye, torch.tensor([50.2, 0.0, 0.0]), torch.tensor([0.0, -1.0, 0.0]), 0.8, SIZE)
    error = convert_layer(scene, "ball", "surfels", [camera], count=500).error
    assert math.isfinite(error.psnr_covered)
    assert not error.held_out


def test_boxes_of_one_scene_keep_one_step() -> None:
    scene = Scene(order="ray")
    scene.add("cube", Boxes.on_grid(torch.tensor([[-3.0] * 3, [-2.0] * 3]), (1, 1, 1), {"step": 0.11}))
    scene.add("ball", ball_block())
    convert_layer(scene, "ball", "boxes", resolution=16, steps=0, points=20_000)
    assert scene["ball"].family.metadata["step"] == 0.11
    assert float(scene.render(front()).alpha.detach().max()) > 0.5


def test_refusals_change_nothing() -> None:
    scene = demo_scene()
    scene["chair"].locked = True
    with pytest.raises(EditError, match="locked"):
        convert_layer(scene, "chair", "surfels")
    with pytest.raises(ValueError, match=r"no setting 'counts'; it has thickness, steps"):
        convert_layer(scene, "cloud", "gaussians", counts=4)
    with pytest.raises(ValueError, match=r"no way to the family 'neural_splats'; there are ways to boxes, gaussians"):
        convert(scene["cloud"].family, "neural_splats")
    with pytest.raises(ValueError, match="nothing to convert"):
        convert(Scene(), "meshes")
    with pytest.raises(ValueError, match="at least one camera"):
        convert(scene["cloud"].family, "gaussians", [])
    away = Camera.look_at(torch.tensor([0.0, 0, -9]), torch.tensor([0.0, 0, -20]), torch.tensor([0.0, 1, 0]), 0.8, SIZE)
    with pytest.raises(ValueError, match="no camera sees a surface"):
        convert(scene["cloud"].family, "meshes", [away])
    assert len(scene.history.done) == 1
    assert scene["chair"].family.name == "gaussians"


def test_the_same_family_is_copied() -> None:
    ball = ball_block()
    done = convert(ball, "superquadrics", [front()])
    assert done.route == "copy"
    assert done.error.psnr == math.inf
    assert done.error.to_plain()["psnr"] is None
    assert done.family is not ball
    assert route_for(None, "meshes").name == "fusion"


def test_a_real_mesh_reaches_what_the_page_says(shared_data: Path) -> None:
    """Spot, textured: bounds a little below the table in docs/converting-families.md."""
    pytest.importorskip("trimesh")
    from smalti.files.mesh_files import meshes_from_file

    spot = meshes_from_file(shared_data / "meshes" / "spot" / "spot.obj")
    done = convert(spot, "ray_gaussians", count=8000)
    assert done.error.psnr > 26
    fused = convert(spot, "meshes")
    assert fused.route == "copy"
    assert isinstance(spot.surface(), Surface)
