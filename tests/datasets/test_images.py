"""The image cache: exact downscaling and cameras, alpha, masks, a fixed size in bytes, equal bytes every time."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import small_sets
import torch
from PIL import Image

from smalti.datasets import heap
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.decode import decode_mask, decode_picture, video_info
from smalti.datasets.downscale import area_resample, area_resample_alpha, downscale_factor, downscaled_camera
from smalti.datasets.images import ImageCache, LoadedView
from smalti.datasets.open import open_dataset, with_masks


def by_areas(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Means over areas by dense weights, in float64."""

    def weights(old: int, new: int) -> np.ndarray:
        edges = np.arange(new + 1) * old / new
        low, high = np.arange(old), np.arange(old) + 1
        return np.clip(np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low), 0, None) * new / old

    across, down = weights(pixels.shape[1], width), weights(pixels.shape[0], height)
    return np.einsum("ij,jkc,lk->ilc", down, pixels.astype(np.float64), across)


@pytest.mark.parametrize("size", [(24, 18), (16, 12), (32, 24), (31, 17), (48, 36), (1, 1), (47, 35)])
def test_area_resampling_is_exact(size: tuple[int, int]) -> None:
    pixels = small_sets.picture(3)
    expected = by_areas(pixels, *size)
    got = area_resample(pixels, *size)
    assert got.shape == (size[1], size[0], 3)
    assert np.abs(got - expected).max() <= 0.5 + 1e-9
    flat = np.full((36, 48, 3), 201, np.uint8)
    assert (area_resample(flat, *size) == 201).all()
    plane = area_resample(pixels[..., 0], *size)
    np.testing.assert_array_equal(plane, got[..., 0])


def test_colours_under_no_alpha_do_not_bleed() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[...] = (250, 0, 0, 0)  # red, but not there
    pixels[:, 1] = (0, 100, 200, 255)
    pixels[2:, 2:] = (0, 50, 100, 51)
    small = area_resample_alpha(pixels, 2, 2)
    assert small[0, 0].tolist() == [0, 100, 200, 128]
    assert small[0, 1].tolist() == [0, 0, 0, 0]
    assert small[1, 1].tolist() == [0, 50, 100, 51]


def test_downscaled_camera_sees_the_same_rays() -> None:
    camera = small_sets.cameras(1, off_centre=True)[0]
    for factor in (2, 5, Fraction(3, 2), 1.25):
        smaller, used = downscaled_camera(camera, downscale_factor(factor))
        assert used[0] <= 48
        assert used[1] <= 36
        for x, y in ((0.0, 0.0), (smaller.width, smaller.height), (smaller.width / 3, smaller.height / 7)):
            fx, fy, cx, cy = smaller.intrinsics.tolist()
            a = ((x - cx) / fx, (y - cy) / fy)
            fx, fy, cx, cy = camera.intrinsics.tolist()
            b = ((x * used[0] / smaller.width - cx) / fx, (y * used[1] / smaller.height - cy) / fy)
            assert a == pytest.approx(b, abs=1e-12)
    assert downscaled_camera(camera, downscale_factor(5))[1] == (45, 35)
    with pytest.raises(ValueError, match="at least 1"):
        downscale_factor(0.5)
    with pytest.raises(DatasetError, match=r"nothing is left of .* Reduce the pictures less"):
        downscaled_camera(camera, downscale_factor(40))


@pytest.fixture
def capture(tmp_path: Path) -> Dataset:
    return open_dataset(small_sets.write_llff(tmp_path, small_sets.cameras(8), factor=1))


def test_loaded_view_is_what_was_written(capture: Dataset) -> None:
    with ImageCache(capture) as cache:
        for row in (0, 5):
            view = cache.get(row)
            np.testing.assert_array_equal(view.image.numpy(), small_sets.picture(row))
            assert view.camera.intrinsics.dtype == torch.float32
            assert view.camera.name == f"view_{row:02d}.png"
            assert view.alpha is view.mask is view.valid is None
    half = ImageCache(capture, downscale=2)
    np.testing.assert_array_equal(half.get(1).image.numpy(), area_resample(small_sets.picture(1), 24, 18))
    assert (half.camera(1).width, half.camera(1).height) == (24, 18)
    torch.testing.assert_close(half.camera(1).intrinsics, half.get(1).camera.intrinsics, atol=0, rtol=0)


