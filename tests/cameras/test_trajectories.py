"""Paths for videos: where they look, what they keep, that they are smooth, and that files come back as written."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from smalti.cameras import trajectories as paths
from smalti.cameras.camera import Camera
from smalti.cameras.rotations import so3_exp

TARGET = torch.tensor([0.4, -0.2, 1.1], dtype=torch.float64)
UP = torch.nn.functional.normalize(torch.tensor([0.1, -0.2, 1.0], dtype=torch.float64), dim=0)


def ring(count: int, arc: float, elevation: float = 0.5, distance: float = 3.0) -> list[Camera]:
    """Cameras on an arc round the target, looking down on it."""
    east = torch.nn.functional.normalize(torch.linalg.cross(UP, torch.tensor([1.0, 0, 0], dtype=torch.float64)), dim=0)
    north = torch.linalg.cross(UP, east)
    result = []
    for index in range(count):
        angle = arc * index / count
        flat = math.cos(angle) * east + math.sin(angle) * north
        position = TARGET + distance * (math.cos(elevation) * flat + math.sin(elevation) * UP)
        camera = Camera.look_at(position, TARGET, UP, 0.9, (320, 240))
        result.append(dataclasses.replace(camera, time=index / count))
    return result


def facing(count: int = 20, tilt: float = 0.0) -> list[Camera]:
    """A forward-facing capture: positions on a small grid, one direction apart from `tilt` radians of noise."""
    generator = torch.Generator().manual_seed(3)
    result = []
    for _ in range(count):
        shift = 0.3 * torch.randn(3, dtype=torch.float64, generator=generator)
        turn = so3_exp(tilt * torch.randn(3, dtype=torch.float64, generator=generator))
        lens = torch.tensor([300.0, 300.0, 160.0, 120.0], dtype=torch.float64)
        result.append(Camera(turn, -turn @ shift, lens, 320, 240))
    return result


def sees(camera: Camera, point: torch.Tensor) -> torch.Tensor:
    inside = camera.rotation @ point + camera.translation
    assert float(inside[2]) > 0.0
    return camera.intrinsics[:2] * inside[:2] / inside[2] + camera.intrinsics[2:]


def steps(cameras: list[Camera]) -> torch.Tensor:
    centres = torch.stack([camera.centre for camera in cameras])
    return (centres[1:] - centres[:-1]).norm(dim=1)


@pytest.mark.parametrize("arc", [2.0 * math.pi, math.pi, 0.7])
def test_focus_and_up_are_found_from_any_part_of_a_ring(arc: float) -> None:
    cameras = ring(24, arc)
    torch.testing.assert_close(paths.focus_point(cameras), TARGET, rtol=0, atol=1e-6)
    assert float(paths.up_direction(cameras) @ UP) > math.cos(math.radians(1.5))


def test_focus_survives_stray_cameras() -> None:
    cameras = ring(24, 2.0 * math.pi)
    for row in (3, 11, 17):
        turn = so3_exp(torch.tensor([0.0, 0.6, 0.0], dtype=torch.float64))
        camera = cameras[row]
        cameras[row] = dataclasses.replace(
            camera, rotation=turn @ camera.rotation, translation=turn @ camera.translation
        )
    assert float((paths.focus_point(cameras) - TARGET).norm()) < 0.02


def test_full_ring_gives_a_full_circle() -> None:
    path = paths.orbit(ring(24, 2.0 * math.pi), 60)
    assert len(path) == 60
    for camera in path:
        torch.testing.assert_close(
            sees(camera, TARGET), torch.tensor([160.0, 120.0], dtype=torch.float64), atol=0.1, rtol=0
        )
        assert float((camera.centre - TARGET).norm()) == pytest.approx(3.0, rel=1e-3)
        assert float(-camera.rotation[1] @ UP) > 0.8, "the horizon is level and up is up"
    lengths = steps([*path, path[0]])
    assert float(lengths.max() / lengths.min()) == pytest.approx(1.0, abs=1e-6)
    assert float(lengths.sum()) == pytest.approx(2.0 * math.pi * 3.0 * math.cos(0.5), rel=0.01)


def test_half_ring_stays_on_the_side_that_was_seen() -> None:
    cameras = ring(24, math.pi)
    path = paths.orbit(cameras, 60)
    middle = torch.stack([camera.centre for camera in cameras]).mean(dim=0) - TARGET
    middle = torch.nn.functional.normalize(middle - (middle @ UP) * UP, dim=0)
    for camera in path:
        assert float((camera.centre - TARGET) @ middle) > -0.2
        nearest = min(float((camera.centre - other.centre).norm()) for other in cameras)
        assert nearest < 0.3
    assert float(steps([*path, path[0]]).max()) < 0.6, "it swings back without a jump"


@pytest.mark.parametrize("tilt", [0.0, 0.01])
def test_forward_facing_captures(tilt: float) -> None:
    cameras = facing(tilt=tilt)
    focus = paths.focus_point(cameras)
    assert float(focus[2]) > 0.5, "in front of the cameras, although their axes do not meet"
    for path in (paths.orbit(cameras, 30), paths.spiral(cameras, 30)):
        for camera in path:
            assert float(camera.rotation[2, 2]) > 0.85
            assert float(camera.rotation[1, 1]) > 0.9
            assert float(camera.centre.norm()) < 1.0
        assert float(steps(path).max()) < 0.35


def test_spiral_round_an_object_stays_near_a_camera() -> None:
    cameras = ring(24, 2.0 * math.pi)
    path = paths.spiral(cameras, 48)
    nearest = [min(float((camera.centre - other.centre).norm()) for other in cameras) for camera in path]
    assert max(nearest) < 0.6
    assert float(steps([*path, path[0]]).max()) < 0.2
    assert float(steps(path).min()) > 0.0


@pytest.mark.parametrize("build", [paths.orbit, paths.spiral, paths.interpolate])
def test_one_camera_is_enough(build) -> None:
    path = build(ring(1, 1.0), 5)
    assert len(path) == 5
    for camera in path:
        assert torch.isfinite(camera.rotation).all()
        assert torch.isfinite(camera.translation).all()


def test_looking_straight_down() -> None:
    # A drone's survey: every camera looks down, with any heading.
    cameras = []
    for index in range(12):
        heading = torch.tensor([math.cos(index), math.sin(index), 0.0], dtype=torch.float64)
        position = torch.tensor([index % 4, index // 4, 5.0], dtype=torch.float64)
        cameras.append(Camera.look_at(position, position - torch.tensor([0, 0, 1.0]), heading, 1.0, (320, 240)))
    for camera in paths.orbit(cameras, 20):
        assert float(camera.centre[2]) == pytest.approx(5.0, abs=0.5)
        assert float(camera.rotation[2, 2]) < -0.3
        assert torch.isfinite(camera.rotation).all()


def test_lens_and_size_come_from_a_training_camera() -> None:
    cameras = [dataclasses.replace(camera, model="RADIAL", distortion=(0.1, 0.0)) for camera in ring(9, 6.0)]
    for camera in (*paths.orbit(cameras, 3), *paths.spiral(cameras, 3), *paths.interpolate(cameras, 3)):
        assert (camera.width, camera.height, camera.model, camera.distortion) == (320, 240, "PINHOLE", ())
        torch.testing.assert_close(camera.intrinsics, cameras[0].intrinsics)


def test_interpolation_passes_through_its_cameras() -> None:
    cameras = ring(5, 4.0)
    path = paths.interpolate(cameras, 41)
    for index, camera in enumerate(cameras):
        torch.testing.assert_close(path[10 * index].rotation, camera.rotation, rtol=0, atol=1e-9)
        torch.testing.assert_close(path[10 * index].centre, camera.centre, rtol=0, atol=1e-9)
        assert path[10 * index].time == pytest.approx(camera.time)
    lengths = steps(path)
    assert float(lengths.max() / lengths.min()) < 1.6
    for camera in path:
        assert float((camera.rotation @ camera.rotation.T - torch.eye(3)).abs().max()) < 1e-12
    closed = paths.interpolate(cameras, 50, closed=True)
    torch.testing.assert_close(closed[0].centre, cameras[0].centre)
    torch.testing.assert_close(closed[40].centre, cameras[4].centre)
    assert float((closed[-1].centre - closed[0].centre).norm()) < 1.2 * float(steps(closed).max())


def test_interpolation_scales_to_the_first_size() -> None:
    cameras = ring(3, 2.0)
    cameras[1] = cameras[1].scaled_to(640, 480)
    for camera in paths.interpolate(cameras, 7):
        assert (camera.width, camera.height) == (320, 240)
        torch.testing.assert_close(camera.intrinsics, cameras[0].intrinsics)


def test_files_come_back_as_written(tmp_path: Path) -> None:
    cameras = ring(4, 5.0)
    cameras[2] = dataclasses.replace(cameras[2], model="RADIAL", distortion=(0.1, -1e-17), name="im/ä 1.png", time=0.3)
    paths.save_trajectory(tmp_path / "path.json", cameras)
    for ours, theirs in zip(paths.from_file(tmp_path / "path.json"), cameras, strict=True):
        assert torch.equal(ours.rotation, theirs.rotation)
        assert torch.equal(ours.translation, theirs.translation)
        assert torch.equal(ours.intrinsics, theirs.intrinsics)
        for field in ("width", "height", "model", "distortion", "time", "name"):
            assert getattr(ours, field) == getattr(theirs, field)
    assert [entry.name for entry in tmp_path.iterdir()] == ["path.json"]


def test_nerfstudio_paths(tmp_path: Path) -> None:
    # A camera at (1, 2, 3), OpenGL axes = world axes: it looks along -z with y up, 60 degrees high.
    pose = [1, 0, 0, 1, 0, 1, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1]
    record = {"camera_to_world": pose, "fov": 60.0, "aspect": 1.5, "render_time": 0.25}
    content = {"render_width": 300, "render_height": 200, "fps": 24, "seconds": 1, "camera_path": [record]}
    file = tmp_path / "camera_path.json"
    file.write_text(json.dumps(content))
    (camera,) = paths.from_file(file)
    assert camera.centre.tolist() == [1.0, 2.0, 3.0]
    assert camera.rotation.tolist() == [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
    assert camera.time == 0.25
    ahead_and_up = torch.tensor([1.0, 2.0 + math.tan(math.radians(30.0)), 2.0], dtype=torch.float64)
    torch.testing.assert_close(
        sees(camera, ahead_and_up), torch.tensor([150.0, 0.0], dtype=torch.float64), atol=1e-9, rtol=0
    )

    content["camera_type"] = "fisheye"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="only perspective"):
        paths.from_file(file)


def test_bad_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    paths.save_trajectory(file, ring(3, 2.0))
    good = json.loads(file.read_text())

    def broken(**change) -> None:
        content = json.loads(json.dumps(good))
        record = content["cameras"][1]
        record.update(change)
        file.write_text(json.dumps({**content, "cameras": [record if r is None else r for r in content["cameras"]]}))

    mirrored = [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]
    for change, words in [
        ({"rotation": mirrored}, "its rotation is not one"),
        ({"rotation": [[1, 0], [0, 1]]}, "expected shape"),
        ({"translation": [0.0, float("nan"), 0.0]}, "not finite"),
        ({"intrinsics": [-300, 300, 1, 1]}, "focal length"),
        ({"model": "LENS"}, "unknown camera model"),
        ({"width": "wide"}, "invalid literal"),
    ]:
        broken(**change)
        with pytest.raises(ValueError, match=rf"path\.json: camera 1: .*{words}"):
            paths.from_file(file)
    del good["cameras"][1]["width"]
    file.write_text(json.dumps(good))
    with pytest.raises(ValueError, match="camera 1: 'width' is missing"):
        paths.from_file(file)
    for text, words in [
        ("{", "not JSON"),
        ("{}", "neither"),
        ('{"format": "smalti-trajectory", "version": 9}', "version 9"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            paths.from_file(file)


def test_no_cameras_and_no_frames() -> None:
    with pytest.raises(ValueError, match="at least one camera"):
        paths.orbit([], 10)
    with pytest.raises(ValueError, match="at least one frame"):
        paths.interpolate(ring(2, 1.0), 0)
