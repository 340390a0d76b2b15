"""Pictures of any lens to pictures of an exact pinhole camera: the crop is in whole pixels, the new K is not estimated.

The pinhole keeps the lens's fx and fy, so nothing is scaled in the middle of the picture, and its pixel grid is the
lens's own grid shifted by whole pixels: cx and cy lose exactly the crop's left and top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.models import is_pinhole, project_camera_points, unproject

_SAMPLE_SLACK = 0.01
"""Pixels beyond the outermost pixel centres that still count as seen (the border pixel is repeated there)."""
_STRIPE_PIXELS = 1 << 18
"""Rays mapped at a time: bounds the float64 scratch memory."""


@dataclass(frozen=True)
class UndistortPolicy:
    """How much of the picture to keep."""

    keep: Literal["auto", "valid", "all"] = "auto"
    """`valid`: the rectangle without missing pixels. `all`: everything within the limits below, with a mask.
    `auto`: `valid`, unless that keeps less than `minimum_kept` of the picture's pixels; then `all`."""
    minimum_kept: float = 0.7
    """Share of the source's pixels."""
    max_angle: float = 65.0
    """Degrees off the axis along the picture's axes: a pinhole wastes its pixels on what lies further out."""
    max_scale: float = 2.0
    """Width and height at most this many times the source's."""


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
        return _sampling(_Lens.of(self.source), _Rectangle.of(self))[1] if self.masked else None


def plan(camera: Camera, policy: UndistortPolicy | None = None) -> Undistortion:
    """The pinhole camera that pictures of `camera` are resampled to, and how.

    Raises ValueError where the lens sees nothing in front of it within `policy.max_angle`, or a number is not finite.
    Not differentiable; the target's pose is the source's own tensors.
    """
    if is_pinhole(camera):
        target = camera if camera.model == "PINHOLE" else replace(camera, model="PINHOLE", distortion=())
        return Undistortion(camera, target, identity=True, masked=False, kept=1.0, left=0, top=0)
    rectangle, masked, kept = _choose(_Lens.of(camera), policy or UndistortPolicy())
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
    grid, mask = _sampling(_Lens.of(source), _Rectangle.of(undistortion))
    channels = np.ascontiguousarray(image.reshape(source.height, source.width, -1))
    planes = torch.from_numpy(channels).permute(2, 0, 1)[None].float()
    sampled = torch.nn.functional.grid_sample(planes, grid[None], padding_mode="border", align_corners=False)
    result = sampled[0].permute(1, 2, 0).round_().clamp_(0, 255).to(torch.uint8).numpy()
    if undistortion.masked:
        result[~mask] = 0
    return np.ascontiguousarray(result).reshape(*result.shape[:2], *image.shape[2:])


