"""Family `surfels`: flat Gaussian disks (Huang et al. 2024, 2DGS), drawn by kind `surfel`.

Parameters: `means` [n, 3] world units; `log_scales` [n, 2] natural logarithm of the standard deviations in the disk;
`quaternions` [n, 4] (w, x, y, z, any length; the third axis is the normal); `logit_opacities` [n]; `sh_dc` [n, 3];
`sh_rest` [n, k, 3].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import quaternion_from_matrix
from smalti.primitives.neighbours import nearest_rows
from smalti.primitives.splats import OpacitySplats
from smalti.primitives.surface import Surface, tangent_frames
from smalti.renderers.drawables import SurfelDrawable

NEIGHBOURS = 8
"""Points that the normal of an initial surfel is fitted to, besides its own."""


class Surfels(OpacitySplats):
    """See the module."""

    name: ClassVar[str] = "surfels"
    axes: ClassVar[int] = 2

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[SurfelDrawable]:
        return [SurfelDrawable(**self.drawn(), opacities=self.opacities())]

    @classmethod
    def initial_parameters(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], values: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Normals are those of planes fitted to the nearest points."""
        made = super().initial_parameters(positions, colors, values)
        return {**made, "quaternions": _facing(fitted_normals(positions))}

    @classmethod
    def from_surface(
        cls, surface: Surface, count: int, generator: torch.Generator, metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """Disks in the surface's tangent planes."""
        points = surface.sample(count, generator)
        family = cls.from_points(points.positions, points.colors, metadata or {})
        family.replace({"quaternions": _facing(points.normals)})
        return family

    @classmethod
    def from_mesh(
        cls,
        vertices: Float[Tensor, "v 3"],
        faces: Int[Tensor, "f 3"],
        colors: Float[Tensor, "v 3"],
        metadata: Mapping[str, Any],
    ) -> Self:
        """A disk in the middle of each face, in its plane."""
        family = super().from_mesh(vertices, faces, colors, metadata)
        family.replace({"quaternions": _facing(Surface(vertices, faces).normals())})
        return family

    @torch.no_grad()
    def areas(self) -> Float[Tensor, "n"]:
        """Of the one-sigma disks."""
        return math.pi * self.sizes().prod(dim=1)


@torch.no_grad()
def fitted_normals(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """The direction in which a point and its nearest others spread least; either sign. z where there are too few."""
    count = min(NEIGHBOURS, len(points) - 1)
    if count < 2:
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(points), 3).to(points.device)
    near = torch.cat([points[:, None], points[nearest_rows(points, count)]], dim=1).double()
    centred = near - near.mean(1, keepdim=True)
    return torch.linalg.eigh(centred.mT @ centred).eigenvectors[:, :, 0].to(points.device, torch.float32)


def _facing(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    return quaternion_from_matrix(tangent_frames(normals.double())).float()


FAMILY = Surfels
