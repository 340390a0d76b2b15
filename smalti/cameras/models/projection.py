"""Points to pixels and back for whole cameras, in numpy float64. Not differentiable by torch (see `jacobian`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.models.lens import LensModel
from smalti.cameras.models.registry import lens_model

Pixels = Float[np.ndarray, "n 2"]
Points = Float[np.ndarray, "n 3"]
Mask = Bool[np.ndarray, "n"]


def project(camera: Camera, points_world: Float[np.ndarray, "n 3"]) -> tuple[Pixels, Mask]:
    """Pixels of world points; NaN and False where the camera cannot see in that direction (size of picture apart)."""
    points = np.asarray(points_world, np.float64)
    rotation, translation = _array(camera.rotation), _array(camera.translation)
    return project_camera_points(camera, points @ rotation.T + translation)


def project_camera_points(camera: Camera, points: Float[np.ndarray, "n 3"]) -> tuple[Pixels, Mask]:
    """Pixels of points in camera coordinates; NaN and False behind the camera or outside the model's range."""
    model, focal, centre = _lens(camera)
    points = np.asarray(points, np.float64)
    with np.errstate(all="ignore"):
        plane, valid = model.project(points, camera.distortion)
    valid = valid & np.isfinite(plane).all(axis=1)
    pixels = plane * focal + centre
    pixels[~valid] = np.nan
    return pixels, valid


def jacobian(camera: Camera, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2 3"]:
    """Derivative of the pixel with respect to the point in camera coordinates; NaN where `project` has none."""
    model, focal, _ = _lens(camera)
    points = np.asarray(points, np.float64)
    plane, valid = model.project(points, camera.distortion)
    matrix = model.jacobian(points, camera.distortion) * focal[:, None]
    matrix[~(valid & np.isfinite(plane).all(axis=1))] = np.nan
    return matrix


def unproject(camera: Camera, pixels: Float[np.ndarray, "n 2"]) -> tuple[Points, Mask]:
    """Unit directions in camera coordinates; NaN and False where the model has none that projects to the pixel.

    Every direction is projected again: one that misses its pixel by more than 1e-6 focal lengths is not returned.
    """
    model, focal, centre = _lens(camera)
    plane = (np.asarray(pixels, np.float64) - centre) / focal
    with np.errstate(all="ignore"):
        rays, valid = model.unproject(plane, camera.distortion)
        rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        again, visible = model.project(rays, camera.distortion)
        valid = valid & visible & (np.abs(again - plane) <= 1e-6 * (1.0 + np.abs(plane))).all(axis=1)
    rays[~valid] = np.nan
    return rays, valid


def is_pinhole(camera: Camera) -> bool:
    """True where the camera is exactly a pinhole: by its model, or because its distortion is all zero."""
    return _lens(camera)[0].is_pinhole(camera.distortion)


def opencv_to_ours(intrinsics: Sequence[float]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy with pixel centres at whole numbers (OpenCV's K) in our convention: half a pixel more."""
    fx, fy, cx, cy = intrinsics
    return fx, fy, cx + 0.5, cy + 0.5


def ours_to_opencv(intrinsics: Sequence[float]) -> tuple[float, float, float, float]:
    """The reverse of `opencv_to_ours`, for writers."""
    fx, fy, cx, cy = intrinsics
    return fx, fy, cx - 0.5, cy - 0.5


def _lens(camera: Camera) -> tuple[LensModel, np.ndarray, np.ndarray]:
    model = lens_model(camera.model)
    model.check(camera.distortion)
    intrinsics = _array(camera.intrinsics)
    return model, intrinsics[:2], intrinsics[2:]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)
