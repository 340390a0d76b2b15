"""What a world is found from, as plain arrays: poses, where all cameras look, the points there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from smalti.cameras.camera import Camera
from smalti.datasets.extent import camera_centres, scene_extent

if TYPE_CHECKING:
    from smalti.datasets.dataset import Points

FEWEST = 50
"""Fewer points say nothing about a scene."""
MOST_POINTS = 6000
PARALLEL = 1e-3
"""Mean squared sine of the angles between optical axes from which they count as meeting (0.03: under two degrees)."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Poses and points, input's frame."""

    centres: Float[np.ndarray, "n 3"]
    rotations: Float[np.ndarray, "n 3 3"]
    """World-to-camera: rows are right, down, forward."""
    focus: Float[np.ndarray, "3"]
    """Where the cameras look."""
    converging: bool
    """Whether the optical axes meet there; else it is a guess ahead of the cameras."""
    viewed: float
    """Radius of the ball around the focus that the median camera's picture holds across its shorter side."""
    positions: Float[np.ndarray, "m 3"]
    """Points in that ball and around it (twice the radius); none where they say nothing."""
    around: Float[np.ndarray, "k 3"]
    """The same, in twice that radius."""
    origin: str
    """How the points came to be (`Points.origin`); empty without."""

    @staticmethod
    def gathered(cameras: Sequence[Camera], points: Points | None) -> Evidence:
        """Of at least one camera. Points at random, and fewer than a few, are left out."""
        centres = camera_centres(cameras)
        rotations = np.stack([camera.rotation.detach().double().numpy() for camera in cameras])
        tangents = np.array([_tangent(camera) for camera in cameras])
        positions, origin = np.zeros((0, 3)), ""
        if points is not None and points.origin != "random" and len(points.positions) >= FEWEST:
            chosen = np.random.default_rng(0).permutation(len(points.positions))[:MOST_POINTS]
            positions, origin = np.asarray(points.positions[np.sort(chosen)], np.float64), points.origin
            positions = positions[np.isfinite(positions).all(1)]
        focus = robust_focus(centres, rotations[:, 2])
        converging = focus is not None
        if focus is None:
            focus = _ahead(cameras, centres, rotations[:, 2], positions)
        distances = np.linalg.norm(focus - centres, axis=1)
        viewed = float(np.median(distances * tangents / np.sqrt(1.0 + tangents**2)))
        viewed = viewed if viewed > 0 else 1.0
        away = np.linalg.norm(positions - focus, axis=1)
        near, around = positions[away <= 2.0 * viewed], positions[away <= 4.0 * viewed]
        if len(near) < FEWEST:
            near, around, origin = np.zeros((0, 3)), np.zeros((0, 3)), ""
        return Evidence(centres, rotations, focus, converging, viewed, near, around, origin)

    @property
    def has_points(self) -> bool:
        """Whether there are points where the cameras look."""
        return len(self.positions) > 0

    @property
    def has_scenery(self) -> bool:
        """Whether the points are of all that is seen, and not of an object cut out by its silhouettes."""
        return self.has_points and self.origin != "hull"

    @property
    def distance(self) -> float:
        """Of the median camera from the focus."""
        return float(np.median(np.linalg.norm(self.centres - self.focus, axis=1)))


def robust_focus(
    centres: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "3"] | None:
    """The point nearest to most optical axes (least squares, reweighted by Cauchy's function at the median distance);
    None where the axes are (nearly) parallel or do not meet in front of most cameras.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    weights = np.ones(len(centres))
    point = np.zeros(3)
    for _ in range(10):
        matrix = np.einsum("n,nij->ij", weights, across) / weights.sum()
        if len(centres) < 2 or np.linalg.eigvalsh(matrix)[0] < PARALLEL:
            return None
        right = (weights[:, None] * (across @ centres[:, :, None])[:, :, 0]).sum(0) / weights.sum()
        point = np.linalg.solve(matrix, right)
        missed = np.linalg.norm((across @ (point - centres)[:, :, None])[:, :, 0], axis=1)
        middle = float(np.median(missed))
        if middle < 1e-9 * max(float(np.linalg.norm(centres - point, axis=1).max()), 1e-300):
            break
        weights = 1.0 / (1.0 + (missed / (2.0 * middle)) ** 2)
    ahead = ((point - centres) * directions).sum(1)
    return point if (ahead > 0).mean() > 0.7 else None


def _ahead(
    cameras: Sequence[Camera],
    centres: Float[np.ndarray, "n 3"],
    directions: Float[np.ndarray, "n 3"],
    positions: Float[np.ndarray, "m 3"],
) -> Float[np.ndarray, "3"]:
    """A guess at what cameras with parallel axes look at: the middle of the points before them, else straight ahead at
    five times the cameras' extent.
    """
    forward = directions.mean(0)
    if np.linalg.norm(forward) < 1e-6:  # they look in all directions: a panorama from inside
        return np.median(positions, axis=0) if len(positions) else centres.mean(0)
    forward = forward / np.linalg.norm(forward)
    middle = centres.mean(0)
    depths = (positions - middle) @ forward
    before = depths[depths > 1e-6 * (np.abs(depths).max() if len(depths) else 1.0)]
    if len(before) >= FEWEST:
        return middle + float(np.median(before)) * forward
    return middle + 5.0 * scene_extent(cameras) * forward


def _tangent(camera: Camera) -> float:
    """Of half the angle across the picture's shorter side, at most 1: wide lenses do not make the subject larger."""
    fx, fy = (float(value) for value in camera.intrinsics[:2])
    return min(0.5 * camera.width / fx, 0.5 * camera.height / fy, 1.0)
