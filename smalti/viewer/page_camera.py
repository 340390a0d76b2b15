"""Between the page's camera and ours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from smalti.cameras.camera import Camera

if TYPE_CHECKING:
    import viser

MOST_PIXELS = 2560 * 1600
"""Of a picture: larger canvases get it scaled up."""
LONGEST = 16384
"""Pixels of a canvas's side that are believed."""


def camera_of(page: Any, time: float = 0.0) -> Camera | None:
    """The page's camera (`viser.CameraHandle`: camera-to-world quaternion, position, vertical field of view) at canvas
    size; None where its numbers make none.
    """
    try:
        quaternion = np.asarray(page.wxyz, dtype=np.float64)
        position = np.asarray(page.position, dtype=np.float64)
        fov, width, height = float(page.fov), int(page.image_width), int(page.image_height)
    except (TypeError, ValueError, OverflowError):
        return None
    if quaternion.shape != (4,) or position.shape != (3,) or not 1e-4 < fov < math.pi - 1e-4:
        return None
    norm = float(np.linalg.norm(quaternion))
    if not (np.isfinite(quaternion).all() and np.isfinite(position).all() and norm > 1e-6):
        return None
    if not (0 < width <= LONGEST and 0 < height <= LONGEST):
        return None
    world_from_camera = torch.from_numpy(rotation_matrix(quaternion / norm)).to(torch.float64)
    rotation = world_from_camera.T.contiguous()
    focal = 0.5 * height / math.tan(0.5 * fov)
    intrinsics = torch.tensor([focal, focal, 0.5 * width, 0.5 * height], dtype=torch.float64)
    camera = Camera(rotation, -rotation @ torch.from_numpy(position), intrinsics, width, height, time=time)
    excess = width * height / MOST_PIXELS
    if excess > 1:
        camera = camera.scaled_to(max(int(width / excess**0.5), 1), max(int(height / excess**0.5), 1))
    return camera.to(torch.float32)


def nowhere() -> Camera:
    """Of one pixel, for a page that has not told a camera yet."""
    return Camera(torch.eye(3), torch.zeros(3), torch.tensor([1.0, 1.0, 0.5, 0.5]), 1, 1)


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """[3, 3] of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def same_view(left: Camera, right: Camera) -> bool:
    """Whether two cameras give the same picture."""
    return (left.width, left.height, left.time) == (right.width, right.height, right.time) and all(
        torch.equal(getattr(left, name), getattr(right, name)) for name in ("rotation", "translation", "intrinsics")
    )


def move_page(client: viser.ClientHandle, camera: Camera) -> None:
    """Send the page's camera to the pose and vertical field of view of `camera`."""
    from smalti.files.splats import quaternion_of

    world_from_camera = camera.world_from_camera.detach().numpy().astype(np.float64)
    fov = 2.0 * math.atan(0.5 * camera.height / float(camera.intrinsics[1]))
    with client.atomic():
        client.camera.fov = fov
        client.camera.position = world_from_camera[:3, 3]
        client.camera.wxyz = quaternion_of(world_from_camera[:3, :3])


def to_plain(camera: Camera) -> dict[str, Any]:
    """For /state: world-to-camera rotation and translation, intrinsics, size, time."""
    return {
        "rotation": camera.rotation.tolist(),
        "translation": camera.translation.tolist(),
        "intrinsics": camera.intrinsics.tolist(),
        "width": camera.width,
        "height": camera.height,
        "time": camera.time,
    }
