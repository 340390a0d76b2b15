"""Every format with a writer: the exported file, read back, shows the picture of the moved layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_exchange import make_camera, make_family, picture, similarity

from smalti.cameras.camera import Camera
from smalti.files import FORMATS
from smalti.primitives.gaussians import Gaussians
from smalti.scene.exchange import export_scene
from smalti.scene.scene import Scene
from smalti.trainers.initializers import splats_from_file

MEAN_ERRORS = {".ply": 2e-6, ".compressed.ply": 2e-3, ".spz": 2e-2}
"""Of colours 0..1: what rounding in the file does to eighty large Gaussians with strong harmonics."""


@pytest.mark.parametrize("extension", MEAN_ERRORS)
def test_the_file_shows_the_moved_layer(tmp_path: Path, extension: str) -> None:
    scene, still, move = Scene(), Scene(), similarity()
    still.add("a", make_family(1))
    scene.add("a", make_family(1), similarity=move)
    done = export_scene(scene, tmp_path / f"a{extension}")
    assert done.primitives == 80
    family, order = splats_from_file(Gaussians, tmp_path / f"a{extension}")
    again = Scene()
    again.add("a", family)
    assert order == "centre"
    camera = make_camera()
    rotation = camera.rotation.double() @ move.rotation.T
    translation = move.scale * camera.translation.double() - rotation @ move.translation
    moved = Camera(rotation.float(), translation.float(), camera.intrinsics, camera.width, camera.height)
    expected, got = picture(still, camera), picture(again, moved)
    assert float(expected.std()) > 0.05
    error = float((expected - got).abs().mean())
    assert error < MEAN_ERRORS[extension], error
    assert torch.isfinite(got).all()


def test_what_a_format_does_not_hold_is_handed_on(tmp_path: Path) -> None:
    scene = Scene()
    scene.add("a", make_family(1))
    done = export_scene(scene, tmp_path / "a.splat")
    assert "the spherical harmonics of 80 splats were left out" in done.notices[-1]
    assert done.bytes == 80 * 32
    assert export_scene(scene, tmp_path / "a.ply").notices == ()
    assert set(MEAN_ERRORS) < set(FORMATS)
