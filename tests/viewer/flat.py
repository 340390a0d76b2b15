"""A scene whose pictures are known in closed form, and a capture of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import Dataset, View
from smalti.datasets.images import ImageCache
from smalti.primitives.meshes import Meshes
from smalti.scene import Scene
from smalti.viewer.stage import Views

WIDTH, HEIGHT = 32, 24
NEAR_COLOR, FAR_COLOR = (0.8, 0.2, 0.4), (0.2, 0.6, 1.0)


def camera(width: int = WIDTH, height: int = HEIGHT, shift: float = 0.0) -> Camera:
    """At the origin (or `shift` to its right) looking along z; 45 degrees up and down."""
    focal = 0.5 * height
    intrinsics = torch.tensor([focal, focal, 0.5 * width, 0.5 * height])
    return Camera(torch.eye(3), torch.tensor([-shift, 0.0, 0.0]), intrinsics, width, height)


def square(left: float, right: float, depth: float, color: tuple[float, float, float]) -> Meshes:
    """Two opaque faces towards the camera: x from left to right, y from -9 to 9."""
    vertices = torch.tensor([[left, -9, depth], [right, -9, depth], [right, 9, depth], [left, 9, depth]])
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    return Meshes.from_mesh(vertices, faces, torch.tensor([color] * 4), {"edges": "hard"})


def two_walls() -> Scene:
    """`near` fills the left half of the picture at depth 2, `far` the next quarter at depth 4; the last is empty."""
    scene = Scene(order="ray", background=(0.1, 0.2, 0.3))
    scene.add("near", square(-9.0, 0.0, 2.0, NEAR_COLOR))
    # Half of the picture's right half: x / z * focal = WIDTH / 4.
    scene.add("far", square(0.0, 4.0 * (WIDTH / 4) / (0.5 * HEIGHT), 4.0, FAR_COLOR))
    return scene


def capture(folder: Path, pictures: list[np.ndarray], cameras: list[Camera], train: int | None = None) -> Views:
    """Views with these pictures; the first `train` (default: all) are for training."""
    views: list[View] = []
    for k, (pixels, taken) in enumerate(zip(pictures, cameras, strict=True)):
        path = folder / f"{k:03d}.png"
        Image.fromarray(pixels).save(path)
        views.append(View(replace(taken, name=path.name), path))
    dataset = Dataset(folder, "test", tuple(views))
    rows = list(range(len(views)))
    train = len(rows) if train is None else train
    return Views(dataset, ImageCache(dataset), rows[:train], rows[train:])
