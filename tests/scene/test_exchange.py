"""Export of scenes: layer transforms applied, layers joined, hidden and foreign layers, degrees not in use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.files.ply import read_ply
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.surfels import Surfels
from smalti.scene.exchange import export_scene
from smalti.scene.scene import Scene


def make_family(seed: int, degree: int = 3, active: int = 3, **metadata: float) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(80, 3, generator=generator) - 0.5
    metadata = {"sh_degree": degree, "active_sh_degree": active, **metadata}
    family = Gaussians.from_points(positions, torch.rand(80, 3, generator=generator), metadata)
    for name in ("sh_rest", "quaternions", "log_scales", "logit_opacities"):
        value = family.parameters[name].data
        value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return family


def similarity() -> Similarity:
    generator = torch.Generator().manual_seed(3)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return Similarity(1.7, q * torch.sign(torch.linalg.det(q)), torch.tensor([0.4, -2.0, 1.0], dtype=torch.float64))


def picture(scene: Scene, camera: Camera) -> torch.Tensor:
    return scene.render(camera).color.detach()


def imported(path: Path) -> Scene:
    splats = read_ply(path)
    scene = Scene()
    metadata = {"sh_degree": splats.held_degree, "active_sh_degree": splats.sh_degree}
    scene.add("gaussians", Gaussians(splats.to_parameters(), metadata))
    return scene


def make_camera() -> Camera:
    position, up = torch.tensor([1.5, -1.0, 3.0]), torch.tensor([0.0, -1.0, 0.0])
    return Camera.look_at(position, torch.zeros(3), up, 0.7, (64, 48))


def test_a_moved_layer_is_written_where_it_stands(tmp_path: Path) -> None:
    """The picture of the file, seen by the camera that moved along, is the picture of the layer alone."""
    scene, still, move = Scene(), Scene(), similarity()
    still.add("a", make_family(1))
    scene.add("a", make_family(1), similarity=move)
    done = export_scene(scene, tmp_path / "a.ply")
    assert done.primitives == 80
    assert done.metadata.sh_degree == 3
    camera = make_camera()
    rotation = camera.rotation.double() @ move.rotation.T
    translation = move.scale * camera.translation.double() - rotation @ move.translation
    moved = Camera(rotation.float(), translation.float(), camera.intrinsics, camera.width, camera.height)
    expected, got = picture(still, camera), picture(imported(tmp_path / "a.ply"), moved)
    assert float((expected - got).abs().max()) < 2e-4
    assert float(expected.std()) > 0.05


def test_visible_layers_become_one(tmp_path: Path) -> None:
    scene = Scene()
    scene.add("low", make_family(1, degree=1, active=1))
    scene.add("hidden", make_family(2), visible=False)
    scene.add("high", make_family(3))
    done = export_scene(scene, tmp_path / "a.ply")
    assert done.layers == ("low", "high")
    assert done.primitives == 160
    again, camera = imported(tmp_path / "a.ply"), make_camera()
    assert float((picture(scene, camera) - picture(again, camera)).abs().max()) < 1e-5


def test_degrees_not_in_use_are_silent_in_the_file(tmp_path: Path) -> None:
    scene = Scene()
    scene.add("a", make_family(1, degree=3, active=1))
    export_scene(scene, tmp_path / "a.ply")
    splats = read_ply(tmp_path / "a.ply")
    assert splats.sh_degree == 1
    assert splats.held_degree == 3
    assert (splats.sh_rest[:, 3:] == 0).all()
    assert (splats.sh_rest[:, :3] != 0).all()
    assert bool((scene.layers["a"].family.parameters["sh_rest"][:, 3:] != 0).all())  # the scene keeps its own


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    scene = Scene()
    with pytest.raises(ValueError, match="nothing to write"):
        export_scene(scene, tmp_path / "a.ply")
    scene.add("a", make_family(1))
    scene.add("b", make_family(2, filter_variance=0.1))
    with pytest.raises(ValueError, match="a, b differ in screen filter"):
        export_scene(scene, tmp_path / "a.ply")
    other = Scene()
    other.add("odd", Surfels.from_points(torch.rand(5, 3), torch.rand(5, 3), {}))
    with pytest.raises(ValueError, match="layer 'odd' is of family 'surfels', which splat files cannot hold"):
        export_scene(other, tmp_path / "a.ply")
    other.add("fit", make_family(1))
    with pytest.raises(ValueError, match=r"can hold the layers fit \(--layers fit\); a scene folder holds every layer"):
        export_scene(other, tmp_path / "a.ply")
    with pytest.raises(ValueError, match="no visible layer 'fitt' with primitives; there are odd, fit"):
        export_scene(other, tmp_path / "a.ply", ["fitt"])
    assert list(tmp_path.iterdir()) == []
    assert export_scene(other, tmp_path / "a.ply", ["fit"]).layers == ("fit",)