def test_cache_stays_within_its_bytes_and_forgets_the_oldest(capture: Dataset) -> None:
    one = 48 * 36 * 3
    cache = ImageCache(capture, bytes=3 * one)
    first = cache.get(0)
    for row in (1, 2):
        cache.get(row)
    assert cache.get(0) is first
    cache.get(3)  # the oldest is now 1
    assert cache.get(0) is first
    assert cache.cached_bytes == 3 * one == cache.peak_bytes
    again = cache.get(1)
    np.testing.assert_array_equal(again.image.numpy(), small_sets.picture(1))
    none = ImageCache(capture, bytes=one - 1)
    np.testing.assert_array_equal(none.get(4).image.numpy(), small_sets.picture(4))
    assert none.cached_bytes == none.peak_bytes == 0


def test_peak_memory_is_flat_in_the_number_of_images(tmp_path: Path) -> None:
    def peak(count: int) -> tuple[int, int]:
        views = [camera.scaled_to(192, 144) for camera in small_sets.cameras(count)]
        small_sets.write_pictures(tmp_path / f"{count}" / "images", views)
        rows = [[*np.eye(3, 5).ravel(), 1, 9] for _ in views]
        for row in rows:
            row[:15] = np.array([[0, 1, 0, 0, 144], [1, 0, 0, 0, 192], [0, 0, -1, 0, 150.0]]).ravel()
        np.save(tmp_path / f"{count}" / "poses_bounds.npy", np.array(rows, np.float64))
        dataset = open_dataset(tmp_path / f"{count}")
        cache = ImageCache(dataset, bytes=4 * 192 * 144 * 3)
        cache.get(0)
        tracemalloc.start()
        for _ in range(2):
            cache.prefetch(range(count))
            for row in range(count):
                cache.get(row)
        cache.close()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert cache.peak_bytes <= cache.limit
        return most, cache.peak_bytes

    few, many = peak(8), peak(64)
    assert many[1] == few[1]
    assert many[0] < 1.3 * few[0] + 200_000  # 56 more pictures would be 4.6 MB


def same(a: LoadedView, b: LoadedView) -> bool:
    return torch.equal(a.image, b.image) and torch.equal(a.camera.intrinsics, b.camera.intrinsics)


def test_prefetching_changes_nothing_and_stops(capture: Dataset) -> None:
    plain = ImageCache(capture, downscale=1.5)
    expected = [plain.get(row) for row in range(8)]
    before = threading.active_count()
    ahead = ImageCache(capture, downscale=1.5, bytes=3 * 32 * 24 * 3)
    for order in ([7, 3, 3, 0, 5], range(8), [2] * 5):
        ahead.prefetch(order)
        assert all(same(ahead.get(row), expected[row]) for row in order)
    ahead.close()
    ahead.close()
    assert threading.active_count() == before
    assert ahead.cached_bytes <= ahead.limit
    ahead.prefetch([1])  # a closed cache may be used again
    assert same(ahead.get(1), expected[1])
    ahead.close()


