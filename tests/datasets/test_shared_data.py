"""The nine real captures load with what their descriptions state, and the traps met in them stay shut."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from smalti.cameras.models import project
from smalti.datasets import colmap
from smalti.datasets.blender import read_clipped_normals, read_ray_depth
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.decode import decode_mask
from smalti.datasets.extent import camera_centres, camera_directions, focus_point
from smalti.datasets.images import ImageCache
from smalti.datasets.initial import initial_points
from smalti.datasets.krt import read_cameras
from smalti.datasets.open import at_time, open_dataset, times

EXPECTED = {
    # name: (format, views, size of the first, lens, test views, notices)
    "fox": ("transforms", 50, (1080, 1920), "OPENCV", 7, []),
    "fox/transforms_upstream.json": ("transforms", 50, (1080, 1920), "OPENCV", 7, ["missing-images"]),
    "ethiopian_head": ("llff", 66, (1000, 1000), "PINHOLE", 9, ["scaled-intrinsics"]),
    "king_colmap": ("colmap", 23, (1000, 658), "PINHOLE", 3, []),
    "caliscope_4cam": ("rig", 192, (640, 360), "FULL_OPENCV", 24, ["scaled-intrinsics"]),
    "caliscope_4cam/config_original.toml": ("rig", 192, (640, 360), "FULL_OPENCV", 24, ["scaled-intrinsics"]),
    "chair_blender": ("blender", 113, (800, 800), "PINHOLE", 13, []),
    "spot_bob_dynamic": ("dnerf", 384, (320, 320), "PINHOLE", 96, []),
    "dtu_scan24_384": ("idr", 49, (384, 384), "PINHOLE", 7, ["scale-mat", "other-cameras"]),
    "temple_sparse_ring": ("middlebury", 16, (640, 480), "PINHOLE", 2, []),
    "kermit_bundler": ("bundler", 9, (640, 480), "RADIAL", 2, ["unsolved-cameras"]),
}


def errors(dataset: Dataset) -> np.ndarray:
    """Reprojection errors of the data set's own points, pixels."""
    points = dataset.points
    assert points is not None
    found = []
    for row, view in enumerate(dataset.views):
        seen = points.observation_view == row
        pixels, valid = project(view.camera, points.positions[points.observation_point[seen]])
        assert valid.all()
        found.append(np.linalg.norm(pixels - points.observation_xy[seen], axis=1))
    return np.concatenate(found)


@pytest.mark.parametrize("name", EXPECTED)
def test_sets_load_as_described(shared_data: Path, name: str) -> None:
    kind, views, size, lens, test, notices = EXPECTED[name]
    dataset = open_dataset(shared_data / name)
    first = dataset.views[0].camera
    assert (dataset.format, len(dataset.views), first.model) == (kind, views, lens)
    assert (first.width, first.height) == size
    assert [notice.code for notice in dataset.notices] == notices
    assert [len(rows) for rows in dataset.split()] == [views - test, test]
    for view in dataset.views:
        centre = torch.tensor([view.camera.width / 2, view.camera.height / 2])
        assert (abs(view.camera.intrinsics[2:] - centre) < 0.1 * centre).all()


def test_statements_in_the_notices(shared_data: Path) -> None:
    def text(name: str) -> str:
        return open_dataset(shared_data / name).notices[0].text

    assert text("fox/transforms_upstream.json").startswith("17 of 67 pictures are missing")
    assert "1280 x 720 and were scaled to their pictures' 640 x 360" in text("caliscope_4cam")
    assert "4000 x 4000 and were scaled to their pictures' 1000 x 1000" in text("ethiopian_head")
    assert text("kermit_bundler").startswith("2 of 11 cameras were not solved")
    assert "sphere of radius 223.333" in text("dtu_scan24_384")
    assert open_dataset(shared_data / "caliscope_4cam").metres
    assert open_dataset(shared_data / "temple_sparse_ring").metres


def test_reprojection_of_own_points(shared_data: Path) -> None:
    king, kermit = open_dataset(shared_data / "king_colmap"), open_dataset(shared_data / "kermit_bundler")
    assert len({(view.camera.width, view.camera.height) for view in king.views}) == 7  # trap 7
    assert len({tuple(view.camera.intrinsics.tolist()) for view in king.views}) == 23
    assert king.points is not None
    assert kermit.points is not None
    assert (len(king.points.positions), len(kermit.points.positions)) == (1443, 634)
    assert np.median(errors(king)) == pytest.approx(0.245, abs=5e-4)
    assert np.percentile(errors(king), 95) == pytest.approx(0.74, abs=5e-3)
    assert np.median(errors(kermit)) == pytest.approx(0.20, abs=5e-3)
    assert np.percentile(errors(kermit), 95) == pytest.approx(0.83, abs=5e-3)


