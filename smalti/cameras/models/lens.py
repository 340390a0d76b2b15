"""What a lens model is, and the models that distort a plane: perspective and equidistant (fisheye) ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from smalti.cameras.models.planar import PlanarDistortion

Points = Float[np.ndarray, "n 3"]
Plane = Float[np.ndarray, "n 2"]
Mask = Bool[np.ndarray, "n"]


@dataclass(frozen=True)
class LensModel(ABC):
    """One of COLMAP's camera models. All maps are between camera coordinates and lens coordinates (focal length 1)."""

    name: str
    """COLMAP's name."""
    model_id: int
    """COLMAP's number, as in cameras.bin."""
    parameters: tuple[str, ...]
    """COLMAP's parameters, in its order; `f` stands for fx = fy."""

    @property
    def distortion_names(self) -> tuple[str, ...]:
        """The parameters beyond focal lengths and principal point: what `Camera.distortion` holds."""
        return tuple(name for name in self.parameters if name not in {"f", "fx", "fy", "cx", "cy"})

    def check(self, distortion: tuple[float, ...]) -> None:
        """Raise ValueError where the number of distortion parameters is not the model's own, or one is not finite."""
        expected = self.distortion_names
        if len(distortion) != len(expected):
            names = ", ".join(expected) or "none"
            raise ValueError(
                f"camera model {self.name}: expected {len(expected)} distortion parameters ({names}), "
                f"got {len(distortion)}; give them in COLMAP's order, zeros included"
            )
        if not all(math.isfinite(value) for value in distortion):
            raise ValueError(f"camera model {self.name}: distortion {distortion} is not finite; repair the calibration")

    @abstractmethod
    def is_pinhole(self, distortion: tuple[float, ...]) -> bool:
        """True where the model with these values is exactly the pinhole."""

    @abstractmethod
    def project(self, points: Points, distortion: tuple[float, ...]) -> tuple[Plane, Mask]:
        """Lens coordinates of camera points, and where they are meaningful; other rows are not specified."""

    @abstractmethod
    def jacobian(self, points: Points, distortion: tuple[float, ...]) -> Float[np.ndarray, "n 2 3"]:
        """Derivative of `project` with respect to the camera point, where it is meaningful."""

    @abstractmethod
    def unproject(self, plane: Plane, distortion: tuple[float, ...]) -> tuple[Points, Mask]:
        """Directions in camera coordinates (any length), and where they are meaningful."""


@dataclass(frozen=True)
class PlanarModel(LensModel):
    """A perspective or equidistant projection followed by a `PlanarDistortion`."""

    fisheye: bool
    """Equidistant: the radius in the plane is the angle off the axis, up to pi. Otherwise its tangent."""
    read: Callable[[tuple[float, ...]], PlanarDistortion]
    """Puts the parameters in their places."""

    def is_pinhole(self, distortion: tuple[float, ...]) -> bool:
        """True for perspective models whose distortion is all zero."""
        return not self.fisheye and self._planar(distortion).is_identity

    def project(self, points: Points, distortion: tuple[float, ...]) -> tuple[Plane, Mask]:
        """See `LensModel.project`."""
        planar = self._planar(distortion)
        with np.errstate(all="ignore"):
            if self.fisheye:
                radius = np.hypot(points[:, 0], points[:, 1])
                angle = np.arctan2(radius, points[:, 2])
                on_axis = radius <= 1e-12 * np.abs(points[:, 2])
                plane = points[:, :2] * np.where(on_axis, 1.0 / points[:, 2], angle / radius)[:, None]
                # Straight behind the camera every direction in the plane is as good as another: none is.
                valid = (angle <= planar.limit) & ~(on_axis & (points[:, 2] <= 0.0))
            else:
                plane = points[:, :2] / points[:, 2:]
                valid = points[:, 2] > 0.0
                if math.isfinite(planar.limit):
                    valid &= np.sum(plane**2, axis=1) <= planar.limit**2
            return planar.apply(plane), valid

    def jacobian(self, points: Points, distortion: tuple[float, ...]) -> Float[np.ndarray, "n 2 3"]:
        """See `LensModel.jacobian`."""
        with np.errstate(all="ignore"):
            x, y, z = points.T
            base = np.empty((len(points), 2, 3))
            if self.fisheye:
                radius = np.hypot(x, y)
                angle = np.arctan2(radius, z)
                square = radius**2 + z**2
                tangent = radius / z
                small = (z > 0.0) & (tangent < 1e-3)
                ratio = np.where(small, (1.0 - tangent**2 / 3.0) / z, angle / radius)
                # d(angle / radius) / d(radius^2 / 2); the difference loses its digits near the axis.
                series = (-2.0 / 3.0 + 0.8 * tangent**2) / z**3
                slope = np.where(small, series, (z / square - ratio) / radius**2)
                plane = points[:, :2] * ratio[:, None]
                base[:, :, :2] = slope[:, None, None] * points[:, :2, None] * points[:, None, :2]
                base[:, 0, 0] += ratio
                base[:, 1, 1] += ratio
                base[:, :, 2] = -points[:, :2] / square[:, None]
            else:
                plane = points[:, :2] / z[:, None]
                base[:, :, :2] = np.eye(2) / z[:, None, None]
                base[:, :, 2] = -plane / z[:, None]
            planar = self._planar(distortion)
            return base if planar.is_identity else planar.jacobian(plane) @ base

    def unproject(self, plane: Plane, distortion: tuple[float, ...]) -> tuple[Points, Mask]:
        """See `LensModel.unproject`."""
        flat, valid = self._planar(distortion).invert(plane)
        if not self.fisheye:
            return np.concatenate([flat, np.ones((len(flat), 1))], axis=1), valid
        angle = np.linalg.norm(flat, axis=1)
        sine = np.sinc(angle / np.pi)[:, None]
        return np.concatenate([flat * sine, np.cos(angle)[:, None]], axis=1), valid & (angle < np.pi)

    def _planar(self, distortion: tuple[float, ...]) -> PlanarDistortion:
        return _read_planar(self, tuple(distortion))


@lru_cache(maxsize=256)
def _read_planar(model: PlanarModel, distortion: tuple[float, ...]) -> PlanarDistortion:
    """The distortion object is shared between calls, so that its limits are found once per lens."""
    return model.read(distortion)
