"""Similarity transforms x -> scale * rotation x + translation: how a layer sits in the scene, how a scene sits in its
input.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Similarity:
    """A rotation, a uniform positive scale and a translation, in float64 on the CPU. Names read `a_from_b`."""

    scale: float = 1.0
    rotation: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3, dtype=torch.float64))
    translation: Float[Tensor, "3"] = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    def __post_init__(self) -> None:
        rotation = self.rotation.to(torch.float64)
        if not self.scale > 0:
            raise ValueError(f"Similarity.scale: expected a positive number, got {self.scale}")
        error = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
        if error > 1e-4 or float(torch.linalg.det(rotation)) < 0:
            raise ValueError(f"Similarity.rotation: expected a proper rotation, R R^T differs from 1 by {error:.2g}")

    @property
    def is_identity(self) -> bool:
        """True where nothing moves, exactly."""
        return (
            self.scale == 1.0
            and bool((self.rotation == torch.eye(3, dtype=self.rotation.dtype)).all())
            and not bool(self.translation.any())
        )

    def apply(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The images of `points`, in their own type and on their own device. Differentiable."""
        rotation, translation = self.rotation.to(points), self.translation.to(points)
        return self.scale * points @ rotation.T + translation

    def inverse(self) -> Similarity:
        """The transform back."""
        return Similarity(1.0 / self.scale, self.rotation.T, -(self.rotation.T @ self.translation) / self.scale)

    def __matmul__(self, first: Similarity) -> Similarity:
        """`a_from_c = a_from_b @ b_from_c`."""
        return Similarity(
            self.scale * first.scale,
            self.rotation @ first.rotation,
            self.scale * self.rotation @ first.translation + self.translation,
        )

    def to_plain(self) -> dict[str, object]:
        """Numbers and lists only, for JSON."""
        return {"scale": self.scale, "rotation": self.rotation.tolist(), "translation": self.translation.tolist()}

    @staticmethod
    def from_plain(plain: dict) -> Similarity:
        """The inverse of `to_plain`."""
        as_tensor = lambda value: torch.tensor(value, dtype=torch.float64)  # noqa: E731
        return Similarity(float(plain["scale"]), as_tensor(plain["rotation"]), as_tensor(plain["translation"]))
