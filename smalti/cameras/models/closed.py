"""Lens models with a closed form in both directions: FOV, division, EUCM and equirectangular."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from smalti.cameras.models.lens import LensModel, Mask, Plane, Points


@dataclass(frozen=True)
class FovModel(LensModel):
    """Devernay and Faugeras 2001: radius = atan(2 r tan(omega / 2)) / omega, with r the tangent of the angle."""

    def is_pinhole(self, distortion: tuple[float, ...]) -> bool:
        """True for omega = 0."""
        return distortion[0] == 0.0

    def project(self, points: Points, distortion: tuple[float, ...]) -> tuple[Plane, Mask]:
        """See `LensModel.project`."""
        with np.errstate(all="ignore"):
            plane = points[:, :2] / points[:, 2:]
            gain, _ = self._gain(np.linalg.norm(plane, axis=1), distortion[0])
            return plane * gain[:, None], (points[:, 2] > 0.0) & (abs(distortion[0]) < np.pi)

    def jacobian(self, points: Points, distortion: tuple[float, ...]) -> Float[np.ndarray, "n 2 3"]:
        """See `LensModel.jacobian`."""
        with np.errstate(all="ignore"):
            plane = points[:, :2] / points[:, 2:]
            gain, slope = self._gain(np.linalg.norm(plane, axis=1), distortion[0])
            matrix = gain[:, None, None] * np.eye(2) + slope[:, None, None] * plane[:, :, None] * plane[:, None, :]
            base = np.empty((len(points), 2, 3))
            base[:, :, :2] = np.eye(2) / points[:, 2, None, None]
            base[:, :, 2] = -plane / points[:, 2:]
            return matrix @ base

    def unproject(self, plane: Plane, distortion: tuple[float, ...]) -> tuple[Points, Mask]:
        """See `LensModel.unproject`."""
        omega = abs(distortion[0])
        radius = np.linalg.norm(plane, axis=1)
        if omega < 1e-9:
            return np.concatenate([plane, np.ones((len(plane), 1))], axis=1), np.ones(len(plane), bool)
        valid = (radius * omega < 0.5 * np.pi) & (omega < np.pi)
        with np.errstate(all="ignore"):
            gain = np.where(radius > 0.0, np.tan(radius * omega) / radius, omega) / (2.0 * math.tan(0.5 * omega))
        return np.concatenate([plane * gain[:, None], np.ones((len(plane), 1))], axis=1), valid

    @staticmethod
    def _gain(radius: np.ndarray, omega: float) -> tuple[np.ndarray, np.ndarray]:
        """Distorted radius / radius, and its derivative with respect to radius, over radius."""
        omega = abs(omega)
        if omega < 1e-9:
            return np.ones_like(radius), np.zeros_like(radius)
        scale = 2.0 * math.tan(0.5 * omega)
        q = radius * scale
        small = q < 1e-3
        with np.errstate(all="ignore"):
            ratio = np.where(small, 1.0 - q**2 / 3.0, np.arctan(q) / q)
            slope = np.where(small, -2.0 / 3.0 + 0.8 * q**2, (1.0 / (1.0 + q**2) - ratio) / q**2)
        return ratio * scale / omega, slope * scale**3 / omega


@dataclass(frozen=True)
class DivisionModel(LensModel):
    """Fitzgibbon 2001: the direction is (x, y, 1 + k (x^2 + y^2)); with k < 0 beyond 90 degrees off the axis."""

    def is_pinhole(self, distortion: tuple[float, ...]) -> bool:
        """True for k = 0."""
        return distortion[0] == 0.0

    def project(self, points: Points, distortion: tuple[float, ...]) -> tuple[Plane, Mask]:
        """See `LensModel.project`."""
        k = distortion[0]
        z = points[:, 2]
        with np.errstate(all="ignore"):
            below, square, root = self._denominator(points, k)
            valid = (square > 0.0) & ((z > 0.0) if k >= 0.0 else (below > 0.0) & np.isfinite(root))
            return points[:, :2] * (2.0 / below)[:, None], valid

    def jacobian(self, points: Points, distortion: tuple[float, ...]) -> Float[np.ndarray, "n 2 3"]:
        """See `LensModel.jacobian`."""
        k = distortion[0]
        with np.errstate(all="ignore"):
            below, _, root = self._denominator(points, k)
            gain = 2.0 / below
            slope = np.stack(
                [-4.0 * k * points[:, 0] / root, -4.0 * k * points[:, 1] / root, 1.0 + points[:, 2] / root], axis=1
            )
            matrix = -(points[:, :2] * (gain / below)[:, None])[:, :, None] * slope[:, None, :]
            matrix[:, 0, 0] += gain
            matrix[:, 1, 1] += gain
            return matrix

    def unproject(self, plane: Plane, distortion: tuple[float, ...]) -> tuple[Points, Mask]:
        """See `LensModel.unproject`."""
        stretch = distortion[0] * np.sum(plane**2, axis=1)
        return np.concatenate([plane, (1.0 + stretch)[:, None]], axis=1), stretch < 1.0

    @staticmethod
    def _denominator(points: Points, k: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """z + sqrt(z^2 - 4 k r^2), the radicand, the root; without cancellation behind the camera."""
        z = points[:, 2]
        extra = -4.0 * k * np.sum(points[:, :2] ** 2, axis=1)
        square = z**2 + extra
        root = np.sqrt(square)
        return np.where(z >= 0.0, z + root, extra / (root - z)), square, root


@dataclass(frozen=True)
class EucmModel(LensModel):
    """Khomutenko, Garcia and Martinet 2016: (x, y) / (alpha sqrt(beta (x^2 + y^2) + z^2) + (1 - alpha) z)."""

    def check(self, distortion: tuple[float, ...]) -> None:
        """Also raises where alpha is outside [0, 1] or beta is not positive."""
        super().check(distortion)
        alpha, beta = distortion
        if not 0.0 <= alpha <= 1.0 or beta <= 0.0:
            raise ValueError(
                f"camera model EUCM: needs 0 <= alpha <= 1 and beta > 0, got alpha={alpha}, beta={beta}; "
                "repair the calibration"
            )

    def is_pinhole(self, distortion: tuple[float, ...]) -> bool:
        """True for alpha = 0."""
        return distortion[0] == 0.0

    def project(self, points: Points, distortion: tuple[float, ...]) -> tuple[Plane, Mask]:
        """See `LensModel.project`."""
        alpha, _ = distortion
        with np.errstate(all="ignore"):
            length, below = self._denominator(points, distortion)
            # Up to where the ray touches the surface of projection, seen from the second centre.
            edge = alpha / (1.0 - alpha) if alpha <= 0.5 else (1.0 - alpha) / alpha
            valid = (below > 0.0) & (points[:, 2] > -edge * length)
            return points[:, :2] / below[:, None], valid

    def jacobian(self, points: Points, distortion: tuple[float, ...]) -> Float[np.ndarray, "n 2 3"]:
        """See `LensModel.jacobian`."""
        alpha, beta = distortion
        with np.errstate(all="ignore"):
            length, below = self._denominator(points, distortion)
            slope = alpha * points * np.array([beta, beta, 1.0]) / length[:, None]
            slope[:, 2] += 1.0 - alpha
            matrix = -(points[:, :2] / (below**2)[:, None])[:, :, None] * slope[:, None, :]
            matrix[:, 0, 0] += 1.0 / below
            matrix[:, 1, 1] += 1.0 / below
            return matrix

    def unproject(self, plane: Plane, distortion: tuple[float, ...]) -> tuple[Points, Mask]:
        """See `LensModel.unproject`."""
        alpha, beta = distortion
        square = beta * np.sum(plane**2, axis=1)
        with np.errstate(all="ignore"):
            radicand = 1.0 - (2.0 * alpha - 1.0) * square
            z = (1.0 - alpha**2 * square) / (alpha * np.sqrt(radicand) + (1.0 - alpha))
        return np.concatenate([plane, z[:, None]], axis=1), (radicand > 0.0) & np.isfinite(z)

    @staticmethod
    def _denominator(points: Points, distortion: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        alpha, beta = distortion
        length = np.sqrt(beta * np.sum(points[:, :2] ** 2, axis=1) + points[:, 2] ** 2)
        return length, alpha * length + (1.0 - alpha) * points[:, 2]


@dataclass(frozen=True)
class EquirectangularModel(LensModel):
    """The whole sphere: lens coordinates are longitude atan2(x, z) and latitude (down) in radians.

    COLMAP's parameters are the width and height of the picture. In `Camera.intrinsics` they are fx = width / 2 pi and
    fy = height / pi, with the principal point in the middle: so scaling and cropping work as for every other model.
    """

    @property
    def distortion_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def is_pinhole(self, distortion: tuple[float, ...]) -> bool:
        """Never."""
        return False

    def project(self, points: Points, distortion: tuple[float, ...]) -> tuple[Plane, Mask]:
        """See `LensModel.project`."""
        x, y, z = points.T
        level = np.hypot(x, z)
        return np.stack([np.arctan2(x, z), np.arctan2(y, level)], axis=1), level > 0.0

    def jacobian(self, points: Points, distortion: tuple[float, ...]) -> Float[np.ndarray, "n 2 3"]:
        """See `LensModel.jacobian`."""
        x, y, z = points.T
        level, zero = np.hypot(x, z), np.zeros(len(points))
        with np.errstate(all="ignore"):
            square = level**2 + y**2
            longitude = np.stack([z / level**2, zero, -x / level**2], axis=1)
            latitude = np.stack([-x * y / (level * square), level / square, -z * y / (level * square)], axis=1)
        return np.stack([longitude, latitude], axis=1)

    def unproject(self, plane: Plane, distortion: tuple[float, ...]) -> tuple[Points, Mask]:
        """See `LensModel.unproject`."""
        longitude, latitude = plane.T
        level = np.cos(latitude)
        rays = np.stack([level * np.sin(longitude), np.sin(latitude), level * np.cos(longitude)], axis=1)
        return rays, (np.abs(longitude) <= np.pi) & (np.abs(latitude) < 0.5 * np.pi)
