"""Family `ray_gaussians`: 3D Gaussians evaluated on the ray itself, drawn by kind `gaussian_ray`.

Parameters as `gaussians`. `logit_opacities` is, for either response, the logit of the opacity along the central ray
that looks down the longest axis: `response="integral"` draws the peak density `softplus(logit) / sqrt(2 pi)` in units
of 1 / (largest scale), whose line integral there is `softplus(logit) = -ln(1 - sigmoid(logit))`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.metadata import Ranges
from smalti.primitives.softplus import inverse_softplus
from smalti.primitives.splats import OpacitySplats
from smalti.renderers.drawables import RayGaussianDrawable
from smalti.renderers.settings import ALPHA_MIN

RESPONSES = ("maximum", "integral")


class RayGaussians(OpacitySplats):
    """See the module. Metadata `response`: `maximum` (largest response along the ray) or `integral`."""

    name: ClassVar[str] = "ray_gaussians"

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {**super().default_metadata(), "response": "maximum"}

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        response = (values["response"] in RESPONSES, "maximum or integral")
        return {**super().metadata_ranges(values), "response": response}

    @property
    def integral(self) -> bool:
        """Whether alpha comes from the line integral."""
        return self.metadata["response"] == "integral"

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[RayGaussianDrawable]:
        opacities = self.optical_depths() / math.sqrt(2 * math.pi) if self.integral else self.opacities()
        return [RayGaussianDrawable(**self.drawn(), opacities=opacities, response=self.metadata["response"])]

    def optical_depths(self) -> Float[Tensor, "n"]:
        """Of the central ray along the longest axis. Differentiable."""
        return torch.nn.functional.softplus(self.parameters["logit_opacities"])

    @torch.no_grad()
    def reach(self) -> Float[Tensor, "n"]:
        if not self.integral:
            return super().reach()
        least = -math.log1p(-ALPHA_MIN)
        return torch.sqrt(2 * torch.log((self.optical_depths() / least).clamp_min(1.0)))

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """`maximum`: as Gaussians. `integral`: the optical depth is divided, which is exact on every ray."""
        if not self.integral:
            return super().share_opacity(rows, copies)
        logits = self.parameters["logit_opacities"]
        depth = torch.nn.functional.softplus(logits[rows].double()) / copies
        logits.data[rows] = inverse_softplus(depth).to(logits)
        return None


FAMILY = RayGaussians
