"""Paths for videos, built from the training cameras: orbit, spiral, interpolation. See `trajectory_files` for files.

Nothing here is differentiable. Cameras of a path are pinholes; they share the picture size and the lens of one
training camera (that with the median field of view), without its distortion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion, quaternion_from_matrix, slerp
from smalti.cameras.trajectory_files import from_file, save_trajectory

__all__ = ["focus_point", "from_file", "interpolate", "orbit", "save_trajectory", "spiral", "up_direction"]

_FULL_CIRCLE_GAP = math.radians(100.0)
"""A capture with a larger gap in azimuth has a side that nobody saw: the orbit swings instead of going round."""
_SWING_SLACK = math.radians(24.0)
"""How much further than the cameras' own axes turn a swing may turn."""


def orbit(cameras: Sequence[Camera], frames: int, *, focus: Float[Tensor, "3"] | None = None) -> list[Camera]:
    """A path round what the cameras look at, at their median distance and height; its end meets its beginning.

    A full circle where the cameras stand all round, otherwise a swing to and fro over the arc that they cover.
    `focus` overrides `focus_point(cameras)`.
    """
    centres, focus, up = _layout(cameras, frames, focus)
    offsets = centres - focus
    heights = offsets @ up
    flat = offsets - heights[:, None] * up
    # A view from straight above has no azimuth: keep the path off the axis.
    distance = float(offsets.norm(dim=1).median())
    radius = max(float(flat.norm(dim=1).median()), 0.1 * distance)
    height = float(heights.median())
    east = flat[int(flat.norm(dim=1).argmax())]
    if float(east.norm()) < 1e-9 * (1.0 + distance):
        east = torch.linalg.cross(up, _any_other(up))
    east = torch.nn.functional.normalize(east, dim=0)
    north = torch.linalg.cross(up, east)
    azimuths = torch.atan2(flat @ north, flat @ east)
    start, extent = _arc(azimuths)
    if extent is not None:
        # Parallel cameras side by side did not see the scene from the directions that a swing of theirs would show.
        axes = torch.stack([camera.rotation[2].detach().double() for camera in cameras])
        turned = _arc(torch.atan2(axes @ north, axes @ east))[1]
        allowed = math.inf if turned is None else turned + _SWING_SLACK
        start, extent = start + 0.5 * max(extent - allowed, 0.0), min(extent, allowed)
    phases = torch.arange(frames, dtype=torch.float64) / frames
    if extent is None:
        angles = start + 2.0 * math.pi * phases
    else:
        half = max(0.5 * extent, math.radians(5.0))
        angles = start + 0.5 * extent + half * torch.sin(2.0 * math.pi * phases)
    positions = focus + height * up + radius * (angles.cos()[:, None] * east + angles.sin()[:, None] * north)
    return _looking(cameras, positions, focus, up)


def spiral(
    cameras: Sequence[Camera], frames: int, *, turns: int = 2, focus: Float[Tensor, "3"] | None = None
) -> list[Camera]:
    """A spiral in front of the scene (Mildenhall et al. 2019, LLFF): small circles that also go in and out.

    It starts from the middle of the cameras or, where that is empty (they stand round something), from the middlemost
    of them, and stays inside their spread and within a tenth of the distance. Its end meets its beginning.
    """
    centres, focus, up = _layout(cameras, frames, focus)
    base = centres.mean(dim=0)
    away = (centres - base).norm(dim=1)
    if float(away.min()) > 0.5 * float(away.square().mean().sqrt()):
        # The cameras stand round something, the middle included: start from one of them.
        base = centres[int(torch.cdist(centres, centres).sum(dim=1).argmin())]
    forward = torch.nn.functional.normalize(focus - base, dim=0)
    right = torch.linalg.cross(forward, up if abs(float(forward @ up)) < 0.99 else _any_other(forward))
    right = torch.nn.functional.normalize(right, dim=0)
    axes = torch.stack([right, torch.linalg.cross(right, forward), forward])
    distance = float((focus - base).norm())
    local = ((centres - base) @ axes.T).abs()
    spread = torch.quantile(local, 0.8, dim=0)
    # Never further than a tenth of the distance, and never quite still (one camera has no spread).
    radii = 0.8 * spread.clamp(max=0.125 * distance).clamp(min=0.025 * distance)
    angles = 2.0 * math.pi * turns * torch.arange(frames, dtype=torch.float64) / frames
    steps = torch.stack([angles.cos(), angles.sin(), (angles / turns).sin()], dim=1) * radii
    return _looking(cameras, base + steps @ axes, focus, up)