def test_many_threads_load_a_picture_once(capture: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ImageCache(capture)
    loads: list[int] = []
    load = cache._load
    monkeypatch.setattr(cache, "_load", lambda row: (loads.append(row), load(row))[1])
    threads = [threading.Thread(target=lambda: [cache.get(row) for row in range(8)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loads) == list(range(8))


def test_truncated_picture_is_named_and_does_not_stop_prefetching(capture: Dataset) -> None:
    file = capture.views[2].image
    file.write_bytes(file.read_bytes()[:-400])
    with ImageCache(capture) as cache:
        cache.prefetch([2, 3])
        for _ in range(2):
            with pytest.raises(DatasetError, match=r"view_02.png: picture: cannot be decoded"):
                cache.get(2)
        np.testing.assert_array_equal(cache.get(3).image.numpy(), small_sets.picture(3))
    small_sets.write_picture(file, small_sets.picture(2, 24, 18))
    with pytest.raises(DatasetError, match="changed after the data set was opened"):
        ImageCache(capture).get(2)


def test_alpha_and_masks_come_along(tmp_path: Path) -> None:
    blender = open_dataset(small_sets.write_blender(tmp_path / "blender", small_sets.cameras(4)))
    view = ImageCache(blender, downscale=2).get(0)
    assert view.alpha is not None
    assert view.alpha.shape == view.image.shape[:2]
    assert (view.alpha[:, :12] == 0).all()
    assert (view.alpha[:, 12:] == 255).all()
    assert (view.image[:, :12] == 0).all()
    root = small_sets.write_transforms(tmp_path / "masked", small_sets.cameras(2), k1=-0.05)
    mask = np.zeros((36, 48), np.uint8)
    mask[:, 24:] = 255
    small_sets.write_picture(root / "masks" / "view_00.png", mask)
    view = ImageCache(open_dataset(root)).get(0)
    assert view.mask is not None
    assert view.mask.shape == view.image.shape[:2] == (view.camera.height, view.camera.width)
    assert view.camera.model == "PINHOLE"
    assert (view.mask[:, : int(view.camera.intrinsics[2]) - 2] == 0).all()
    assert (view.mask[:, int(view.camera.intrinsics[2]) + 3 :] == 255).all()
    assert ImageCache(open_dataset(root)).get(1).mask is None


def masked_capture(root: Path, **top: object) -> Dataset:
    """Two pictures; the right half of the first is foreground by its mask."""
    root = small_sets.write_transforms(root, small_sets.cameras(2), **top)
    mask = np.zeros((36, 48), np.uint8)
    mask[:, 24:] = 255
    small_sets.write_picture(root / "masks" / "view_00.png", mask)
    return open_dataset(root)


def test_masks_for_alpha(tmp_path: Path) -> None:
    """Transparent outside, also where the lens is made a pinhole's; a mixed pixel has the foreground's colour alone."""
    capture = masked_capture(tmp_path / "plain")
    own = ImageCache(capture).get(0)
    view = ImageCache(with_masks(capture, "alpha")).get(0)
    assert view.mask is None
    assert view.alpha is not None
    assert own.mask is not None
    np.testing.assert_array_equal(view.alpha.numpy(), own.mask.numpy())
    np.testing.assert_array_equal(view.image[:, 24:].numpy(), small_sets.picture(0)[:, 24:])
    assert ImageCache(with_masks(capture, "alpha")).get(1).alpha is None  # it has no mask
    third = ImageCache(with_masks(capture, "alpha"), downscale=Fraction(48, 3)).get(0)  # its second column is half out
    assert third.alpha is not None
    assert third.alpha[:, 1].tolist() == [128] * third.alpha.shape[0]
    pixels = small_sets.picture(0)[:32, 24:32].astype(np.float64).reshape(2, 16, 8, 3).mean((1, 2))
    np.testing.assert_allclose(third.image[:, 1].numpy(), pixels, atol=1.0)
    bent = masked_capture(tmp_path / "bent", k1=-0.05)
    view = ImageCache(with_masks(bent, "alpha")).get(0)
    middle = int(view.camera.intrinsics[2])
    assert view.mask is None
    assert view.alpha is not None
    assert (view.alpha[:, : middle - 2] == 0).all()
    assert (view.alpha[:, middle + 3 :] == 255).all()


def test_alpha_and_a_mask_for_alpha(tmp_path: Path) -> None:
    """Opaque is what both say."""
    capture = open_dataset(small_sets.write_blender(tmp_path, small_sets.cameras(4)))
    mask = np.zeros((36, 48), np.uint8)
    mask[:18] = 255
    file = small_sets.write_picture(tmp_path / "elsewhere.png", mask)
    capture = replace(capture, views=(replace(capture.views[0], mask=file), *capture.views[1:]))
    alpha = ImageCache(with_masks(capture, "alpha")).get(0).alpha
    assert alpha is not None
    expected = np.zeros((36, 48), np.uint8)
    expected[:18, 24:] = 255
    np.testing.assert_array_equal(alpha.numpy(), expected)


def test_without_masks(tmp_path: Path) -> None:
    view = ImageCache(with_masks(masked_capture(tmp_path), "none")).get(0)
    assert view.mask is view.alpha is None
    np.testing.assert_array_equal(view.image.numpy(), small_sets.picture(0))


def test_masks_that_went_through_jpeg(tmp_path: Path) -> None:
    """Trap 8: grey values around 0 and 255 are thresholded at 127."""
    shape = np.zeros((64, 64), np.uint8)
    shape[13:41, 21:50] = 255
    Image.fromarray(shape).save(tmp_path / "mask.jpg", quality=40)
    assert len(np.unique(decode_picture(tmp_path / "mask.jpg"))) > 10
    np.testing.assert_array_equal(decode_mask(tmp_path / "mask.jpg"), shape)
    Image.fromarray(np.array([[127, 128]], np.uint8)).save(tmp_path / "edge.png")
    assert decode_mask(tmp_path / "edge.png").tolist() == [[0, 255]]


def test_modes_of_pictures(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decode_picture(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(decode_picture(tmp_path / "deep.png"), np.repeat(grey[..., None], 3, 2))
    picture = Image.fromarray(small_sets.picture(0))
    exif = picture.getexif()
    exif[274] = 6  # "turn me by 90 degrees": calibrations are made of the stored pixels, so it is not applied
    picture.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode_picture(tmp_path / "turned.png"), small_sets.picture(0))


def test_frames_of_a_video_are_exact_by_number(tmp_path: Path) -> None:
    module = pytest.importorskip("imageio_ffmpeg")
    views = small_sets.cameras(2)
    small_sets.write_rig(tmp_path, [view.scaled_to(96, 72) for view in views], frames=1, factor=1)
    for row in range(2):
        (tmp_path / "frames" / f"cam_{row}" / "0000.png").unlink()
        file = str(tmp_path / f"cam_{row}.mp4")
        writer = module.write_frames(file, (96, 72), fps=10, quality=9, macro_block_size=1)
        writer.send(None)
        for number in range(12):
            writer.send(np.full((72, 96, 3), 20 * number + 10 * row, np.uint8).tobytes())
        writer.close()
    assert video_info(tmp_path / "cam_0.mp4") == (96, 72, 12)
    dataset = open_dataset(tmp_path)
    assert len(dataset.views) == 24
    with ImageCache(dataset, bytes=0) as cache:
        for row in (3, 0, 11, 12 + 7, 5, 6, 12 + 2):
            frame = dataset.views[row].frame
            assert frame == row % 12
            level = 20 * frame + 10 * (row // 12)
            assert abs(float(cache.get(row).image.float().mean()) - level) < 4
    data = (tmp_path / "cam_1.mp4").read_bytes()
    (tmp_path / "cam_1.mp4").write_bytes(data[: len(data) // 3])
    with pytest.raises(DatasetError, match=r"cam_1.mp4: video: it cannot be decoded"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("size", [(24, 18), (16, 12), (32, 24), (31, 17)])
def test_alpha_weighted_means_are_exact(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(8).integers(0, 256, (36, 48, 4), np.uint8)
    pixels[:9, :9, 3] = 0
    alpha = pixels[..., 3:].astype(np.float64)
    coverage = by_areas(alpha, *size)
    sums = by_areas(pixels[..., :3] * alpha, *size)
    got = area_resample_alpha(pixels, *size)
    assert np.abs(got[..., 3:] - coverage).max() <= 0.5 + 1e-9
    expected = np.where(coverage > 1e-9, sums / np.maximum(coverage, 1e-9), 0)
    assert np.abs(got[..., :3] - expected).max() <= 0.5 + 1e-6


def test_the_heap_is_trimmed_as_pictures_are_decoded(capture: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the process grew by 23 MB for each photograph of 1080 x 1920, however small the pictures kept."""
    calls: list[int] = []
    monkeypatch.setattr(heap, "_TRIM", calls.append)
    monkeypatch.setattr(heap, "PIXELS", 2 * capture.views[0].camera.width * capture.views[0].camera.height)
    with ImageCache(capture) as cache:
        cache.get(0)
        assert calls == []
        cache.get(1)
        assert calls == [0]
        cache.get(1)  # kept: nothing is decoded
        cache.get(0)
        assert calls == [0]
