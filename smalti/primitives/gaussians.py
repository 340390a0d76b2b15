"""Family `gaussians`: anisotropic 3D Gaussians with spherical-harmonic colour (Kerbl et al. 2023), drawn by kind
`gaussian`.

Parameters: `means` [n, 3] world units; `log_scales` [n, 3] natural logarithm of the standard deviations; `quaternions`
[n, 4] (w, x, y, z, any length); `logit_opacities` [n]; `sh_dc` [n, 3]; `sh_rest` [n, k, 3].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family, FamilyError
from smalti.primitives.neighbours import neighbour_distances
from smalti.primitives.spherical_harmonics import SH_0, rotate_rest
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.settings import ALPHA_MIN

SPLIT_SHRINK = 0.8
"""A split in k copies divides the scales by 0.8 k (Kerbl et al. 2023, section 5.2: 1.6 for two)."""
NOISE_STEEPNESS, NOISE_THRESHOLD = 100.0, 0.005
"""Noise is weighted by sigmoid(-100 (opacity - 0.005)) (Kheradmand et al. 2024, section 3.2, in its released form)."""


class Gaussians(Family):
    """See the module."""

    name: ClassVar[str] = "gaussians"
    default_order: ClassVar[Literal["centre", "ray"]] = "centre"

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {
            "sh_degree": 3,
            "active_sh_degree": 0,
            "filter_variance": 0.3,
            "compensated": False,
            "initial_opacity": 0.1,
            "initial_scale": 1.0,
        }

    @classmethod
    def checked_metadata(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().checked_metadata(given)
        ranges = {
            "sh_degree": values["sh_degree"] in (0, 1, 2, 3),
            "initial_opacity": 0 < values["initial_opacity"] < 1,
            "initial_scale": values["initial_scale"] > 0,
            "filter_variance": values["filter_variance"] >= 0,
        }
        for name, fits in ranges.items():
            if not fits:
                raise FamilyError(
                    f"family {cls.name}: metadata {name} cannot be {values[name]}; sh_degree is 0 to 3, "
                    "initial_opacity between 0 and 1, initial_scale positive, filter_variance not negative"
                )
        return values

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {
            "means": 1.6e-4,
            "log_scales": 5e-3,
            "quaternions": 1e-3,
            "logit_opacities": 5e-2,
            "sh_dc": 2.5e-3,
            "sh_rest": 1.25e-4,
        }

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return ("means",)

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        return ("logit_opacities",)

    @classmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Gaussians:
        """Spheres as large as the mean distance to the three nearest points (times `initial_scale`)."""
        values = cls.checked_metadata(metadata)
        n = positions.shape[0]
        distance = neighbour_distances(positions, 3).clamp_min(1e-7) * values["initial_scale"]
        opacity = values["initial_opacity"]
        parameters = {
            "means": positions.float(),
            "log_scales": distance.log().float()[:, None].repeat(1, 3),
            "quaternions": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
            "logit_opacities": torch.full((n,), math.log(opacity / (1 - opacity))),
            "sh_dc": (colors.float() - 0.5) / SH_0,
            "sh_rest": torch.zeros(n, (values["sh_degree"] + 1) ** 2 - 1, 3),
        }
        return cls({key: value.to(positions.device) for key, value in parameters.items()}, values)

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[GaussianDrawable]:
        values = self.parameters
        degree = min(int(self.metadata["active_sh_degree"]), self.held_degree)
        drawn = GaussianDrawable(
            means=values["means"],
            quaternions=values["quaternions"],
            scales=values["log_scales"].exp(),
            opacities=values["logit_opacities"].sigmoid(),
            sh_dc=values["sh_dc"],
            sh_rest=values["sh_rest"] if degree > 0 else None,
            sh_degree=degree,
            filter_variance=float(self.metadata["filter_variance"]),
            compensated=bool(self.metadata["compensated"]),
        )
        return [drawn]

    @property
    def held_degree(self) -> int:
        """The spherical-harmonic degree for which there are coefficients."""
        return math.isqrt(self.parameters["sh_rest"].shape[1] + 1) - 1

    def advance(self, degree: int) -> None:
        self.metadata["active_sh_degree"] = max(int(self.metadata["active_sh_degree"]), min(degree, self.held_degree))

    # -- measures -----------------------------------------------------------------------------------------------------
    def positions(self) -> Float[Tensor, "n 3"]:
        return self.parameters["means"]

    def opacities(self) -> Float[Tensor, "n"]:
        return self.parameters["logit_opacities"].sigmoid()

    def sizes(self) -> Float[Tensor, "n 3"]:
        return self.parameters["log_scales"].exp()

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, "n 2 3"]:
        """Boxes of the ellipsoids outside of which alpha stays below 1/255 (before the screen-space filter)."""
        reach = torch.sqrt(2 * torch.log((self.opacities() / ALPHA_MIN).clamp_min(1.0)))
        turned = rotation_matrices(self.parameters["quaternions"]) * self.sizes()[:, None, :]
        half = turned.square().sum(dim=2).sqrt() * reach[:, None]
        return torch.stack([self.positions() - half, self.positions() + half], dim=1)

    @torch.no_grad()
    def volumes(self) -> Float[Tensor, "n"]:
        """Volume of the one-sigma ellipsoid."""
        return 4.0 / 3.0 * math.pi * self.sizes().prod(dim=1)

    @torch.no_grad()
    def sample_surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
        """Points on one-sigma ellipsoids, chosen in proportion to opacity times their two largest axes."""
        sizes = self.sizes().cpu()
        two = sizes.sort(dim=1, descending=True).values[:, :2].prod(dim=1)
        rows = torch.multinomial(two * self.opacities().cpu(), count, replacement=True, generator=generator)
        unit = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
        turn = rotation_matrices(self.parameters["quaternions"].cpu()[rows])
        offset = torch.einsum("nij,nj->ni", turn, sizes[rows] * unit)
        return (self.positions().cpu()[rows] + offset).to(self.device)

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        values = self.parameters
        turn = quaternion_of(similarity.rotation).to(values["quaternions"])
        self.replace(
            {
                **values,
                "means": similarity.apply(values["means"]),
                "log_scales": values["log_scales"] + math.log(similarity.scale),
                "quaternions": quaternion_product(turn.expand_as(values["quaternions"]), values["quaternions"]),
                "sh_rest": rotate_rest(values["sh_rest"], similarity.rotation),
            }
        )

    # -- density control ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def shrink_split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> None:
        """Centres drawn from the parent's density, scales divided by 0.8 times the number of copies."""
        values = self.parameters
        scales = values["log_scales"][rows].exp()
        noise = torch.randn(len(rows), 3, generator=generator).to(scales)
        turn = rotation_matrices(values["quaternions"][rows])
        values["means"].data[rows] += (turn * (scales * noise)[:, None, :]).sum(dim=2)
        values["log_scales"].data[rows] -= math.log(SPLIT_SHRINK * copies)

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """Kheradmand et al. 2024, equation 9: opacity at the centre and integral along an axis stay the same."""
        values = self.parameters
        opacity = values["logit_opacities"][rows].double().sigmoid()
        shared, factor = shared_opacity(opacity, copies)
        values["logit_opacities"].data[rows] = torch.logit(shared.clamp(1e-6, 1 - 1e-6)).to(values["logit_opacities"])
        values["log_scales"].data[rows] += factor.log()[:, None].to(values["log_scales"])

    @torch.no_grad()
    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """means += strength * sigmoid(-100 (o - 0.005)) * Sigma * xi; rows of weight below 1e-6 are left alone."""
        values = self.parameters
        opacity = self.opacities()
        rows = torch.nonzero(opacity < NOISE_THRESHOLD + 13.8 / NOISE_STEEPNESS).squeeze(1)
        weight = torch.sigmoid(-NOISE_STEEPNESS * (opacity[rows] - NOISE_THRESHOLD))
        noise = torch.randn(len(rows), 3, generator=generator).to(values["means"])
        turn = rotation_matrices(values["quaternions"][rows])
        local = (turn * noise[:, :, None]).sum(dim=1) * values["log_scales"][rows].exp().square()
        step = (turn * local[:, None, :]).sum(dim=2) * (weight * strength)[:, None]
        values["means"].data[rows] += step

    @torch.no_grad()
    def cap_opacities(self, maximum: float) -> None:
        self.parameters["logit_opacities"].data.clamp_(max=math.log(maximum / (1 - maximum)))


