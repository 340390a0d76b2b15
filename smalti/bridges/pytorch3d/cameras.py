"""PyTorch3D's perspective cameras. Its view axes are x left, y up, z forward, its rotations act on rows from the right
(`X_view = X_world R + T`); ours are x right, y down, z forward, acting on columns. Its NDC runs from -1 to 1 along the
picture's shorter side, x left, y up; its screen space is ours: pixels from the top left corner, centres at +0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.bridges import package
from smalti.cameras.camera import Camera

KNOWN = ("PerspectiveCameras", "FoVPerspectiveCameras")


def from_cameras(cameras: Any, image_size: tuple[int, int] | None = None) -> list[Camera]:
    """Our cameras, one for each of a batch of `PerspectiveCameras` (NDC or screen space) or `FoVPerspectiveCameras`.

    `image_size` is (height, width), PyTorch3D's order; by default the cameras' own. znear and zfar are left out: the
    near plane is `RenderSettings.near`, there is no far one. Differentiable with respect to pose and intrinsics.
    Raises ValueError for other classes and where no size is known.
    """
    names = {base.__name__ for base in type(cameras).__mro__}
    if not names & set(KNOWN):
        raise ValueError(f"from_cameras: expected one of {', '.join(KNOWN)}, got {type(cameras).__name__}")
    rotations, shifts = torch.as_tensor(cameras.R), torch.as_tensor(cameras.T)
    count = max(len(rotations), len(shifts))
    sizes = _sizes(cameras, image_size, count)
    made: list[Camera] = []
    for row in range(count):
        rotation, shift = (_row(value, row).cpu() for value in (rotations, shifts))
        flip = rotation.new_tensor([-1.0, -1.0, 1.0])
        height, width = sizes[row]
        intrinsics = (
            _fov(cameras, row, sizes[row]) if "FoVPerspectiveCameras" in names else _focal(cameras, row, sizes[row])
        )
        pose = flip[:, None] * rotation.T, flip * shift
        made.append(Camera(*pose, intrinsics.to(rotation), width, height))
    return made


def camera_arguments(cameras: Sequence[Camera]) -> dict[str, Any]:
    """Keyword arguments of `PerspectiveCameras`, in screen space, for a batch of pinhole cameras. Differentiable."""
    if not cameras:
        raise ValueError("camera_arguments: expected at least one camera")
    for camera in cameras:
        if camera.model != "PINHOLE" or any(camera.distortion):
            raise ValueError(
                f"camera_arguments: expected pinhole cameras, got {camera.model}; undistort first (smalti.cameras)"
            )
    flip = cameras[0].rotation.new_tensor([-1.0, -1.0, 1.0])
    return {
        "R": torch.stack([camera.rotation.T * flip for camera in cameras]),
        "T": torch.stack([camera.translation * flip for camera in cameras]),
        "focal_length": torch.stack([camera.intrinsics[:2] for camera in cameras]),
        "principal_point": torch.stack([camera.intrinsics[2:] for camera in cameras]),
        "image_size": torch.tensor([[camera.height, camera.width] for camera in cameras]),
        "in_ndc": False,
    }


def to_cameras(cameras: Sequence[Camera], device: str | torch.device = "cpu") -> Any:
    """A batch of `pytorch3d.renderer.PerspectiveCameras`. Raises BridgeUnavailable where PyTorch3D is not installed."""
    renderer = package("pytorch3d.renderer", "install it by its INSTALL.md; `camera_arguments` does without")
    return renderer.PerspectiveCameras(**camera_arguments(cameras), device=device)


def _row(value: Any, row: int) -> Tensor:
    """Row of a batch; what is stated once (a number, a batch of one) holds for all."""
    tensor = torch.as_tensor(value)
    if tensor.dim() == 0:
        return tensor
    return tensor[row if len(tensor) > 1 else 0]


def _sizes(cameras: Any, image_size: tuple[int, int] | None, count: int) -> list[tuple[int, int]]:
    """(height, width) of every picture."""
    if image_size is not None:
        return [image_size] * count
    stated = getattr(cameras, "image_size", None)
    if stated is None or int(_row(stated, 0).min()) < 1:
        raise ValueError("from_cameras: the cameras state no image size; give image_size=(height, width)")
    rows = [_row(stated, row).tolist() for row in range(count)]
    return [(int(height), int(width)) for height, width in rows]


def _focal(cameras: Any, row: int, size: tuple[int, int]) -> Float[Tensor, "4"]:
    """fx, fy, cx, cy in pixels of `PerspectiveCameras`."""
    if getattr(cameras, "K", None) is not None:
        matrix = _row(cameras.K, row).cpu()
        focal, principal = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    else:
        focal = _row(cameras.focal_length, row).cpu().expand(2)
        principal = _row(cameras.principal_point, row).cpu()
    in_ndc = cameras.in_ndc() if callable(getattr(cameras, "in_ndc", None)) else bool(getattr(cameras, "_in_ndc", True))
    return _pixels(focal, principal, size) if in_ndc else torch.cat([focal, principal])


def _fov(cameras: Any, row: int, size: tuple[int, int]) -> Float[Tensor, "4"]:
    """The same of `FoVPerspectiveCameras`: NDC focal lengths 1 / tan(fov / 2), across divided by the aspect ratio."""
    if getattr(cameras, "K", None) is not None:
        matrix = _row(cameras.K, row).cpu()
        return _pixels(matrix[[0, 1], [0, 1]], matrix[:2, 2], size)
    angle, aspect = (_row(getattr(cameras, name), row).cpu().double() for name in ("fov", "aspect_ratio"))
    angle = angle * (math.pi / 180) if cameras.degrees else angle
    down = 1.0 / torch.tan(0.5 * angle)
    return _pixels(torch.stack([down / aspect, down]), torch.zeros(2, dtype=torch.float64), size)


def _pixels(focal: Float[Tensor, "2"], principal: Float[Tensor, "2"], size: tuple[int, int]) -> Float[Tensor, "4"]:
    """From NDC: half the shorter side is 1, and x runs left, y up from the picture's middle."""
    half = 0.5 * min(size)
    middle = focal.new_tensor([0.5 * size[1], 0.5 * size[0]])
    return torch.cat([half * focal, middle - half * principal])