def interpolate(cameras: Sequence[Camera], frames: int, *, closed: bool = False) -> list[Camera]:
    """A smooth path through the cameras in the order given, equal time between neighbours; both ends included.

    Positions by Catmull-Rom splines, rotations by slerp, focal lengths geometrically, principal points and times
    linearly. All have the first camera's size. With `closed` the path returns to the first camera (and stops short of
    it, so that a video loops).
    """
    _require(cameras, frames)
    first = cameras[0]
    scaled = [camera.to(torch.float64).scaled_to(first.width, first.height) for camera in cameras]
    centres = torch.stack([camera.centre.detach() for camera in scaled])
    turns = quaternion_from_matrix(torch.stack([camera.rotation.detach() for camera in scaled]))
    lenses = torch.stack([camera.intrinsics.detach() for camera in scaled])
    count = len(scaled)
    segments = count if closed else count - 1
    result = []
    for frame in range(frames):
        position = segments * frame / max(frames if closed else frames - 1, 1)
        index = min(int(position), max(segments - 1, 0))
        share = position - index
        around = [_neighbour(index + offset, count, closed) for offset in (-1, 0, 1, 2)]
        here, there = around[1], around[2]
        centre = _catmull_rom(centres, around, share)
        rotation = matrix_from_quaternion(slerp(turns[here], turns[there], share))
        focal = lenses[here, :2] ** (1.0 - share) * lenses[there, :2] ** share
        principal = torch.lerp(lenses[here, 2:], lenses[there, 2:], share)
        time = (1.0 - share) * scaled[here].time + share * scaled[there].time
        lens = torch.cat([focal, principal])
        name = f"{frame:05d}"
        result.append(Camera(rotation, -rotation @ centre, lens, first.width, first.height, time=time, name=name))
    return result


def focus_point(cameras: Sequence[Camera]) -> Float[Tensor, "3"]:
    """The point nearest to all optical axes (least absolute distances, so that single stray cameras do not matter).

    Where the axes are nearly parallel or meet behind the cameras they do not say how far it is: then it lies on the
    mean axis, four times as far as the cameras are spread (or one unit, for cameras that are all in one place).
    """
    centres = torch.stack([camera.centre.detach().double() for camera in cameras])
    axes = torch.stack([camera.rotation[2].detach().double() for camera in cameras])
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    middle = centres.mean(dim=0)
    spread = float((centres - middle).norm(dim=1).square().mean().sqrt())
    weights = torch.ones(len(cameras), dtype=torch.float64)
    found = None
    for _ in range(30):
        total = (weights[:, None, None] * across).sum(dim=0) / weights.sum()
        # The smallest eigenvalue is the mean squared angle between the axes: 1e-3 is about two degrees.
        if float(torch.linalg.eigvalsh(total)[0]) < 1e-3:
            break
        wanted = (weights[:, None] * (across @ centres[:, :, None]).squeeze(-1)).sum(dim=0) / weights.sum()
        found = torch.linalg.solve(total, wanted)
        distances = (across @ (found - centres)[:, :, None]).squeeze(-1).norm(dim=1)
        weights = 1.0 / distances.clamp(min=1e-3 * spread + 1e-12)
    if found is not None and float(((found - centres) * axes).sum(dim=1).median()) > 0.0:
        return found
    ahead = axes.mean(dim=0)
    ahead = ahead if float(ahead.norm()) > 1e-6 else axes[0]
    return middle + torch.nn.functional.normalize(ahead, dim=0) * (4.0 * spread if spread > 1e-9 else 1.0)


