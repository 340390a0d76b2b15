"""Initial points: each strategy by name, the automatic choice, the scene's extent."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_sets
import torch

from smalti.cameras.camera import Camera
from smalti.datasets import initial, triangulate
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.extent import focus_point, scene_extent, scene_scale
from smalti.datasets.frustum import seen_by
from smalti.datasets.initial import initial_points
from smalti.datasets.open import open_dataset, select_views
from smalti.datasets.triangulate import near_pairs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball_pictures(root: Path, views: list[Camera], radius: float = 0.6) -> Path:
    """RGBA pictures of a ball around the origin, coloured by its normal, as a transforms capture."""
    larger = [view.scaled_to(96, 72) for view in views]
    frames = []
    for camera in larger:
        fx, fy, cx, cy = camera.intrinsics.tolist()
        y, x = np.mgrid[:72, :96] + 0.5
        rays = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        rays = rays @ camera.rotation.numpy()
        eye = camera.centre.numpy()
        along = rays @ eye
        root_of = along**2 - eye @ eye + radius**2
        hit = root_of > 0
        point = eye + (-along - np.sqrt(np.maximum(root_of, 0)))[..., None] * rays
        color = np.where(hit[..., None], 127.5 + 127.5 * point / radius, 0)
        rgba = np.concatenate([color, 255.0 * hit[..., None]], 2).round().astype(np.uint8)
        small_sets.write_picture(root / "images" / camera.name, rgba)
        frames.append(small_sets.frame(camera, f"images/{camera.name}"))
    fx, fy, cx, cy = larger[0].intrinsics.tolist()
    pictures = root / "keep"
    (root / "images").rename(pictures)
    small_sets.write_transforms(root, views, fl_x=fx, fl_y=fy, cx=cx, cy=cy, w=96, h=72, frames=frames)
    for path in pictures.iterdir():
        path.replace(root / "images" / path.name)
    return root


@pytest.fixture
def ball(tmp_path: Path) -> Dataset:
    views = small_sets.cameras(12)
    views += [replace(view, name=f"low_{row}.png") for row, view in enumerate(lowered(views[::3]))]
    return open_dataset(ball_pictures(tmp_path, views))


def lowered(views: list[Camera]) -> list[Camera]:
    found = []
    for view in views:
        place = view.centre * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
        up, origin = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        found.append(Camera.look_at(place, origin, up, 0.9, (view.width, view.height)))
    return found


def test_hull_of_a_ball(ball: Dataset) -> None:
    points = initial_points(ball, 3000, generator())
    assert points.positions.shape == (3000, 3)
    lengths = np.linalg.norm(points.positions, axis=1)
    assert abs(np.median(lengths) - 0.6) < 0.05
    assert np.percentile(lengths, 1) > 0.5  # on the surface, not inside
    assert lengths.max() < 0.85  # a hull is larger than the body between silhouettes
    expected = 127.5 + 127.5 * points.positions / lengths[:, None]
    assert np.abs(points.colors - expected).mean() < 15  # each point has the colour of its own side
    again = initial_points(ball, 3000, generator(), strategy="hull")
    np.testing.assert_array_equal(points.positions, again.positions)
    np.testing.assert_array_equal(points.colors, again.colors)


def test_hull_says_when_silhouettes_contradict(ball: Dataset) -> None:
    views = list(ball.views)
    for row, view in enumerate(views):
        shift = torch.tensor([2.0 * (row % 3) - 2.0, 0, 0], dtype=torch.float64)
        views[row] = replace(view, camera=replace(view.camera, translation=view.camera.translation + shift))
    with pytest.raises(DatasetError, match="no common part"):
        initial_points(replace(ball, views=tuple(views)), 100, generator(), strategy="hull")


def test_file_points_and_their_choice(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_colmap_binary(tmp_path, small_sets.cameras(4)))
    everything = initial_points(dataset, 1000, generator(), strategy="file")
    np.testing.assert_array_equal(everything.positions, small_sets.points())
    assert (everything.colors == (10, 20, 30)).all()
    some = initial_points(dataset, 10, generator(3), strategy="file")
    assert len(some.positions) == 10
    assert {tuple(row) for row in some.positions} < {tuple(row) for row in small_sets.points()}
    np.testing.assert_array_equal(some.positions, initial_points(dataset, 10, generator(3), strategy="file").positions)
    with pytest.raises(DatasetError, match="no points of its own"):
        initial_points(replace(dataset, points=None), 10, generator(), strategy="file")


def test_frustum_points_are_where_the_cameras_look(tmp_path: Path) -> None:
    dataset = open_dataset(small_sets.write_llff(tmp_path, small_sets.cameras(8)))
    points = initial_points(dataset, 500, generator(), strategy="frustum")
    cameras = [view.camera for view in dataset.views]
    assert points.positions.shape == (500, 3)
    assert (seen_by(cameras, points.positions) >= 4).all()
    assert points.colors.std() > 50
    ahead = []
    for row, camera in enumerate(cameras):
        shift = torch.tensor([0.1 * row, 0, 0], dtype=torch.float64)
        first = cameras[0]
        ahead.append(replace(camera, rotation=first.rotation, translation=first.translation + shift))
    parallel = replace(
        dataset, views=tuple(replace(view, camera=camera) for view, camera in zip(dataset.views, ahead, strict=True))
    )
    assert focus_point(ahead) is None
    points = initial_points(parallel, 500, generator(), strategy="frustum")
    assert (seen_by(ahead, points.positions) >= 3).mean() > 0.9


def test_strategy_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(small_sets.write_llff(tmp_path, small_sets.cameras(4)))
    with pytest.raises(DatasetError, match="'magic' is not known"):
        initial_points(dataset, 10, generator(), strategy="magic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DatasetError, match="mask or alpha"):
        initial_points(dataset, 10, generator(), strategy="hull")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(DatasetError, match=r"pip install 'smalti\[sfm\]'"):
        initial_points(dataset, 10, generator(), strategy="triangulate")


def test_auto_falls_back_to_the_frustum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(small_sets.write_llff(tmp_path, small_sets.cameras(4)))
    monkeypatch.setattr(initial, "pycolmap_installed", lambda: False)
    assert len(initial_points(dataset, 77, generator()).positions) == 77

    def fails(_: Dataset) -> None:
        raise DatasetError("x", "triangulation", "only 3 points agree with the cameras", "Check")

    monkeypatch.setattr(initial, "pycolmap_installed", lambda: True)
    monkeypatch.setattr(initial, "triangulated_points", fails)
    assert len(initial_points(dataset, 77, generator()).positions) == 77


def test_triangulation_finds_a_textured_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycolmap")
    texture = np.kron(np.random.default_rng(2).integers(0, 256, (40, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    up, origin = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    views = []
    for row in range(4):
        place = torch.tensor([0.5 * row - 0.75, 0.3, 3.0], dtype=torch.float64)
        camera = replace(Camera.look_at(place, origin, up, 0.9, (320, 240)), name=f"{row}.png")
        fx, fy, cx, cy = camera.intrinsics.tolist()
        y, x = np.mgrid[:240, :320] + 0.5
        rays = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1) @ camera.rotation.numpy()
        eye = camera.centre.numpy()
        hit = eye - eye[2] / rays[..., 2:] * rays  # the plane z = 0
        index = np.clip((hit[..., :2] + 2) / 4 * 320, 0, 319).astype(int)
        small_sets.write_picture(tmp_path / "images_1" / camera.name, texture[index[..., 1], index[..., 0]])
        views.append(camera)
    rows = []
    for camera in views:
        right, down, forward = camera.rotation.numpy()
        hwf = np.array([240, 320, float(camera.intrinsics[0])])
        rows.append([*np.stack([down, right, -forward, camera.centre.numpy(), hwf], 1).ravel(), 1, 9])
    np.save(tmp_path / "poses_bounds.npy", np.array(rows))
    dataset = open_dataset(tmp_path)
    assert (0, 1) in near_pairs(dataset)
    loaded_before = "pycolmap" in sys.modules
    points = initial_points(dataset, 5000, generator())
    assert len(points.positions) > 100
    assert np.median(np.abs(points.positions[:, 2])) < 0.02
    again = initial_points(dataset, 5000, generator(), strategy="triangulate")
    assert np.array_equal(again.positions, points.positions)
    # COLMAP's memory must not stay with the training: another process loads it.
    assert ("pycolmap" in sys.modules) == loaded_before
    monkeypatch.setattr(triangulate.sys, "executable", shutil.which("false"))
    with pytest.raises(DatasetError, match="COLMAP failed with code 1: it said nothing"):
        initial_points(dataset, 5000, generator(), strategy="triangulate")


def test_extent_and_scale(tmp_path: Path) -> None:
    views = small_sets.cameras(8)
    centres = np.stack([view.centre.numpy() for view in views])
    expected = 1.1 * np.linalg.norm(centres - centres.mean(0), axis=1).max()
    assert scene_extent(views) == pytest.approx(expected)
    assert scene_extent(views[:1]) == 1.0
    focus = focus_point(views)
    assert focus is not None
    np.testing.assert_allclose(focus, 0, atol=1e-9)
    dataset = open_dataset(small_sets.write_llff(tmp_path / "a", views))
    assert scene_scale(dataset) == pytest.approx(np.median(np.linalg.norm(centres, axis=1)))
    with_points = open_dataset(small_sets.write_colmap_binary(tmp_path / "b", views))
    assert scene_scale(with_points) == pytest.approx(scene_scale(dataset), rel=0.1)
    no_sightings = select_views(with_points, [])
    assert no_sightings.points is not None
    assert len(no_sightings.points.observation_view) == 0


def test_masks_that_are_no_silhouettes(
    ball: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for view in ball.views:
        small_sets.write_picture(view.image, np.full((72, 96, 4), 255, np.uint8))
    with pytest.raises(DatasetError, match="cover 100% of the pictures"):
        initial_points(ball, 100, generator(), strategy="hull")
    monkeypatch.setattr(initial, "pycolmap_installed", lambda: False)
    assert len(initial_points(ball, 100, generator()).positions) == 100
    assert "no silhouettes of an object" in caplog.text
    assert "starts from random ones" in caplog.text  # and what would give better ones
    assert "pip install 'smalti[sfm]'" in caplog.text
