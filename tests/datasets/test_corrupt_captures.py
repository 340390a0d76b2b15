"""Good captures spoiled on purpose: each fault ends with exit code 2, or with a warning, that names file and record."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_sets
from PIL import Image

from smalti.cli.main import main

COUNT = 8
HEADER = struct.calcsize("<I7dI")
CAMERA = struct.calcsize("<IiQQ4d")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A COLMAP model with eight pictures as JPEG and forty points."""
    views = small_sets.cameras(COUNT)
    root = small_sets.write_colmap_binary(tmp_path / "capture", views)
    return root


Check = Callable[..., tuple[int, dict, str]]


@pytest.fixture
def check(capture: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs `smalti check --json` and returns exit code, JSON and what was said on stderr."""

    def run(*arguments: str) -> tuple[int, dict, str]:
        code = main(["check", str(capture), "--json", "--no-overview", *arguments])
        output, errors = capsys.readouterr()
        return code, json.loads(output), errors

    return run


def record_of(capture: Path, row: int) -> tuple[Path, bytearray, int]:
    """The images file, its bytes and where the record of image `row` begins."""
    file = capture / "sparse" / "0" / "images.bin"
    data, at = bytearray(file.read_bytes()), 8
    for _ in range(row):
        at = data.index(b"\0", at + HEADER) + 1
        at += 8 + struct.unpack_from("<Q", data, at)[0] * struct.calcsize("<ddq")
    return file, data, at


def set_pose(capture: Path, row: int, rotation: np.ndarray, translation: np.ndarray) -> None:
    file, data, at = record_of(capture, row)
    struct.pack_into("<7d", data, at + 4, *small_sets.quaternion(rotation), *translation)
    file.write_bytes(data)


def pose(row: int) -> tuple[np.ndarray, np.ndarray]:
    camera = small_sets.cameras(COUNT)[row]
    return camera.rotation.numpy(), camera.translation.numpy()


def test_the_good_one(check: Check) -> None:
    code, report, errors = check()
    assert code == 0
    assert errors == ""
    assert report["warnings"] == report["problems"] == []
    assert report["reprojection"]["median"] < 1e-6


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_binary(capture: Path, check: Check, name: str, share: float) -> None:
    file = capture / "sparse" / "0" / name
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    code, report, errors = check()
    assert code == 2
    assert name in errors
    assert name in report["problems"][0]["file"]
    assert report["problems"][0]["remedy"]


def test_nan_pose(capture: Path, check: Check) -> None:
    file, data, at = record_of(capture, 3)
    struct.pack_into("<d", data, at + 4 + 5 * 8, float("nan"))
    file.write_bytes(data)
    code, _, errors = check()
    assert code == 2
    assert "view_03.png" in errors
    assert "images.bin" in errors


def test_swapped_rotation_of_one(capture: Path, check: Check) -> None:
    rotation, translation = pose(3)
    set_pose(capture, 3, rotation.T, translation)
    code, report, _ = check()
    assert code == 0
    assert [outlier["name"] for outlier in report["outliers"]] == ["view_03.png"]
    assert "transposed" in report["outliers"][0]["explanation"]


def test_swapped_rotation_of_all(capture: Path, check: Check) -> None:
    for row in range(COUNT):
        rotation, translation = pose(row)
        set_pose(capture, row, rotation.T, translation)
    code, report, errors = check()
    assert code == 2
    assert "all cameras: the rotation fits when transposed" in errors
    assert report["problems"][0]["code"] == "wrong-reprojection"


def test_camera_to_world_for_all(capture: Path, check: Check) -> None:
    for row in range(COUNT):
        rotation, translation = pose(row)
        set_pose(capture, row, rotation.T, -rotation.T @ translation)
    code, _, errors = check()
    assert code == 2
    assert "all cameras: the pose fits as camera-to-world" in errors


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_wrong_focal_length_of_one(capture: Path, check: Check, factor: float) -> None:
    file = capture / "sparse" / "0" / "cameras.bin"
    data, at = bytearray(file.read_bytes()), 8 + 3 * CAMERA + 24
    focal = struct.unpack_from("<2d", data, at)
    struct.pack_into("<2d", data, at, *(factor * value for value in focal))
    file.write_bytes(data)
    code, report, _ = check()
    assert code == 0
    assert [outlier["name"] for outlier in report["outliers"]] == ["view_03.png"]
    assert f"multiplied by {1 / factor:.3f}" in report["outliers"][0]["explanation"]


def test_wrong_focal_length_of_all(capture: Path, check: Check) -> None:
    file = capture / "sparse" / "0" / "cameras.bin"
    data = bytearray(file.read_bytes())
    for row in range(COUNT):
        focal = struct.unpack_from("<2d", data, 8 + row * CAMERA + 24)
        struct.pack_into("<2d", data, 8 + row * CAMERA + 24, *(1.25 * value for value in focal))
    file.write_bytes(data)
    code, _, errors = check()
    assert code == 2
    assert "all cameras: the focal lengths fit when multiplied by 0.800" in errors


def test_half_a_degree(capture: Path, check: Check) -> None:
    rotation, translation = pose(3)
    angle = np.radians(0.5)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    set_pose(capture, 3, turn @ rotation, turn @ translation)
    code, report, _ = check()
    assert code == 0
    assert [outlier["name"] for outlier in report["outliers"]] == ["view_03.png"]
    assert "0.50 degrees off" in report["outliers"][0]["explanation"]
    assert [warning["code"] for warning in report["warnings"]] == ["outlier-camera"]


def test_identical_cameras(capture: Path, check: Check) -> None:
    set_pose(capture, 3, *pose(4))
    code, report, _ = check()
    assert code == 0
    texts = {warning["code"]: warning["text"] for warning in report["warnings"]}
    assert "view_03.png = view_04.png" in texts["identical-cameras"]
    assert "view_03.png" in texts["outlier-camera"]


def test_missing_image(capture: Path, check: Check) -> None:
    (capture / "images" / "view_03.png").unlink()
    code, report, _ = check()
    assert code == 0
    assert (report["images_found"], report["images_missing"]) == (COUNT - 1, 1)
    assert [warning["code"] for warning in report["warnings"]] == ["missing-images"]
    assert "view_03.png" in report["warnings"][0]["text"]


@pytest.mark.parametrize("length", [0, 60, 1000])
def test_empty_or_cut_jpeg(capture: Path, check: Check, length: int) -> None:
    """Renamed in the record, so that the model asks for the JPEG."""
    picture = capture / "images" / "view_03.png"
    pixels = Image.open(picture)
    jpeg = capture / "images" / "view_03.jpg"
    pixels.convert("RGB").save(jpeg)
    picture.unlink()
    file, data, _ = record_of(capture, 3)
    file.write_bytes(bytes(data).replace(b"view_03.png", b"view_03.jpg"))
    assert check()[0] == 0
    jpeg.write_bytes(jpeg.read_bytes()[:length])
    code, report, errors = check()
    assert code == 2
    assert "view_03.jpg" in errors
    assert "view_03.jpg" in report["problems"][0]["file"]


@pytest.mark.skipif(sys.platform == "darwin", reason="this file system refuses such names itself")
def test_name_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_sets.write_llff(tmp_path / "llff", small_sets.cameras(4))
    folder = next(path for path in root.iterdir() if path.is_dir())
    picture = sorted(folder.iterdir())[1]
    os.rename(picture, os.fsencode(folder) + b"/caf\xe9.png")
    assert main(["check", str(root), "--no-overview"]) == 2
    errors = capsys.readouterr().err
    assert "not valid UTF-8" in errors
    assert "caf" in errors


def test_picture_of_another_shape(capture: Path, check: Check) -> None:
    small_sets.write_picture(capture / "images" / "view_03.png", np.zeros((48, 36, 3), np.uint8))
    code, _, errors = check()
    assert code == 2
    assert "view_03.png" in errors


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
