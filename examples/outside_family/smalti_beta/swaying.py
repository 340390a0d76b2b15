"""A family without C++: Gaussians that swing to and fro once while time goes from 0 to 1."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.gaussians import Gaussians
from smalti.renderers.drawables import GaussianDrawable


class SwayingGaussians(Gaussians):
    """As Gaussians, and `sways` [n, 3]: the mean at time t is `means + sways cos(2 pi t)`, world units."""

    name = "swaying_gaussians"
    is_splats = False  # a splat file would lose the motion

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {**super().default_learning_rates(), "sways": 1.6e-4}

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return (*super().position_parameters(), "sways")

    @classmethod
    def initial_parameters(cls, positions: Tensor, colors: Tensor, values: Mapping[str, Any]) -> dict[str, Tensor]:
        return {**super().initial_parameters(positions, colors, values), "sways": torch.zeros_like(positions)}

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[GaussianDrawable]:
        (still,) = super().drawables(camera, time)
        return [replace(still, means=still.means + math.cos(2 * math.pi * time) * self.parameters["sways"])]

    def bounds(self) -> Tensor:
        reach = self.parameters["sways"].detach().abs()
        return super().bounds() + torch.stack([-reach, reach], dim=1)

    def transform(self, similarity: Similarity) -> None:
        super().transform(similarity)
        sways = self.parameters["sways"].detach()
        self.replace({"sways": sways @ (similarity.scale * similarity.rotation).T.to(sways)})