def up_direction(cameras: Sequence[Camera]) -> Float[Tensor, "3"]:
    """Unit vector: the mean of the cameras' own ups, made as perpendicular to their horizontal axes as these determine.

    The mean alone leans where cameras look down on a scene from one side only; a photographer's horizon does not.
    """
    rights = torch.stack([camera.rotation[0].detach().double() for camera in cameras])
    ups = torch.stack([-camera.rotation[1].detach().double() for camera in cameras])
    mean = ups.mean(dim=0)
    spread = rights.T @ rights / len(cameras)
    up = mean if float(mean.norm()) > 0.05 else torch.linalg.eigh(spread).eigenvectors[:, 0]
    eye = torch.eye(3, dtype=torch.float64)
    for _ in range(4):
        up = torch.nn.functional.normalize(torch.linalg.solve(spread + 0.01 * eye, up), dim=0)
    return up


def _layout(cameras: Sequence[Camera], frames: int, focus: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the cameras, what they look at, and up."""
    _require(cameras, frames)
    centres = torch.stack([camera.centre.detach().double() for camera in cameras])
    focus = focus_point(cameras) if focus is None else focus.detach().double()
    up = up_direction(cameras)
    ups = torch.stack([-camera.rotation[1].detach().double() for camera in cameras])
    # Cameras that all look straight down do not say which way is up, but they are above what they see.
    if abs(float((ups @ up).mean())) < 0.05 and float(((centres - focus) @ up).mean()) < 0.0:
        up = -up
    return centres, focus, up


def _require(cameras: Sequence[Camera], frames: int) -> None:
    if not cameras:
        raise ValueError("trajectory: needs at least one camera, got none; give the data set's training cameras")
    if frames < 1:
        raise ValueError(f"trajectory: needs at least one frame, got {frames}")


def _looking(cameras: Sequence[Camera], positions: Tensor, focus: Tensor, up: Tensor) -> list[Camera]:
    """Cameras at the positions that look at the focus, with the lens of the training camera of median field of view."""
    order = sorted(range(len(cameras)), key=lambda row: float(cameras[row].intrinsics[0]) / cameras[row].width)
    template = cameras[order[len(order) // 2]]
    lens = template.intrinsics.detach().double()
    size = (template.width, template.height)
    result = []
    for index, position in enumerate(positions):
        aimed = Camera.look_at(position, focus, up, 1.0, size)
        result.append(replace(aimed, intrinsics=lens, time=template.time, name=f"{index:05d}"))
    return result


def _arc(azimuths: Tensor) -> tuple[float, float | None]:
    """Where the covered arc begins and how long it is; None for all round."""
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered[1:], ordered[:1] + 2.0 * math.pi]) - ordered
    widest = int(gaps.argmax())
    start = float(ordered[(widest + 1) % len(ordered)])
    gap = float(gaps[widest])
    return start, (None if gap < _FULL_CIRCLE_GAP else 2.0 * math.pi - gap)


def _any_other(direction: Tensor) -> Tensor:
    """An axis that is not parallel to the direction."""
    return torch.eye(3, dtype=direction.dtype)[int(direction.abs().argmin())]


def _neighbour(index: int, count: int, closed: bool) -> int:
    return index % count if closed else min(max(index, 0), count - 1)


def _catmull_rom(values: Tensor, around: list[int], share: float) -> Tensor:
    """Uniform Catmull-Rom spline between the second and the third of four neighbours (Catmull and Rom 1974)."""
    before, here, there, after = (values[row] for row in around)
    # Beyond an open end the path is thought to go straight on.
    before = 2.0 * here - there if around[0] == around[1] else before
    after = 2.0 * there - here if around[3] == around[2] else after
    linear = 0.5 * (there - before)
    square = before - 2.5 * here + 2.0 * there - 0.5 * after
    cube = 0.5 * (after - before) + 1.5 * (here - there)
    return here + share * (linear + share * (square + share * cube))
