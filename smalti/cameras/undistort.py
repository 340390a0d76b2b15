"""Pictures of any lens to pictures of an exact pinhole camera: the crop is in whole pixels, the new K is not estimated.

The pinhole keeps the lens's fx and fy, so nothing is scaled in the middle of the picture, and its pixel grid is the
lens's own grid shifted by whole pixels: cx and cy lose exactly the crop's left and top.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.crops import Lens, Rectangle, UndistortPolicy, choose_crop
from smalti.cameras.models import is_pinhole

__all__ = ["UndistortPolicy", "Undistortion", "plan", "undistort_image"]

_STRIPE_PIXELS = 1 << 18
"""Rays mapped at a time: bounds the float64 scratch memory."""


@dataclass(frozen=True, eq=False)
class Undistortion:
    """What to do with the pictures of one lens. Small: the resampling map is computed when a picture comes."""

    source: Camera
    """The camera of the distorted picture."""
    target: Camera
    """The pinhole camera of the undistorted picture; same pose, time and name."""
    identity: bool
    """True where the source is a pinhole already: pictures are returned bit for bit, `target` has the same size."""
    masked: bool
    """True where some pixels of the target have no source (see `mask`)."""
    kept: float
    """Share of the source's pixels that the target still shows."""
    left: int
    """Whole pixels between the source's and the target's first column; negative where the target reaches further."""
    top: int
    """The same for rows."""

    def mask(self) -> Bool[np.ndarray, "h w"] | None:
        """True where the target's pixel has a source; None where all have."""
        return _sampling(self)[1] if self.masked else None


def plan(camera: Camera, policy: UndistortPolicy | None = None) -> Undistortion:
    """The pinhole camera that pictures of `camera` are resampled to, and how.

    Raises ValueError where the lens sees nothing in front of it within `policy.max_angle`, or a number is not finite.
    Not differentiable; the target's pose is the source's own tensors.
    """
    if is_pinhole(camera):
        target = camera if camera.model == "PINHOLE" else replace(camera, model="PINHOLE", distortion=())
        return Undistortion(camera, target, identity=True, masked=False, kept=1.0, left=0, top=0)
    rectangle, masked, kept = choose_crop(Lens.of(camera), policy or UndistortPolicy())
    pinhole = replace(camera, model="PINHOLE", distortion=())
    target = pinhole.cropped(rectangle.left, rectangle.top, rectangle.width, rectangle.height)
    return Undistortion(camera, target, False, masked, kept, rectangle.left, rectangle.top)


def undistort_image(undistortion: Undistortion, image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """The picture as the target camera sees it: bilinear, rounded; zero where the source has no pixel.

    Alpha is resampled as one more channel: premultiply first where that matters. Raises ValueError where the picture's
    size is not the source camera's.
    """
    source = undistortion.source
    if image.dtype != np.uint8 or image.shape[:2] != (source.height, source.width):
        raise ValueError(
            f"undistort_image: expected a uint8 picture of {source.width} x {source.height} for camera "
            f"{source.name or '(unnamed)'}, got {image.dtype} {image.shape[1]} x {image.shape[0]}; "
            "scale the camera with Camera.scaled_to or give the picture it belongs to"
        )
    if undistortion.identity:
        return image
    grid, mask = _sampling(undistortion)
    channels = np.ascontiguousarray(image.reshape(source.height, source.width, -1))
    planes = torch.from_numpy(channels).permute(2, 0, 1)[None].float()
    sampled = torch.nn.functional.grid_sample(planes, grid[None], padding_mode="border", align_corners=False)
    result = sampled[0].permute(1, 2, 0).round_().clamp_(0, 255).to(torch.uint8).numpy()
    if undistortion.masked:
        result[~mask] = 0
    return np.ascontiguousarray(result).reshape(*result.shape[:2], *image.shape[2:])


class _SamplingCache:
    """The last used maps, bounded in bytes: rigs switch between lenses at every picture, and a map is large."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._entries: OrderedDict[tuple[Lens, Rectangle], tuple[Tensor, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, lens: Lens, rectangle: Rectangle) -> tuple[Tensor, np.ndarray]:
        key = (lens, rectangle)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        # Computed outside the lock: two threads may do the same work once, none waits for another's lens.
        entry = _compute_sampling(lens, rectangle)
        with self._lock:
            self._entries[key] = entry
            while len(self._entries) > 1 and self.bytes_held > self.most_bytes:
                self._entries.popitem(last=False)
        return entry

    @property
    def bytes_held(self) -> int:
        return sum(grid.nbytes + mask.nbytes for grid, mask in self._entries.values())


_CACHE = _SamplingCache(most_bytes=128 << 20)


def _sampling(undistortion: Undistortion) -> tuple[Float[Tensor, "h w 2"], Bool[np.ndarray, "h w"]]:
    """`grid_sample`'s grid (float32) and the mask."""
    left, top, target = undistortion.left, undistortion.top, undistortion.target
    return _CACHE.get(Lens.of(undistortion.source), Rectangle(left, top, left + target.width, top + target.height))


def _compute_sampling(lens: Lens, rectangle: Rectangle) -> tuple[Tensor, np.ndarray]:
    height, width = rectangle.height, rectangle.width
    grid = np.empty((height, width, 2), np.float32)
    mask = np.empty((height, width), bool)
    rows = max(1, _STRIPE_PIXELS // width)
    size = np.array([lens.width, lens.height], np.float64)
    for start in range(0, height, rows):
        stop = min(height, start + rows)
        x = np.arange(rectangle.left, rectangle.right) + 0.5
        y = np.arange(rectangle.top + start, rectangle.top + stop) + 0.5
        pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        found, valid = lens.source_pixels(pixels)
        # With align_corners=False, -1 and 1 are the picture's outer edges: our pixel coordinates, scaled.
        grid[start:stop] = np.where(valid[:, None], 2.0 * found / size - 1.0, -2.0).reshape(stop - start, width, 2)
        mask[start:stop] = valid.reshape(stop - start, width)
    return torch.from_numpy(grid), mask