def shared_opacity(
    opacity: Float[Tensor, "k"], copies: Int[Tensor, "k"]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
    """Opacity of each of `copies` coincident Gaussians that replace one of `opacity`, and the factor on its scales.

    o' = 1 - (1 - o)^(1/N); factor = o / sum_{k=0}^{N-1} (-1)^k C(N, k+1) o'^(k+1) / sqrt(k+1), which is equation 9 of
    Kheradmand et al. 2024 after summing over i (sum_{i=k}^{N-1} C(i, k) = C(N, k+1)). N is limited to 51, where
    float64 still holds the alternating sum.
    """
    most = int(copies.max()) if len(copies) else 1
    if most > 51:
        raise ValueError(f"shared_opacity: at most 51 copies, got {most}")
    opacity = opacity.double().clamp(1e-12, 1 - 1e-7)
    count = copies.double()
    shared = -torch.expm1(torch.log1p(-opacity) / count)
    total = torch.zeros_like(opacity)
    for k in range(most):
        binomial = torch.exp(torch.lgamma(count + 1) - math.lgamma(k + 2) - torch.lgamma((count - k).clamp_min(1.0)))
        term = (-1.0) ** k * binomial * shared ** (k + 1) / math.sqrt(k + 1)
        total += torch.where(count > k, term, torch.zeros_like(term))
    return shared, opacity / total


def rotation_matrices(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotations of quaternions w, x, y, z of any non-zero length."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def quaternion_product(left: Float[Tensor, "n 4"], right: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """The Hamilton product: first `right`, then `left`."""
    a, b, c, d = left.unbind(-1)
    w, x, y, z = right.unbind(-1)
    parts = [
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    ]
    return torch.stack(parts, dim=-1)


def quaternion_of(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "4"]:
    """The quaternion w, x, y, z of a rotation: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix
    (2000).
    """
    m = rotation.to(torch.float64).cpu()
    trace = m.trace()
    lower = [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]
    k = torch.zeros(4, 4, dtype=torch.float64)
    k[0, 0] = trace
    k[1:, 0] = k[0, 1:] = torch.stack(lower)
    k[1:, 1:] = m + m.T - trace * torch.eye(3, dtype=torch.float64)
    best = torch.linalg.eigh(k).eigenvectors[:, -1]
    return best if float(best[0]) >= 0 else -best


FAMILY = Gaussians
