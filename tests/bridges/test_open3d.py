"""Open3D's point clouds and meshes: with the package where it is installed, on stand-ins everywhere."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import open3d_stand_ins
import pytest
import torch

from smalti.bridges import BridgeUnavailable, BridgeWarning
from smalti.bridges import open3d as bridge
from smalti.files.mesh_files import meshes_from_file
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.texture import texture_lookup
from smalti.scene import demo_scene

INSTALLED = find_spec("open3d") is not None
"""It is half a gigabyte with what it depends on, so no extra brings it; 0.20 passed all of this on 2026-11-23."""


@pytest.fixture(params=["stand-in", "package"] if INSTALLED else ["stand-in"])
def open3d(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "package":
        return import_module("open3d")
    monkeypatch.setitem(sys.modules, "open3d", open3d_stand_ins.module())
    return sys.modules["open3d"]


def painted(texture: np.ndarray) -> Meshes:
    """Two faces that share an edge, with corners of their own in the texture."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]])
    uvs = torch.tensor([[[0.0, 1], [1, 1], [0, 0.25]], [[1, 0.75], [1, 0], [0.5, 0]]])
    raw = torch.logit(torch.from_numpy(texture.astype(np.float32) / 255).clamp(1e-4, 1 - 1e-4))
    constants = {"faces": torch.tensor([[0, 1, 2], [1, 3, 2]]), "uvs": uvs}
    return Meshes({"vertices": vertices, "raw_texture": raw}, {}, constants)


def stripes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def looked_up(family: Meshes) -> torch.Tensor:
    """Colours at points of both faces."""
    weights = torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(3))
    uvs = (weights / weights.sum(-1, keepdim=True)) @ family.constants["uvs"]
    return texture_lookup(family.parameters["raw_texture"].detach().sigmoid(), uvs.reshape(-1, 2))


def test_points_there_and_back(open3d: Any) -> None:
    family = demo_scene()["cloud"].family
    cloud = bridge.to_point_cloud(family)
    assert np.allclose(np.asarray(cloud.points), family.positions().detach().numpy())
    again = bridge.from_point_cloud(cloud, metadata={"sh_degree": 1})
    assert isinstance(again, Gaussians)
    torch.testing.assert_close(again.positions(), family.positions().detach().float())
    torch.testing.assert_close(again.base_colors(), family.base_colors())
    bare = open3d.geometry.PointCloud()
    bare.points = open3d.utility.Vector3dVector(np.random.default_rng(0).random((9, 3)))
    assert bridge.from_point_cloud(bare, "surfels").base_colors().unique().tolist() == [0.5]


def test_colored_meshes_there_and_back(open3d: Any) -> None:
    family = Meshes.sphere(torch.tensor([1.0, 2.0, 3.0]), 0.5, {"level": 1})
    family.parameters["raw_colors"].data.normal_(generator=torch.Generator().manual_seed(0))
    again = bridge.from_triangle_mesh(bridge.to_triangle_mesh(family), {"edges": "hard"})
    assert torch.equal(again.faces, family.faces)
    assert torch.equal(again.parameters["vertices"], family.parameters["vertices"])
    torch.testing.assert_close(again.parameters["raw_colors"], family.parameters["raw_colors"].detach())
    assert again.metadata["edges"] == "hard"
    blocks = Superquadrics.from_points(torch.rand(5, 3), torch.rand(5, 3), {"initial_opacity": 0.995})
    assert len(np.asarray(bridge.to_triangle_mesh(blocks).triangles)) == len(blocks.surface().faces)


def test_textured_meshes_there_and_back(open3d: Any) -> None:
    family = painted(stripes())
    mesh = bridge.to_triangle_mesh(family)
    again = bridge.from_triangle_mesh(mesh)
    torch.testing.assert_close(again.constants["uvs"], family.constants["uvs"])
    torch.testing.assert_close(again.parameters["raw_texture"], family.parameters["raw_texture"])
    assert torch.equal(again.faces, family.faces)


def test_files_of_the_package_show_the_same_texture(tmp_path: Path, open3d: Any) -> None:
    """What Open3D writes of ours, our own reader and Open3D's show alike: both turn the texture. The stand-in's part is
    the turning alone.
    """
    family = painted(stripes())
    if not hasattr(open3d, "io"):
        mesh = bridge.to_triangle_mesh(family)
        image, corners = np.asarray(mesh.textures[0])[::-1], np.asarray(mesh.triangle_uvs)
        turned = torch.from_numpy(np.stack([corners[:, 0], 1 - corners[:, 1]], axis=1).reshape(-1, 3, 2)).float()
        constants = {"faces": family.faces, "uvs": turned}
        raw = torch.logit(torch.from_numpy(image.astype(np.float32) / 255).clamp(1e-4, 1 - 1e-4))
        as_written = Meshes({"vertices": family.parameters["vertices"], "raw_texture": raw}, {}, constants)
        torch.testing.assert_close(looked_up(as_written), looked_up(family), atol=1e-2, rtol=0)
        return
    open3d.io.write_triangle_mesh(str(tmp_path / "a.obj"), bridge.to_triangle_mesh(family))
    for again in (
        meshes_from_file(tmp_path / "a.obj"),
        bridge.from_triangle_mesh(open3d.io.read_triangle_mesh(str(tmp_path / "a.obj"))),
    ):
        assert torch.equal(again.parameters["vertices"].detach(), family.parameters["vertices"].detach())
        assert torch.equal(again.faces, family.faces)
        torch.testing.assert_close(looked_up(again), looked_up(family), atol=1e-2, rtol=0)


def test_textures_of_other_sorts(open3d: Any) -> None:
    mesh = bridge.to_triangle_mesh(painted(stripes()))
    grey = stripes()[..., 0]
    mesh.textures = [open3d.geometry.Image(np.ascontiguousarray(grey))]
    found = bridge.from_triangle_mesh(mesh).parameters["raw_texture"].detach().sigmoid()
    assert found.shape == (4, 6, 3)
    assert (255 * found[..., 1]).round().byte().tolist() == grey.clip(0, 255).tolist()
    mesh.textures = [open3d.geometry.Image(stripes()), open3d.geometry.Image(stripes())]
    with pytest.raises(ValueError, match="2 textures"):
        bridge.from_triangle_mesh(mesh)
    clear = painted(np.concatenate([stripes(), stripes()[..., :1]], axis=2))
    with pytest.warns(BridgeWarning, match="texels"):
        bridge.to_triangle_mesh(clear)


def test_splats_are_no_triangles_and_opacities_are_named(open3d: Any) -> None:
    with pytest.raises(ValueError, match="draws no triangles"):
        bridge.to_triangle_mesh(demo_scene()["cloud"].family)
    ghost = Meshes.sphere(torch.zeros(3), 1.0, {"level": 0, "initial_opacity": 0.5})
    with pytest.warns(BridgeWarning, match="opacities"):
        bridge.to_triangle_mesh(ghost)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(BridgeUnavailable, match="pip install open3d"):
        bridge.to_point_cloud(demo_scene()["cloud"].family)
