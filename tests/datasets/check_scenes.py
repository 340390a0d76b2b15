"""A corner of a room with painted walls, photographed from an arc of cameras: texture enough to match features."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import small_sets
import torch
from PIL import Image

from smalti.cameras.camera import Camera
from smalti.cameras.models import unproject
from smalti.datasets.dataset import Dataset, View

SIZE = (480, 360)
Change = Callable[[Camera], Camera]


def arc(count: int = 7, model: str = "PINHOLE", distortion: tuple[float, ...] = ()) -> list[Camera]:
    """Cameras 8 degrees apart at changing heights, looking into the corner at the origin."""
    found = []
    for row in range(count):
        angle = np.radians(45.0 + 8.0 * (row - 0.5 * (count - 1)))
        place = torch.tensor([np.cos(angle), np.sin(angle), 0.55 + 0.12 * (row % 3)], dtype=torch.float64) * 3.0
        target, up = (
            torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64),
            torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64),
        )
        camera = Camera.look_at(place, target, up, 0.9, SIZE)
        found.append(replace(camera, name=f"view_{row:02d}.png", model=model, distortion=distortion))
    return found


@functools.cache
def _paint(wall: int) -> np.ndarray:
    """Blobs of many sizes, 0..255."""
    noise = np.random.default_rng(wall)
    texture = np.zeros((1024, 1024))
    for cells in (16, 32, 64, 128, 256):
        small = Image.fromarray(noise.uniform(0, 255, (cells, cells)).astype(np.float32))
        texture += np.asarray(small.resize((1024, 1024), Image.Resampling.BICUBIC)) / 5.0
    low, high = np.percentile(texture, [2.0, 98.0])
    return np.clip((texture - low) / (high - low) * 255.0, 0.0, 255.0)


def photograph(camera: Camera) -> np.ndarray:
    """The grey picture that the camera takes, as RGB."""
    column, row = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays, _ = unproject(camera, np.stack([column.ravel(), row.ravel()], axis=1))
    rotation, centre = camera.rotation.numpy(), camera.centre.numpy()
    directions = np.nan_to_num(rays) @ rotation
    nearest, value = np.full(len(directions), np.inf), np.full(len(directions), 40.0)
    for wall in range(3):
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -centre[wall] / directions[:, wall]
            hit = centre + distance[:, None] * directions
        u, v = np.delete(hit, wall, axis=1).T
        seen = (distance > 0) & (distance < nearest) & (np.minimum(u, v) >= 0) & (np.maximum(u, v) < 2.5)
        nearest[seen] = distance[seen]
        value[seen] = _sample(_paint(wall), u[seen] / 2.5, v[seen] / 2.5)
    grey = value.reshape(camera.height, camera.width).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _sample(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = np.clip(u * 1023.0, 0, 1022.99), np.clip(v * 1023.0, 0, 1022.99)
    i, j, a, b = x.astype(int), y.astype(int), x % 1.0, y % 1.0
    top = texture[j, i] * (1 - a) + texture[j, i + 1] * a
    return top * (1 - b) + (texture[j + 1, i] * (1 - a) + texture[j + 1, i + 1] * a) * b


def photographed(folder: Path, cameras: list[Camera]) -> Dataset:
    """A data set without points, its pictures written as PNG."""
    views = tuple(View(c, small_sets.write_picture(folder / "images" / c.name, photograph(c))) for c in cameras)
    return Dataset(folder, "synthetic", views)


def write_transforms(folder: Path, cameras: list[Camera]) -> Path:
    """transforms.json beside pictures that exist already, with intrinsics per frame."""
    frames = []
    for camera in cameras:
        fx, fy, cx, cy = camera.intrinsics.tolist()
        own = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": camera.width, "h": camera.height}
        frames.append(small_sets.frame(camera, f"images/{camera.name}", **own))
    (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
    return folder


def changed(dataset: Dataset, change: Change, rows: tuple[int, ...] | None = None) -> Dataset:
    """The data set with other cameras for these rows (all where None)."""
    views = list(dataset.views)
    for row in range(len(views)) if rows is None else rows:
        views[row] = replace(views[row], camera=change(views[row].camera))
    return replace(dataset, views=tuple(views))


def turned(degrees: float, axis: int) -> Change:
    """Turns a camera in place about one of its own axes."""

    def change(camera: Camera) -> Camera:
        angle, turn = np.radians(degrees), np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = torch.from_numpy(turn) @ camera.rotation
        return replace(camera, rotation=rotation, translation=-rotation @ camera.centre)

    return change


def transposed(camera: Camera) -> Camera:
    """R written by columns where rows are meant; t as it was."""
    return replace(camera, rotation=camera.rotation.T.contiguous())


def inverted(camera: Camera) -> Camera:
    """Camera-to-world where world-to-camera is meant."""
    return replace(camera, rotation=camera.rotation.T.contiguous(), translation=camera.centre)


def opengl_axes(camera: Camera) -> Camera:
    """y up and z backwards where y down and z forward are meant."""
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    return replace(camera, rotation=flip @ camera.rotation, translation=flip @ camera.translation)


def longer(factor: float) -> Change:
    """Another focal length."""
    return lambda camera: replace(
        camera, intrinsics=camera.intrinsics * torch.tensor([factor, factor, 1.0, 1.0], dtype=torch.float64)
    )
