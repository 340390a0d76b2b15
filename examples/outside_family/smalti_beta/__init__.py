"""Beta splats: splats whose edge may be soft as a Gaussian's or hard as an ellipsoid's, each as it learns."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.primitives.splats import OpacitySplats
from smalti.renderers.outside import OutsideDrawable, OutsideKind
from smalti.renderers.spherical_harmonics import gaussian_color


def beta_event(p: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `beta_kernel.h` says, once more in torch, for the tests: z, alpha, hit."""
    into = matrix_from_quaternion(p[:, 3:7]).transpose(1, 2) / p[:, 7:10, None]
    o, d = ((into @ v[:, :, None])[:, :, 0] for v in (origin, direction))
    z = -(o * d).sum(1) / d.square().sum(1)
    rest = 1 - (o + z[:, None] * d).square().sum(1)
    return z, p[:, 10] * rest.clamp_min(1e-12) ** p[:, 11], rest > 0


BETA = OutsideKind(
    name="beta",
    header=Path(__file__).with_name("beta_kernel.h"),
    struct="BetaKernel",
    parameters={"centre": 3, "quaternion": 4, "semi_axes": 3, "opacity": 1, "shape": 1},
    reference=beta_event,
)


class BetaSplats(OpacitySplats):
    """As Gaussians, and `log_shapes` [n]. Semi-axes are three times the scales: shape 4.5 is nearly a Gaussian."""

    name = "beta_splats"

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {**super().default_learning_rates(), "log_shapes": 1e-2}

    @classmethod
    def initial_parameters(cls, positions: Tensor, colors: Tensor, values: Mapping[str, Any]) -> dict[str, Tensor]:
        shapes = torch.full((len(positions),), math.log(4.5), device=positions.device)
        return {**super().initial_parameters(positions, colors, values), "log_shapes": shapes}

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[OutsideDrawable]:
        drawn, means = self.drawn(), self.parameters["means"]
        direction = torch.nn.functional.normalize(means - camera.centre.to(means), dim=1)
        colors = gaussian_color(drawn["sh_dc"], drawn["sh_rest"], drawn["sh_degree"], direction).clamp_min(0)
        numbers = {"centre": means, "quaternion": drawn["quaternions"], "semi_axes": 3 * drawn["scales"]}
        numbers |= {"opacity": self.opacities(), "shape": self.parameters["log_shapes"].exp()}
        return [BETA.draw(numbers, colors)]

    def reach(self) -> Tensor:
        """In scales, where all of them end."""
        return torch.full((len(self),), 3.0, device=self.device)
