"""`check_dataset` on captures whose every error is known because it was made here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import check_scenes
import numpy as np
import pytest
import small_sets
import torch
from PIL import Image

from smalti.cameras.camera import Camera
from smalti.datasets.check import CheckOptions, CheckReport, check_dataset
from smalti.datasets.checking import features
from smalti.datasets.checking.outliers import outliers_of_pairs, outliers_of_views
from smalti.datasets.dataset import Dataset, DatasetError, Notice, Points, View

BAD = 3


def codes(report: CheckReport) -> list[str]:
    """Everything that was found to be odd or wrong."""
    return [notice.code for notice in report.warnings] + [problem.code for problem in report.problems]


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Seven views of the corner, no points."""
    return check_scenes.photographed(tmp_path_factory.mktemp("corner"), check_scenes.arc())


def with_points(dataset: Dataset, noise: float = 0.2, count: int = 200) -> Dataset:
    """Points on the walls, seen by all views with `noise` pixels of error."""
    generator = np.random.default_rng(3)
    positions = generator.uniform(0.05, 1.0, (count, 3))
    positions[np.arange(count), np.arange(count) % 3] = 0.0
    seen = np.concatenate(small_sets.sightings([view.camera for view in dataset.views], positions))
    views = np.repeat(np.arange(len(dataset.views)), count)
    points = Points(
        positions,
        np.full((count, 3), 90, np.uint8),
        np.tile(np.arange(count), len(dataset.views)),
        views,
        seen + generator.normal(0.0, noise, seen.shape),
    )
    return replace(dataset, points=points)


@pytest.mark.parametrize("pointed", [True, False], ids=["points", "features"])
class TestEvidence:
    """The same mistakes, found by the file's points and by matched features."""

    @pytest.fixture
    def good(self, corner: Dataset, pointed: bool) -> Dataset:
        return with_points(corner) if pointed else corner

    def test_a_good_set_raises_no_alarm(self, good: Dataset, pointed: bool) -> None:
        report = check_dataset(good)
        assert codes(report) == []
        assert report.exit_code == 0
        figures = report.reprojection if pointed else report.epipolar
        assert figures is not None
        assert len(figures.per_view) == 7
        # Rayleigh's median for the noise of the points; features are found to a fraction of a pixel (480 wide).
        assert figures.median == pytest.approx(0.2 * 1.1774, rel=0.1) if pointed else figures.median < 0.6

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_half_a_degree(self, good: Dataset, axis: int, pointed: bool) -> None:
        report = check_dataset(check_scenes.changed(good, check_scenes.turned(0.5, axis), (BAD,)))
        assert [outlier.name for outlier in report.outliers] == ["view_03.png"]
        assert codes(report) == ["outlier-camera"]
        assert "view_03.png" in report.warnings[0].text
        found = re.fullmatch(r"its rotation looks ([\d.]+) degrees off", report.outliers[0].explanation)
        assert found is not None
        assert float(found[1]) == pytest.approx(0.5, abs=0.12)
        assert report.exit_code == 0

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (check_scenes.transposed, "transposed"),
            (check_scenes.inverted, "camera-to-world"),
            (check_scenes.opengl_axes, "OpenGL"),
            (check_scenes.longer(1.1), "focal length fits when multiplied by 0.9"),
        ],
        ids=["transposed", "inverted", "opengl", "focal"],
    )
    def test_one_wrong_camera_is_named_and_explained(self, good: Dataset, change, words: str) -> None:
        report = check_dataset(check_scenes.changed(good, change, (BAD,)))
        assert [outlier.name for outlier in report.outliers] == ["view_03.png"]
        assert words in report.outliers[0].explanation
        assert "outlier-camera" in codes(report)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (check_scenes.transposed, "all cameras: the rotation fits when transposed"),
            (check_scenes.inverted, "all cameras: the pose fits as camera-to-world"),
            (check_scenes.opengl_axes, "all cameras: the pose fits with the y and z axes"),
        ],
        ids=["transposed", "inverted", "opengl"],
    )
    def test_all_cameras_wrong_is_bad_data(self, good: Dataset, change, words: str, pointed: bool) -> None:
        report = check_dataset(check_scenes.changed(good, change))
        assert report.exit_code == 2
        assert [problem.code for problem in report.problems] == ["wrong-reprojection" if pointed else "wrong-epipolar"]
        assert words in report.problems[0].problem
        assert report.problems[0].file == str(good.root)
        assert report.problems[0].remedy

    @pytest.mark.parametrize("factor", [0.9, 1.1])
    def test_one_wrong_focal_length_for_all(self, good: Dataset, factor: float, pointed: bool) -> None:
        """Two views hide much of it (the error stays below two pixels), but not where the least error is."""
        report = check_dataset(check_scenes.changed(good, check_scenes.longer(factor)))
        assert codes(report) == ["wrong-reprojection" if pointed else "doubtful-focal-length"]
        text = report.problems[0].problem if pointed else report.warnings[0].text
        found = re.search(r"focal lengths fit .*when multiplied by (\d+\.\d+)", text)
        assert found is not None
        assert float(found[1]) == pytest.approx(1.0 / factor, rel=0.02)


