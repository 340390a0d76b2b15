"""Where a new client stands: at the first view, or before the whole scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from smalti.viewer.stage import Stage

FOV = math.radians(60.0)
"""Vertical, where no view says another."""
SAMPLED = 100_000
"""Primitives that are looked at for the scene's bounds, at most."""


@dataclass(frozen=True)
class Opening:
    """A pose as the page wants it. World units; `fov` is vertical, in radians."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float]
    fov: float


def opening_of(stage: Stage) -> Opening:
    """The first training view, looking at the depth of what the views look at; else before the front of the scene's
    canonical frame; else a step back from the scene, whose up is -y (OpenCV's axes, those of most splat files).
    """
    middle, radius = bounds(stage)
    views, canonical = stage.views, stage.scene.canonical_from_scene
    rows = [] if views is None else (views.train_rows or views.test_rows)
    if (views is None or not rows) and canonical is not None:
        direction = torch.nn.functional.normalize(torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64), dim=0)
        places = torch.stack([1.75 / math.sin(0.5 * FOV) * direction, torch.zeros_like(direction)])
        place, target = canonical.inverse.apply(places)
        return Opening(_three(place), _three(target), _three(canonical.rotation[1]), FOV)
    if views is None or not rows:
        distance = 1.1 * radius / math.sin(0.5 * FOV)
        place = (middle[0], middle[1] - 0.35 * distance, middle[2] - 0.93 * distance)
        return Opening(place, middle, (0.0, -1.0, 0.0), FOV)
    from smalti.cameras.trajectories import focus_point, up_direction

    cameras = [views.cache.camera(row) for row in rows]
    first = cameras[0]
    forward, centre = first.rotation[2].double(), first.centre.double()
    try:
        depth = float((focus_point(cameras).double() - centre) @ forward)
        up = up_direction(cameras).double() if canonical is None else canonical.rotation[1].double()
    except ValueError:
        depth, up = 0.0, -first.rotation[1].double()
    if not (math.isfinite(depth) and depth > 0):
        depth = max(float((torch.tensor(middle, dtype=torch.float64) - centre) @ forward), 0.1 * radius)
    if abs(float(up @ forward)) > 0.999:
        up = -first.rotation[1].double()
    fov = 2.0 * math.atan(0.5 * first.height / float(first.intrinsics[1]))
    return Opening(_three(centre), _three(centre + depth * forward), _three(up), fov)


def bounds(stage: Stage) -> tuple[tuple[float, float, float], float]:
    """(middle, radius) of the visible primitives, far-off ones left out; of the unit ball where there are none."""
    parts: list[torch.Tensor] = []
    with stage.reading() as scene, torch.no_grad():
        for layer in scene.visible_layers():
            positions = layer.similarity.apply(layer.family.positions().detach().double().cpu())
            parts.append(positions[:: max(len(positions) // SAMPLED, 1)])
    points = torch.cat(parts).numpy() if parts else np.zeros((0, 3))
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return (0.0, 0.0, 0.0), 1.0
    low, middle, high = np.quantile(points, (0.05, 0.5, 0.95), axis=0)
    radius = max(float(np.linalg.norm(high - low)) * 0.6, 1e-3 * float(np.linalg.norm(middle)), 1e-6)
    return (float(middle[0]), float(middle[1]), float(middle[2])), radius


def _three(vector: torch.Tensor) -> tuple[float, float, float]:
    x, y, z = (float(part) for part in vector)
    return x, y, z
