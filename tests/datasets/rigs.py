"""Rigs of cameras whose canonical frame is known: +y up, the subject about the origin, length 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.datasets.dataset import Points

UP = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)


def somewhere(seed: int) -> Similarity:
    """A random input frame: input_from_truth."""
    generator = torch.Generator().manual_seed(seed)
    quaternion = torch.nn.functional.normalize(torch.randn(4, generator=generator, dtype=torch.float64), dim=0)
    away = 20.0 * torch.randn(3, generator=generator, dtype=torch.float64)
    scale = float(torch.exp(2.0 * torch.randn((), generator=generator, dtype=torch.float64)))
    return Similarity(scale, matrix_from_quaternion(quaternion), away)


def camera_at(
    place: Float[np.ndarray, "3"], *, roll: float = 0.0, target: Float[np.ndarray, "3"] | None = None, name: str = ""
) -> Camera:
    """A camera that looks at the target (by default the origin), turned about its axis by `roll` degrees."""
    goal = torch.zeros(3, dtype=torch.float64) if target is None else torch.from_numpy(target)
    camera = Camera.look_at(torch.from_numpy(place), goal, UP, 0.7, (64, 48))
    angle = np.radians(roll)
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )
    return replace(camera, rotation=turn @ camera.rotation, translation=turn @ camera.translation, name=name)


def on_sphere(azimuth: float, elevation: float, distance: float = 5.0) -> Float[np.ndarray, "3"]:
    """A place by angles in degrees; azimuth 0 is +z."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return distance * np.array([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)])


def dome(count: int = 24, *, arc: float = 360.0, roll: float = 1.0, seed: int = 0) -> list[Camera]:
    """Cameras at elevations of 15 to 60 degrees, over an arc about +z, with a little roll and aim."""
    generator = np.random.default_rng(seed)
    azimuths = np.linspace(-0.5 * arc, 0.5 * arc, count, endpoint=arc < 360.0)
    return [
        camera_at(
            on_sphere(azimuth, generator.uniform(15.0, 60.0)),
            roll=generator.normal(0.0, roll),
            target=generator.normal(0.0, 0.1, 3),
            name=f"{row:03d}",
        )
        for row, azimuth in enumerate(azimuths)
    ]


def ring(count: int = 18, *, elevation: float = 20.0, roll: float = 90.0) -> list[Camera]:
    """A turntable: one elevation all around, pictures on their sides."""
    return [camera_at(on_sphere(360.0 * row / count, elevation), roll=roll) for row in range(count)]


def table(count: int = 3000, *, height: float = -0.8, strays: int = 60, seed: int = 0) -> Points:
    """A block of half extents (0.7, 0.8, 0.7) about the origin on a table, and strays anywhere."""
    generator = np.random.default_rng(seed)
    half = count // 2
    on_block = generator.uniform(-1.0, 1.0, (half, 3))
    on_block[np.arange(half), generator.integers(0, 3, half)] = generator.choice([-1.0, 1.0], half)
    on_block *= (0.7, -height, 0.7)
    on_table = generator.uniform(-2.2, 2.2, (half, 3))
    on_table[:, 1] = height + generator.normal(0.0, 0.004, half)
    anywhere = generator.uniform(-3.0, 3.0, (strays, 3))
    positions = np.concatenate([on_block, on_table, anywhere])
    return Points(positions, np.full(positions.shape, 128, np.uint8))


def moved(cameras: list[Camera], points: Points | None, move: Similarity) -> tuple[list[Camera], Points | None]:
    """The same capture in another frame."""
    shifted = None if points is None else replace(points, positions=move.apply_array(points.positions))
    return [move.apply_camera(camera) for camera in cameras], shifted


def degrees_between(one: Float[np.ndarray, "3"], other: Float[np.ndarray, "3"]) -> float:
    """Between two directions."""
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(np.degrees(np.arccos(np.clip(one @ other / lengths, -1.0, 1.0))))