def test_lens_distortion_is_taken_into_account(tmp_path: Path) -> None:
    cameras = check_scenes.arc(4, "OPENCV", (-0.25, 0.08, 0.002, -0.001))
    dataset = check_scenes.photographed(tmp_path, cameras)
    assert codes(check_dataset(dataset)) == []
    ignored = check_scenes.changed(dataset, lambda camera: replace(camera, model="PINHOLE", distortion=()))
    wrong, right = check_dataset(ignored).epipolar, check_dataset(dataset).epipolar
    assert wrong is not None
    assert right is not None
    assert right.median < 0.5
    assert wrong.median > 1.5 * right.median


def test_a_fisheye_beyond_a_right_angle_is_measured(tmp_path: Path) -> None:
    cameras = check_scenes.arc(4, "OPENCV_FISHEYE", (0.02, -0.01, 0.0, 0.0))
    wide = [replace(camera, intrinsics=camera.intrinsics * torch.tensor([0.5, 0.5, 1.0, 1.0])) for camera in cameras]
    report = check_dataset(check_scenes.photographed(tmp_path, wide), CheckOptions(overview=tmp_path / "wide.png"))
    assert codes(report) == []
    assert report.epipolar is not None


def test_points_behind_cameras(corner: Dataset) -> None:
    dataset = with_points(corner)
    assert dataset.points is not None
    positions = dataset.points.positions.copy()
    positions[:10] = 20.0
    report = check_dataset(replace(dataset, points=replace(dataset.points, positions=positions)))
    assert report.behind == pytest.approx(10 / 200)
    assert codes(report) == ["points-behind-cameras"]


def test_cameras_with_identical_values(corner: Dataset) -> None:
    copied = corner.views[BAD + 1].camera
    report = check_dataset(check_scenes.changed(corner, lambda camera: replace(copied, name=camera.name), (BAD,)))
    notice = next(notice for notice in report.warnings if notice.code == "identical-cameras")
    assert "view_03.png = view_04.png" in notice.text
    assert "view_03.png" in {outlier.name for outlier in report.outliers}


def test_a_camera_back_in_its_place_is_no_copy(corner: Dataset, tmp_path: Path) -> None:
    view = corner.views[2]
    brighter = (np.asarray(Image.open(view.image)) * 0.8 + 30).astype(np.uint8)
    again = View(replace(view.camera, name="again.png"), small_sets.write_picture(tmp_path / "again.png", brighter))
    report = check_dataset(replace(corner, views=(*corner.views, again)), CheckOptions("never"))
    assert codes(report) == []


def test_identical_pictures(corner: Dataset) -> None:
    views = list(corner.views)
    views[5] = replace(views[5], image=views[1].image)
    report = check_dataset(replace(corner, views=tuple(views)))
    text = next(notice.text for notice in report.warnings if notice.code == "identical-pictures")
    assert "view_01.png = view_05.png" in text


def test_odd_brightness_blank_pictures_and_empty_masks(corner: Dataset, tmp_path: Path) -> None:
    views = list(corner.views)
    dark = (np.asarray(Image.open(views[1].image)) * 0.15).astype(np.uint8)
    views[1] = replace(views[1], image=small_sets.write_picture(tmp_path / "dark.png", dark))
    blank = np.full((360, 480, 3), 120, np.uint8)
    views[2] = replace(views[2], image=small_sets.write_picture(tmp_path / "blank.png", blank))
    mask = small_sets.write_picture(tmp_path / "mask.png", np.zeros((360, 480), np.uint8))
    views[4] = replace(views[4], mask=mask)
    report = check_dataset(replace(corner, views=tuple(views)), CheckOptions("never"))
    texts = {notice.code: notice.text for notice in report.warnings}
    assert set(texts) == {"odd-exposure", "blank-pictures", "empty-masks"}
    assert "view_01.png" in texts["odd-exposure"]
    assert "view_02.png" in texts["blank-pictures"]
    assert "view_04.png" in texts["empty-masks"]
    assert report.exposure is not None
    assert report.exposure.darkest == "view_01.png"
    assert report.masks == 1


