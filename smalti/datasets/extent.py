"""How large a captured scene is: 3DGS's extent, the point that the cameras look at, a robust scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import Dataset


def camera_centres(cameras: Sequence[Camera]) -> Float[np.ndarray, "n 3"]:
    """Positions in the world."""
    return np.stack([camera.centre.detach().double().numpy() for camera in cameras])


def camera_directions(cameras: Sequence[Camera]) -> Float[np.ndarray, "n 3"]:
    """Unit viewing directions in the world."""
    return np.stack([camera.rotation[2].detach().double().numpy() for camera in cameras])


def scene_extent(cameras: Sequence[Camera]) -> float:
    """1.1 times the largest distance of a camera from the mean of all cameras (3DGS, Kerbl et al. 2023).

    One camera, or several at one place, have no extent: 1 takes its place.
    """
    centres = camera_centres(cameras)
    radius = 1.1 * float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    if radius > 1e-9 * max(1.0, float(np.abs(centres).max())):
        return radius
    return 1.0


def focus_point(cameras: Sequence[Camera]) -> Float[np.ndarray, "3"] | None:
    """The point nearest to all optical axes (least squares); None if the axes do not meet in front of most cameras."""
    centres, directions = camera_centres(cameras), camera_directions(cameras)
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    matrix = across.mean(0)
    if len(cameras) < 2 or np.linalg.eigvalsh(matrix)[0] < 1e-3:
        return None  # (nearly) parallel axes
    point = np.linalg.solve(matrix, (across @ centres[:, :, None]).mean(0)[:, 0])
    ahead = ((point - centres) * directions).sum(1)
    return point if (ahead > 0).mean() > 0.7 else None


def scene_scale(dataset: Dataset) -> float:
    """A robust length: the median distance from a camera to what it sees, in the data set's unit.

    By the points' sightings, else by all points in front of the cameras, else by the point that all cameras look at,
    else the extent of the cameras.
    """
    cameras = [view.camera for view in dataset.views]
    centres, directions = camera_centres(cameras), camera_directions(cameras)
    points = dataset.points
    if points is not None and len(points.observation_view):
        seen = points.positions[points.observation_point] - centres[points.observation_view]
        return float(np.median(np.linalg.norm(seen, axis=1)))
    if points is not None and len(points.positions):
        sample = points.positions[:: max(1, len(points.positions) // 2000)]
        offsets = sample[None] - centres[:, None]
        ahead = (offsets * directions[:, None]).sum(2) > 0
        if ahead.any():
            return float(np.median(np.linalg.norm(offsets, axis=2)[ahead]))
    focus = focus_point(cameras)
    if focus is not None:
        return float(np.median(np.linalg.norm(focus - centres, axis=1)))
    return scene_extent(cameras)
