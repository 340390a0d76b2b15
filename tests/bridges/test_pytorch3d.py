"""PyTorch3D without PyTorch3D: numbers worked out by hand from its documented conventions, on stand-ins."""

from __future__ import annotations

import math
import sys
import types
from typing import Any

import pytest
import pytorch3d_stand_ins as p3d
import torch
from torch import Tensor

from smalti.bridges import BridgeUnavailable, BridgeWarning
from smalti.bridges import pytorch3d as bridge
from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.primitives.meshes import Meshes
from smalti.primitives.texture import texture_lookup
from smalti.renderers.render import render

TURN = matrix_from_quaternion(torch.tensor([[0.9, 0.2, -0.3, 0.1]], dtype=torch.float64))[0]
SHIFT = torch.tensor([0.3, -0.2, 2.5], dtype=torch.float64)
POINTS = torch.tensor([[0.1, 0.2, 0.3], [-0.5, 0.4, 1.0], [0.7, -0.6, 0.2]], dtype=torch.float64)


def pixels(camera: Camera, points: Tensor) -> Tensor:
    """Where ours sees world points."""
    seen = points @ camera.rotation.T + camera.translation
    return camera.intrinsics[:2] * seen[:, :2] / seen[:, 2:] + camera.intrinsics[2:]


def from_ndc(points: Tensor, focal: tuple[float, float], middle: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Where PyTorch3D's documentation puts them: rows times R, NDC with x left and y up, half the shorter side is 1."""
    view = points @ TURN + SHIFT
    ndc = view.new_tensor(focal) * view[:, :2] / view[:, 2:] + view.new_tensor(middle)
    height, width = size
    return view.new_tensor([width / 2, height / 2]) - 0.5 * min(size) * ndc


def test_a_point_to_the_left_and_above_is_where_one_expects() -> None:
    """The axes, in round numbers: one unit to the left and half a unit up, two units ahead, seen at focal length 1."""
    (camera,) = bridge.from_cameras(p3d.PerspectiveCameras(image_size=[[100, 200]]))
    assert camera.width == 200
    assert pixels(camera, torch.tensor([[1.0, 0.5, 2.0]]))[0].tolist() == [100 - 25.0, 50 - 12.5]


@pytest.mark.parametrize("size", [(48, 64), (80, 40)])
def test_perspective_cameras_in_ndc(size: tuple[int, int]) -> None:
    focal, middle = torch.tensor([[1.7, 1.4]]).double(), torch.tensor([[0.1, -0.2]]).double()
    theirs = p3d.PerspectiveCameras(focal, middle, TURN[None], SHIFT[None])
    (camera,) = bridge.from_cameras(theirs, size)
    torch.testing.assert_close(pixels(camera, POINTS), from_ndc(POINTS, (1.7, 1.4), (0.1, -0.2), size))
    torch.testing.assert_close(camera.rotation @ camera.rotation.T, torch.eye(3).double())
    assert float(torch.linalg.det(camera.rotation)) == pytest.approx(1.0)
    matrix = torch.tensor([[1.7, 0, 0.1, 0], [0, 1.4, -0.2, 0], [0, 0, 0, 1], [0, 0, 1, 0]]).double()
    (again,) = bridge.from_cameras(p3d.PerspectiveCameras(R=TURN[None], T=SHIFT[None], K=matrix[None]), size)
    torch.testing.assert_close(again.intrinsics, camera.intrinsics)


@pytest.mark.parametrize("aspect", [1.0, 1.5])
@pytest.mark.parametrize("degrees", [True, False])
def test_fov_cameras(aspect: float, degrees: bool) -> None:
    angle = [50.0] if degrees else [math.radians(50.0)]
    theirs = p3d.FoVPerspectiveCameras(TURN[None], SHIFT[None], fov=angle, aspect_ratio=[aspect], degrees=degrees)
    (camera,) = bridge.from_cameras(theirs, (60, 80))
    focal = 1 / math.tan(math.radians(25))
    torch.testing.assert_close(
        pixels(camera, POINTS), from_ndc(POINTS, (focal / aspect, focal), (0, 0), (60, 80)), atol=1e-4, rtol=1e-6
    )
    assert camera.intrinsics[1].item() == pytest.approx(30 * focal, rel=1e-6)


def test_screen_space_round_trip_of_a_batch() -> None:
    ours = [
        Camera(TURN, SHIFT, torch.tensor([70.0, 65.0, 31.0, 25.5]).double(), 64, 48, name="a"),
        Camera(TURN.T, -SHIFT, torch.tensor([50.0, 55.0, 30.0, 41.0]).double(), 60, 90),
    ]
    arguments = bridge.camera_arguments(ours)
    assert arguments["image_size"].tolist() == [[48, 64], [90, 60]]
    torch.testing.assert_close(arguments["R"][0], TURN.T * torch.tensor([-1.0, -1.0, 1.0]).double())
    for before, after in zip(ours, bridge.from_cameras(p3d.PerspectiveCameras(**arguments)), strict=True):
        assert torch.equal(before.rotation, after.rotation)
        assert torch.equal(before.translation, after.translation)
        assert torch.equal(before.intrinsics, after.intrinsics)
        assert (before.width, before.height) == (after.width, after.height)


def test_gradients_reach_their_pose() -> None:
    shift = SHIFT[None].clone().requires_grad_()
    (camera,) = bridge.from_cameras(p3d.PerspectiveCameras(R=TURN[None], T=shift), (8, 8))
    camera.translation.sum().backward()
    assert shift.grad is not None
    assert shift.grad.tolist() == [[-1.0, -1.0, 1.0]]


def test_cameras_that_are_none_of_ours_are_refused() -> None:
    class FoVOrthographicCameras:
        R, T, focal_length = TURN[None], SHIFT[None], 1.0

    with pytest.raises(ValueError, match=r"expected one of PerspectiveCameras, .* got FoVOrthographicCameras"):
        bridge.from_cameras(FoVOrthographicCameras(), (8, 8))
    with pytest.raises(ValueError, match="image_size"):
        bridge.from_cameras(p3d.PerspectiveCameras())
    lens = Camera(TURN, SHIFT, torch.ones(4).double(), 8, 8, "OPENCV", (0.1, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="pinhole"):
        bridge.camera_arguments([lens])


def square() -> tuple[Tensor, Tensor]:
    vertices = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    return vertices, torch.tensor([[0, 2, 1], [0, 3, 2]])


def test_vertex_colors_there_and_back() -> None:
    vertices, faces = square()
    colors = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    (family,) = bridge.from_meshes(p3d.Meshes([vertices], [faces], p3d.TexturesVertex([colors])), {"edges": "hard"})
    assert family.metadata["edges"] == "hard"
    arguments, kind, textures = bridge.mesh_arguments(family)
    assert kind == "TexturesVertex"
    assert torch.equal(arguments["verts"][0].detach(), vertices)
    assert torch.equal(arguments["faces"][0], faces)
    torch.testing.assert_close(textures["verts_features"][0].detach(), colors)
    (grey,) = bridge.from_meshes(p3d.Meshes([vertices], [faces]))
    assert grey.base_colors().unique().tolist() == [0.5]


def theirs_at(textures: Any, corners: Tensor) -> Tensor:
    """As the documentation of TexturesUV says: the map upside down, looked up by grid_sample."""
    grid = (2 * corners - 1)[None, None]
    maps = textures.maps_padded()[:1].flip(1).permute(0, 3, 1, 2)
    found = torch.nn.functional.grid_sample(
        maps, grid, align_corners=textures.align_corners, padding_mode=textures.padding_mode
    )
    return found[0, :, 0].T


@pytest.mark.parametrize("aligned", [True, False])
def test_textures_are_looked_up_where_theirs_are(aligned: bool) -> None:
    """At any point of the faces, and back again, and once more."""
    vertices, faces = square()
    generator = torch.Generator().manual_seed(1)
    maps = 0.1 + 0.8 * torch.rand(1, 5, 7, 3, generator=generator)
    corners, index = torch.rand(6, 2, generator=generator), torch.tensor([[0, 1, 2], [3, 4, 5]])
    textures = p3d.TexturesUV(maps, [index], [corners], align_corners=aligned)
    (family,) = bridge.from_meshes(p3d.Meshes([vertices], [faces], textures))
    weights = torch.rand(2, 50, 3, generator=generator)
    weights = weights / weights.sum(-1, keepdim=True)
    wanted = theirs_at(textures, (weights @ corners[index]).reshape(-1, 2))
    texture, uvs = family.parameters["raw_texture"].sigmoid(), family.constants["uvs"]
    found = texture_lookup(texture, (weights @ uvs).reshape(-1, 2))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    _, kind, arguments = bridge.mesh_arguments(family)
    assert kind == "TexturesUV"
    back = p3d.TexturesUV(**arguments)
    there = (weights @ back.verts_uvs_list()[0][back.faces_uvs_list()[0]]).reshape(-1, 2)
    torch.testing.assert_close(theirs_at(back, there), wanted, atol=2e-5, rtol=0)
    (again,) = bridge.from_meshes(p3d.Meshes([vertices], [faces], back))
    torch.testing.assert_close(again.constants["uvs"], uvs)


def test_what_is_left_out_of_meshes_is_said() -> None:
    vertices, faces = square()
    colors = torch.zeros(4, 3)
    solid = Meshes.from_mesh(vertices, faces, colors, {"initial_opacity": 0.5})
    with pytest.warns(BridgeWarning, match="opacities of the faces"):
        bridge.mesh_arguments(solid)
    painted = Meshes.from_mesh(vertices, faces, colors, {"texture_size": 16, "texel_opacity": True, "wrap": True})
    painted.constants["uvs"] += 0.5
    with pytest.warns(BridgeWarning) as said:
        assert bridge.mesh_arguments(painted)[2]["maps"].shape == (1, 16, 16, 3)
    assert ["texels" in str(said[0].message), "around in u" in str(said[1].message)] == [True, True]
    outside = torch.tensor([[-0.5, 0.0], [1.0, 0.0], [0.0, 1.0]])
    mirrored = p3d.TexturesUV(
        torch.rand(1, 4, 4, 3),
        [torch.tensor([[0, 1, 2]])],
        [outside],
        padding_mode="reflection",
        sampling_mode="nearest",
    )
    with pytest.warns(BridgeWarning) as said:
        bridge.from_meshes(p3d.Meshes([vertices[:3]], [torch.tensor([[0, 1, 2]])], mirrored))
    assert ["reflection" in str(said[0].message), "bilinear" in str(said[1].message)] == [True, True]
    with pytest.raises(ValueError, match="got TexturesAtlas"):
        bridge.from_meshes(p3d.Meshes([vertices], [faces], p3d.TexturesAtlas()))


def test_their_own_objects_are_made_where_the_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = square()
    family = Meshes.from_mesh(vertices, faces, torch.full((4, 3), 0.25), {})
    camera = Camera(TURN, SHIFT, torch.tensor([70.0, 65.0, 31.0, 25.5]).double(), 64, 48)
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    for made in (lambda: bridge.to_meshes(family), lambda: bridge.to_cameras([camera])):
        with pytest.raises(BridgeUnavailable, match=r"INSTALL\.md"):
            made()
    for name in ("pytorch3d", "pytorch3d.structures", "pytorch3d.renderer"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["pytorch3d.structures"], "Meshes", p3d.Meshes, raising=False)
    for name in ("TexturesVertex", "TexturesUV", "PerspectiveCameras"):
        monkeypatch.setattr(sys.modules["pytorch3d.renderer"], name, getattr(p3d, name), raising=False)
    (again,) = bridge.from_meshes(bridge.to_meshes(family))
    torch.testing.assert_close(again.base_colors(), family.base_colors())
    (back,) = bridge.from_cameras(bridge.to_cameras([camera]))
    assert torch.equal(back.intrinsics, camera.intrinsics)


class Settings(types.SimpleNamespace):
    """Attributes alone."""


def test_their_defaults_are_hard_edges() -> None:
    found = bridge.from_raster_settings(Settings(image_size=(48, 64), blur_radius=0.0, faces_per_pixel=1))
    assert found.metadata == {"edges": "hard"}
    assert (found.size, found.settings.near, found.settings.order) == ((48, 64), 0.01, "ray")
    assert found.background.tolist() == [1.0, 1.0, 1.0]
    assert len(found.notices) == 2
    assert Meshes.checked_metadata(found.metadata)["edges"] == "hard"


def test_every_setting_without_counterpart_is_named() -> None:
    raster = Settings(
        image_size=32, blur_radius=1e-3, bin_size=0, perspective_correct=False, clip_barycentric_coords=False,
        cull_backfaces=True, z_clip_value=0.5,
    )  # fmt: skip
    found = bridge.from_raster_settings(raster, Settings(sigma=1e-5, gamma=1e-2, background_color=(0.0, 0.5, 1.0, 1.0)))
    assert found.metadata == {"edges": "soft", "sigma": 1e-5}
    assert found.settings.near == 0.5
    assert found.background.tolist() == [0.0, 0.5, 1.0]
    words = ("1/2 there", "gamma", "blur_radius: soft edges end", "faces_per_pixel", "bin_size", "perspective_correct")
    for word in (*words, "clip_barycentric_coords", "cull_backfaces"):
        assert sum(word in notice for notice in found.notices) == 1, word
    with pytest.raises(ValueError, match="not negative"):
        bridge.from_raster_settings(Settings(blur_radius=-1.0))


def test_soft_edges_fall_as_theirs() -> None:
    """Alpha beside a straight edge against sigmoid(-d / sigma), d the squared distance in NDC of a wide picture."""
    sigma = 2e-3
    raster = Settings(image_size=(40, 60), blur_radius=math.log(1e4 - 1) * sigma, faces_per_pixel=20)
    found = bridge.from_raster_settings(raster, Settings(sigma=sigma))
    assert not any("blur_radius" in notice for notice in found.notices)
    vertices = torch.tensor([[0.0, -50.0, 2.0], [0.0, 50.0, 2.0], [90.0, 0.0, 2.0]])  # its edge is the plane x = 0
    faces = torch.tensor([[0, 1, 2]])
    (family,) = bridge.from_meshes(p3d.Meshes([vertices], [faces]), found.metadata)
    (camera,) = bridge.from_cameras(p3d.PerspectiveCameras(), found.size)
    frame = render(list(family.drawables(camera)), camera, background=found.background, settings=found.settings)
    row = frame.alpha[20].detach().double()
    distance = (
        torch.arange(60).double() + 0.5 - 30
    ) / 20  # in NDC; x runs left there, so the face is on the picture's left
    theirs = torch.sigmoid(-torch.sign(distance) * distance.square() / sigma)
    outside = (distance > 0) & (distance.square() < 8 * sigma)
    assert int(outside.sum()) >= 2
    square_distance = distance.square()[outside]
    torch.testing.assert_close(row[outside], torch.exp(-square_distance / sigma), rtol=1e-4, atol=1e-6)
    assert bool(((row - theirs).abs()[outside] <= torch.exp(-2 * square_distance / sigma) + 1e-6).all())
    assert row[:30].min() > 0.999
    assert row[distance.square() > 9.3 * sigma][-10:].max() == 0
    assert torch.equal(frame.color[20, 50], found.background)
