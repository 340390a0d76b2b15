"""Initial points without any knowledge of the scene: random inside the part of space that many cameras see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from smalti.cameras.camera import Camera
from smalti.cameras.models import project
from smalti.datasets.dataset import Dataset, Points
from smalti.datasets.extent import camera_centres, camera_directions, focus_point, scene_extent

CANDIDATES = 1 << 15
"""Points tried at a time."""


def seen_by(cameras: Sequence[Camera], positions: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    """How many cameras have each point inside their picture (lens included, occlusion not)."""
    counts = np.zeros(len(positions), np.int64)
    for camera in cameras:
        counts += inside(camera, positions)
    return counts


def inside(camera: Camera, positions: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, "n"]:
    """Which points fall into the picture."""
    pixels, valid = project(camera, positions)
    pixels = np.where(valid[:, None], pixels, -1.0)
    return valid & ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)


def frustum_points(dataset: Dataset, count: int, generator: torch.Generator) -> Points:
    """`count` points, uniform where at least half as many cameras look as look at the best place; random colours.

    The volume is a ball: around the point that the cameras look at, as large as their pictures show at that distance;
    where they do not converge, one that reaches from the cameras to ten times their extent along the mean direction.
    """
    cameras = [view.camera for view in dataset.views]
    step = max(1, len(cameras) // 100)
    centre, radius = viewed_ball(cameras)
    some = cameras[::step]
    kept: list[np.ndarray] = []
    total, least = 0, 0
    for attempt in range(64):
        positions = centre + radius * _in_ball(CANDIDATES, generator)
        counts = seen_by(some, positions)
        if attempt == 0:
            least = max(1, int(counts.max()) // 2)
        good = positions[counts >= least]
        kept.append(good)
        total += len(good)
        if total >= count:
            break
    positions = np.concatenate(kept)[:count]
    if len(positions) < count:  # a frustum thinner than the ball can tell: fill up anywhere inside it
        positions = np.concatenate([positions, centre + radius * _in_ball(count - len(positions), generator)])
    colors = torch.randint(0, 256, (count, 3), generator=generator).numpy().astype(np.uint8)
    return Points(positions, colors, origin="random")


def viewed_ball(cameras: Sequence[Camera]) -> tuple[Float[np.ndarray, "3"], float]:
    """(centre, radius) of the ball that holds what the cameras look at."""
    centres = camera_centres(cameras)
    focus = focus_point(cameras)
    if focus is not None:
        distances = np.linalg.norm(focus - centres, axis=1)
        tangents = [_half_tangent(camera) for camera in cameras]
        return focus, float(np.median(distances * np.minimum(tangents, 1.0)))
    forward = camera_directions(cameras).mean(0)
    forward /= max(float(np.linalg.norm(forward)), 1e-9)
    depth = 10.0 * scene_extent(cameras)
    return centres.mean(0) + 0.5 * depth * forward, 0.5 * depth


def _half_tangent(camera: Camera) -> float:
    fx, fy = (float(value) for value in camera.intrinsics[:2])
    return max(0.5 * camera.width / fx, 0.5 * camera.height / fy)


def _in_ball(count: int, generator: torch.Generator) -> Float[np.ndarray, "n 3"]:
    directions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    lengths = torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
    return (torch.nn.functional.normalize(directions, dim=1) * lengths).numpy()
