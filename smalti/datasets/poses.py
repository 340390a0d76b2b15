"""Checked conversions of poses and intrinsics from files' conventions to ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import DatasetError

ROTATION_TOLERANCE = 2e-3
"""Largest entry of `R R^T - I` that is still taken for rounding in the file."""
FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""OpenGL camera axes (y up, looking along -z) to ours; its own inverse."""
EXPORT_AGAIN = "Export the cameras again"


def checked_rotation(rotation: np.ndarray, file: Path, record: str) -> Float[np.ndarray, "3 3"]:
    """The rotation nearest to an almost exact one. Raises `DatasetError` for NaN, mirrored or skewed matrices."""
    if rotation.shape != (3, 3):
        raise DatasetError(file, record, f"the rotation has shape {rotation.shape}, expected 3 x 3", EXPORT_AGAIN)
    if not np.isfinite(rotation).all() or np.abs(rotation).max() > 1e100:
        raise DatasetError(file, record, "the rotation holds NaN or Inf", f"{EXPORT_AGAIN}, or remove this view")
    deviation = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if deviation > ROTATION_TOLERANCE:
        problem = f"the rotation is not orthonormal (R R^T differs from the identity by {deviation:.3g})"
        raise DatasetError(file, record, problem, f"{EXPORT_AGAIN}; scale or shear does not belong into a pose")
    if np.linalg.det(rotation) < 0:
        problem = "the rotation is mirrored (determinant -1)"
        raise DatasetError(file, record, problem, "One axis is flipped: correct the handedness of the export")
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt


def make_camera(
    pose: tuple[np.ndarray, np.ndarray], intrinsics: Sequence[float], size: tuple[int, int], file: Path, record: str
) -> Camera:
    """A checked float64 pinhole camera from (world-to-camera R, t), fx fy cx cy and (width, height)."""
    rotation = checked_rotation(np.asarray(pose[0], np.float64), file, record)
    translation = np.asarray(pose[1], np.float64).reshape(-1)
    if translation.shape != (3,) or not np.isfinite(translation).all():
        raise DatasetError(
            file, record, "the translation is not three finite numbers", f"{EXPORT_AGAIN}, or remove this view"
        )
    values = np.asarray(intrinsics, np.float64)
    if not np.isfinite(values).all() or values[0] <= 0 or values[1] <= 0:
        problem = f"the intrinsics fx fy cx cy are {', '.join(f'{value:g}' for value in values)}"
        raise DatasetError(
            file, record, problem, "Focal lengths are positive and everything is finite: calibrate again"
        )
    width, height = size
    if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise DatasetError(file, record, f"the size {width} x {height} is no picture's", EXPORT_AGAIN)
    if abs(values[2] - width / 2) > 0.75 * width or abs(values[3] - height / 2) > 0.75 * height:
        problem = (
            f"the principal point ({values[2]:.1f}, {values[3]:.1f}) lies far outside the {width} x {height} picture"
        )
        raise DatasetError(
            file, record, problem, "The camera belongs to another size or to another crop of the picture"
        )
    return Camera(
        torch.from_numpy(rotation),
        torch.from_numpy(translation.copy()),
        torch.from_numpy(values.copy()),
        width,
        height,
        name=record,
    )


def pose_from_world_from_camera(matrix: np.ndarray, file: Path, record: str) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera (R, t) from an OpenGL camera-to-world matrix (3 x 4 or 4 x 4)."""
    if matrix.shape not in ((3, 4), (4, 4)):
        raise DatasetError(file, record, f"the pose has shape {matrix.shape}, expected 4 x 4", EXPORT_AGAIN)
    if not np.isfinite(matrix).all():
        raise DatasetError(file, record, "the pose holds NaN or Inf", f"{EXPORT_AGAIN}, or remove this view")
    rotation = checked_rotation(matrix[:3, :3], file, record) @ FLIP_YZ
    return rotation.T, -rotation.T @ matrix[:3, 3]


def rotation_from_quaternion(quaternion: Sequence[float], file: Path, record: str) -> Float[np.ndarray, "3 3"]:
    """The rotation of a (w, x, y, z) quaternion of any length that is not near zero."""
    values = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(values))
    if not np.isfinite(length) or abs(length - 1.0) > 0.01:
        problem = f"the quaternion {', '.join(f'{value:g}' for value in values)} is not of unit length"
        raise DatasetError(file, record, problem, f"{EXPORT_AGAIN}, or remove this view")
    w, x, y, z = values / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_from_vector(vector: Sequence[float] | np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Rodrigues' formula: the rotation about `vector` by its length in radians."""
    axis = np.asarray(vector, np.float64)
    angle = float(np.linalg.norm(axis))
    cross = np.cross(np.eye(3), axis)
    if angle < 1e-12:
        return np.eye(3) + cross
    return np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * (cross @ cross)
