"""What `check_dataset` finds by looking at pictures and lenses, whatever the poses are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import check_scenes
import numpy as np
import pytest
import small_sets
import torch
from PIL import Image

from smalti.datasets.check import CheckOptions, CheckReport, check_dataset
from smalti.datasets.dataset import Dataset, DatasetError, Points, View

NEVER = CheckOptions(features="never")


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five views of the corner with 150 points, coloured as the views show them on average."""
    dataset = check_scenes.photographed(tmp_path_factory.mktemp("corner"), check_scenes.arc(5))
    generator = np.random.default_rng(1)
    positions = generator.uniform(0.05, 1.0, (150, 3))
    positions[np.arange(150), np.arange(150) % 3] = 0.0
    cameras = [view.camera for view in dataset.views]
    seen = small_sets.sightings(cameras, positions)
    shown = []
    for view, pixels in zip(dataset.views, seen, strict=True):
        column, row = np.floor(pixels).astype(int).T
        shown.append(np.asarray(Image.open(view.image))[row, column].astype(float))
    colors = np.mean(shown, axis=0).round().astype(np.uint8)
    rows = np.tile(np.arange(150), 5), np.repeat(np.arange(5), 150)
    return replace(dataset, points=Points(positions, colors, *rows, np.concatenate(seen)))


def warned(report: CheckReport) -> dict[str, str]:
    return {notice.code: notice.text for notice in report.warnings}


def exchanged(dataset: Dataset, order: tuple[int, ...]) -> Dataset:
    """The same cameras and points, with other pictures under the names."""
    views = [replace(view, image=dataset.views[row].image) for view, row in zip(dataset.views, order, strict=True)]
    return replace(dataset, views=tuple(views))


def test_right_pictures_raise_no_alarm(corner: Dataset) -> None:
    assert warned(check_dataset(corner, NEVER)) == {}


def test_two_exchanged_pictures_are_named(corner: Dataset) -> None:
    """The file's points reproject as well as before: only the pictures can tell."""
    report = check_dataset(exchanged(corner, (0, 4, 2, 3, 1)), NEVER)
    assert report.reprojection is not None
    assert report.reprojection.median < 0.01
    text = warned(report)["other-pictures"]
    assert text.startswith("2 pictures")
    assert "view_01.png, view_04.png" in text
    assert [notice.count for notice in report.warnings] == [2]


def test_pictures_of_something_else(corner: Dataset) -> None:
    text = warned(check_dataset(exchanged(corner, (1, 2, 3, 4, 0)), NEVER))["other-pictures"]
    assert text.startswith("the pictures do not show")


def test_points_without_colors_say_nothing(corner: Dataset) -> None:
    assert corner.points is not None
    grey = replace(corner.points, colors=np.full_like(corner.points.colors, 128))
    report = check_dataset(replace(exchanged(corner, (1, 2, 3, 4, 0)), points=grey), NEVER)
    assert "other-pictures" not in warned(report)


def _with_lens(corner: Dataset, model: str, distortion: tuple[float, ...], focal: float) -> Dataset:
    views = []
    for view in corner.views:
        intrinsics = torch.tensor([focal, focal, *view.camera.intrinsics[2:].tolist()], dtype=torch.float64)
        views.append(
            replace(view, camera=replace(view.camera, model=model, distortion=distortion, intrinsics=intrinsics))
        )
    return replace(corner, views=tuple(views), points=None)


def test_a_lens_too_wide_for_a_pinhole_is_warned_of(corner: Dataset) -> None:
    """480 x 360 pixels over 240 x 180 degrees: a pinhole of the same focal length shows the middle only."""
    wide = _with_lens(corner, "OPENCV_FISHEYE", (0.0,) * 4, 480 / np.radians(240))
    text = warned(check_dataset(wide, NEVER))["narrow-crop"]
    assert text.startswith("5 pictures keep only ")
    usual = _with_lens(corner, "OPENCV", (0.1, -0.05, 0.001, -0.002), 400.0)
    assert "narrow-crop" not in warned(check_dataset(usual, NEVER))


def test_a_lens_that_squeezes_the_picture_is_warned_of(corner: Dataset) -> None:
    assert "narrow-crop" in warned(check_dataset(_with_lens(corner, "OPENCV", (20.0, 0.0, 0.0, 0.0), 400.0), NEVER))


def test_a_lens_beyond_all_numbers_is_an_error(corner: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"view_00.png: .*cannot be undistorted \(distortion 1e\+308"):
        check_dataset(_with_lens(corner, "OPENCV", (1e308, 0.0, 0.0, 0.0), 400.0), NEVER)


def test_16_bit_pictures_are_not_blank(corner: Dataset, tmp_path: Path) -> None:
    views: list[View] = []
    for view in corner.views:
        path = tmp_path / view.image.name
        grey = np.asarray(Image.open(view.image).convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(path)
        views.append(replace(view, image=path))
    assert warned(check_dataset(replace(corner, views=tuple(views)), NEVER)) == {}


def test_an_overview_that_cannot_be_written_loses_nothing(corner: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    report = check_dataset(corner, replace(NEVER, overview=tmp_path / "file" / "overview.png"))
    assert list(warned(report)) == ["no-overview"]
    assert report.overview is None
    assert report.reprojection is not None
