"""A similarity transform as a value: how a layer sits in its scene, what normalising stores and exports undo."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera


@dataclass(frozen=True, eq=False)
class Similarity:
    """`p_a = scale * rotation @ p_b + translation`. A variable that holds one is named `a_from_b`.

    `a_from_b @ b_from_c` is `a_from_c`. Tensors are on the CPU; float64 is advised, and of two precisions the higher is
    kept. Differentiable.
    """

    scale: float = 1.0
    """Lengths in a per length in b, > 0."""
    rotation: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))
    translation: Float[Tensor, "3"] = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    def __post_init__(self) -> None:
        if not self.scale > 0.0 or self.scale == float("inf"):
            raise ValueError(f"Similarity.scale: expected a positive number, got {self.scale}")
        for name, shape in (("rotation", (3, 3)), ("translation", (3,))):
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"Similarity.{name}: expected shape {shape}, got {got}")
        wider = torch.promote_types(self.rotation.dtype, self.translation.dtype)
        object.__setattr__(self, "rotation", self.rotation.to(wider))
        object.__setattr__(self, "translation", self.translation.to(wider))
        rotation = self.rotation.detach().double()
        deviation = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
        if not deviation < 1e-4 or float(torch.linalg.det(rotation)) < 0:
            raise ValueError(
                f"Similarity.rotation: expected a proper rotation, R R^T differs from 1 by {deviation:.2g}"
            )

    @staticmethod
    def identity() -> Similarity:
        """Changes nothing."""
        return Similarity()

    @property
    def is_identity(self) -> bool:
        """True where nothing moves, exactly."""
        still = bool((self.rotation == torch.eye(3, dtype=self.rotation.dtype)).all())
        return self.scale == 1.0 and still and not bool(self.translation.any())

    def to_plain(self) -> dict[str, Any]:
        """Numbers and lists only, for JSON."""
        return {"scale": self.scale, "rotation": self.rotation.tolist(), "translation": self.translation.tolist()}

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> Similarity:
        """The inverse of `to_plain`, in float64."""
        rotation, translation = (torch.tensor(plain[key], dtype=torch.float64) for key in ("rotation", "translation"))
        return Similarity(float(plain["scale"]), rotation, translation)

    @staticmethod
    def from_matrix(matrix: Float[Tensor, "4 4"]) -> Similarity:
        """From a homogeneous matrix; ValueError where it is not a similarity (to 1e-4: shear, mirror, projection)."""
        if tuple(matrix.shape) != (4, 4):
            raise ValueError(f"Similarity.from_matrix: expected a 4x4 matrix, got {tuple(matrix.shape)}")
        linear = matrix[:3, :3]
        determinant = float(torch.linalg.det(linear))
        bottom = matrix[3] - matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
        if not determinant > 0.0 or float(bottom.abs().max()) > 1e-6:
            raise ValueError(f"Similarity.from_matrix: mirrored, flat or projective (determinant {determinant:.6g})")
        scale = determinant ** (1.0 / 3.0)
        rotation = linear / scale
        deviation = float((rotation @ rotation.T - torch.eye(3, dtype=matrix.dtype)).abs().max())
        if deviation > 1e-4:
            raise ValueError(f"Similarity.from_matrix: not a rotation times one scale (off by {deviation:.2g})")
        return Similarity(scale, rotation, matrix[:3, 3])

    @property
    def matrix(self) -> Float[Tensor, "4 4"]:
        """Homogeneous matrix."""
        top = torch.cat([self.scale * self.rotation, self.translation[:, None]], dim=1)
        return torch.cat([top, top.new_tensor([[0.0, 0.0, 0.0, 1.0]])])

    @property
    def inverse(self) -> Similarity:
        """`b_from_a`."""
        back = self.rotation.T
        return Similarity(1.0 / self.scale, back, -(back @ self.translation) / self.scale)

    def __matmul__(self, other: Similarity) -> Similarity:
        """`a_from_b @ b_from_c`: first `other`, then this."""
        wider = torch.promote_types(self.rotation.dtype, other.rotation.dtype)
        turn, away = self.rotation.to(wider), self.translation.to(wider)
        return Similarity(
            self.scale * other.scale,
            turn @ other.rotation.to(wider),
            self.scale * (turn @ other.translation.to(wider)) + away,
        )

    def apply(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Points of b in a; in the points' dtype and on their device."""
        linear = (self.scale * self.rotation).to(points)
        return points @ linear.T + self.translation.to(points)

    def apply_array(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """The same for numpy, in float64."""
        linear = self.scale * self.rotation.detach().double().numpy()
        return np.asarray(points, np.float64) @ linear.T + self.translation.detach().double().numpy()

    def apply_camera(self, camera: Camera) -> Camera:
        """A camera that stands in b, as it stands in a: the same picture of the transformed scene.

        Its camera coordinates (depths) are in a's unit of length.
        """
        rotation = camera.rotation @ self.rotation.to(camera.rotation).T
        translation = self.scale * camera.translation - rotation @ self.translation.to(camera.rotation)
        return replace(camera, rotation=rotation, translation=translation)
