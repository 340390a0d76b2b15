"""Which whole-pixel rectangle of the pinhole plane an undistorted picture shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from smalti.cameras.camera import Camera
from smalti.cameras.models import project_camera_points, unproject

_SAMPLE_SLACK = 0.01
"""Pixels beyond the outermost pixel centres that still count as seen (the border pixel is repeated there)."""


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


@dataclass(frozen=True)
class Lens:
    """A camera without its pose, hashable: views that share a lens share the work."""

    model: str
    intrinsics: tuple[float, ...]
    distortion: tuple[float, ...]
    width: int
    height: int

    @staticmethod
    def of(camera: Camera) -> Lens:
        """The camera's lens."""
        numbers = tuple(camera.intrinsics.detach().double().tolist())
        return Lens(camera.model, numbers, tuple(camera.distortion), camera.width, camera.height)

    @property
    def camera(self) -> Camera:
        """A camera with this lens at the world's origin."""
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
class Rectangle:
    """Whole pixels of the pinhole's grid: [left, right) x [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom

    def side(self, number: int) -> np.ndarray:
        """Pixel centres along one side: left, top, right, bottom."""
        if number % 2 == 0:
            y = np.arange(self.top, self.bottom) + 0.5
            return np.stack([np.full(len(y), self.left + 0.5 if number == 0 else self.right - 0.5), y], axis=1)
        x = np.arange(self.left, self.right) + 0.5
        return np.stack([x, np.full(len(x), self.top + 0.5 if number == 1 else self.bottom - 0.5)], axis=1)

    def contains(self, other: Rectangle) -> bool:
        """Whether all of the other lies inside."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def holds(self, pixels: np.ndarray) -> np.ndarray:
        """Which of the pixels lie inside; NaN does not."""
        x, y = pixels.T
        return (x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)


@lru_cache(maxsize=512)
def choose_crop(lens: Lens, policy: UndistortPolicy) -> tuple[Rectangle, bool, float]:
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


def _limit(lens: Lens, policy: UndistortPolicy) -> Rectangle:
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
    return Rectangle(math.floor(cx - left), math.floor(cy - top), math.ceil(cx + right), math.ceil(cy + bottom))


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Some whole pixel columns and rows of a rectangle, and whether the pixel at each crossing has a source."""

    columns: np.ndarray
    rows: np.ndarray
    valid: np.ndarray
    limit: Rectangle

    @staticmethod
    def of(lens: Lens, limit: Rectangle) -> _Lattice:
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

    def rectangle(self, bounds: list[int]) -> Rectangle:
        left, top, right, bottom = bounds
        return Rectangle(
            int(self.columns[left]), int(self.rows[top]), int(self.columns[right]) + 1, int(self.rows[bottom]) + 1
        )


def _inner(lens: Lens, lattice: _Lattice) -> Rectangle | None:
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
        missing = [lens.missing(Rectangle(*edges).side(side)) for side in range(4)]
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
    return Rectangle(*edges)


def _outer(lens: Lens, lattice: _Lattice) -> Rectangle:
    """The smallest rectangle that holds every valid pixel."""
    left, top, right, bottom = lattice.rectangle(lattice.bounds()).edges
    limit, step = lattice.limit, lattice.step
    edges = [max(left - step, limit.left), max(top - step, limit.top)]
    edges += [min(right + step, limit.right), min(bottom + step, limit.bottom)]
    for side in range(4):
        while lens.missing(Rectangle(*edges).side(side)) == 1.0:
            edges = list(_moved(edges, side, 1).edges)
    return Rectangle(*edges)


def _moved(edges: Sequence[int], side: int, inwards: int) -> Rectangle:
    """One side moved by whole pixels."""
    result = list(edges)
    result[side] += inwards if side < 2 else -inwards
    return Rectangle(*result)
