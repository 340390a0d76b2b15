"""Cameras that show given points whole: one, or a circle of them. Not differentiable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.trajectories import up_direction

FIELD_OF_VIEW = math.radians(30.0)
"""Across the longer side; narrow, so that near things are not blown up."""
MARGIN = 0.06
"""Share of the picture's half sides that stays free at the rim."""
ELEVATIONS = (math.radians(12.0), math.radians(40.0))
"""A view from the side, but not from below, nor from above."""


def framed(
    points: Float[Tensor, "n 3"], towards: Float[Tensor, "3"], up: Float[Tensor, "3"], size: tuple[int, int]
) -> Camera:
    """The nearest pinhole from the middle of the points' box along `towards` that has all of them in the picture.

    `size` is (width, height) in pixels. The distance is in closed form: a point at (x, y, z) about the middle, in the
    camera's axes, is inside from the distance max(|x| / tan_x, |y| / tan_y) - z on.

    >>> import torch
    >>> cube = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    >>> camera = framed(cube, torch.tensor([0.0, 0.0, -1.0]), torch.tensor([0.0, -1.0, 0.0]), (100, 100))
    >>> x, y, z = (camera.rotation @ cube[0].double() + camera.translation).tolist()
    >>> round(float(camera.intrinsics[0]) * abs(x) / z) == round(50 * (1 - MARGIN))
    True
    """
    return _at(points, towards, up, size, _distance(points, towards, up, size))


def turntable(
    points: Float[Tensor, "n 3"], frames: int, up: Float[Tensor, "3"], start: Float[Tensor, "3"], size: tuple[int, int]
) -> list[Camera]:
    """A full circle about the points' middle around `up`, at one distance from which all of them are in every picture.

    `start`: direction from the middle to the first camera; its elevation is that of all (`ELEVATIONS` at most and at
    least). The end meets the beginning.
    """
    if frames < 1:
        raise ValueError(f"turntable: needs at least one frame, got {frames}")
    directions = [_around(start, up, 2.0 * math.pi * frame / frames) for frame in range(frames)]
    distance = max(_distance(points, direction, up, size) for direction in directions)
    return [_at(points, direction, up, size, distance, f"{k:05d}") for k, direction in enumerate(directions)]


def side_view(start: Float[Tensor, "3"], up: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """`start` with its elevation brought into `ELEVATIONS`; unit length."""
    return _around(start, up, 0.0)


def front(cameras: Sequence[Camera], points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """(direction from the points' middle to the middlemost of the cameras, up). The middlemost is that with the least
    sum of angles to the others, so that the side that was looked at is the one that is shown.
    """
    middle = _middle(points)
    offsets = torch.stack([camera.centre.detach().double() for camera in cameras]) - middle
    directions = torch.nn.functional.normalize(offsets, dim=1)
    angles = torch.acos((directions @ directions.T).clamp(-1.0, 1.0)).sum(dim=1)
    return directions[int(angles.argmin())], up_direction(cameras)


def _around(start: Tensor, up: Tensor, angle: float) -> Float[Tensor, "3"]:
    up = torch.nn.functional.normalize(up.double(), dim=0)
    start = torch.nn.functional.normalize(start.double(), dim=0)
    height = float(start @ up)
    flat = start - height * up
    if float(flat.norm()) < 1e-6:  # from straight above: any side
        flat = torch.linalg.cross(up, torch.eye(3, dtype=torch.float64)[int(up.abs().argmin())])
    east = torch.nn.functional.normalize(flat, dim=0)
    north = torch.linalg.cross(up, east)
    elevation = min(max(math.asin(max(-1.0, min(1.0, height))), ELEVATIONS[0]), ELEVATIONS[1])
    return math.sin(elevation) * up + math.cos(elevation) * (math.cos(angle) * east + math.sin(angle) * north)


def _distance(points: Tensor, towards: Tensor, up: Tensor, size: tuple[int, int]) -> float:
    camera = _at(points, towards, up, size, 1.0)
    local = (points.detach().double() - _middle(points)) @ camera.rotation.T
    half = torch.tensor(size, dtype=torch.float64) * 0.5 * (1.0 - MARGIN)
    tangents = half / camera.intrinsics[:2]
    need = (local[:, :2].abs() / tangents).amax(dim=1) - local[:, 2]
    return max(float(need.max()), 1e-6)


def _at(points: Tensor, towards: Tensor, up: Tensor, size: tuple[int, int], distance: float, name: str = "") -> Camera:
    middle = _middle(points)
    unit = torch.nn.functional.normalize(towards.double(), dim=0)
    width, height = size
    across = 2.0 * math.atan(math.tan(0.5 * FIELD_OF_VIEW) * width / max(width, height))
    return replace(Camera.look_at(middle + distance * unit, middle, up.double(), across, size), name=name)


def _middle(points: Tensor) -> Float[Tensor, "3"]:
    points = points.detach().double()
    return 0.5 * (points.amin(dim=0) + points.amax(dim=0))
