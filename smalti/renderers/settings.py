"""What a render is asked for, apart from the scene and the camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALPHA_MIN = 1.0 / 255.0
"""Events below this opacity are skipped (contract, section 3 of the design)."""
DEPTH_WEIGHT_MIN = 1e-20
"""Rays that absorb no more than this have no expected depth, and pieces in `composite` no colour: the derivative of a
quotient of so little would leave single precision."""
ALPHA_MAX = 0.99
"""Cap on the opacity of a Gaussian."""


@dataclass(frozen=True)
class RenderSettings:
    """Options of one render; every combination is meaningful."""

    order: Literal["centre", "ray"] = "centre"
    """`centre`: one depth per primitive. `ray`: exact per pixel; equal to `centre` among EWA Gaussians.

    Additive accumulation (boxes alone) is along the ray in either."""
    near: float = 0.01
    """Nothing is drawn at camera z < near (EWA Gaussians: judged by their centre). World units."""
    transmittance_min: float = 1e-4
    """A ray ends after the event that brings its transmittance below this."""
    depth: bool = False
    """Also composite camera z (expected depth)."""
    normals: bool = False
    """Also composite normals where kinds have them (`docs/kinds.md`)."""
    statistics: bool = False
    """Also return ids (first, median, dominant), median and first-hit depth, and per-primitive contributions."""
    absolute_gradient: bool = False
    """In the backward pass also sum the absolute per-pixel gradient of every projected centre (AbsGS)."""
    smooth_cutoff: bool = False
    """Test mode: alpha fades out smoothly between 1/255 and 2/255, so that central differences mean something."""

    def __post_init__(self) -> None:
        if self.order not in ("centre", "ray"):
            raise ValueError(f"RenderSettings.order: expected 'centre' or 'ray', got {self.order!r}")
        if not self.near >= 0:
            raise ValueError(f"RenderSettings.near: expected 0 or more, got {self.near}")
        if not 0 <= self.transmittance_min < 1:
            raise ValueError(f"RenderSettings.transmittance_min: expected 0 <= t < 1, got {self.transmittance_min}")
