"""What Mitsuba draws of our scenes is what we draw: rays, triangles with colours and textures, Gaussians."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.bridges import BridgeUnavailable, BridgeWarning
from smalti.bridges import mitsuba as bridge
from smalti.cameras.camera import Camera
from smalti.primitives.meshes import Meshes
from smalti.primitives.ray_gaussians import RayGaussians
from smalti.primitives.surfels import Surfels
from smalti.scene.scene import Scene

PROBE = "import mitsuba as mi; mi.set_variant('llvm_ad_rgb'); assert mi.Float(1, 2)[1] == 2"


@pytest.fixture
def mitsuba() -> Iterator[Any]:
    """With its plainest variant; set back afterwards for the other tests."""
    module: Any = pytest.importorskip("mitsuba", reason="mitsuba (an extra of the tests) is not installed")
    before = module.variant()
    module.set_variant("scalar_rgb")
    yield module
    if before is not None:
        module.set_variant(before)


@pytest.fixture
def compiling(mitsuba: Any) -> Any:
    """With its variant that compiles, which its integrator of Gaussians needs; some LLVMs abort, so asked apart."""
    if subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False).returncode:
        pytest.skip("Mitsuba finds no LLVM that it can use: apt-get install libllvm19")
    mitsuba.set_variant("llvm_ad_rgb")
    return mitsuba


def camera(width: int = 48, height: int = 36, focal: float = 50.0) -> Camera:
    """From the side and above, its principal point far from the middle."""
    seen = Camera.look_at(
        torch.tensor([0.6, -0.8, -3.0]), torch.zeros(3), torch.tensor([0.1, -1.0, 0.0]), 1.0, (width, height)
    )
    return Camera(seen.rotation, seen.translation, torch.tensor([focal, focal, 20.5, 21.0]), width, height)


def display(picture: Any) -> Tensor:
    """Colour and alpha of Mitsuba's picture, display-encoded."""
    values = torch.from_numpy(np.array(picture, np.float64))
    rgb = values[..., :3].clamp_min(0)
    low, high = 12.92 * rgb, 1.055 * rgb.clamp_min(1e-9) ** (1 / 2.4) - 0.055
    return torch.cat([torch.where(rgb <= 0.0031308, low, high), values[..., 3:]], dim=-1)


def drawn(mitsuba: Any, scene: Scene, seen: Camera, samples: int) -> Tensor:
    loaded = mitsuba.load_dict(bridge.to_scene(scene, seen, samples=samples))
    return display(mitsuba.render(loaded, spp=samples))


def test_rays_of_the_sensor_are_ours(mitsuba: Any) -> None:
    seen = camera()
    sensor = mitsuba.load_dict(bridge.to_sensor(seen))
    fx, fy, cx, cy = seen.intrinsics.double().tolist()
    for row, column in ((0.5, 0.5), (35.5, 47.5), (7.5, 30.5), (20.5, 3.5)):
        ray, _ = sensor.sample_ray(0.0, 0.5, mitsuba.Point2f(column / 48, row / 36), mitsuba.Point2f(0.5, 0.5))
        local = np.array([(column - cx) / fx, (row - cy) / fy, 1.0])
        wanted = seen.rotation.double().numpy().T @ (local / np.linalg.norm(local))
        assert np.abs(np.array(ray.d) - wanted).max() < 1e-5
    assert list(sensor.film().size()) == [48, 36]


def near(found: Tensor, wanted: Tensor, limit: float) -> None:
    """Means over the picture; edges are sampled there and drawn sharply or analytically here."""
    difference = (found - wanted.double()).abs()
    assert float(difference.mean()) < limit, float(difference.mean())
    assert float((difference.amax(-1) > 0.1).double().mean()) < 0.03


def test_colored_meshes(mitsuba: Any) -> None:
    ball = Meshes.sphere(torch.tensor([0.1, 0.0, 0.2]), 0.8, {"level": 3})
    ball.parameters["raw_colors"].data = 2 * ball.parameters["vertices"].detach().clone()
    scene = Scene(order="ray", background=(0.2, 0.4, 0.6))
    scene.add("ball", ball)
    found, frame = drawn(mitsuba, scene, camera(), 64), scene.render(camera())
    assert 0.1 < float(frame.alpha.detach().mean()) < 0.9
    near(found[..., :3], frame.color.detach(), 0.01)


