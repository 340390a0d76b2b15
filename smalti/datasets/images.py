"""Pictures for training: decoded on demand, undistorted, downscaled, and kept in a cache with a fixed size in bytes."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.undistort import plan, undistort_image
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.decode import Videos, decode_mask, decode_view
from smalti.datasets.downscale import area_resample, area_resample_alpha, downscale_factor, downscaled_camera
from smalti.datasets.heap import Trimmer


@dataclass(frozen=True, eq=False)
class LoadedView:
    """A picture ready to be compared with a render: its camera is pinhole, float32, and of exactly its size."""

    camera: Camera
    image: UInt8[Tensor, "height width 3"]
    """Display-encoded; straight (not premultiplied) where `alpha` is given."""
    alpha: UInt8[Tensor, "height width"] | None = None
    """The picture's own alpha, 0..255: composite `image` over any background with it."""
    mask: UInt8[Tensor, "height width"] | None = None
    """Foreground by the mask file, 0..255 (255 = foreground; between only where pixels were averaged). None where the
    data set's masks are for alpha: they are in that.
    """
    valid: UInt8[Tensor, "height width"] | None = None
    """255 where the pixel was photographed, 0 where undistortion had nothing to show; None: everywhere."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(part.numel() for part in (self.image, self.alpha, self.mask, self.valid) if part is not None)


class ImageCache:
    """`get(row)` gives the view `row` of a data set as `LoadedView`; the latest used, at most `bytes` bytes, are kept.

    Everything is a pure function of the data set, the row and `downscale`: neither cache size nor prefetching changes
    a byte. `downscale` is a whole or rational factor (see `downscaled_camera` for sizes that are not divisible).
    Thread-safe. `close()`, or leaving the `with` block, ends the prefetch thread; the cache itself stays usable.
    """

    def __init__(self, dataset: Dataset, *, downscale: int | float | Fraction = 1, bytes: int = 1 << 30) -> None:
        self.dataset = dataset
        self.factor = downscale_factor(downscale)
        self.limit = bytes
        self.cached_bytes = 0
        self.peak_bytes = 0
        self._kept: OrderedDict[int, LoadedView] = OrderedDict()
        self._loading: dict[int, threading.Event] = {}
        self._lock = threading.Lock()
        self._videos = Videos()
        self._queue: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._cameras: dict[int, Camera] = {}
        self._trimmer = Trimmer()

    def __len__(self) -> int:
        return len(self.dataset.views)

    def __enter__(self) -> ImageCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def camera(self, row: int) -> Camera:
        """The camera that `get(row)` will have, without decoding the picture."""
        if row not in self._cameras:
            pinhole = pinhole_camera(self.dataset.views[row].camera)
            self._cameras[row] = downscaled_camera(pinhole, self.factor)[0].to(torch.float32)
        return self._cameras[row]

    def get(self, row: int) -> LoadedView:
        """The view, from the cache or decoded now. Raises `DatasetError` for a picture that cannot be decoded."""
        while True:
            with self._lock:
                if row in self._kept:
                    self._kept.move_to_end(row)
                    return self._kept[row]
                other = self._loading.get(row)
                if other is None:
                    self._loading[row] = threading.Event()
                    break
            other.wait()
        try:
            loaded = self._load(row)
            with self._lock:
                self._keep(row, loaded)
            source = self.dataset.views[row].camera
            self._trimmer.decoded(source.width * source.height)
            return loaded
        finally:
            with self._lock:
                self._loading.pop(row).set()

    def prefetch(self, rows: Iterable[int]) -> None:
        """Asks a background thread to decode these rows next; returns at once. Errors appear in `get`.

        Ask for a few rows ahead only: a full cache forgets the oldest first.
        """
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._queue = queue.SimpleQueue()
            self._thread = threading.Thread(target=self._work, args=(self._queue,), name="smalti-prefetch", daemon=True)
            self._thread.start()
        for row in rows:
            self._queue.put(row)

    def close(self) -> None:
        """Ends the prefetch thread (after the picture it is at) and the video decoders."""
        if self._thread is not None:
            self._stopping.set()
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        self._videos.close()

    def _work(self, rows: queue.SimpleQueue[int | None]) -> None:
        while (row := rows.get()) is not None and not self._stopping.is_set():
            try:
                self.get(row)
            except (DatasetError, OSError, ValueError, IndexError):
                continue  # the same error is raised where the picture is wanted

    def _keep(self, row: int, loaded: LoadedView) -> None:
        if loaded.nbytes > self.limit:
            return
        while self.cached_bytes + loaded.nbytes > self.limit:
            self.cached_bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[row] = loaded
        self.cached_bytes += loaded.nbytes
        self.peak_bytes = max(self.peak_bytes, self.cached_bytes)

    def _load(self, row: int) -> LoadedView:
        view = self.dataset.views[row]
        pixels = decode_view(view, self._videos)
        mask = None if view.mask is None else decode_mask(view.mask)
        if mask is not None and mask.shape != pixels.shape[:2]:
            raise DatasetError(
                view.mask or "", view.camera.name, "the mask has another size than its picture", "Make it again"
            )
        if mask is not None and self.dataset.masks == "alpha":
            pixels, mask = with_alpha(pixels, mask), None
        pinhole, pixels, mask, valid = undistorted(view.camera, pixels, mask)
        camera, (used_width, used_height) = downscaled_camera(pinhole, self.factor)
        size = (camera.width, camera.height)
        pixels = pixels[:used_height, :used_width]
        smaller = area_resample_alpha(pixels, *size) if pixels.shape[2] == 4 else area_resample(pixels, *size)
        image = torch.from_numpy(np.array(smaller[..., :3], order="C"))
        alpha = torch.from_numpy(np.array(smaller[..., 3], order="C")) if smaller.shape[2] == 4 else None
        planes = [
            None
            if plane is None
            else torch.from_numpy(np.array(area_resample(plane[:used_height, :used_width], *size), order="C"))
            for plane in (mask, valid)
        ]
        return LoadedView(camera.to(torch.float32), image, alpha, planes[0], planes[1])


def with_alpha(pixels: UInt8[np.ndarray, "h w c"], mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """The picture transparent outside of the mask, and where it is itself."""
    alpha = mask if pixels.shape[2] == 3 else np.minimum(pixels[..., 3], mask)
    return np.concatenate([pixels[..., :3], alpha[..., None]], axis=2)


def pinhole_camera(camera: Camera) -> Camera:
    """The camera that `undistorted` gives the pictures of this one."""
    return plan(camera).target


def undistorted(
    camera: Camera, pixels: UInt8[np.ndarray, "h w c"], mask: UInt8[np.ndarray, "h w"] | None
) -> tuple[Camera, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """(pinhole camera, pixels, mask, valid) of a picture; unchanged where the lens is a pinhole already.

    Straight RGBA is resampled premultiplied, so that colours under alpha 0 do not bleed in.
    """
    undistortion = plan(camera)
    if undistortion.identity:
        return undistortion.target, pixels, mask, None
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.int64)
        premultiplied = np.concatenate([(pixels[..., :3] * alpha + 127) // 255, alpha], 2).astype(np.uint8)
        pixels = undistort_image(undistortion, premultiplied)
        alpha = pixels[..., 3:].astype(np.int64)
        straight = np.minimum((pixels[..., :3].astype(np.int64) * 255 + alpha // 2) // np.maximum(alpha, 1), 255)
        pixels = np.concatenate([np.where(alpha > 0, straight, 0), alpha], 2).astype(np.uint8)
    else:
        pixels = undistort_image(undistortion, pixels)
    seen = undistortion.mask()
    valid = None if seen is None else np.where(seen, np.uint8(255), np.uint8(0))
    return undistortion.target, pixels, None if mask is None else undistort_image(undistortion, mask), valid
