"""Calibrated views on a canvas of another shape: which is nearest, where it fits, and whether a camera stands there."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.viewer.stage import Views

SAME_PLACE = 1e-3
"""Of the cameras' spread: what a page's camera may be off by rounding and still stand where a view was taken."""
SAME_WAY = 2e-3
"""Radians, likewise."""


@dataclass(frozen=True)
class Fit:
    """Where a view's picture lies on a canvas, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


def fit(camera: Camera, width: int, height: int) -> Fit:
    """The largest rectangle of the view's shape within `width` x `height`, in the middle."""
    scale = min(width / camera.width, height / camera.height)
    across = min(max(round(camera.width * scale), 1), width)
    down = min(max(round(camera.height * scale), 1), height)
    return Fit((width - across) // 2, (height - down) // 2, across, down)


def fitted(camera: Camera, width: int, height: int) -> Camera:
    """The view's camera with as much around its picture as fills the canvas; the picture itself lies at `fit`."""
    place = fit(camera, width, height)
    return camera.scaled_to(place.width, place.height).cropped(-place.left, -place.top, width, height)


@dataclass(frozen=True, eq=False)
class Poses:
    """Of all views of a data set."""

    centres: Float[Tensor, "n 3"]
    rotations: Float[Tensor, "n 3 3"]
    times: Float[Tensor, "n"]
    spread: float
    """World units; root mean square distance from the middle of the cameras, 1 where all are in one place."""
    period: float
    """From the first instant to the last, 1 where all are the same."""


_POSES: WeakKeyDictionary[Views, Poses] = WeakKeyDictionary()


def poses(views: Views) -> Poses:
    """Found once per `Views`. The views' own cameras: a lens changes no pose."""
    known = _POSES.get(views)
    if known is None:
        cameras = [view.camera for view in views.dataset.views]
        centres = torch.stack([camera.centre.detach().double() for camera in cameras])
        rotations = torch.stack([camera.rotation.detach().double() for camera in cameras])
        spread = float((centres - centres.mean(dim=0)).norm(dim=1).square().mean().sqrt())
        times = torch.tensor([camera.time for camera in cameras], dtype=torch.float64)
        period = float(times.max() - times.min())
        known = _POSES[views] = Poses(centres, rotations, times, spread or 1.0, period or 1.0)
    return known


def nearest_view(views: Views, camera: Camera) -> int | None:
    """Row of the training view (where there are none: of any view) that was taken from nearest by, looking the same
    way, at nearly the same time: the cameras' spread counts as much as a radian or all of the time. None where there is
    no view.
    """
    rows = views.train_rows or views.test_rows
    if not rows:
        return None
    known = poses(views)
    away, turned, later = _differences(known, camera, rows)
    return rows[int((away / known.spread + turned + later / known.period).argmin())]


def stands_at(views: Views, row: int, camera: Camera) -> bool:
    """Whether the camera is where and when the view was taken, turned as it was; lens and size do not matter."""
    known = poses(views)
    away, turned, later = _differences(known, camera, [row])
    near = float(away[0]) <= SAME_PLACE * known.spread and float(turned[0]) <= SAME_WAY
    return near and float(later[0]) <= SAME_PLACE * known.period


def _differences(known: Poses, camera: Camera, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(distances, angles in radians, times) between the camera and these views."""
    picked = torch.tensor(rows)
    away = (known.centres[picked] - camera.centre.detach().double()).norm(dim=1)
    # |R1 - R2| (Frobenius) = sqrt(8) sin(angle / 2): unlike the trace, it keeps its digits near zero.
    chord = (known.rotations[picked] - camera.rotation.detach().double()).square().sum(dim=(1, 2)).sqrt()
    return away, 2.0 * torch.asin((chord / 8.0**0.5).clamp(max=1.0)), (known.times[picked] - camera.time).abs()
