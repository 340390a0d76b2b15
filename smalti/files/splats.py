"""The exchange value between splat files and scenes: raw parameters and the metadata that decides how they look."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.similarity import Similarity
from smalti.primitives.spherical_harmonics import rotate_rest

PARAMETERS = ("means", "log_scales", "quaternions", "logit_opacities", "sh_dc", "sh_rest")
"""Names of the columns' groups, here and among the parameters of the families that such files can hold."""


class FileFormatError(ValueError):
    """A scene file that cannot be read or written: which file, what is wrong, what to do about it."""

    def __init__(self, file: object, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {problem}. {remedy}")
        self.file, self.problem, self.remedy = str(file), problem, remedy


@dataclass(frozen=True)
class SplatMetadata:
    """What a 3DGS file cannot say in columns. The defaults are what 3DGS means by a file without metadata."""

    filter_variance: float = 0.3
    """Variance in square pixels added to the projected covariance."""
    compensated: bool = False
    """Opacity is scaled so that the filter adds no mass."""
    sh_degree: int | None = None
    """Degrees in use; None: all that the file holds."""
    order: str = "centre"
    """Compositing order, `centre` or `ray`."""
    frame: str = "input"
    """`input`: the data set's own frame and unit; `scene`: the normalised one of the training."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.filter_variance) and self.filter_variance >= 0):
            raise ValueError(f"filter_variance: expected a number >= 0, got {self.filter_variance}")
        if self.order not in ("centre", "ray"):
            raise ValueError(f"order: expected centre or ray, got {self.order!r}")
        if self.frame not in ("input", "scene"):
            raise ValueError(f"frame: expected input or scene, got {self.frame!r}")
        if self.sh_degree is not None and not 0 <= self.sh_degree <= 3:
            raise ValueError(f"sh_degree: expected 0..3, got {self.sh_degree}")


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians as every splat file stores them; arrays of float32, rows are primitives."""

    means: Float[np.ndarray, "n 3"]
    log_scales: Float[np.ndarray, "n 3"]
    """Natural logarithms of the standard deviations."""
    quaternions: Float[np.ndarray, "n 4"]
    """w, x, y, z; need not be of unit length."""
    logit_opacities: Float[np.ndarray, "n"]
    sh_dc: Float[np.ndarray, "n 3"]
    sh_rest: Float[np.ndarray, "n k 3"]
    """k = 0, 3, 8 or 15."""
    metadata: SplatMetadata = field(default_factory=SplatMetadata)
    notices: tuple[str, ...] = ()
    """What a reader left out or altered, in sentences."""

    def __post_init__(self) -> None:
        n = len(self.means)
        for name, tail in {
            "means": (3,),
            "log_scales": (3,),
            "quaternions": (4,),
            "logit_opacities": (),
            "sh_dc": (3,),
        }.items():
            shape = (n, *tail)
            if getattr(self, name).shape != shape:
                raise ValueError(f"Splats.{name}: expected shape {shape}, got {getattr(self, name).shape}")
        if self.sh_rest.ndim != 3 or self.sh_rest.shape[0] != n or self.sh_rest.shape[2] != 3:
            raise ValueError(f"Splats.sh_rest: expected shape ({n}, k, 3), got {self.sh_rest.shape}")
        if self.sh_rest.shape[1] not in (0, 3, 8, 15):
            raise ValueError(f"Splats.sh_rest: expected 0, 3, 8 or 15 coefficients, got {self.sh_rest.shape[1]}")
        if self.sh_degree > self.held_degree:
            raise ValueError(f"Splats: degree {self.sh_degree} in use, but the coefficients end at {self.held_degree}")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def held_degree(self) -> int:
        """The degree for which there are coefficients."""
        return math.isqrt(self.sh_rest.shape[1] + 1) - 1

    @property
    def sh_degree(self) -> int:
        """The degree in use."""
        return self.held_degree if self.metadata.sh_degree is None else self.metadata.sh_degree

    @staticmethod
    def from_parameters(parameters: Mapping[str, Tensor], metadata: SplatMetadata) -> Splats:
        """Views (no copies, for float32 on the CPU) of a family's parameters, which carry the names of these fields."""
        arrays = {name: parameters[name].detach().float().cpu().numpy() for name in PARAMETERS}
        return Splats(
            arrays["means"],
            arrays["log_scales"],
            arrays["quaternions"],
            arrays["logit_opacities"],
            arrays["sh_dc"],
            arrays["sh_rest"],
            metadata,
        )

    def to_parameters(self) -> dict[str, Tensor]:
        """The fields as tensors under their own names; they share this object's memory."""
        return {name: torch.from_numpy(getattr(self, name)) for name in PARAMETERS}

    def rows(self, start: int, stop: int) -> Splats:
        """A view of some rows; nothing is copied."""
        part = slice(start, stop)
        return replace(
            self,
            means=self.means[part],
            log_scales=self.log_scales[part],
            quaternions=self.quaternions[part],
            logit_opacities=self.logit_opacities[part],
            sh_dc=self.sh_dc[part],
            sh_rest=self.sh_rest[part],
        )


def similarity_transform(similarity: Similarity) -> Callable[[Splats], Splats]:
    """A function that carries splats by `similarity`: means, scales, rotations, SH of degree 1..3, in float64.

    Columns that it does not change come out bit for bit (all of them for the identity).
    """
    scale, turn = similarity.scale, similarity.rotation.to(torch.float64).numpy()
    shift = similarity.translation.to(torch.float64).numpy()
    quaternion = quaternion_of(turn)
    identity_turn = np.array_equal(turn, np.eye(3))

    def transform(splats: Splats) -> Splats:
        if similarity.is_identity:
            return splats
        means = (scale * (splats.means.astype(np.float64) @ turn.T) + shift).astype(np.float32)
        log_scales = (splats.log_scales.astype(np.float64) + math.log(scale)).astype(np.float32)
        if identity_turn:
            return replace(splats, means=means, log_scales=log_scales)
        quaternions = _multiply(quaternion, splats.quaternions.astype(np.float64)).astype(np.float32)
        rest = rotate_rest(torch.from_numpy(splats.sh_rest.astype(np.float64)), torch.from_numpy(turn)).numpy()
        return replace(
            splats, means=means, log_scales=log_scales, quaternions=quaternions, sh_rest=rest.astype(np.float32)
        )

    return transform


def quaternion_of(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    """Unit quaternion w, x, y, z (w >= 0) of a rotation matrix (largest eigenvector, Bar-Itzhack 2000)."""
    r = np.asarray(rotation, np.float64)
    off = [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]
    matrix = np.empty((4, 4))
    matrix[0, 0] = np.trace(r)
    matrix[0, 1:] = matrix[1:, 0] = off
    matrix[1:, 1:] = r + r.T - np.trace(r) * np.eye(3)
    _, vectors = np.linalg.eigh(matrix)
    quaternion = vectors[:, -1]
    return quaternion if quaternion[0] >= 0 else -quaternion


def _multiply(left: Float[np.ndarray, "4"], right: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    w, x, y, z = left
    matrix = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return right @ matrix.T
