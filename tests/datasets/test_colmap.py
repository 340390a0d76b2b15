"""COLMAP: strict binary and text readers, every lens, rigs, sub-folders and pictures of another size."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_sets
import torch

from smalti.cameras.models import MODELS, project
from smalti.datasets import colmap, colmap_binary, colmap_text
from smalti.datasets.dataset import DatasetError
from smalti.datasets.open import open_dataset


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return small_sets.write_colmap_binary(tmp_path / "capture", small_sets.cameras(3))


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("cameras.bin", colmap_binary.read_cameras),
        ("images.bin", colmap_binary.read_images),
        ("points3D.bin", colmap_binary.read_points),
    ],
)
def test_every_truncation_and_surplus_is_an_error_of_that_file(capture: Path, name: str, reader) -> None:
    file = capture / "sparse" / "0" / name
    data = file.read_bytes()
    assert reader(file)
    for length in sorted({*range(0, min(len(data), 200)), *range(200, len(data), 37), len(data) - 1}):
        file.write_bytes(data[:length])
        with pytest.raises(DatasetError, match=r"truncated|ends inside a name") as caught:
            reader(file)
        assert caught.value.file == str(file)
        assert "record" in caught.value.record or "header" in caught.value.record or "camera" in caught.value.record
    file.write_bytes(data + b"\0")
    with pytest.raises(DatasetError, match="1 bytes follow the last record"):
        reader(file)


def test_huge_counts_do_not_allocate(capture: Path) -> None:
    file = capture / "sparse" / "0" / "images.bin"
    data = bytearray(file.read_bytes())
    offset = 8 + 4 + 56 + 4 + len("view_00.png") + 1
    data[offset : offset + 8] = struct.pack("<Q", 1 << 60)
    file.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"image record 0 of 3 \(view_00.png\): the file is truncated"):
        open_dataset(capture)


def spoil(capture: Path, name: str, offset: int, value: bytes) -> None:
    file = capture / "sparse" / "0" / name
    data = bytearray(file.read_bytes())
    data[offset : offset + len(value)] = value
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(("name", "offset", "value", "problem"), [
    ("images.bin", 12, struct.pack("<d", float("nan")), r"image 1 \(view_00.png\): the quaternion"),
    ("images.bin", 12, struct.pack("<4d", 0, 0, 0, 0), "not of unit length"),
    ("images.bin", 12 + 32, struct.pack("<d", float("inf")), "three finite numbers"),
    ("images.bin", 12 + 56, struct.pack("<I", 77), "refers to camera 77"),
    ("images.bin", 12 + 60, b"\xff", r"\\xffiew_00.png is not valid UTF-8"),
    ("cameras.bin", 12, struct.pack("<i", 99), "camera 1: unknown camera model 99"),
    ("cameras.bin", 32, struct.pack("<d", float("nan")), "camera 1: a parameter is NaN"),
    ("cameras.bin", 32, struct.pack("<d", -5.0), "Focal lengths are positive"),
    ("cameras.bin", 16, struct.pack("<Q", 0), "camera 1: the size 0 x 36"),
    ("points3D.bin", 16, struct.pack("<d", float("nan")), "point 1: the position is NaN"),
])  # fmt: skip
def test_bad_values_are_named(capture: Path, name: str, offset: int, value: bytes, problem: str) -> None:
    spoil(capture, name, offset, value)
    with pytest.raises(DatasetError, match=problem):
        open_dataset(capture)


def test_text_and_binary_say_the_same(tmp_path: Path) -> None:
    views = small_sets.cameras(3, off_centre=True)
    text = open_dataset(small_sets.write_colmap_text(tmp_path / "text", views))
    binary = open_dataset(small_sets.write_colmap_binary(tmp_path / "binary", views))
    for a, b in zip(text.views, binary.views, strict=True):
        torch.testing.assert_close(a.camera.rotation, b.camera.rotation, atol=0, rtol=0)
        torch.testing.assert_close(a.camera.intrinsics, b.camera.intrinsics, atol=0, rtol=0)
    assert text.points is not None
    assert binary.points is not None
    np.testing.assert_array_equal(text.points.positions, binary.points.positions)
    kept = binary.points.observation_view != 1  # the text's second picture has no keypoints
    np.testing.assert_array_equal(text.points.observation_xy, binary.points.observation_xy[kept])


def test_points_without_any_sighting_are_points(tmp_path: Path) -> None:
    root = small_sets.write_colmap_text(tmp_path, small_sets.cameras(3))
    path = root / "sparse" / "0" / "points3D.txt"
    lines = [" ".join(line.split()[:8]) for line in path.read_text().splitlines()[1:]]
    path.write_text("\n".join(lines) + "\n")
    points = open_dataset(root).points
    assert points is not None
    np.testing.assert_allclose(points.positions, small_sets.points())
    assert len(points.observation_view) == len(points.observation_xy) == 0


@pytest.mark.parametrize(("name", "line", "text", "problem"), [
    ("cameras.txt", 1, "1 PINHOLE 48 36 50 50 24", "line 2: PINHOLE has 4 parameters, the line 3"),
    ("cameras.txt", 1, "1 PINHOLE 48", "line 2: this is no camera"),
    ("cameras.txt", 2, "1 PINHOLE 48 36 50 50 24 18", "camera 1: this number occurs twice"),
    ("images.txt", 2, "1.0 2.0", "line 3: keypoints of view_00.png: 2 words"),
    ("images.txt", 1, "1 1 0 0 0 0 0", "line 2: this is no picture's line"),
    ("points3D.txt", 1, "1 0 0 0 10 20 300 0.5 1 0", "line 2: the track"),
    ("points3D.txt", 1, "1 0 0 0 10 20 30 0.5 9 0", "point 1: its track names picture 9"),
    ("points3D.txt", 1, "1 0 0 0 10 20 30 0.5 1 4000", "names keypoint 4000 of its 40"),
])  # fmt: skip
def test_text_errors_name_the_line(tmp_path: Path, name: str, line: int, text: str, problem: str) -> None:
    root = small_sets.write_colmap_text(tmp_path, small_sets.cameras(3))
    file = root / "sparse" / "0" / name
    lines = file.read_text().splitlines()
    lines[line] = text
    file.write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=problem) as caught:
        open_dataset(root)
    assert "0" in caught.value.file


def test_subfolders_two_cameras_and_pictures_of_another_size(tmp_path: Path) -> None:
    """Trap 7: names with folders, one camera per folder, each picture of its own size on disk."""
    views = small_sets.cameras(4)
    views = [
        replace(view, name=f"{'left' if row < 2 else 'right'}/frame.{row % 2}.png") for row, view in enumerate(views)
    ]
    root = small_sets.write_colmap_binary(tmp_path, views)
    small_sets.write_picture(root / "images" / "left" / "frame.0.png", small_sets.picture(0, 96, 72))
    small_sets.write_picture(root / "images" / "right" / "frame.1.png", small_sets.picture(3, 24, 18))
    small_sets.write_picture(root / "masks" / "left" / "frame.0.png.png", np.zeros((72, 96), np.uint8))
    dataset = open_dataset(root)
    sizes = {view.camera.name: (view.camera.width, view.camera.height) for view in dataset.views}
    assert list(sizes) == [view.name for view in views]
    assert list(sizes.values()) == [(96, 72), (48, 36), (48, 36), (24, 18)]
    assert [view.mask is not None for view in dataset.views] == [True, False, False, False]
    assert [notice.code for notice in dataset.notices] == ["scaled-intrinsics"]
    assert dataset.points is not None
    for row, view in enumerate(dataset.views):
        seen = dataset.points.observation_view == row
        pixels, _ = project(view.camera, dataset.points.positions[dataset.points.observation_point[seen]])
        np.testing.assert_allclose(pixels, dataset.points.observation_xy[seen], atol=1e-6)


def test_missing_empty_and_turned_pictures(capture: Path) -> None:
    picture = capture / "images" / "view_01.png"
    data = picture.read_bytes()
    picture.unlink()
    dataset = open_dataset(capture)
    assert [notice.code for notice in dataset.notices] == ["missing-images"]
    assert "view_01.png" in dataset.notices[0].text
    assert dataset.points is not None
    assert set(dataset.points.observation_view) == {0, 1}
    picture.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"view_01.png: picture: the file is empty"):
        open_dataset(capture)
    picture.write_bytes(b"not a picture at all")
    with pytest.raises(DatasetError, match="no picture that can be decoded"):
        open_dataset(capture)
    small_sets.write_picture(picture, small_sets.picture(1, 36, 48))
    with pytest.raises(DatasetError, match="48 x 36, the picture has 36 x 48: another shape"):
        open_dataset(capture)
    picture.write_bytes(data)
    for path in (capture / "images").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="none of its 3 pictures exists"):
        open_dataset(capture)


def test_file_name_that_is_not_utf8(capture: Path) -> None:
    (capture / "images" / "view_01.png").rename(
        capture / "images" / b"view_\xe901.png".decode("utf-8", "surrogateescape")
    )
    with pytest.raises(DatasetError, match="not valid UTF-8"):
        open_dataset(capture)


def test_where_the_model_may_lie(capture: Path) -> None:
    for path in (capture, capture / "sparse", capture / "sparse" / "0", capture / "sparse" / "0" / "images.bin"):
        dataset = open_dataset(path)
        assert len(dataset.views) == 3
        assert dataset.root == capture.resolve() or dataset.root == capture
    (capture / "sparse" / "1").mkdir()
    for name in ("cameras.bin", "images.bin"):
        (capture / "sparse" / "1" / name).write_bytes((capture / "sparse" / "0" / name).read_bytes())
    assert [notice.code for notice in open_dataset(capture).notices] == ["several-models"]
    assert open_dataset(capture / "sparse" / "1").points is None


def test_all_lenses_and_rigs_as_colmap_itself_writes_them(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    poses = small_sets.cameras(len(MODELS))
    names = sorted(MODELS)
    rig = pycolmap.Rig(rig_id=1)
    judges = {}
    for row, (name, pose) in enumerate(zip(names, poses, strict=True), 1):
        camera = pycolmap.Camera.create_from_model_name(row, name, 60.0, 100, 80)
        if name != "EQUIRECTANGULAR":
            used = camera.params_info.replace(" ", "").split(",")
            camera.params = [
                value if key in ("f", "fx", "fy", "cx", "cy") else 0.01 + 0.001 * index
                for index, (key, value) in enumerate(zip(used, camera.params, strict=True))
            ]
        judges[f"{row:02d}.png"] = camera
        model.add_camera(camera)
        sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, row)
        if row == 1:
            rig.add_ref_sensor(sensor)
            first = pose
        else:
            relative = pose.rotation.numpy() @ first.rotation.numpy().T
            shift = pose.translation.numpy() - relative @ first.translation.numpy()
            rig.add_sensor(sensor, pycolmap.Rigid3d(pycolmap.Rotation3d(relative), shift))
    model.add_rig(rig)
    frame = pycolmap.Frame(frame_id=1, rig_id=1)
    frame.rig_from_world = pycolmap.Rigid3d(
        pycolmap.Rotation3d(poses[0].rotation.numpy()), poses[0].translation.numpy()
    )
    for row in range(1, len(names) + 1):
        frame.add_data_id(pycolmap.data_t(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, row), row))
    model.add_frame(frame)
    for row in range(1, len(names) + 1):
        image = pycolmap.Image(name=f"{row:02d}.png", camera_id=row, image_id=row)
        image.frame_id = 1
        model.add_image(image)
        small_sets.write_picture(tmp_path / "images" / f"{row:02d}.png", small_sets.picture(row, 100, 80))
    model.register_frame(1)
    binary, text = tmp_path / "sparse" / "0", tmp_path / "text"
    for folder in (binary, text):
        folder.mkdir(parents=True)
    model.write_binary(str(binary))
    model.write_text(str(text))
    assert (binary / "rigs.bin").is_file()
    assert (binary / "frames.bin").is_file()
    first_model, second_model = colmap.read_model(binary), colmap.read_model(text)
    assert first_model.cameras == second_model.cameras
    assert first_model.rigs.keys() == second_model.rigs.keys() == {1}
    assert len(first_model.rigs[1].sensors) == len(names)
    assert first_model.frames[1].data == second_model.frames[1].data
    np.testing.assert_allclose(first_model.frames[1].pose, second_model.frames[1].pose, atol=1e-12)
    dataset = open_dataset(tmp_path)
    local = np.random.default_rng(0).uniform((-0.3, -0.3, 1.0), (0.3, 0.3, 2.0), (20, 3))
    for view, pose in zip(dataset.views, poses, strict=True):
        judge = judges[view.camera.name]
        torch.testing.assert_close(view.camera.rotation, pose.rotation, atol=1e-9, rtol=0)
        world = (local - view.camera.translation.numpy()) @ view.camera.rotation.numpy()
        pixels, valid = project(view.camera, world)
        assert valid.all(), judge.model_name
        expected = np.array([judge.img_from_cam(point[None])[0] for point in local])
        np.testing.assert_allclose(pixels, expected, atol=1e-6, err_msg=judge.model_name)
        assert view.rig.startswith("rig 1 camera ")
    data = (binary / "frames.bin").read_bytes()
    (binary / "frames.bin").write_bytes(data[:-3])
    with pytest.raises(DatasetError, match=r"frames.bin: frame record 0: the file is truncated"):
        open_dataset(tmp_path)
    (binary / "frames.bin").write_bytes(data)
    lines = (text / "rigs.txt").read_text()
    (text / "rigs.txt").write_text(lines.rstrip() + " 5\n")
    with pytest.raises(DatasetError, match="does not end"):
        colmap_text.read_rigs(text / "rigs.txt")
