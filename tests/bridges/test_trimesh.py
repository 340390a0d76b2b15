"""trimesh's meshes, clouds and scenes, there and back."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.bridges import BridgeUnavailable, BridgeWarning
from smalti.bridges import trimesh as bridge
from smalti.files.mesh_files import meshes_from_file
from smalti.primitives.meshes import Meshes
from smalti.renderers.render import render
from smalti.scene import demo_camera, demo_scene, everything, move
from smalti.scene.scene import Scene

trimesh: Any = pytest.importorskip("trimesh", reason="trimesh (the extra mesh) is not installed")


def painted(channels: int = 3, wrap: bool = False) -> Meshes:
    """Two faces that share an edge, with corners of their own in the texture."""
    levels = np.random.default_rng(0).integers(0, 256, (8, 6, channels), np.uint8)
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]])
    uvs = torch.tensor([[[0.0, 1], [1, 1], [0, 0.25]], [[1, 0.75], [1, 0], [0.5, 0]]])
    raw = torch.logit(torch.from_numpy(levels.astype(np.float32) / 255).clamp(1e-4, 1 - 1e-4))
    if wrap:
        uvs[..., 0] += 0.5
    constants = {"faces": torch.tensor([[0, 1, 2], [1, 3, 2]]), "uvs": uvs}
    return Meshes({"vertices": vertices, "raw_texture": raw}, {"edges": "hard", "wrap": wrap}, constants)


@pytest.mark.parametrize("channels", [3, 4])
def test_textured_meshes_there_and_back(channels: int) -> None:
    family = painted(channels)
    mesh = bridge.to_mesh(family)
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.vertices) == 6
    again = bridge.from_mesh(mesh, {"edges": "hard"})
    assert len(again.parameters["vertices"]) == 4  # the seam is closed again
    camera = demo_camera()
    drawn = [render(list(each.drawables(camera)), camera).color.detach() for each in (family, again)]
    assert float(drawn[0].max()) > 0.1
    torch.testing.assert_close(drawn[1], drawn[0], atol=2e-3, rtol=0)


def test_the_texture_is_the_right_way_up_in_a_file(tmp_path: Path) -> None:
    """trimesh writes what we handed it, our own reader (held to other programs elsewhere) reads it."""
    family = painted()
    bridge.to_mesh(family).export(tmp_path / "a.obj")
    again = meshes_from_file(tmp_path / "a.obj", {"edges": "hard"})
    camera = demo_camera()
    drawn = [render(list(each.drawables(camera)), camera).color.detach() for each in (family, again)]
    torch.testing.assert_close(drawn[1], drawn[0], atol=2e-3, rtol=0)


def test_a_texture_that_goes_on_around_is_named() -> None:
    with pytest.warns(BridgeWarning, match="the texture of the meshes goes on around in u"):
        bridge.to_mesh(painted(wrap=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bridge.to_mesh(painted())


def test_colored_meshes_keep_their_vertices() -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    ball.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 3), np.uint8)
    family = bridge.from_mesh(ball)
    assert np.array_equal(family.faces.numpy(), ball.faces)
    assert np.allclose(family.parameters["vertices"].detach(), ball.vertices)
    again = bridge.to_mesh(family)
    assert np.array_equal(again.visual.vertex_colors, ball.visual.vertex_colors)
    assert again.is_watertight


def test_colors_of_other_sorts() -> None:
    box = trimesh.creation.box()
    grey = trimesh.Trimesh(box.vertices, box.faces, process=False)
    grey.visual = None if grey.visual is None else trimesh.visual.ColorVisuals(grey)
    assert bridge.from_mesh(grey).base_colors().unique().tolist() == [0.5]
    box.visual.face_colors = np.tile(np.uint8([10, 20, 30, 255]), (12, 1))
    with pytest.warns(BridgeWarning, match="colours of faces"):
        family = bridge.from_mesh(box)
    assert (255 * family.base_colors()[0]).round().tolist() == [10, 20, 30]
    box.visual.vertex_colors = np.tile(np.uint8([10, 20, 30, 99]), (8, 1))
    with pytest.warns(BridgeWarning, match="alpha of vertex colours"):
        bridge.from_mesh(box)
    plain = trimesh.visual.material.SimpleMaterial(diffuse=[51, 102, 204, 255])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=plain)
    assert (255 * bridge.from_mesh(box).base_colors()[0]).round().tolist() == [51, 102, 204]
    image = trimesh.visual.material.SimpleMaterial(image=Image.fromarray(np.full((2, 2, 4), 255, np.uint8)))
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=image)
    assert bridge.from_mesh(box).parameters["raw_texture"].shape == (2, 2, 3)  # an alpha of 1 everywhere is none


def test_scenes_there_and_back() -> None:
    scene = demo_scene()
    scene.layers["chair"].family = Meshes.sphere(torch.ones(3), 0.5, {"level": 1})
    with pytest.warns(BridgeWarning, match=r"'cloud': .* became points"):
        handed = bridge.to_scene(scene)
    assert set(handed.graph.nodes_geometry) == {"chair", "cloud"}
    again = bridge.from_scene(handed)
    assert {layer.name: layer.family.name for layer in again} == {"chair": "meshes", "cloud": "gaussians"}
    surface = scene["chair"].family.surface()
    assert surface is not None
    torch.testing.assert_close(again["chair"].family.parameters["vertices"].detach(), surface.vertices.detach())
    torch.testing.assert_close(again["cloud"].family.positions(), scene["cloud"].family.positions().detach())
    scene["cloud"].visible = False
    assert set(bridge.to_scene(scene).graph.nodes_geometry) == {"chair"}


def test_nodes_stand_where_their_transforms_say() -> None:
    ball, turned = trimesh.creation.icosphere(subdivisions=0), trimesh.transformations.rotation_matrix(0.5, [0, 1, 0])
    mirrored = np.diag([-2.0, 1.0, 1.0, 1.0])
    handed = trimesh.Scene()
    handed.add_geometry(ball, node_name="a/b", transform=turned)
    handed.add_geometry(ball, node_name="a-b", transform=mirrored)
    handed.add_geometry(trimesh.path.creation.grid(1.0), node_name="lines") if hasattr(trimesh, "path") else None
    handed.add_geometry(trimesh.PointCloud([[0.0, 0, 0], [1, 0, 0]]), node_name="dots", transform=turned)
    with pytest.warns(BridgeWarning, match="'lines' is a Path"):
        scene = bridge.from_scene(handed, {"edges": "hard"})
    assert list(scene.counts().items()) == [("a-b", 20), ("a-b-2", 20), ("dots", 2)]
    wanted = ball.vertices @ turned[:3, :3].T
    assert np.allclose(scene["a-b"].family.parameters["vertices"].detach(), wanted, atol=1e-6)
    for name in ("a-b", "a-b-2"):
        surface = scene[name].family.surface()
        assert surface is not None
        assert float(surface.volume()) > 0  # outside is still outside
    assert np.allclose(scene["dots"].family.positions()[1].detach(), turned[:3, 0], atol=1e-6)


def test_layers_are_placed() -> None:
    scene = Scene(order="ray")
    scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, {"level": 0}))
    move(scene, everything(), [3.0, 0.0, 0.0])
    assert np.allclose(bridge.to_scene(scene).centroid, [3, 0, 0], atol=1e-5)


def test_splats_are_no_triangles_and_trimesh_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="draws no triangles"):
        bridge.to_mesh(demo_scene()["cloud"].family)
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(BridgeUnavailable, match=r"smalti\[mesh\]"):
        bridge.to_cloud(demo_scene()["cloud"].family)
