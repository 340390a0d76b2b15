"""Every format gives back the cameras that were written, and says what is wrong with broken files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_sets
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.models import project
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.formats import format_names, load_format
from smalti.datasets.idr import decompose_projection
from smalti.datasets.krt import read_cameras, read_records
from smalti.datasets.open import at_time, open_dataset, times


def assert_same_camera(got: Camera, expected: Camera) -> None:
    assert (got.width, got.height) == (expected.width, expected.height)
    torch.testing.assert_close(got.rotation, expected.rotation, atol=1e-9, rtol=0)
    torch.testing.assert_close(got.translation, expected.translation, atol=1e-8, rtol=0)
    torch.testing.assert_close(got.intrinsics, expected.intrinsics, atol=1e-7, rtol=0)


def codes(dataset: Dataset) -> list[str]:
    return [notice.code for notice in dataset.notices]


CENTRED = {"blender", "dnerf", "llff", "bundler"}
WRITERS: dict[str, Callable[..., Path]] = {
    "colmap": small_sets.write_colmap_binary,
    "transforms": small_sets.write_transforms,
    "blender": small_sets.write_blender,
    "dnerf": lambda root, views: small_sets.write_blender(root, views, [row / 5 for row in range(6)]),
    "llff": small_sets.write_llff,
    "idr": small_sets.write_idr,
    "middlebury": small_sets.write_middlebury,
    "bundler": small_sets.write_bundler,
    "rig": small_sets.write_rig,
    "krt": small_sets.write_krt,
}


def test_every_built_in_format_has_a_writer_here() -> None:
    assert set(format_names()) >= set(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_cameras_come_back_in_our_convention(name: str, tmp_path: Path) -> None:
    views = small_sets.cameras(off_centre=name not in CENTRED)
    if name in CENTRED:  # these formats have one focal length and the principal point in the middle
        views = [replace(view, intrinsics=view.intrinsics) for view in views]
    root = WRITERS[name](tmp_path, views)
    assert [other for other in format_names() if load_format(other).detect(root)] == [name]
    dataset = open_dataset(root)
    assert dataset.format == name
    keys = {"rig": lambda view: int(view.rig[4:]), "krt": lambda view: int(view.rig[2:])}
    key = keys.get(name, lambda view: int("".join(filter(str.isdigit, view.camera.name.rsplit("_", 1)[-1]))))
    assert {key(view) for view in dataset.views} == set(range(6))
    for view in dataset.views:
        assert_same_camera(view.camera, views[key(view)])
        assert view.image.is_file()
    assert dataset.background == ((1.0, 1.0, 1.0) if name in ("blender", "dnerf") else None)
    if name in ("colmap", "bundler"):
        cloud = dataset.points
        assert cloud is not None
        np.testing.assert_allclose(cloud.positions, small_sets.points(), atol=1e-12)
        for row, view in enumerate(dataset.views):
            seen = cloud.observation_view == row
            pixels, valid = project(view.camera, cloud.positions[cloud.observation_point[seen]])
            assert valid.all()
            assert seen.sum() == 40
            np.testing.assert_allclose(pixels, cloud.observation_xy[seen], atol=1e-6)


def test_llff_sizes_are_those_of_the_full_pictures(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_llff(tmp_path, small_sets.cameras(), factor=4))
    assert codes(dataset) == ["scaled-intrinsics"]
    (tmp_path / "images_4" / "view_00.png").unlink()
    with pytest.raises(DatasetError, match="6 poses, 5 pictures"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("spoil", ["short", "nan", "mirrored", "cut"])
def test_llff_errors(tmp_path: Path, spoil: str) -> None:
    root = small_sets.write_llff(tmp_path, small_sets.cameras())
    file = root / "poses_bounds.npy"
    rows = np.load(file)
    if spoil == "short":
        rows = rows[:, :15]
    elif spoil == "nan":
        rows[2, 1] = np.nan
    elif spoil == "mirrored":
        rows[2, :15].reshape(3, 5)[:, 0] *= -1
    np.save(file, rows)
    if spoil == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DatasetError) as caught:
        open_dataset(root)
    assert caught.value.file == str(file)
    assert {"short": "17", "nan": "NaN", "mirrored": "mirrored", "cut": "numpy"}[spoil] in caught.value.problem
    assert spoil in ("short", "cut") or "row 2" in caught.value.record


def test_projection_is_split_whatever_its_scale_and_sign() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        q, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        rotation = q * np.linalg.det(q)
        matrix = np.array([[generator.uniform(50, 900), 0, 31.0], [0, generator.uniform(50, 900), 17.0], [0, 0, 1]])
        translation = generator.normal(size=3)
        projection = generator.choice([-3.0, 0.2, 40.0]) * matrix @ np.column_stack([rotation, translation])
        (r, t), (fx, fy, cx, cy) = decompose_projection(projection, Path("cameras.npz"), "world_mat_0")
        np.testing.assert_allclose(r, rotation, atol=1e-9)
        np.testing.assert_allclose(t, translation, atol=1e-8)
        np.testing.assert_allclose((fx, fy, cx, cy), (matrix[0, 0], matrix[1, 1], 31.0, 17.0), rtol=1e-9)


def test_idr_cameras_for_other_pictures_are_refused(tmp_path: Path) -> None:
    views = [view.scaled_to(4 * 48, 4 * 36) for view in small_sets.cameras()]
    small_sets.write_idr(tmp_path, views)
    for path in (tmp_path / "image").iterdir():
        small_sets.write_picture(path, small_sets.picture(0))
    with pytest.raises(DatasetError, match=r"outside the 48 x 36 picture.*cropped"):
        open_dataset(tmp_path)


def test_idr_leaves_missing_pictures_out_by_number(tmp_path: Path) -> None:
    views = [replace(view, name=f"{row:03d}.png") for row, view in enumerate(small_sets.cameras())]
    small_sets.write_idr(tmp_path, views)
    (tmp_path / "image" / "002.png").unlink()
    dataset = open_dataset(tmp_path)
    assert "missing-images" in codes(dataset)
    assert "scale-mat" in codes(dataset)
    for view in dataset.views:
        assert_same_camera(view.camera, views[int(view.camera.name[:3])])


def test_bundler_leaves_unsolved_cameras_out(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_bundler(tmp_path, small_sets.cameras(), unsolved=(1, 4)))
    assert len(dataset.views) == 4
    assert codes(dataset) == ["unsolved-cameras"]
    assert "2 of 6" in dataset.notices[0].text
    assert dataset.points is not None
    assert set(dataset.points.observation_view) == {0, 1, 2, 3}
    assert dataset.views[0].camera.model == "RADIAL"


def test_bundler_truncation_is_named(tmp_path: Path) -> None:
    root = small_sets.write_bundler(tmp_path, small_sets.cameras())
    lines = (root / "bundle.out").read_text().splitlines()
    for keep, record in ((9, "camera 1"), (40, "point 2"), (len(lines) - 1, "point 39")):
        (root / "bundle.out").write_text("\n".join(lines[:keep]))
        with pytest.raises(DatasetError, match=f"{record}.*truncated"):
            open_dataset(root)


def test_middlebury_errors_name_the_line(tmp_path: Path) -> None:
    root = small_sets.write_middlebury(tmp_path, small_sets.cameras())
    text = (root / "set_par.txt").read_text()
    (root / "set_par.txt").write_text(text.rsplit(" ", 1)[0])
    with pytest.raises(DatasetError, match=r"line 7 \(view_05.png\): expected 21 numbers, found 20"):
        open_dataset(root)
    (root / "set_par.txt").write_text(text.replace("6\n", "7\n", 1))
    with pytest.raises(DatasetError, match="7 pictures are announced, 6"):
        open_dataset(root)


def test_rig_frames_times_and_scaled_intrinsics(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_rig(tmp_path, small_sets.cameras(3), frames=5, factor=4))
    assert len(dataset.views) == 15
    assert dataset.metres
    assert times(dataset) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert codes(dataset) == ["scaled-intrinsics"]
    assert dataset.views[0].camera.model == "FULL_OPENCV"
    assert dataset.views[0].camera.distortion == (0.1, -0.05, 0.001, 0.002, 0.01, 0, 0, 0)
    still = at_time(dataset, 0.6)
    assert [view.camera.name for view in still.views] == ["cam_0/0002.png", "cam_1/0002.png", "cam_2/0002.png"]
    assert "at time 0.5 (asked for 0.6" in still.notices[-1].text


def test_rig_as_toml_with_rotation_vectors(tmp_path: Path) -> None:
    views = small_sets.cameras(2)
    small_sets.write_rig(tmp_path, views)
    (tmp_path / "calibration.json").unlink()
    lines = []
    for entry, view in zip(small_sets.rig_table(views, 2), views, strict=True):
        rotation = view.rotation.numpy()
        angle = np.arccos((np.trace(rotation) - 1) / 2)
        skew = (rotation - rotation.T) / (2 * np.sin(angle))
        vector = angle * np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
        lines += [
            f"[{entry['name']}]",
            f"matrix = {entry['K']}",
            f"size = {entry['size']}",
            f"translation = {entry['t']}",
        ]
        lines += [f"rotation = {vector.tolist()}", f"distortions = {entry['distortion']}"]
    (tmp_path / "rig.toml").write_text("\n".join(lines))
    dataset = open_dataset(tmp_path)
    assert dataset.format == "rig"
    for view in dataset.views:
        assert_same_camera(view.camera, views[int(view.rig[4:])])


def test_rig_without_pictures_of_one_camera(tmp_path: Path) -> None:
    small_sets.write_rig(tmp_path, small_sets.cameras(3))
    for path in (tmp_path / "frames" / "cam_1").iterdir():
        path.unlink()
    dataset = open_dataset(tmp_path)
    assert {view.rig for view in dataset.views} == {"cam_0", "cam_2"}
    assert "cam_1" in next(notice.text for notice in dataset.notices if notice.code == "missing-images")


@pytest.mark.parametrize(("key", "value", "problem"), [
    ("K", [[1, 2], [3, 4]], "expected 9 numbers"),
    ("R", None, "no rotation|expected 9 numbers"),
    ("distortion", [0.1, 0, 0, 0, 0, 0, 0, 0, 0.3], "thin-prism"),
    ("t", [0, 0, float("nan")], "three finite numbers"),
])  # fmt: skip
def test_rig_errors(tmp_path: Path, key: str, value: object, problem: str) -> None:
    small_sets.write_rig(tmp_path, small_sets.cameras(2))
    table = json.loads((tmp_path / "calibration.json").read_text())
    table["cameras"][1][key] = value
    (tmp_path / "calibration.json").write_text(json.dumps(table))
    with pytest.raises(DatasetError, match=problem) as caught:
        open_dataset(tmp_path)
    assert "cam_1" in caught.value.record


def test_krt_without_pictures_needs_a_size(tmp_path: Path) -> None:
    views = small_sets.cameras(off_centre=True)
    small_sets.write_krt(tmp_path, views)
    for got, expected in zip(read_cameras(tmp_path / "KRT", 48, 36), views, strict=True):
        assert_same_camera(got, expected)
    records = []
    for row, view in enumerate(views):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = view.rotation.numpy(), view.translation.numpy()
        matrix = small_sets.matrix(view, 0.5)
        records.append(
            {"cameraId": str(row), "K": matrix.T.tolist(), "T": pose.T.tolist(), "distortion": [0.1, 0, 0, 0]}
        )
    (tmp_path / "camera_calibration.json").write_text(json.dumps({"KRT": records}))
    newer = read_cameras(tmp_path / "camera_calibration.json", 48, 36)
    for got, expected in zip(newer, views, strict=True):
        assert_same_camera(got, expected)
        assert (got.model, got.distortion) == ("OPENCV", (0.1, 0.0, 0.0, 0.0))
    text = (tmp_path / "KRT").read_text().splitlines()
    (tmp_path / "KRT").write_text("\n".join(text[:-1]))
    with pytest.raises(DatasetError, match=r"camera 405\): expected a name"):
        read_records(tmp_path / "KRT")