def test_distorted_model_of_king_parses(shared_data: Path) -> None:
    model = colmap.read_model(shared_data / "king_colmap" / "sparse_distorted" / "0")
    assert len(model.images) == len(model.cameras) == 23
    assert {(record.model, record.width, record.height) for record in model.cameras.values()} == {
        ("SIMPLE_RADIAL", 3031, 2006)
    }
    found = []
    for image in model.images.values():
        camera = colmap.camera_of(model, image, Path("images.bin"))
        row = {number: index for index, number in enumerate(model.points.ids.tolist())}
        kept = [index for index, number in enumerate(image.point_ids.tolist()) if number >= 0]
        positions = model.points.positions[[row[int(image.point_ids[index])] for index in kept]]
        found.append(np.linalg.norm(project(camera, positions)[0] - image.xy[kept], axis=1))
    assert np.median(np.concatenate(found)) < 1.0


def test_board_corners_of_the_rig(shared_data: Path) -> None:
    """K is for 1280 x 720 with whole-numbered pixel centres, the frames are half as large."""
    folder = shared_data / "caliscope_4cam"
    dataset = open_dataset(folder)
    assert len(times(dataset)) == 48
    assert {view.rig for view in at_time(dataset, 0.3).views} == {f"cam_{row}" for row in range(4)}
    cameras = {view.rig: view.camera for view in dataset.views}
    found = []
    for track in json.loads((folder / "board_tracks.json").read_text()):
        for name, (x, y) in track["pixels"].items():
            pixels, _ = project(cameras[name], np.array([track["xyz"]]))
            found.append(2 * np.linalg.norm(pixels[0] - ((x + 0.5) / 2, (y + 0.5) / 2)))
    assert len(found) > 1000
    assert np.median(found) == pytest.approx(0.46, abs=0.01)


def test_video_of_the_rig_shows_the_frames(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    folder = shared_data / "caliscope_4cam"
    (tmp_path / "cameras.json").write_text((folder / "cameras.json").read_text())
    (tmp_path / "video").symlink_to(folder / "video")
    films, frames = open_dataset(tmp_path), open_dataset(folder)
    assert len(films.views) == 192
    assert films.notices == ()
    assert times(films) == times(frames)
    rows = {view.camera.name.split(".")[0]: row for row, view in enumerate(frames.views)}
    with ImageCache(films, downscale=2) as large, ImageCache(frames) as small:
        for row in (2, 9):
            view = films.views[row]
            assert view.frame == row
            a, b = large.get(row), small.get(rows[view.camera.name])
            # Undistorted at different sizes, the crops may differ by a pixel; compare what lies at the principal point.
            patches = []
            for loaded in (a, b):
                x, y = (int(value) for value in loaded.camera.intrinsics[2:])
                patches.append(loaded.image[y - 100 : y + 100, x - 100 : x + 100].float())
            assert (patches[0] - patches[1]).abs().mean() < 6


def test_cameras_of_the_uncropped_dtu_pictures_are_refused(shared_data: Path) -> None:
    """Trap 3."""
    with pytest.raises(DatasetError, match=r"world_mat_0 .*outside the 384 x 384 picture.*cropped"):
        open_dataset(shared_data / "dtu_scan24_384" / "cameras_original_1600x1200.npz")


def test_dtu_scale(shared_data: Path) -> None:
    """World units are millimetres: the cameras stand about half a metre from the object."""
    dataset = open_dataset(shared_data / "dtu_scan24_384")
    middle = np.array([43.3918, -18.5879, 613.81])
    distances = [np.linalg.norm(view.camera.centre.numpy() - middle) for view in dataset.views]
    assert 400 < np.median(distances) < 900


def test_columns_and_masks_of_llff(shared_data: Path) -> None:
    """Traps 4 and 8: only the right axes and focal length make the silhouettes agree."""
    dataset = open_dataset(shared_data / "ethiopian_head")
    assert all(view.mask is not None for view in dataset.views)
    assert set(np.unique(decode_mask(dataset.views[0].mask or Path()))) == {0, 255}
    points = initial_points(dataset, 2000, torch.Generator().manual_seed(0), strategy="hull")
    with ImageCache(dataset, downscale=4) as cache:
        for row in range(0, 66, 13):
            view = cache.get(row)
            assert view.mask is not None
            pixels, valid = project(view.camera, points.positions)
            inside = pixels[valid].astype(int).clip(0, 249)
            assert (view.mask.numpy()[inside[:, 1], inside[:, 0]] > 0).mean() > 0.97


def test_depth_of_the_chair_is_distance_along_the_ray(shared_data: Path) -> None:
    """Trap 1: two views agree on the surface, and agree less if the values are taken for z."""
    dataset = open_dataset(shared_data / "chair_blender")
    held_out = [view for view in dataset.views if view.split == "test"]
    gaps: dict[str, list[float]] = {"ray": [], "z": []}
    for first, second in itertools.pairwise(held_out):
        for meaning, found in gaps.items():
            found.extend(depth_gaps(first, second, meaning))
    assert len(gaps["ray"]) > 1000
    assert np.median(gaps["ray"]) < 0.015  # a step of 8 bits is 0.03
    assert np.median(gaps["z"]) > 1.2 * np.median(gaps["ray"])


def depth_gaps(first, second, meaning: str) -> list[float]:
    """|depth seen by the second view - depth of the first view's points in it|, where both see the same surface."""
    depth = [read_ray_depth(view.image.with_name(f"{view.image.stem}_depth_0000.png")) for view in (first, second)]
    camera, other = first.camera, second.camera
    y, x = np.mgrid[0:800:8, 0:800:8]
    value = depth[0][y, x]
    x, y, value = x[value > 0] + 0.5, y[value > 0] + 0.5, value[value > 0]
    fx, fy, cx, cy = camera.intrinsics.tolist()
    rays = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], 1)
    if meaning == "ray":
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    world = (rays * value[:, None] - camera.translation.numpy()) @ camera.rotation.numpy()
    pixels, valid = project(other, world)
    index = np.floor(pixels).astype(int)
    valid &= ((index >= 0) & (index < 800)).all(1)
    local = world[valid] @ other.rotation.numpy().T + other.translation.numpy()
    expected = np.linalg.norm(local, axis=1) if meaning == "ray" else local[:, 2]
    seen = depth[1][index[valid, 1], index[valid, 0]]
    gap = np.abs(seen - expected)[seen > 0]
    return gap[gap < 0.1].tolist()


