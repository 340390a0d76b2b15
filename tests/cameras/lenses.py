"""One plausible lens per model, shared by the tests of this folder."""

from __future__ import annotations

import numpy as np
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.models import split_parameters

SIZE = (640, 480)
_FOCALS = (410.0, 395.0, 318.3, 251.7)
_FOCAL = (400.0, 318.3, 251.7)

PARAMETERS: dict[str, tuple[float, ...]] = {
    "SIMPLE_PINHOLE": _FOCAL,
    "PINHOLE": _FOCALS,
    "SIMPLE_RADIAL": (*_FOCAL, -0.13),
    "RADIAL": (*_FOCAL, -0.21, 0.06),
    "OPENCV": (*_FOCALS, -0.28, 0.09, 0.0012, -0.0021),
    "OPENCV_FISHEYE": (*_FOCALS, 0.05, -0.012, 0.004, -0.0006),
    "FULL_OPENCV": (*_FOCALS, 0.31, -0.12, 0.0011, -0.0016, 0.02, 0.45, -0.08, 0.03),
    "FOV": (*_FOCALS, 0.92),
    "SIMPLE_RADIAL_FISHEYE": (*_FOCAL, 0.03),
    "RADIAL_FISHEYE": (*_FOCAL, 0.04, -0.006),
    "THIN_PRISM_FISHEYE": (*_FOCALS, 0.05, -0.012, 0.001, -0.002, 0.004, -0.0006, 0.0015, -0.0012),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        *(*_FOCALS, 0.04, -0.01, 0.003, -0.001, 0.0004, -0.00005),
        *(0.001, -0.002, 0.0015, -0.0004, -0.0012, 0.0003),
    ),
    "SIMPLE_DIVISION": (*_FOCAL, -0.17),
    "DIVISION": (*_FOCALS, 0.11),
    "SIMPLE_FISHEYE": _FOCAL,
    "FISHEYE": _FOCALS,
    "EUCM": (*_FOCALS, 0.57, 1.13),
    "EQUIRECTANGULAR": SIZE,
}
PLANAR_PERSPECTIVE = ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
FISHEYES = (
    *("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE"),
    *("RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE"),
)


def make(name: str, parameters: tuple[float, ...] | None = None, size: tuple[int, int] = SIZE) -> Camera:
    """A camera at the world's origin with the model's lens from the table, or with other parameters."""
    intrinsics, distortion = split_parameters(name, PARAMETERS[name] if parameters is None else parameters)
    return Camera(
        torch.eye(3, dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
        torch.tensor(intrinsics, dtype=torch.float64),
        *size,
        model=name,
        distortion=distortion,
    )


def pixels_inside(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Random pixels of a picture."""
    return np.random.default_rng(seed).uniform((0.0, 0.0), size, (count, 2))