@dataclass(frozen=True)
class _Lens:
    """A camera without its pose, hashable: views that share a lens share the work."""

    model: str
    intrinsics: tuple[float, ...]
    distortion: tuple[float, ...]
    width: int
    height: int

    @staticmethod
    def of(camera: Camera) -> _Lens:
        numbers = tuple(camera.intrinsics.detach().double().tolist())
        return _Lens(camera.model, numbers, tuple(camera.distortion), camera.width, camera.height)

    @property
    def camera(self) -> Camera:
        numbers = torch.tensor(self.intrinsics, dtype=torch.float64)
        pose = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        return Camera(*pose, numbers, self.width, self.height, self.model, self.distortion)

    def source_pixels(self, pixels: Float[np.ndarray, "n 2"]) -> tuple[np.ndarray, np.ndarray]:
        """Where pixels of the uncropped pinhole lie in the distorted picture, and whether it has a sample there."""
        fx, fy, cx, cy = self.intrinsics
        rays = np.stack([(pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy, np.ones(len(pixels))], axis=1)
        found, valid = project_camera_points(self.camera, rays)
        low, high = 0.5 - _SAMPLE_SLACK, np.array([self.width, self.height]) - 0.5 + _SAMPLE_SLACK
        return found, valid & ((found >= low) & (found <= high)).all(axis=1)

    def missing(self, pixels: Float[np.ndarray, "n 2"]) -> float:
        """Share of these pinhole pixels that have no source."""
        return 1.0 - float(self.source_pixels(pixels)[1].mean())

    def pinhole_pixels(self, pixels: Float[np.ndarray, "n 2"]) -> np.ndarray:
        """Where pixels of the distorted picture lie in the uncropped pinhole's; NaN at 90 degrees and beyond."""
        rays, _ = unproject(self.camera, pixels)
        fx, fy, cx, cy = self.intrinsics
        with np.errstate(all="ignore"):
            flat = np.where(rays[:, 2:] > 1e-6, rays[:, :2] / rays[:, 2:], np.nan)
        return flat * [fx, fy] + [cx, cy]


@dataclass(frozen=True)
class _Rectangle:
    """Whole pixels of the pinhole's grid: [left, right) x [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @staticmethod
    def of(undistortion: Undistortion) -> _Rectangle:
        left, top, target = undistortion.left, undistortion.top, undistortion.target
        return _Rectangle(left, top, left + target.width, top + target.height)

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def edges(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom

    def side(self, number: int) -> np.ndarray:
        """Pixel centres along one side: left, top, right, bottom."""
        if number % 2 == 0:
            y = np.arange(self.top, self.bottom) + 0.5
            return np.stack([np.full(len(y), self.left + 0.5 if number == 0 else self.right - 0.5), y], axis=1)
        x = np.arange(self.left, self.right) + 0.5
        return np.stack([x, np.full(len(x), self.top + 0.5 if number == 1 else self.bottom - 0.5)], axis=1)

    def contains(self, other: _Rectangle) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def holds(self, pixels: np.ndarray) -> np.ndarray:
        x, y = pixels.T
        return (x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)


@lru_cache(maxsize=512)
def _choose(lens: _Lens, policy: UndistortPolicy) -> tuple[_Rectangle, bool, float]:
    """The rectangle, whether it has missing pixels, and the share of the source it shows."""
    lattice = _Lattice.of(lens, _limit(lens, policy))
    if not lattice.valid.any():
        raise ValueError(
            f"undistort: camera model {lens.model} with distortion {lens.distortion} sees nothing within "
            f"{policy.max_angle} degrees of its axis; check the calibration"
        )
    # A coarse grid of the source's pixels stands for its area.
    x, y = np.linspace(0.5, lens.width - 0.5, 64), np.linspace(0.5, lens.height - 0.5, 64)
    seen = lens.pinhole_pixels(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    inner = _inner(lens, lattice) if policy.keep != "all" else None
    if inner is None and policy.keep == "valid":
        raise ValueError(
            f"undistort: camera model {lens.model} with distortion {lens.distortion} has no rectangle without missing "
            "pixels; use keep='all', which marks them in a mask"
        )
    if inner is not None:
        kept = float(inner.holds(seen).mean())
        if policy.keep == "valid" or kept >= policy.minimum_kept:
            return inner, False, kept
    outer = _outer(lens, lattice)
    return outer, outer != inner, float(outer.holds(seen).mean())


def _limit(lens: _Lens, policy: UndistortPolicy) -> _Rectangle:
    """The pinhole pixels that the policy allows at all; each side of the principal point has its own limit."""
    fx, fy, cx, cy = lens.intrinsics
    reach = math.tan(math.radians(policy.max_angle))
    values = (fx, fy, cx, cy, *lens.distortion)
    if not all(math.isfinite(value) for value in values) or fx <= 0.0 or fy <= 0.0:
        raise ValueError(f"undistort: camera model {lens.model}: {values} is not a usable calibration; repair the file")
    left = min(fx * reach, max(policy.max_scale * cx, 1.0))
    right = min(fx * reach, max(policy.max_scale * (lens.width - cx), 1.0))
    top = min(fy * reach, max(policy.max_scale * cy, 1.0))
    bottom = min(fy * reach, max(policy.max_scale * (lens.height - cy), 1.0))
    return _Rectangle(math.floor(cx - left), math.floor(cy - top), math.ceil(cx + right), math.ceil(cy + bottom))


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Some whole pixel columns and rows of a rectangle, and whether the pixel at each crossing has a source."""

    columns: np.ndarray
    rows: np.ndarray
    valid: np.ndarray
    limit: _Rectangle

    @staticmethod
    def of(lens: _Lens, limit: _Rectangle) -> _Lattice:
        columns = np.unique(np.linspace(limit.left, limit.right - 1, 193).round().astype(int))
        rows = np.unique(np.linspace(limit.top, limit.bottom - 1, 193).round().astype(int))
        pixels = np.stack(np.meshgrid(columns + 0.5, rows + 0.5), axis=-1).reshape(-1, 2)
        _, valid = lens.source_pixels(pixels)
        return _Lattice(columns, rows, valid.reshape(len(rows), len(columns)), limit)

    @property
    def step(self) -> int:
        """Largest gap between neighbours."""
        return int(max(np.diff(self.columns).max(initial=1), np.diff(self.rows).max(initial=1)))

    def bounds(self) -> list[int]:
        """Indices of the first and last column, first and last row that have a valid crossing."""
        columns, rows = np.flatnonzero(self.valid.any(axis=0)), np.flatnonzero(self.valid.any(axis=1))
        return [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])]

    def rectangle(self, bounds: list[int]) -> _Rectangle:
        left, top, right, bottom = bounds
        return _Rectangle(
            int(self.columns[left]), int(self.rows[top]), int(self.columns[right]) + 1, int(self.rows[bottom]) + 1
        )


