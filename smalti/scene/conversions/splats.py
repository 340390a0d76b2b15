"""To Gaussians and surfels: flat ones on drawn triangles, or the same splats with an axis more or less."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.rotations import matrix_from_quaternion, quaternion_from_matrix
from smalti.primitives.family import Family
from smalti.primitives.neighbours import neighbour_distances
from smalti.primitives.spherical_harmonics import SH_0
from smalti.primitives.splats import OpacitySplats
from smalti.primitives.surface import tangent_frames
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.settings import ALPHA_MAX
from smalti.scene.conversions.triangles import even_samples


@dataclass(frozen=True)
class SurfaceSampling:
    """Settings of the conversion of triangles to splats."""

    count: int = 20_000
    """Splats on the whole surface; ignored where `density` is given."""
    density: float = 0.0
    """Splats per square world unit; 0: `count` decides."""
    width: float = 0.7
    """Standard deviation in the surface, over the distance to the nearest neighbours (root mean square of three)."""
    thickness: float = 0.05
    """Standard deviation along the normal over that in the surface (families with three axes)."""
    compensated: bool = True
    """Opacities of splats smaller than a pixel are lowered (families with a screen filter), so that outlines keep their
    place; programs that cannot do that draw them wider.
    """
    seed: int = 0
    """Of the places on the surface."""
    steps: int = 0
    """Adam steps that fit the splats to pictures of the original afterwards; 0: sampled only."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.density < 0 or self.steps < 0:
            raise ValueError("convert: count must be 1 or more, density and steps not negative")
        if not (self.width > 0 and 0 < self.thickness <= 1):
            raise ValueError("convert: width must be positive and thickness between 0 and 1")


@torch.no_grad()
def on_triangles(drawn: TriangleDrawable, kind: type[OpacitySplats], settings: SurfaceSampling) -> OpacitySplats:
    """Flat splats in the triangles' planes, one per equal share of the area, coloured by what is drawn there.

    The opacity of a splat is such that the overlapping ones together absorb what the face did; capped at 0.99.
    """
    count = settings.count
    if settings.density > 0:
        corners = drawn.corners.double()
        sides = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        count = max(1, round(settings.density * 0.5 * float(sides.norm(dim=1).sum())))
    patches = even_samples(drawn, count, settings.seed)
    usual = math.sqrt(patches.area / count)
    spacing = neighbour_distances(patches.positions, 3).clamp(0.5 * usual, 2.0 * usual)
    deviation = settings.width * spacing
    # How many splats lie over a point, counted by their Gaussian weight.
    layers = (2.0 * math.pi * deviation.square() / (patches.area / count)).clamp_min(1.0)
    depth = -torch.log1p(-patches.opacities.clamp(0.0, 1.0 - 1e-6))
    opacity = (-torch.expm1(-depth / layers)).clamp(1e-4, ALPHA_MAX)
    opacity = torch.where(patches.opacities >= ALPHA_MAX, torch.full_like(opacity, ALPHA_MAX), opacity)
    scales = deviation[:, None].repeat(1, kind.axes)
    if kind.axes == 3:
        scales[:, 2] *= settings.thickness
    parameters = {
        "means": patches.positions,
        "log_scales": scales.log(),
        "quaternions": quaternion_from_matrix(tangent_frames(patches.normals.double())).float(),
        "logit_opacities": torch.logit(opacity),
        "sh_dc": (patches.colors - 0.5) / SH_0,
        "sh_rest": torch.zeros(count, 0, 3),
    }
    made = {key: value.to(drawn.device) for key, value in parameters.items()}
    metadata: dict[str, Any] = {"sh_degree": 0}
    if "compensated" in kind.default_metadata():
        metadata["compensated"] = settings.compensated
    return kind(made, metadata)


@dataclass(frozen=True)
class AxisChange:
    """Settings of the conversion between families of splats."""

    thickness: float = 0.05
    """Of the third axis, where one is added: over the shorter of the other two."""
    steps: int = 0
    """Adam steps that fit the splats to pictures of the original afterwards; 0: none."""

    def __post_init__(self) -> None:
        if not 0 < self.thickness <= 1 or self.steps < 0:
            raise ValueError("convert: thickness must be between 0 and 1, steps not negative")


@torch.no_grad()
def with_axes(source: OpacitySplats, kind: type[OpacitySplats], settings: AxisChange) -> OpacitySplats:
    """The same splats as another family: the shortest axis is dropped (it becomes the normal), or a thin one added.

    Means, opacities and all coefficients of colour are kept; so is what the families' metadata have in common.
    """
    values = {key: value.detach() for key, value in source.parameters.items()}
    frames, lengths = matrix_from_quaternion(values["quaternions"].double()), source.axes_lengths().double()
    if kind.axes < source.axes:
        frames, lengths = _shortest_last(frames, lengths)
        scales = lengths[:, : kind.axes]
    elif kind.axes > source.axes:
        thin = settings.thickness * lengths[:, : source.axes].amin(dim=1, keepdim=True)
        scales = torch.cat([lengths[:, : source.axes], thin], dim=1)
    else:
        scales = lengths[:, : kind.axes]
    changed = {
        "log_scales": scales.log().to(values["log_scales"]),
        "quaternions": quaternion_from_matrix(frames).to(values["quaternions"]),
    }
    if kind.axes == source.axes:
        changed = {}
    return kind({**values, **changed}, _common(source, kind))


def _shortest_last(frames: Float[Tensor, "n 3 3"], lengths: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
    """Axes by falling length, still right-handed."""
    order = lengths.argsort(dim=1, descending=True, stable=True)
    turned = frames.gather(2, order[:, None, :].expand(-1, 3, -1))
    last = torch.linalg.cross(turned[:, :, 0], turned[:, :, 1])
    return torch.stack([turned[:, :, 0], turned[:, :, 1], last], dim=2), lengths.gather(1, order)


def _common(source: Family, kind: type[Family]) -> dict[str, Any]:
    known = kind.default_metadata()
    held = {key: value for key, value in source.metadata.items() if key in known}
    # What had no screen filter is not widened by one.
    return {"compensated": True, **held} if "compensated" in known else held
