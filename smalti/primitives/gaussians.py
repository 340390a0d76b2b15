"""Family `gaussians`: anisotropic 3D Gaussians with spherical-harmonic colour (Kerbl et al. 2023), drawn by kind
`gaussian`.

Parameters: `means` [n, 3] world units; `log_scales` [n, 3] natural logarithm of the standard deviations; `quaternions`
[n, 4] (w, x, y, z, any length); `logit_opacities` [n]; `sh_dc` [n, 3]; `sh_rest` [n, k, 3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from smalti.cameras.camera import Camera
from smalti.primitives.metadata import Ranges
from smalti.primitives.splats import OpacitySplats
from smalti.renderers.drawables import GaussianDrawable


class Gaussians(OpacitySplats):
    """See the module."""

    name: ClassVar[str] = "gaussians"
    default_order: ClassVar[Literal["centre", "ray"]] = "centre"
    is_splats: ClassVar[bool] = True

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {**super().default_metadata(), "filter_variance": 0.3, "compensated": False}

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {**super().metadata_ranges(values), "filter_variance": (values["filter_variance"] >= 0, "not negative")}

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[GaussianDrawable]:
        drawn = GaussianDrawable(
            **self.drawn(),
            opacities=self.opacities(),
            filter_variance=float(self.metadata["filter_variance"]),
            compensated=bool(self.metadata["compensated"]),
        )
        return [drawn]


FAMILY = Gaussians
