"""Solids of one colour on black, drawn without any renderer: what the toy experiment of the neural splats looks at.

A picture is the colour times the share of a pixel that the solid covers, by rays that march through its signed distance
(sphere tracing), `SAMPLES` x `SAMPLES` of them in a regular grid per pixel. All solids lie within a ball of radius 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smalti.cameras.camera import Camera

Numbers = NDArray[np.float64]
SAMPLES = 4
"""Rays per pixel and direction."""
RADIUS, DISTANCE, FIELD_OF_VIEW = 1.0, 3.2, 0.62
TOUCH = 5e-4
"""Nearer than this is met; no step is shorter."""
ALBEDO = (0.9, 0.55, 0.25)


def half_torus(p: Numbers) -> Numbers:
    """A handle: half a ring of radius 0.65 with round ends, 0.2 thick."""
    x, y, z = p[..., 0], p[..., 1] + 0.3, p[..., 2]
    across = np.where(y > 0, np.hypot(x, y) - 0.65, np.hypot(np.abs(x) - 0.65, y))
    return np.hypot(across, z) - 0.2


def crescent_leaf(p: Numbers) -> Numbers:
    """A disk of radius 0.8 less another beside it, 0.16 thick."""
    outer = np.hypot(p[..., 0], p[..., 1]) - 0.8
    inner = np.hypot(p[..., 0] - 0.45, p[..., 1] - 0.1) - 0.65
    return np.maximum(np.maximum(outer, -inner), np.abs(p[..., 2]) - 0.08)


def notched_box(p: Numbers) -> Numbers:
    """A block with a step cut out of one edge, to beyond its middle."""
    return np.maximum(box(p, (0, 0, 0), (0.6, 0.45, 0.5)), -box(p, (0.4, -0.35, 0.0), (0.35, 0.3, 0.6)))


def box(p: Numbers, centre: tuple[float, float, float], half: tuple[float, float, float]) -> Numbers:
    """Signed distance from a block with the axes' directions."""
    q = np.abs(p - np.array(centre)) - np.array(half)
    return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0)


SOLIDS: dict[str, Callable[[Numbers], Numbers]] = {
    "half torus": half_torus,
    "crescent leaf": crescent_leaf,
    "notched box": notched_box,
}
"""Signed distances, or less where solids are cut out of each other: never more, so that no ray steps through."""


@dataclass(frozen=True, eq=False)
class Views:
    """Cameras and pictures [h, w, 3], those to train on and those held out."""

    cameras: list[Camera]
    pictures: list[Tensor]
    held_cameras: list[Camera]
    held_pictures: list[Tensor]


def views_of(solid: str, train: int = 32, test: int = 8, size: int = 64) -> Views:
    """So many views, spread over a sphere; those held out are spread evenly among them."""
    total = train + test
    held = {round((row + 0.5) * total / test) for row in range(test)}
    cameras = [camera_at(direction, size) for direction in spiral(total)]
    pictures = [picture(SOLIDS[solid], camera) for camera in cameras]
    split = [[row for row in range(total) if (row in held) == wanted] for wanted in (False, True)]
    sides = [part for rows in split for part in ([cameras[row] for row in rows], [pictures[row] for row in rows])]
    return Views(*sides)  # pyright: ignore[reportArgumentType]


def spiral(count: int) -> Numbers:
    """Unit vectors, evenly over the sphere."""
    row = np.arange(count) + 0.5
    height, angle = 1 - 2 * row / count, math.pi * (1 + math.sqrt(5)) * row
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)


def camera_at(direction: Numbers, size: int) -> Camera:
    """Looks at the origin from there."""
    position = torch.from_numpy(DISTANCE * direction).float()
    up = torch.tensor([0.0, 0.0, -1.0] if abs(direction[2]) < 0.95 else [0.0, -1.0, 0.0])
    return Camera.look_at(position, torch.zeros(3), up, FIELD_OF_VIEW, (size, size))


def picture(distance: Callable[[Numbers], Numbers], camera: Camera) -> Tensor:
    """The colour times the covered share of every pixel, [h, w, 3]."""
    fine = camera.scaled_to(camera.width * SAMPLES, camera.height * SAMPLES)
    fx, fy, cx, cy = fine.intrinsics.double().numpy()
    rows, columns = np.mgrid[0 : fine.height, 0 : fine.width] + 0.5
    directions = np.stack([(columns - cx) / fx, (rows - cy) / fy, np.ones_like(rows)], axis=-1)
    directions = directions.reshape(-1, 3) @ fine.rotation.double().numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    covered = marched(distance, fine.centre.double().numpy(), directions)
    share = covered.reshape(camera.height, SAMPLES, camera.width, SAMPLES).mean(axis=(1, 3))
    return torch.from_numpy(share[..., None] * np.array(ALBEDO)).float()


def marched(distance: Callable[[Numbers], Numbers], origin: Numbers, directions: Numbers) -> NDArray[np.bool_]:
    """Which rays meet the solid."""
    nearest = -(directions @ origin)
    root = RADIUS**2 - (origin @ origin - nearest**2)
    rows = np.flatnonzero(root > 0)
    along = nearest[rows] - np.sqrt(root[rows])
    end = nearest[rows] + np.sqrt(root[rows])
    met = np.zeros(len(directions), dtype=bool)
    while len(rows):
        step = distance(origin + along[:, None] * directions[rows])
        met[rows[step < TOUCH]] = True
        along = along + np.maximum(step, TOUCH)
        on = (step >= TOUCH) & (along < end)
        rows, along, end = rows[on], along[on], end[on]
    return met


def points_inside(solid: str, count: int, seed: int) -> Tensor:
    """[count, 3], uniform over the solid."""
    random, found = np.random.default_rng(seed), np.zeros((0, 3))
    while len(found) < count:
        drawn = random.uniform(-RADIUS, RADIUS, (8 * count, 3))
        found = np.concatenate([found, drawn[SOLIDS[solid](drawn) < 0]])
    return torch.from_numpy(found[:count]).float()
