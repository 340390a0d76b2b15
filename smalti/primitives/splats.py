"""What the families with a centre, a rotation, scales and spherical-harmonic colour share: Gaussians, surfels, neural
splats.

Parameters: `means` [n, 3] world units; `log_scales` [n, a] natural logarithms of lengths along the local axes;
`quaternions` [n, 4] (w, x, y, z, any length); `sh_dc` [n, 3]; `sh_rest` [n, k, 3]. Families with an opacity of their
own (`OpacitySplats`) have `logit_opacities` [n] too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.rotations import matrix_from_quaternion, quaternion_from_matrix, quaternion_multiply
from smalti.cameras.similarity import Similarity
from smalti.primitives.editing import ColorFunction, mapped, mirrored_frames, reflected, reflection
from smalti.primitives.family import Family
from smalti.primitives.merging import merged
from smalti.primitives.metadata import Ranges
from smalti.primitives.neighbours import neighbour_distances
from smalti.primitives.registry import check_points
from smalti.primitives.rows import RowMap
from smalti.primitives.spherical_harmonics import SH_0, rotate_rest
from smalti.renderers.settings import ALPHA_MIN

SPLIT_SHRINK = 0.8
"""A split in k copies divides the scales by 0.8 k (Kerbl et al. 2023, section 5.2: 1.6 for two)."""
NOISE_STEEPNESS, NOISE_THRESHOLD = 100.0, 0.005
"""Noise is weighted by sigmoid(-100 (opacity - 0.005)) (Kheradmand et al. 2024, section 3.2, in its released form)."""


def noise_weights(opacities: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """1 for the faintest primitives, next to nothing for solid ones."""
    return torch.sigmoid(-NOISE_STEEPNESS * (opacities - NOISE_THRESHOLD))


def noise_steps(
    weights: Float[Tensor, "n"], axes: Float[Tensor, "n 3 3"], lengths: Float[Tensor, "n 3"], generator: torch.Generator
) -> Float[Tensor, "n 3"]:
    """Weights times Sigma xi: Sigma with the columns of `axes` and with `lengths` for its deviations, xi normal
    (Kheradmand et al. 2024, section 3.2).
    """
    noise = torch.randn(len(weights), 3, generator=generator).to(lengths)
    local = (axes * noise[:, :, None]).sum(dim=1) * lengths.square()
    return (axes * local[:, None, :]).sum(dim=2) * weights[:, None]


class SplatFamily(Family):
    """See the module."""

    axes: ClassVar[int] = 3
    """Lengths per primitive; with two, the third is 0 (a disk)."""

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {"sh_degree": 3, "active_sh_degree": 0, "initial_scale": 1.0}

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {
            "sh_degree": (values["sh_degree"] in (0, 1, 2, 3), "0 to 3"),
            "active_sh_degree": (values["active_sh_degree"] >= 0, "0 or more; what is not held is not drawn"),
            "initial_scale": (values["initial_scale"] > 0, "positive"),
        }

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {"means": 1.6e-4, "log_scales": 5e-3, "quaternions": 1e-3, "sh_dc": 2.5e-3, "sh_rest": 1.25e-4}

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return ("means",)

    @classmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Self:
        """Isotropic, as large as the root mean square distance to the three nearest points (times `initial_scale`)."""
        check_points(cls.name, positions, colors)
        values = cls.checked_metadata(metadata)
        return cls(cls.initial_parameters(positions, colors, values), values)

    @classmethod
    def initial_parameters(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], values: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The parameters of `from_points`, on the device of `positions`."""
        n = positions.shape[0]
        distance = neighbour_distances(positions, 3).clamp_min(1e-7) * values["initial_scale"]
        return {
            "means": positions.float(),
            "log_scales": distance.log().float()[:, None].repeat(1, cls.axes),
            "quaternions": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1).to(positions.device),
            "sh_dc": (colors.float() - 0.5) / SH_0,
            "sh_rest": torch.zeros(n, (values["sh_degree"] + 1) ** 2 - 1, 3, device=positions.device),
        }

    @property
    def held_degree(self) -> int:
        """The spherical-harmonic degree for which there are coefficients."""
        return math.isqrt(self.parameters["sh_rest"].shape[1] + 1) - 1

    def advance(self, degree: int) -> None:
        self.metadata["active_sh_degree"] = max(int(self.metadata["active_sh_degree"]), min(degree, self.held_degree))

    def drawn(self) -> dict[str, Any]:
        """The fields that the drawables of all these families have."""
        values = self.parameters
        degree = min(int(self.metadata["active_sh_degree"]), self.held_degree)
        return {
            "means": values["means"],
            "quaternions": values["quaternions"],
            "scales": values["log_scales"].exp(),
            "sh_dc": values["sh_dc"],
            "sh_rest": values["sh_rest"] if degree > 0 else None,
            "sh_degree": degree,
        }

    # -- measures -----------------------------------------------------------------------------------------------------
    def positions(self) -> Float[Tensor, "n 3"]:
        return self.parameters["means"]

    def sizes(self) -> Float[Tensor, "n a"]:
        return self.parameters["log_scales"].exp()

    def axes_lengths(self, rows: Int[Tensor, "k"] | slice = slice(None)) -> Float[Tensor, "k 3"]:
        """Lengths along all three local axes."""
        scales = self.parameters["log_scales"][rows].exp()
        return torch.nn.functional.pad(scales, (0, 3 - self.axes))

    def reach(self) -> Float[Tensor, "n"]:
        """What is drawn ends at the ellipsoid with this many times the scales. Not differentiable."""
        return torch.ones(len(self), device=self.device)

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, "n 2 3"]:
        """Boxes of the ellipsoids at which what is drawn ends."""
        turned = matrix_from_quaternion(self.parameters["quaternions"]) * self.axes_lengths()[:, None, :]
        half = turned.square().sum(dim=2).sqrt() * self.reach()[:, None]
        return torch.stack([self.positions() - half, self.positions() + half], dim=1)

    @torch.no_grad()
    def volumes(self) -> Float[Tensor, "n"]:
        """Volume of the ellipsoid whose semi-axes are the scales; 0 for disks."""
        return 4.0 / 3.0 * math.pi * self.axes_lengths().prod(dim=1)

    @torch.no_grad()
    def sample_points(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
        """Points on the ellipsoids of the scales (in the disks), chosen in proportion to opacity times the two largest
        axes; with the colour of degree 0.
        """
        sizes = self.axes_lengths().cpu()
        two = sizes.sort(dim=1, descending=True).values[:, :2].prod(dim=1)
        rows = torch.multinomial(
            two * self.opacities().cpu().clamp_min(1e-6), count, replacement=True, generator=generator
        )
        unit = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
        turn = matrix_from_quaternion(self.parameters["quaternions"].cpu()[rows])
        offset = torch.einsum("nij,nj->ni", turn, sizes[rows] * unit)
        colors = (0.5 + SH_0 * self.parameters["sh_dc"].cpu()[rows]).clamp(0, 1)
        return (self.positions().cpu()[rows] + offset).to(self.device), colors.to(self.device)

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        values = self.parameters
        turn = quaternion_from_matrix(similarity.rotation.double().cpu()).to(values["quaternions"])
        self.replace(
            {
                **values,
                "means": similarity.apply(values["means"]),
                "log_scales": values["log_scales"] + math.log(similarity.scale),
                "quaternions": quaternion_multiply(turn.expand_as(values["quaternions"]), values["quaternions"]),
                "sh_rest": rotate_rest(values["sh_rest"], similarity.rotation),
            }
        )

    @torch.no_grad()
    def mirror(self, plane: Float[Tensor, "4"]) -> None:
        """The third axis is reversed, which no ellipsoid shows."""
        values = self.parameters
        frames = mirrored_frames(plane, matrix_from_quaternion(values["quaternions"].double()), 2)
        self.replace(
            {
                "means": reflected(plane, values["means"]),
                "quaternions": quaternion_from_matrix(frames).to(values["quaternions"]),
                "sh_rest": rotate_rest(values["sh_rest"], reflection(plane)[0]),
            }
        )

    @torch.no_grad()
    def base_colors(self) -> Float[Tensor, "n 3"]:
        """Of degree 0."""
        return (0.5 + SH_0 * self.parameters["sh_dc"]).clamp(0, 1)

    @torch.no_grad()
    def recolor(self, function: ColorFunction, linear: bool) -> None:
        """Colours of degree 0 are mapped; coefficients of higher degrees where the map is linear, else they stay."""
        values = self.parameters
        colors = 0.5 + SH_0 * values["sh_dc"].detach()
        changed = {"sh_dc": (mapped(function, colors if linear else colors.clamp_min(0)) - 0.5) / SH_0}
        if linear:
            changed["sh_rest"] = mapped(function, values["sh_rest"].detach())
        self.replace(changed)

    # -- density control ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def shrink_split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> None:
        """Centres drawn from a normal distribution with the parent's scales; scales divided by 0.8 times `copies`."""
        values = self.parameters
        scales = self.axes_lengths(rows)
        noise = torch.randn(len(rows), 3, generator=generator).to(scales)
        turn = matrix_from_quaternion(values["quaternions"][rows])
        values["means"].data[rows] += (turn * (scales * noise)[:, None, :]).sum(dim=2)
        values["log_scales"].data[rows] -= math.log(SPLIT_SHRINK * copies)

    @torch.no_grad()
    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """means += strength * sigmoid(-100 (o - 0.005)) * Sigma * xi; rows of weight below 1e-6 are left alone."""
        values = self.parameters
        opacity = self.opacities()
        rows = torch.nonzero(opacity < NOISE_THRESHOLD + 13.8 / NOISE_STEEPNESS).squeeze(1)
        weight = noise_weights(opacity[rows])
        turn = matrix_from_quaternion(values["quaternions"][rows])
        values["means"].data[rows] += noise_steps(strength * weight, turn, self.axes_lengths(rows), generator)


class OpacitySplats(SplatFamily):
    """Splats with an opacity and a Gaussian fall-off."""

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {**super().default_metadata(), "initial_opacity": 0.1}

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        opacity = (0 < values["initial_opacity"] < 1, "between 0 and 1")
        return {**super().metadata_ranges(values), "initial_opacity": opacity}

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {**super().default_learning_rates(), "logit_opacities": 5e-2}

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        return ("logit_opacities",)

    @classmethod
    def initial_parameters(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], values: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        opacity = values["initial_opacity"]
        logits = torch.full((len(positions),), math.log(opacity / (1 - opacity)), device=positions.device)
        return {**super().initial_parameters(positions, colors, values), "logit_opacities": logits}

    def opacities(self) -> Float[Tensor, "n"]:
        return self.parameters["logit_opacities"].sigmoid()

    @torch.no_grad()
    def reach(self) -> Float[Tensor, "n"]:
        """Where alpha falls to 1/255 (before the screen-space filter)."""
        return torch.sqrt(2 * torch.log((self.opacities() / ALPHA_MIN).clamp_min(1.0)))

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """Kheradmand et al. 2024, equation 9: opacity at the centre and integral along an axis stay the same."""
        values = self.parameters
        opacity = values["logit_opacities"][rows].double().sigmoid()
        shared, factor = shared_opacity(opacity, copies)
        values["logit_opacities"].data[rows] = torch.logit(shared.clamp(1e-6, 1 - 1e-6)).to(values["logit_opacities"])
        values["log_scales"].data[rows] += factor.log()[:, None].to(values["log_scales"])

    @torch.no_grad()
    def cap_opacities(self, maximum: float) -> None:
        self.parameters["logit_opacities"].data.clamp_(max=math.log(maximum / (1 - maximum)))

    @torch.no_grad()
    def simplify(
        self, chosen: Bool[Tensor, "n"], count: int, weights: Float[Tensor, "n"]
    ) -> tuple[RowMap, dict[str, RowMap]]:
        """Neighbours are merged by their moments; those of weight 0 go before."""
        held = torch.nonzero(chosen).squeeze(1)
        fewer = merged({key: value[held] for key, value in self.parameters.items()}, weights[held], count)
        left = torch.zeros_like(chosen)
        left[held[fewer.source[~fewer.fresh]]] = True
        kept = torch.nonzero(~chosen | left).squeeze(1)
        source = torch.cat([kept, held[fewer.source[fewer.fresh]]])
        rows = RowMap(source, torch.arange(len(source), device=source.device) >= len(kept))
        maps = self.rearrange(rows)
        new = {key: value.detach().clone() for key, value in self.parameters.items()}
        for key, value in fewer.values.items():
            new[key][len(kept) :] = value[fewer.fresh].to(new[key])
        self.replace(new)
        return rows, maps


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