def test_normals_of_the_chair_are_clipped_and_encoded(shared_data: Path) -> None:
    """Trap 1: where no component was lost, decoded normals have unit length; read as 2 v - 1 they have not."""
    normals = read_clipped_normals(shared_data / "chair_blender" / "test" / "r_0_normal_0000.png")
    whole = normals[(normals > 0.05).all(-1)]
    assert len(whole) > 500
    lengths = np.linalg.norm(whole, axis=1)
    assert np.median(np.abs(lengths - 1)) < 0.02


def test_spot_and_bob_have_times_and_exact_geometry(shared_data: Path) -> None:
    folder = shared_data / "spot_bob_dynamic"
    dataset = open_dataset(folder)
    assert len(times(dataset)) == 24
    still = at_time(dataset, 0.4)
    assert len(still.views) == 16
    assert [len(rows) for rows in still.split()] == [12, 4]
    instant = times(dataset).index(still.views[0].camera.time)
    with np.load(folder / "meshes.npz") as meshes:
        vertices = meshes["spot_vertices"][instant].astype(np.float64)
    gaps = []
    for view in still.views:
        file = folder / f"{view.camera.name}_depth.npz"
        with np.load(file) as archive:
            depth = archive[archive.files[0]].astype(np.float64)
        pixels, valid = project(view.camera, vertices)
        index = np.floor(pixels[valid]).astype(int).clip(0, 319)
        z = (vertices[valid] @ view.camera.rotation.numpy().T + view.camera.translation.numpy())[:, 2]
        gap = np.abs(depth[index[:, 1], index[:, 0]] - z)
        gaps.append(gap[gap < 0.05])
    assert sum(map(len, gaps)) > 5000
    assert np.median(np.concatenate(gaps)) < 0.004


def test_krt_files_parse(shared_data: Path) -> None:
    folder = shared_data / "ava_format"
    cameras = read_cameras(folder / "KRT", 1334, 2048)
    assert len(cameras) == 38
    focus = focus_point(cameras)
    assert focus is not None
    centres, directions = camera_centres(cameras), camera_directions(cameras)
    along = ((focus - centres) * directions).sum(1)
    assert (np.linalg.norm(focus - centres - along[:, None] * directions, axis=1) < 70).all()  # all look at one head
    assert (abs(along - 1100) < 100).all()  # millimetres
    (newer,) = read_cameras(folder / "camera_calibration.json", 2668, 4096)
    assert (newer.name, newer.model) == ("400940", "OPENCV")
    assert newer.translation.tolist() == pytest.approx([-854.7404, 576.3866, 988.4146], abs=1e-3)
    with pytest.raises(DatasetError, match="no camera has pictures"):
        open_dataset(folder)
