"""What the kinds with a mean share: which rows are usable, their colour, and ellipsoids met by rays (kinds.md, 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import NeuralDrawable, RayGaussianDrawable, SurfelDrawable
from smalti.renderers.oracle import rotation_matrices
from smalti.renderers.oracle_kinds.events import usable_quaternions, usable_rows
from smalti.renderers.spherical_harmonics import gaussian_color

Splat = RayGaussianDrawable | SurfelDrawable | NeuralDrawable


def usable_splats(drawable: Splat, camera: Camera, others: list[Tensor | None]) -> Bool[Tensor, "n"]:
    """True where all parameters in use (also `others`) are numbers, and the colour does not overflow."""
    used = (drawable.sh_degree + 1) ** 2 - 1
    rest = None if drawable.sh_rest is None else drawable.sh_rest[:, :used]
    finite = [drawable.means, drawable.quaternions, drawable.scales, drawable.sh_dc, rest, drawable.features, *others]
    usable = usable_rows(len(drawable), finite, [drawable.scales]) & usable_quaternions(drawable.quaternions)
    rows = usable.nonzero()[:, 0]
    with torch.no_grad():
        usable[rows] = splat_colors(drawable, camera, rows).isfinite().all(-1)
    return usable


def splat_colors(drawable: Splat, camera: Camera, rows: Int[Tensor, "m"]) -> Float[Tensor, "m 3"]:
    """Spherical harmonics in the direction from the camera centre to the mean, clamped at zero."""
    directions = torch.nn.functional.normalize(drawable.means[rows] - camera.centre, dim=-1)
    rest = None if drawable.sh_rest is None else drawable.sh_rest[rows]
    return gaussian_color(drawable.sh_dc[rows], rest, drawable.sh_degree, directions).clamp(min=0)


def splat_keys(means: Float[Tensor, "n 3"], camera: Camera) -> Float[Tensor, "n"]:
    """Camera z of the means, also of those that are not drawn."""
    return (means @ camera.rotation[2] + camera.translation[2]).detach()


def largest(scales: Float[Tensor, "m 3"]) -> Float[Tensor, "m"]:
    """The largest scale; the first of equals carries the gradient."""
    first = (scales == scales.amax(-1, keepdim=True)).byte().argmax(-1, keepdim=True)
    return scales.gather(1, first)[:, 0]


@dataclass(frozen=True, eq=False)
class Closest:
    """Rays against ellipsoids: the quadratic form |M (z d - mean)|^2 = A z^2 - 2 B z + ... is least at z = B / A."""

    w: Float[Tensor, "k 3"]
    """M d."""
    a: Float[Tensor, "k"]
    """|w|^2."""
    b: Float[Tensor, "k"]
    """w . p."""
    n: Float[Tensor, "k"]
    """|w x p|^2; the least value of the form is n / a."""


@dataclass(frozen=True, eq=False)
class Ellipsoids:
    """M = diag(1 / scales) rotation^T R^T per primitive: it maps an offset in camera axes to one in standard units."""

    means: Float[Tensor, "m 3"]
    """Camera axes."""
    matrices: Float[Tensor, "m 3 3"]
    p: Float[Tensor, "m 3"]
    """M mean."""
    crosses: Float[Tensor, "m 3 3"]
    """Rows M_1 x M_2, M_2 x M_0, M_0 x M_1 of M's columns: (M a) x (M b) = (a x b) @ crosses."""

    @staticmethod
    def of(drawable: RayGaussianDrawable | NeuralDrawable, camera: Camera, rows: Int[Tensor, "m"]) -> Ellipsoids:
        """Ellipsoids of the given rows, which are usable."""
        means = drawable.means[rows] @ camera.rotation.T + camera.translation
        turned = rotation_matrices(drawable.quaternions[rows]).transpose(1, 2) @ camera.rotation.T
        matrices = turned / drawable.scales[rows][:, :, None]
        p = (matrices @ means[:, :, None])[:, :, 0]
        columns = matrices.unbind(-1)
        crosses = [torch.linalg.cross(columns[(k + 1) % 3], columns[(k + 2) % 3]) for k in range(3)]
        return Ellipsoids(means, matrices, p, torch.stack(crosses, dim=1))

    @staticmethod
    @torch.no_grad()
    def without_overflow(
        drawable: RayGaussianDrawable | NeuralDrawable, camera: Camera, usable: Bool[Tensor, "n"]
    ) -> Bool[Tensor, "n"]:
        """`usable`, less those whose quadratic form overflows."""
        rows = usable.nonzero()[:, 0]
        found = Ellipsoids.of(drawable, camera, rows)
        parts = [found.means, found.matrices, found.p, found.crosses]
        squares = torch.cat([part.square().flatten(1) for part in parts], dim=1).sum(-1)
        usable = usable.clone()
        usable[rows] = squares.isfinite()
        return usable

    def closest(self, directions: Float[Tensor, "k 3"], row: Int[Tensor, "k"]) -> Closest:
        """The rays along `directions`, each with the ellipsoid `row`."""
        w = (self.matrices[row] @ directions[:, :, None])[:, :, 0]
        # d x mean is small where the ray passes near to the mean, and so is computed from small differences.
        offset = torch.linalg.cross(directions, self.means[row])
        across = (offset[:, :, None] * self.crosses[row]).sum(1)
        return Closest(w, w.square().sum(-1), (w * self.p[row]).sum(-1), across.square().sum(-1))
