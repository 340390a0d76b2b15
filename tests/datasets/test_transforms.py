"""transforms.json of nerfstudio and instant-ngp, Blender and D-NeRF: what they leave open, and what may be wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sets
import torch

from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.open import open_dataset, times


def change(root: Path, edit: Callable[[dict[str, Any]], object], name: str = "transforms.json") -> Path:
    table = json.loads((root / name).read_text())
    edit(table)
    (root / name).write_text(json.dumps(table))
    return root


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return small_sets.write_transforms(tmp_path, small_sets.cameras(4))


def first(root: Path) -> Any:
    return open_dataset(root).views[0].camera


def test_missing_files_extensions_and_dots(capture: Path) -> None:
    """Trap 2: pictures that are not there, names without extension, with "./" and with backslashes."""

    def edit(table: dict[str, Any]) -> None:
        table["frames"][0]["file_path"] = "./images/view_00"
        table["frames"][1]["file_path"] = "images\\view_01.png"
        table["frames"][2]["file_path"] = "images/view_02.jpg"  # nerfstudio's files may be converted afterwards
        table["frames"].append(small_sets.frame(small_sets.cameras(4)[0], "images/gone.png"))

    dataset = open_dataset(change(capture, edit))
    names = [view.camera.name for view in dataset.views]
    assert names == ["images/view_00", "images/view_01.png", "images/view_02.jpg", "images/view_03.png"]
    assert [notice.code for notice in dataset.notices] == ["missing-images"]
    assert "1 of 5" in dataset.notices[0].text
    assert "images/gone.png" in dataset.notices[0].text


def test_float_sizes_and_intrinsics_for_another_size(capture: Path) -> None:
    def edit(table: dict[str, Any]) -> None:
        table.update(w=96.0, h=108.0, fl_x=100.0, fl_y=90.0, cx=50.0, cy=55.5)

    with pytest.raises(DatasetError, match="another shape"):
        first(change(capture, edit))

    def wide(table: dict[str, Any]) -> None:
        table.update(w=96.0, h=73.0, fl_x=100.0, fl_y=90.0, cx=50.0, cy=36.5)

    camera = first(change(capture, wide))
    assert (camera.width, camera.height) == (48, 36)
    expected = [50.0, 90.0 * 36 / 73, 25.0, 18.0]
    torch.testing.assert_close(camera.intrinsics, torch.tensor(expected, dtype=torch.float64))


def test_a_shape_that_rounding_does_not_explain_is_remarked(capture: Path) -> None:
    dataset = open_dataset(change(capture, lambda table: table.update(w=96.0, h=68.0, cy=34.0)))
    assert [notice.code for notice in dataset.notices] == ["scaled-intrinsics", "stretched-pictures"]
    assert "48 x 36 for 96 x 68" in dataset.notices[1].text
    rounded = open_dataset(change(capture, lambda table: table.update(w=97.0, h=72.0, cy=36.0)))
    assert [notice.code for notice in rounded.notices] == ["scaled-intrinsics"]


def test_intrinsics_per_frame_and_by_angle(capture: Path) -> None:
    def edit(table: dict[str, Any]) -> None:
        for key in ("cx", "cy", "fl_x", "fl_y", "w", "h"):
            del table[key]
        table["camera_angle_x"] = 0.8
        table["frames"][1].update(fl_x=70.0, cx=20.0, k1=0.1)
        table["frames"][2].update(camera_angle_x=0.9, camera_angle_y=0.5)

    views = open_dataset(change(capture, edit)).views
    by_angle = 24 / math.tan(0.4)
    assert views[0].camera.intrinsics.tolist() == pytest.approx([by_angle, by_angle, 24, 18])
    assert views[1].camera.intrinsics.tolist() == pytest.approx([70, 70, 20, 18])
    assert (views[1].camera.model, views[1].camera.distortion) == ("OPENCV", (0.1, 0, 0, 0))
    assert views[2].camera.intrinsics.tolist() == pytest.approx([24 / math.tan(0.45), 18 / math.tan(0.25), 24, 18])


@pytest.mark.parametrize(("top", "expected"), [
    ({"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4}, ("OPENCV", (0.1, 0.2, 0.3, 0.4))),
    ({"k1": 0, "k2": 0, "p1": 0, "p2": 0}, ("PINHOLE", ())),
    ({"k1": 0.1, "k3": 0.3}, ("FULL_OPENCV", (0.1, 0, 0, 0, 0.3, 0, 0, 0))),
    ({"k1": 0.1, "k4": 0.3, "is_fisheye": True}, ("OPENCV_FISHEYE", (0.1, 0, 0, 0.3))),
    ({"k1": 0.1, "k3": 0.3, "camera_model": "OPENCV_FISHEYE"}, ("OPENCV_FISHEYE", (0.1, 0, 0.3, 0))),
    ({"k1": 0.0, "camera_model": "SIMPLE_PINHOLE"}, ("PINHOLE", ())),
])  # fmt: skip
def test_lenses(capture: Path, top: dict[str, Any], expected: tuple[str, tuple[float, ...]]) -> None:
    camera = first(change(capture, lambda table: table.update(top)))
    assert (camera.model, camera.distortion) == expected


def set_pose(row: int, edit: Callable[[np.ndarray], None]) -> Callable[[dict[str, Any]], None]:
    def change_table(table: dict[str, Any]) -> None:
        pose = np.array(table["frames"][row]["transform_matrix"])
        edit(pose)
        table["frames"][row]["transform_matrix"] = pose.tolist()

    return change_table


def mirror(pose: np.ndarray) -> None:
    pose[:3, 0] *= -1


def enlarge(pose: np.ndarray) -> None:
    pose[:3, :3] *= 1.1


def spoil(pose: np.ndarray) -> None:
    pose[1, 1] = np.nan


@pytest.mark.parametrize(("edit", "problem"), [
    (set_pose(2, mirror), r"frame 2 \(images/view_02.png\): the rotation is mirrored"),
    (set_pose(2, enlarge), r"frame 2 .*not orthonormal"),
    (set_pose(2, spoil), r"frame 2 .*NaN or Inf"),
    (lambda table: table["frames"][1].pop("file_path"), "frame 1: it has no `file_path`"),
    (lambda table: table["frames"][1].pop("transform_matrix"), r"frame 1 \(images/view_01.png\): it has no `transform"),
    (lambda table: table["frames"][1].update(transform_matrix=[[1, 2], [3, 4]]), "frame 1 .*expected 16 .*found 4"),
    (lambda table: table["frames"][1].update(transform_matrix="x"), "frame 1 .*expected 16 numbers, found 'x'"),
    (lambda table: table["frames"].append(table["frames"][0]), "images/view_00.png: named more than once"),
    (lambda table: table.update(camera_model="PANORAMA"), "the camera model PANORAMA is not known"),
    (lambda table: table.update(k4=0.1), "`k4` of a perspective lens"),
    (lambda table: table.update(fl_x="wide"), "fl_x: expected a number, found 'wide'"),
    (lambda table: table.update(fl_x=-3), "Focal lengths are positive"),
    (lambda table: table.update(cx=900.0), "principal point .* far outside"),
    (lambda table: table["frames"][0].update(mask_path="masks/gone.png"), "the mask masks/gone.png is missing"),
    (lambda table: table.update(ply_file_path="gone.ply"), "gone.ply is missing"),
    (lambda table: [table.pop("fl_x"), table.pop("fl_y")], "neither `fl_x` nor `camera_angle_x`"),
    (lambda table: table.update(frames=[]), "no usable view"),
])  # fmt: skip
def test_errors_name_frame_and_problem(capture: Path, edit: Callable[[dict[str, Any]], object], problem: str) -> None:
    with pytest.raises(DatasetError, match=problem) as caught:
        open_dataset(change(capture, edit))
    assert caught.value.remedy


def test_broken_json_names_the_line(capture: Path) -> None:
    file = capture / "transforms.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=1).replace('"w": 48,', '"w": 48'))
    with pytest.raises(DatasetError, match=r"line 7, column 2: this is not valid JSON"):
        open_dataset(capture)
    file.write_bytes(b'{"frames": "\xff"}')
    with pytest.raises(DatasetError, match="not valid UTF-8"):
        open_dataset(capture)


def test_splits_masks_and_points_of_nerfstudio(capture: Path) -> None:
    small_sets.write_picture(capture / "masks" / "a.png", np.zeros((36, 48), np.uint8))
    header = "ply\nformat {}\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    (capture / "text.ply").write_text(header.format("ascii 1.0") + "1 2 3 4 5 6\n7 8 9 10 11 12\n")
    layout = np.dtype([("p", "<f4", 3), ("c", "u1", 3)])
    rows = np.array([((1, 2, 3), (4, 5, 6)), ((7, 8, 9), (10, 11, 12))], layout)
    (capture / "binary.ply").write_bytes(header.format("binary_little_endian 1.0").encode() + rows.tobytes())

    def edit(table: dict[str, Any]) -> None:
        table["frames"][0]["mask_path"] = "masks/a.png"
        table["train_filenames"] = ["images/view_00.png", "images/view_01.png", "images/view_02.png"]
        table["test_filenames"] = ["images/view_03.png"]

    def points(name: str) -> Dataset:
        return open_dataset(change(capture, lambda table: table.update(ply_file_path=name)))

    change(capture, edit)
    for dataset in (points("text.ply"), points("binary.ply")):
        assert dataset.split() == ([0, 1, 2], [3])
        assert [view.mask is not None for view in dataset.views] == [True, False, False, False]
        assert dataset.points is not None
        assert dataset.points.positions.tolist() == [[1, 2, 3], [7, 8, 9]]
        assert dataset.points.colors.tolist() == [[4, 5, 6], [10, 11, 12]]
    (capture / "binary.ply").write_bytes((capture / "binary.ply").read_bytes()[:-1])
    with pytest.raises(DatasetError, match="ends before its 2 vertices"):
        points("binary.ply")


def test_mask_of_another_size(capture: Path) -> None:
    small_sets.write_picture(capture / "masks" / "view_01.png", np.zeros((18, 24), np.uint8))
    with pytest.raises(DatasetError, match="the mask is 24 x 18, its picture 48 x 36"):
        open_dataset(capture)


def test_a_file_may_be_opened_by_name(capture: Path) -> None:
    (capture / "other.json").write_text((capture / "transforms.json").read_text())
    assert open_dataset(capture / "other.json").format == "transforms"
    assert open_dataset(capture, format="instant-ngp").format == "transforms"


def test_blender_splits_and_background(tmp_path: Path) -> None:
    root = small_sets.write_blender(tmp_path, small_sets.cameras(6))
    dataset = open_dataset(root)
    assert dataset.background == (1.0, 1.0, 1.0)
    assert dataset.split() == ([0, 1, 2], [3, 4, 5])
    assert [view.camera.name for view in dataset.views][:2] == ["train/r_0", "train/r_2"]
    only = open_dataset(root / "transforms_test.json")
    assert {view.split for view in only.views} == {"test"}
    (root / "transforms_test.json").rename(root / "transforms_val.json")
    assert open_dataset(root).split() == ([0, 1, 2], [3, 4, 5])


def test_dnerf_times(tmp_path: Path) -> None:
    root = small_sets.write_blender(tmp_path, small_sets.cameras(6), [0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    dataset = open_dataset(root)
    assert dataset.format == "dnerf"
    assert times(dataset) == [0.0, 0.5, 1.0]
    change(root, lambda table: table["frames"][0].update(time=math.inf), "transforms_train.json")
    with pytest.raises(DatasetError, match="`time` is not finite"):
        open_dataset(root)