def test_masks_keep_the_background_out(corner: Dataset, tmp_path: Path) -> None:
    """A turntable: what is outside the mask does not move with the object."""
    backdrop = check_scenes.photograph(replace(corner.views[0].camera))
    column = np.arange(480)[None, :, None]
    views = []
    for view in corner.views:
        pixels = np.where(column < 200, backdrop, np.asarray(Image.open(view.image)))
        image = small_sets.write_picture(tmp_path / view.camera.name, pixels)
        grey = np.where(column[..., 0] < 210, 0, 255).repeat(360, axis=0).astype(np.uint8)
        mask = small_sets.write_picture(tmp_path / "masks" / view.camera.name, grey)
        views.append(View(view.camera, image, mask))
    report = check_dataset(replace(corner, views=tuple(views)))
    assert codes(report) == []
    assert report.epipolar is not None
    assert report.epipolar.median < 0.6


def test_moving_scenes_are_matched_within_instants(corner: Dataset) -> None:
    """A rig of fixed cameras; the last instant shows another scene, which would match nothing of the first."""
    views = tuple(
        replace(view, camera=replace(view.camera, time=time, name=f"{view.camera.name}@{time}"), rig=view.camera.name)
        for time in (0.0, 0.5, 1.0)
        for view in corner.views[:4]
    )
    report = check_dataset(replace(corner, views=views))
    assert codes(report) == []
    assert (report.times.count, report.times.views_per_instant, report.cameras) == (3, 4.0, 4)
    assert report.epipolar is not None
    assert set(report.epipolar.per_view) == {view.rig for view in views}
    broken = check_scenes.changed(replace(corner, views=views), check_scenes.turned(0.5, 0), (3, 7, 11))
    assert [outlier.name for outlier in check_dataset(broken).outliers] == ["view_03.png"]


def test_one_moving_camera_in_a_moving_scene_has_no_figure(corner: Dataset) -> None:
    views = tuple(replace(v, camera=replace(v.camera, time=row / 6)) for row, v in enumerate(corner.views))
    report = check_dataset(replace(corner, views=views))
    assert report.epipolar is None
    assert "one view only" in report.epipolar_note
    assert codes(report) == []


def test_without_pycolmap_it_says_what_to_install(corner: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "load_pycolmap", lambda: None)
    report = check_dataset(corner)
    assert report.epipolar is None
    assert codes(report) == ["no-feature-matching"]
    assert "pip install 'smalti[sfm]'" in report.warnings[0].text
    assert report.exit_code == 0