def _inner(lens: _Lens, lattice: _Lattice) -> _Rectangle | None:
    """A large rectangle without missing pixels: from outside in, always giving up the side with the most of them."""
    bounds = lattice.bounds()
    while bounds[0] < bounds[2] and bounds[1] < bounds[3]:
        left, top, right, bottom = bounds
        inside = lattice.valid[top : bottom + 1, left : right + 1]
        missing = [1.0 - side.mean() for side in (inside[:, 0], inside[0], inside[:, -1], inside[-1])]
        worst = int(np.argmax(missing))
        if missing[worst] == 0.0:
            break
        bounds[worst] += 1 if worst < 2 else -1
    else:
        return None
    # The lattice is coarse: make sure of every pixel of the sides, then push them out again as far as they go.
    edges = lattice.rectangle(bounds).edges
    while True:
        if edges[0] >= edges[2] or edges[1] >= edges[3]:
            return None
        missing = [lens.missing(_Rectangle(*edges).side(side)) for side in range(4)]
        worst = int(np.argmax(missing))
        if missing[worst] == 0.0:
            break
        edges = _moved(edges, worst, 1).edges
    growing = True
    while growing:
        growing = False
        for side in range(4):
            trial = _moved(edges, side, -1)
            if lattice.limit.contains(trial) and lens.missing(trial.side(side)) == 0.0:
                edges, growing = trial.edges, True
    return _Rectangle(*edges)


def _outer(lens: _Lens, lattice: _Lattice) -> _Rectangle:
    """The smallest rectangle that holds every valid pixel."""
    left, top, right, bottom = lattice.rectangle(lattice.bounds()).edges
    limit, step = lattice.limit, lattice.step
    edges = [max(left - step, limit.left), max(top - step, limit.top)]
    edges += [min(right + step, limit.right), min(bottom + step, limit.bottom)]
    for side in range(4):
        while lens.missing(_Rectangle(*edges).side(side)) == 1.0:
            edges = list(_moved(edges, side, 1).edges)
    return _Rectangle(*edges)


def _moved(edges: Sequence[int], side: int, inwards: int) -> _Rectangle:
    """One side moved by whole pixels."""
    result = list(edges)
    result[side] += inwards if side < 2 else -inwards
    return _Rectangle(*result)


@lru_cache(maxsize=3)
def _sampling(lens: _Lens, rectangle: _Rectangle) -> tuple[Float[Tensor, "h w 2"], Bool[np.ndarray, "h w"]]:
    """`grid_sample`'s grid (float32) and the mask. The cache is small: a grid has eight bytes per pixel."""
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