@pytest.mark.parametrize("wrap", [False, True])
def test_textured_meshes(mitsuba: Any, wrap: bool) -> None:
    """Which way up the texture is, where its texels' centres lie, and how it goes on around."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.tensor([[-0.9, -0.9, 0.0], [0.9, -0.9, 0.0], [0.9, 0.9, 0.3], [-0.9, 0.9, 0.3]])
    uvs = torch.tensor([[[0.0, 0], [1, 1], [1, 0]], [[0.0, 0], [0, 1], [1, 1]]])
    if wrap:
        uvs = uvs * torch.tensor([1.0, 0.8]) + torch.tensor(
            [0.6, 0.1]
        )  # Mitsuba repeats in v too: half a texel there is not ours
    raw = 0.6 * torch.randn(5, 4, 3, generator=generator)  # little contrast: texels are mixed in linear light there
    constants = {"faces": torch.tensor([[0, 2, 1], [0, 3, 2]]), "uvs": uvs}
    scene = Scene(order="ray")
    scene.add("wall", Meshes({"vertices": vertices, "raw_texture": raw}, {"wrap": wrap}, constants))
    found, frame = drawn(mitsuba, scene, camera(), 64), scene.render(camera())
    assert float(frame.color.detach().std()) > 0.1
    near(found[..., :3], frame.color.detach(), 0.012)
    flipped = Scene(order="ray")
    flipped.add("wall", Meshes({"vertices": vertices, "raw_texture": raw.flip(0)}, {"wrap": wrap}, constants))
    with pytest.raises(AssertionError):
        near(found[..., :3], flipped.render(camera()).color.detach(), 0.012)


def test_gaussians(compiling: Any) -> None:
    """Against ray_gaussians in the exact order: colour of degree 3 from both ends of the basis, sizes, rotations."""
    generator = torch.Generator().manual_seed(1)
    points = 1.2 * torch.rand(12, 3, generator=generator) - 0.6
    family = RayGaussians.from_points(points, torch.rand(12, 3, generator=generator), {"sh_degree": 3})
    values = family.parameters
    values["sh_rest"].data = 0.15 * torch.randn(12, 15, 3, generator=generator)
    values["quaternions"].data = torch.randn(12, 4, generator=generator)
    values["log_scales"].data = 0.4 * torch.randn(12, 3, generator=generator) - 2.3
    values["logit_opacities"].data = torch.rand(12, generator=generator)
    family.metadata["active_sh_degree"] = 3
    scene = Scene(order="ray")
    scene.add("cloud", family)
    seen = camera(96, 72, 100.0)
    found, frame = drawn(compiling, scene, seen, 32), scene.render(seen)
    assert float(frame.color.detach().max()) > 0.4
    near(found[..., :3], frame.color.detach(), 0.005)


def test_what_mitsuba_has_no_shape_for_is_said(mitsuba: Any) -> None:
    disks = Surfels.from_points(torch.rand(4, 3), torch.rand(4, 3), {"sh_degree": 0})
    scene = Scene(order="ray")
    scene.add("disks", disks)
    with pytest.warns(BridgeWarning, match="no shape for surfels"), pytest.raises(ValueError, match="no visible layer"):
        bridge.to_scene(scene, camera())
    scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, {"level": 0}))
    splats = RayGaussians.from_points(torch.rand(4, 3), torch.rand(4, 3), {"sh_degree": 0})
    scene.add("splats", splats)
    with pytest.warns(BridgeWarning) as said:
        made = bridge.to_scene(scene, camera(), look="diffuse")
    assert any("no integrator that draws both" in str(each.message) for each in said)
    assert [made["layer_2"]["type"], made["integrator"]["type"]] == ["ellipsoids", "path"]
    with pytest.raises(ValueError, match="got 'surfels'"):
        bridge.to_ellipsoids(disks)
    integral = RayGaussians.from_points(torch.rand(4, 3), torch.rand(4, 3), {"response": "integral"})
    with pytest.raises(ValueError, match="response 'integral'"):
        bridge.to_ellipsoids(integral)
    stretched = Camera(torch.eye(3), torch.zeros(3), torch.tensor([50.0, 60.0, 8.0, 6.0]), 16, 12)
    with pytest.raises(ValueError, match=r"scaled_to\(16, 10\)"):
        bridge.to_sensor(stretched)


def test_a_background_behind_gaussians_is_said_to_be_lost(mitsuba: Any) -> None:
    scene = Scene(order="ray", background=(0.2, 0.6, 0.9))
    scene.add("cloud", RayGaussians.from_points(torch.rand(4, 3), torch.rand(4, 3), {"sh_degree": 0}))
    with pytest.warns(BridgeWarning, match="the background was left out"):
        bridge.to_scene(scene, camera())


def test_a_diffuse_mesh_is_lit_by_lights(mitsuba: Any) -> None:
    scene = Scene(order="ray", background=(1.0, 1.0, 1.0))
    ball = Meshes.sphere(torch.zeros(3), 0.8, {"level": 2})
    scene.add("ball", ball)
    loaded = mitsuba.load_dict(bridge.to_scene(scene, camera(), look="diffuse"))
    picture = display(mitsuba.render(loaded, spp=64))
    assert float(picture[20, 20, 0]) == pytest.approx(0.5, abs=0.04)  # grey under a white sky


def test_a_variant_is_asked_for(monkeypatch: pytest.MonkeyPatch, mitsuba: Any) -> None:
    monkeypatch.setattr(mitsuba, "variant", lambda: None)
    with pytest.raises(BridgeUnavailable, match="set_variant"):
        bridge.to_sensor(camera())
