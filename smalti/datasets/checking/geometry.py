"""The cameras of a data set as numpy arrays, and the errors of sightings as angles turned into pixels.

Angles between rays, not distances in pictures, so that one rule serves every lens model, fisheyes included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from smalti.cameras.camera import Camera
from smalti.cameras.models import unproject
from smalti.datasets.dataset import View

REFERENCE_WIDTH = 1000.0
"""Errors are compared in pixels of a picture this wide, so that sets of different resolution can be judged alike."""


@dataclass(frozen=True, eq=False)
class Poses:
    """World-to-camera rotations and camera positions of all views, float64."""

    rotation: Float[np.ndarray, "v 3 3"]
    centre: Float[np.ndarray, "v 3"]
    focal: Float[np.ndarray, "v"]
    """Mean of fx and fy in pixels of a 1000 pixels wide picture."""

    @property
    def forward(self) -> Float[np.ndarray, "v 3"]:
        """Viewing directions."""
        return self.rotation[:, 2]

    def changed(self, row: int, rotation: np.ndarray, centre: np.ndarray) -> Poses:
        """The same poses with another one for view `row`."""
        rotations, centres = self.rotation.copy(), self.centre.copy()
        rotations[row], centres[row] = rotation, centre
        return replace(self, rotation=rotations, centre=centres)


def poses_of(views: Sequence[View]) -> Poses:
    """Poses of the views, in order."""
    rotation = np.stack([view.camera.rotation.detach().double().numpy() for view in views])
    translation = np.stack([view.camera.translation.detach().double().numpy() for view in views])
    focal = [float(view.camera.intrinsics[:2].detach().mean()) * REFERENCE_WIDTH / view.camera.width for view in views]
    return Poses(rotation, -np.einsum("vji,vj->vi", rotation, translation), np.array(focal))


def rays_of(camera: Camera, xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    """Unit directions in the camera's axes of pixels of its own (distorted) picture; NaN where the lens has none."""
    return unproject(camera, xy)[0]


def angle_to_points(
    rays: Float[np.ndarray, "n 3"], offsets: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Angle (radians) between each ray and the direction of its point, and whether the point lies behind the camera.

    `offsets` are the points in the camera's axes.
    """
    lengths = np.linalg.norm(offsets, axis=1)
    sine = np.linalg.norm(np.cross(rays, offsets), axis=1)
    return np.arctan2(sine, (rays * offsets).sum(1)), (offsets[:, 2] <= 0) | (lengths == 0)


def epipolar_angles(
    first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "n 3"], baseline: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n"]:
    """Angle (radians) between each ray and the epipolar plane of its partner, mean of both directions.

    `first` and `second` are unit rays in world axes, `baseline` runs from the first camera to the second, in units of
    the distance to the scene. Cameras in one place have no epipolar plane: there the rays themselves must coincide.
    """
    length = np.linalg.norm(baseline, axis=1)
    apart = length > 1e-7
    direction = baseline / np.where(apart, length, 1.0)[:, None]
    volume = np.abs((np.cross(first, second) * direction).sum(1))
    # |d . (a x b)| is the sine of one ray's angle to the plane (d, other ray), times that of the other to the baseline.
    sine_first = np.maximum(np.linalg.norm(np.cross(direction, first), axis=1), 1e-6)
    sine_second = np.maximum(np.linalg.norm(np.cross(direction, second), axis=1), 1e-6)
    first_to_plane = np.arcsin(np.minimum(volume / sine_second, 1.0))
    second_to_plane = np.arcsin(np.minimum(volume / sine_first, 1.0))
    together = np.arctan2(np.linalg.norm(np.cross(first, second), axis=1), (first * second).sum(1))
    return np.where(apart, 0.5 * (first_to_plane + second_to_plane), together)


def looking_at(poses: Poses) -> Float[np.ndarray, "3"]:
    """The point nearest to all optical axes (least squares); where they are parallel, one in front of the cameras."""
    projectors = np.eye(3) - poses.forward[:, :, None] * poses.forward[:, None, :]
    normal = projectors.sum(0)
    right_side = np.einsum("vij,vj->i", projectors, poses.centre)
    values = np.linalg.eigvalsh(normal)
    if values[0] > 1e-3 * values[-1]:
        return np.linalg.solve(normal, right_side)
    middle = poses.centre.mean(0)
    spread = float(np.linalg.norm(poses.centre - middle, axis=1).max())
    return middle + poses.forward.mean(0) * max(spread, 1.0)


def neighbours(poses: Poses, target: Float[np.ndarray, "3"], count: int) -> Int[np.ndarray, "v k"]:
    """For every view the `count` others that see most nearly the same: small angle between the axes and small step.

    Views from one and the same place come last: they say nothing about positions.
    """
    cosine = np.clip(poses.forward @ poses.forward.T, -1.0, 1.0)
    distance = np.linalg.norm(poses.centre[:, None] - poses.centre[None], axis=2)
    reach = float(np.median(np.linalg.norm(poses.centre - target, axis=1)))
    step = distance / max(reach, 1e-12)
    cost = np.arccos(cosine) + np.arctan(step) + np.where(step < 1e-6, 10.0, 0.0)
    np.fill_diagonal(cost, np.inf)
    return np.argsort(cost, axis=1, kind="stable")[:, : min(count, len(cost) - 1)]