def test_broken_pictures_are_all_named(corner: Dataset, tmp_path: Path) -> None:
    views = list(corner.views)
    whole = tmp_path / "whole.jpg"
    Image.open(views[0].image).save(whole)
    empty, cut, absent = tmp_path / "empty.jpg", tmp_path / "cut.jpg", tmp_path / "absent.jpg"
    empty.write_bytes(b"")
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    small = small_sets.write_picture(tmp_path / "small.png", np.zeros((36, 48, 3), np.uint8))
    for row, path in enumerate((empty, cut, absent, small)):
        views[row] = replace(views[row], image=path)
    report = check_dataset(replace(corner, views=tuple(views)), CheckOptions("never"))
    assert [Path(problem.file).name for problem in report.problems] == [
        "empty.jpg",
        "cut.jpg",
        "absent.jpg",
        "small.png",
    ]
    assert [problem.record for problem in report.problems] == [f"view_{row:02d}.png" for row in range(4)]
    assert all(problem.remedy for problem in report.problems)
    assert report.exit_code == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda camera: replace(camera, translation=camera.translation * float("nan")), "NaN"),
        (lambda camera: replace(camera, rotation=camera.rotation * 1.1), "no rotation"),
        (lambda camera: replace(camera, rotation=-camera.rotation), "no rotation"),
        (lambda camera: replace(camera, intrinsics=camera.intrinsics * 0.0), "intrinsics"),
    ],
    ids=["nan", "scaled", "mirrored", "focal"],
)
def test_impossible_cameras_stop_it(corner: Dataset, change, words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        check_dataset(check_scenes.changed(corner, change, (BAD,)))
    assert caught.value.record == "view_03.png"


def test_sightings_of_what_is_not_there(corner: Dataset) -> None:
    dataset = with_points(corner)
    assert dataset.points is not None
    rows = dataset.points.observation_view.copy()
    rows[0] = 99
    with pytest.raises(DatasetError, match="name a view that is not there"):
        check_dataset(replace(dataset, points=replace(dataset.points, observation_view=rows)))


def test_facts_and_json(corner: Dataset, tmp_path: Path) -> None:
    dataset = replace(
        with_points(corner), metres=True, notices=(Notice("missing-images", "2 of 9 pictures are missing", 2),)
    )
    path = tmp_path / "deep" / "overview.png"
    report = check_dataset(dataset, CheckOptions("always", overview=path))
    table = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert table["images_found"] == 7
    assert table["images_missing"] == 2
    assert table["models"] == {"PINHOLE": 7}
    assert table["sizes"] == {"480 x 360": 7}
    assert table["scale"]["unit"] == "metres"
    assert table["points"] == 200
    assert table["reprojection"]["sightings"] == 1400
    assert table["epipolar"]["pairs"] >= 6
    assert table["exit_code"] == 0
    assert [warning["code"] for warning in table["warnings"]] == ["missing-images"]
    assert table["scale"]["camera_distance"] == pytest.approx(3.3, rel=0.2)
    with Image.open(path) as picture:
        assert min(picture.size) > 600
        assert np.asarray(picture.convert("L")).std() > 5.0


def test_the_same_report_twice(corner: Dataset) -> None:
    few = replace(corner, views=corner.views[:3])
    first, second = check_dataset(few).to_json(), check_dataset(few).to_json()
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_outliers_of_pairs_blames_the_bad_camera_only() -> None:
    """A ring in which everybody has two neighbours: the neighbours of a bad camera have one bad pair of two."""
    pairs = {(row, (row + 1) % 10): 0.3 + 0.02 * row for row in range(10)}
    assert outliers_of_pairs(pairs) == []
    pairs[(4, 5)], pairs[(5, 6)] = 6.0, 5.0
    assert [row for row, _ in outliers_of_pairs(pairs)] == [5]


def test_outliers_of_views_allows_for_spread() -> None:
    errors = dict(enumerate(np.linspace(0.5, 2.0, 20)))
    assert outliers_of_views(errors) == []
    assert outliers_of_views({**errors, 20: 30.0, 21: float("inf")}) == [(21, float("inf")), (20, 30.0)]


def camera_at(x: float) -> Camera:
    eye = torch.eye(3, dtype=torch.float64)
    shift = torch.tensor([-x, 0.0, 0.0], dtype=torch.float64)
    return Camera(eye, shift, torch.tensor([500.0, 500.0, 500.0, 400.0], dtype=torch.float64), 1000, 800)


def test_epipolar_angle_in_closed_form() -> None:
    from smalti.datasets.checking.geometry import epipolar_angles, rays_of

    first, second = camera_at(0.0), camera_at(1.0)
    point = np.array([[0.5, 0.0, 2.0]])
    one = rays_of(first, np.array([[500.0 + 125.0, 400.0]]))
    other = rays_of(second, np.array([[500.0 - 125.0, 400.0 + 3.0]]))
    np.testing.assert_allclose(one[0], point[0] / np.linalg.norm(point), atol=1e-12)
    angle = epipolar_angles(one, other, (second.centre - first.centre).numpy()[None])
    # The planes through the baseline (the x axis) of both rays are arctan(3 / 500) apart.
    slope = 3.0 / 500.0
    volume = abs(np.cross(one[0], other[0])[0])
    expected = [np.arcsin(volume / np.hypot(ray[1], ray[2])) for ray in (one[0], other[0])]
    np.testing.assert_allclose(angle, np.mean(expected), rtol=1e-12)
    assert float(angle[0]) == pytest.approx(np.arctan(slope) / np.sqrt(1 + 0.25**2), rel=2e-3)
