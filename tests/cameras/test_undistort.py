"""Undistorted pictures show the world where the new pinhole says it is; crops are exact; no gap is hidden."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from smalti.cameras import models, undistort
from smalti.cameras.camera import Camera
from smalti.cameras.undistort import Undistortion, UndistortPolicy, plan, undistort_image

from .lenses import PARAMETERS, SIZE, make

DISTORTED = [name for name in PARAMETERS if name not in ("SIMPLE_PINHOLE", "PINHOLE")]
LENSES = [name for name in DISTORTED if name != "EQUIRECTANGULAR"]


def pixel_centres(width: int, height: int) -> np.ndarray:
    grid = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack(grid, axis=-1).reshape(-1, 2)


def missing(undistortion: Undistortion, pixels: np.ndarray) -> np.ndarray:
    """Pixels of the target that have no source, by the public projection alone."""
    fx, fy, cx, cy = undistortion.target.intrinsics.tolist()
    rays = np.stack([(pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy, np.ones(len(pixels))], axis=1)
    found, valid = models.project_camera_points(undistortion.source, rays)
    size = np.array([undistortion.source.width, undistortion.source.height])
    return ~(valid & ((found >= 0.49) & (found <= size - 0.49)).all(axis=1))


def blobs(flat: np.ndarray, centres: np.ndarray, sigma: float) -> np.ndarray:
    """Grey values of small Gaussian blobs on the plane z = 1, at points of that plane."""
    value = np.zeros(len(flat))
    for centre in centres:
        with np.errstate(invalid="ignore"):
            value += np.nan_to_num(np.exp(-0.5 * np.sum((flat - centre) ** 2, axis=1) / sigma**2))
    return 250.0 * value


@pytest.mark.parametrize("name", ["OPENCV", "FULL_OPENCV", "FOV", "THIN_PRISM_FISHEYE", "FISHEYE", "DIVISION", "EUCM"])
def test_points_land_where_the_new_pinhole_says(name: str) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install smalti[sfm]")
    judge = pycolmap.Camera(model=name, width=SIZE[0], height=SIZE[1], params=list(PARAMETERS[name]))
    camera = make(name)
    fx, fy, cx, cy = camera.intrinsics.tolist()
    # Points in space, the picture of which is painted through COLMAP's inverse of the lens.
    grid = np.meshgrid(np.linspace(60, 580, 6), np.linspace(50, 430, 5))
    centres = (np.stack(grid, axis=-1).reshape(-1, 2) - [cx, cy]) / [fx, fy]
    depths = np.linspace(1.0, 9.0, len(centres))
    points = np.concatenate([centres, np.ones((len(centres), 1))], axis=1) * depths[:, None]
    flat = judge.cam_from_img(pixel_centres(*SIZE))
    picture = blobs(flat, centres, 4.0 / fx).reshape(SIZE[1], SIZE[0]).round().astype(np.uint8)

    undistortion = plan(camera)
    result = undistort_image(undistortion, picture).astype(np.float64)
    assert result.shape == (undistortion.target.height, undistortion.target.width)
    expected, valid = models.project(undistortion.target, points)
    assert valid.all()
    tested = 0
    for x, y in expected:
        column, row = int(x), int(y)
        if min(column, row) < 14 or column + 15 > result.shape[1] or row + 15 > result.shape[0]:
            continue
        window = result[row - 14 : row + 15, column - 14 : column + 15]
        at = np.stack(np.meshgrid(np.arange(column - 14, column + 15), np.arange(row - 14, row + 15)), axis=-1) + 0.5
        centroid = (window[..., None] * at).sum(axis=(0, 1)) / window.sum()
        assert np.abs(centroid - [x, y]).max() < 0.1
        tested += 1
    assert tested >= 12


@pytest.mark.parametrize("name", DISTORTED)
def test_new_camera_is_exact(name: str) -> None:
    undistortion = plan(make(name))
    source, target = undistortion.source, undistortion.target
    shift = source.intrinsics - target.intrinsics
    assert shift.tolist() == [0.0, 0.0, undistortion.left, undistortion.top]
    assert target.model == "PINHOLE"
    assert target.distortion == ()
    assert target.rotation is source.rotation
    if name == "EQUIRECTANGULAR":
        assert undistortion.kept < 0.3, "a pinhole cannot show a panorama, and must say so"
    else:
        assert undistortion.kept > 0.85


@pytest.mark.parametrize("name", LENSES)
def test_default_crop_has_no_gap_and_cannot_grow(name: str) -> None:
    undistortion = plan(make(name))
    target = undistortion.target
    assert not undistortion.masked
    assert undistortion.mask() is None
    assert not missing(undistortion, pixel_centres(target.width, target.height)).any()
    x, y = np.arange(target.width) + 0.5, np.arange(target.height) + 0.5
    for side in ((x, -0.5), (x, target.height + 0.5), (-0.5, y), (target.width + 0.5, y)):
        assert missing(undistortion, np.stack(np.broadcast_arrays(*side), axis=1)).any()


@pytest.mark.parametrize("name", LENSES)
def test_crop_is_much_like_colmaps(name: str) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install smalti[sfm]")
    theirs = pycolmap.undistort_camera(
        pycolmap.UndistortCameraOptions(),
        pycolmap.Camera(model=name, width=SIZE[0], height=SIZE[1], params=list(PARAMETERS[name])),
    )
    ours = plan(make(name)).target
    assert ours.width == pytest.approx(theirs.width, rel=0.03)
    assert ours.height == pytest.approx(theirs.height, rel=0.03)
    assert ours.intrinsics[:2].tolist() == [theirs.focal_length_x, theirs.focal_length_y]


@pytest.mark.parametrize("name", ["SIMPLE_PINHOLE", "PINHOLE", "OPENCV"])
def test_without_distortion_pictures_are_bit_equal(name: str) -> None:
    camera = make(name)
    if name == "OPENCV":
        camera = dataclasses.replace(camera, distortion=(0.0,) * 4)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    undistortion = plan(camera)
    assert undistortion.identity
    assert undistort_image(undistortion, picture) is picture
    assert undistortion.target.model == "PINHOLE"
    assert undistortion.target.intrinsics is camera.intrinsics


def test_nearly_no_distortion_changes_nearly_nothing() -> None:
    # The same road as for strong lenses, which must not shift a pixel when there is nothing to do.
    camera = dataclasses.replace(make("OPENCV"), distortion=(1e-9, 0.0, 0.0, 0.0))
    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    undistortion = plan(camera)
    assert not undistortion.identity
    assert (undistortion.left, undistortion.top) == (0, 0)
    assert (undistortion.target.width, undistortion.target.height) == SIZE
    difference = undistort_image(undistortion, picture).astype(int) - picture
    assert np.abs(difference).max() <= 1


def test_full_fisheye_is_kept_with_a_mask() -> None:
    # 185 degrees across the height: the corners of the picture are beyond the range of any pinhole.
    camera = make("OPENCV_FISHEYE", (150.0, 150.0, 322.0, 237.0, 0.01, -0.002, 0.0003, -0.00002))
    undistortion = plan(camera)
    target = undistortion.target
    mask = undistortion.mask()
    picture = np.full((480, 640, 3), 200, np.uint8)
    result = undistort_image(undistortion, picture)
    if undistortion.masked:
        assert mask is not None
        assert mask.shape == (target.height, target.width)
        assert (result[mask] == 200).all()
        assert (result[~mask] == 0).all()
    half_angle = np.degrees(np.arctan(max(target.width, target.height) * 0.5 / 150.0))
    assert half_angle < 66.0
    assert undistortion.kept < 0.7

    wide = make("FISHEYE", (260.0, 260.0, 318.0, 241.0))
    with_mask = plan(wide, UndistortPolicy(keep="all"))
    assert with_mask.masked
    mask = with_mask.mask()
    assert mask is not None
    expected = ~missing(with_mask, pixel_centres(with_mask.target.width, with_mask.target.height))
    assert (mask.reshape(-1) == expected).mean() > 0.999
    assert 0.3 < mask.mean() < 0.99
    cropped = plan(wide, UndistortPolicy(keep="valid"))
    assert not cropped.masked
    assert cropped.kept < with_mask.kept
    assert plan(wide, UndistortPolicy(minimum_kept=cropped.kept + 0.01)).masked
    assert not plan(wide, UndistortPolicy(minimum_kept=cropped.kept - 0.01)).masked


def test_corners_beyond_the_fold_are_left_out() -> None:
    # r (1 - 0.45 r^2) stops growing inside this picture: its corners have no direction.
    camera = make("SIMPLE_RADIAL", (420.0, 320.0, 240.0, -0.45))
    corner, valid = models.unproject(camera, np.array([[0.5, 0.5]]))
    assert not valid.any()
    assert np.isnan(corner).all()
    cropped, whole = plan(camera, UndistortPolicy(keep="valid")), plan(camera)
    assert not missing(cropped, pixel_centres(cropped.target.width, cropped.target.height)).any()
    # That loses more than the default policy accepts: there the gaps are in the mask.
    assert cropped.kept < 0.7
    mask = whole.mask()
    assert mask is not None
    assert (mask.reshape(-1) == ~missing(whole, pixel_centres(whole.target.width, whole.target.height))).mean() > 0.999


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 1), (480, 640, 4)])
def test_channels_are_kept(shape: tuple[int, ...]) -> None:
    undistortion = plan(make("RADIAL"))
    result = undistort_image(undistortion, np.full(shape, 77, np.uint8))
    assert result.shape == (undistortion.target.height, undistortion.target.width, *shape[2:])
    assert result.dtype == np.uint8
    assert (result == 77).all()


def test_float32_cameras_give_the_same_crop() -> None:
    exact, single = plan(make("OPENCV")), plan(make("OPENCV").to(torch.float32))
    assert (exact.left, exact.top) == (single.left, single.top)
    assert single.target.intrinsics.dtype == torch.float32


def test_off_centre_principal_point_outside_the_picture() -> None:
    # A crop of a larger picture may have its centre outside.
    camera: Camera = make("RADIAL").cropped(400, 0, 240, 480)
    whole, part = plan(make("RADIAL")), plan(camera)
    assert not missing(part, pixel_centres(part.target.width, part.target.height)).any()
    right_of_part = part.left + part.target.width + 400
    assert right_of_part == pytest.approx(whole.left + whole.target.width, abs=4)


def test_maps_are_cached_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = undistort._SamplingCache(most_bytes=2_000_000)
    computed = []
    compute = undistort._compute_sampling
    monkeypatch.setattr(undistort, "_CACHE", cache)
    monkeypatch.setattr(undistort, "_compute_sampling", lambda *key: computed.append(key) or compute(*key))
    picture = np.zeros((240, 320), np.uint8)
    lenses = [make("RADIAL", (200.0, 160.0, 120.0, k, 0.0), (320, 240)) for k in (-0.01, -0.02, -0.03, -0.04)]
    for _ in range(2):
        undistort_image(plan(lenses[0]), picture)
        undistort_image(plan(dataclasses.replace(lenses[0], translation=torch.ones(3))), picture)
    assert len(computed) == 1, "the pose is no part of the lens"
    for lens in lenses:
        undistort_image(plan(lens), picture)
        assert 0 < cache.bytes_held <= 2_000_000
    undistort_image(plan(lenses[0]), picture)
    assert len(computed) == 5, "the oldest map had to go"


def test_errors_name_the_remedy() -> None:
    undistortion = plan(make("OPENCV"))
    with pytest.raises(ValueError, match=r"expected a uint8 picture of 640 x 480.*scaled_to"):
        undistort_image(undistortion, np.zeros((240, 320, 3), np.uint8))
    broken = dataclasses.replace(make("OPENCV"), intrinsics=torch.tensor([400.0, float("nan"), 320.0, 240.0]))
    with pytest.raises(ValueError, match="not a usable calibration"):
        plan(broken)
