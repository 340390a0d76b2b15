"""The camera: a frozen value. It decides the conventions; lens models and file formats live beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Camera:
    """One calibrated view, with OpenCV axes (x right, y down, z forward) and pixel centres at +0.5.

    A world point p has camera coordinates `rotation @ p + translation` and, for `model == "PINHOLE"`, the pixel
    coordinates `(fx * x / z + cx, fy * y / z + cy)`. Tensors live on the CPU, float32 or float64, whatever the device
    of the scene is: a camera is a handful of numbers. They may require gradients (pose and intrinsics refinement).

    The renderers accept pinhole cameras only; `smalti.cameras.undistort` turns images of other models into such ones.
    """

    rotation: Float[Tensor, "3 3"]
    """World-to-camera rotation."""
    translation: Float[Tensor, "3"]
    """World-to-camera translation, world units."""
    intrinsics: Float[Tensor, "4"]
    """fx, fy, cx, cy in pixels."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    model: str = "PINHOLE"
    """Lens model, by COLMAP's name (`smalti.cameras.models`)."""
    distortion: tuple[float, ...] = ()
    """The lens model's parameters beyond fx, fy, cx, cy, in COLMAP's order."""
    time: float = 0.0
    """Instant of the exposure; 0..1 over a sequence unless the data set says otherwise."""
    name: str = ""
    """The picture's name in its data set."""

    def __post_init__(self) -> None:
        for field, shape in (("rotation", (3, 3)), ("translation", (3,)), ("intrinsics", (4,))):
            got = tuple(getattr(self, field).shape)
            if got != shape:
                raise ValueError(f"Camera.{field}: expected shape {shape}, got {got}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"Camera: expected a positive size, got {self.width} x {self.height}")

    @property
    def centre(self) -> Float[Tensor, "3"]:
        """The camera's position in the world."""
        return -self.rotation.T @ self.translation

    @property
    def world_from_camera(self) -> Float[Tensor, "4 4"]:
        """Rigid transform, differentiable with respect to the pose."""
        top = torch.cat([self.rotation.T, self.centre[:, None]], dim=1)
        return torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """K, built from the intrinsics."""
        fx, fy, cx, cy = self.intrinsics.unbind()
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one]).reshape(3, 3)

    def scaled_to(self, width: int, height: int) -> Camera:
        """The same view with another number of pixels: exact per axis, because pixel centres sit at +0.5."""
        factor = self.intrinsics.new_tensor([width / self.width, height / self.height] * 2)
        return replace(self, intrinsics=self.intrinsics * factor, width=width, height=height)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The view of a rectangle of this picture, in whole pixels."""
        shift = self.intrinsics.new_tensor([0.0, 0.0, left, top])
        return replace(self, intrinsics=self.intrinsics - shift, width=width, height=height)

    def to(self, dtype: torch.dtype) -> Camera:
        """The same camera with tensors of `dtype`."""
        return replace(
            self,
            rotation=self.rotation.to(dtype),
            translation=self.translation.to(dtype),
            intrinsics=self.intrinsics.to(dtype),
        )

    @staticmethod
    def look_at(
        position: Float[Tensor, "3"],
        target: Float[Tensor, "3"],
        up: Float[Tensor, "3"],
        fov_x: float,
        size: tuple[int, int],
    ) -> Camera:
        """A pinhole at `position` looking at `target`; `fov_x` in radians, `size` is (width, height) in pixels."""
        forward = torch.nn.functional.normalize(target - position, dim=0)
        right = torch.linalg.cross(forward, up)
        if float(right.norm()) < 1e-8:
            raise ValueError("Camera.look_at: `up` is parallel to the viewing direction; choose another")
        right = torch.nn.functional.normalize(right, dim=0)
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
        width, height = size
        focal = 0.5 * width / float(torch.tan(torch.tensor(0.5 * fov_x, dtype=torch.float64)))
        intrinsics = position.new_tensor([focal, focal, 0.5 * width, 0.5 * height])
        return Camera(rotation, -rotation @ position, intrinsics, width, height)
