"""Family `boxes`: oriented boxes with a voxel payload, ray-marched (Lombardi et al. 2021, MVP), drawn by kind `box`.

Parameters: `centres` [n, 3] world units; `quaternions` [n, 4] (w, x, y, z, any length); `log_half_extents` [n, 3]
natural logarithm, world units; `colors` [n, mz, my, mx, 3] RGB as it is drawn; `raw_densities` [n, mz, my, mx], density
per world unit = activation(raw) / `density_unit`; optionally `warps` [n, wz, wy, wx, 3], what is added to a local
coordinate before the lookup.

`density_unit` and `step` are lengths (metadata; chosen once where they are 0: the median box's edge, and its voxel's)
that a change of the world's unit changes alike, so raw values and their learning rates have no unit. The activation is
softplus by default: a voxel at zero can come back; with `relu`, as published, empty voxels cost the renderer nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion, quaternion_from_matrix, quaternion_multiply
from smalti.cameras.similarity import Similarity
from smalti.primitives.editing import ColorFunction, mapped, mirrored_frames, reflected
from smalti.primitives.family import Family, FamilyError, LossContext
from smalti.primitives.metadata import Ranges
from smalti.primitives.payload import identity_grid, sampled_slab
from smalti.primitives.picking import picked
from smalti.primitives.placement import Seats, base_scale, point_cells, spacing, spread_seats, uv_grid
from smalti.primitives.registry import check_points
from smalti.primitives.softplus import inverse_softplus
from smalti.primitives.splats import noise_steps, noise_weights
from smalti.primitives.surface import Surface
from smalti.renderers.drawables import BoxDrawable

COVER = 1.3
"""Half extents over those of what a box should show: the window takes the outer quarter away."""
NEIGHBOUR_SHARE = 0.8
"""Boxes on a surface reach at least 1 / 1.6 of the way to their neighbour (the successor ava-256's base scale)."""


class Boxes(Family):
    """See the module. Metadata: `voxels` per side and `count` (at most, from points) of new boxes; `step` of the march,
    world units; `fade_scale`, `fade_exponent` of the opacity window; `accumulation` `exponential` or `additive` (MVP's
    clamp, for boxes alone); `warp_voxels` per side, 0 for none; `density_activation` `softplus` or `relu`.
    """

    name: ClassVar[str] = "boxes"
    grows: ClassVar[bool] = False

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {
            **{"voxels": 8, "count": 256, "warp_voxels": 0, "step": 0.0, "density_unit": 0.0},
            **{"density_activation": "softplus", "accumulation": "exponential"},
            **{"fade_scale": 8.0, "fade_exponent": 8.0, "initial_opacity": 0.1, "initial_scale": 1.0},
        }

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {
            "voxels": (values["voxels"] >= 2, "2 or more"),
            "warp_voxels": (values["warp_voxels"] == 0 or values["warp_voxels"] >= 2, "0, or 2 or more"),
            **{name: (values[name] >= 0, "not negative") for name in ("count", "step", "density_unit", "fade_scale")},
            "density_activation": (values["density_activation"] in ("softplus", "relu"), "softplus or relu"),
            "accumulation": (values["accumulation"] in ("exponential", "additive"), "exponential or additive"),
            "fade_exponent": (values["fade_exponent"] >= 1, "1 or more"),
            "initial_opacity": (0 < values["initial_opacity"] < 1, "between 0 and 1"),
            "initial_scale": (values["initial_scale"] > 0, "positive"),
        }

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {
            **{"centres": 1.6e-4, "quaternions": 1e-3, "log_half_extents": 5e-3},
            **{"colors": 1e-2, "raw_densities": 5e-2, "warps": 1e-3},
        }

    @classmethod
    def optional_parameters(cls) -> tuple[str, ...]:
        return ("warps",)

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return ("centres",)

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        return ("raw_densities",)

    def check_shapes(self) -> None:
        super().check_shapes()
        values = self.parameters
        tail = tuple(values["raw_densities"].shape[1:])
        if len(tail) != 3 or min(tail) < 2 or tuple(values["colors"].shape[1:]) != (*tail, 3):
            raise FamilyError(
                f"family {self.name}: expected raw_densities [n, mz, my, mx] and colors [n, mz, my, mx, 3] with two "
                f"voxels or more per side, got {tuple(values['raw_densities'].shape)}, {tuple(values['colors'].shape)}"
            )
        edges = 2.0 * self.sizes().detach().double()
        for name, length in (("step", edges / (max(tail) - 1)), ("density_unit", edges)):
            if self.metadata[name] == 0:
                self.metadata[name] = float(length.mean(dim=1).median()) if len(self) else 1.0

    # -- initialisers -------------------------------------------------------------------------------------------------
    @classmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Self:
        """Axis-aligned boxes around the cells of at most `count` points that lie far from each other."""
        check_points(cls.name, positions, colors)
        values = cls.checked_metadata(metadata)
        cells = point_cells(positions, colors, values["count"])
        turn = torch.eye(3, device=positions.device).expand(len(cells.centres), 3, 3)
        return cls._placed(Seats(cells.centres, turn, cells.colors), COVER * cells.half_extents, values)

    @classmethod
    def from_mesh(
        cls,
        vertices: Float[Tensor, "v 3"],
        faces: Int[Tensor, "f 3"],
        colors: Float[Tensor, "v 3"],
        metadata: Mapping[str, Any],
    ) -> Self:
        """`count` boxes spread over the mesh (256 where `count` is 0)."""
        count = cls.checked_metadata(metadata)["count"] or 256
        generator = torch.Generator().manual_seed(0)
        return cls.from_surface(Surface(vertices, faces, colors), count, generator, metadata)

    @classmethod
    def from_surface(
        cls, surface: Surface, count: int, generator: torch.Generator, metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """Boxes in the surface's tangent frames, spread evenly over it; a single one is put around everything."""
        return cls._on_surface(surface, spread_seats(surface, count, generator), metadata or {})

    @classmethod
    def on_uv_grid(cls, surface: Surface, across: int, down: int, metadata: Mapping[str, Any] | None = None) -> Self:
        """MVP's placement: one box per cell of a regular grid of texture coordinates that the surface covers, around
        what lies in it.
        """
        return cls._on_surface(surface, uv_grid(surface, across, down), metadata or {})

    @classmethod
    def on_grid(
        cls, bounds: Float[Tensor, "2 3"], counts: tuple[int, int, int], metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """Boxes that tile `bounds` (low, high) with `counts` along x, y and z; grey."""
        low, high = bounds.float().unbind(0)
        cell = (high - low) / torch.tensor(counts, dtype=torch.float32)
        index = torch.stack(torch.meshgrid(*[torch.arange(c) for c in counts], indexing="ij"), -1).reshape(-1, 3)
        positions = low + (index + 0.5) * cell
        seats = Seats(positions, torch.eye(3).expand(len(index), 3, 3), torch.full_like(positions, 0.5))
        return cls._placed(seats, (0.5 * cell).expand(len(index), 3), cls.checked_metadata(metadata or {}))

    @classmethod
    def _on_surface(cls, surface: Surface, seats: Seats, metadata: Mapping[str, Any]) -> Self:
        """MVP's base scale with the surface's largest half side as its unit, and never short of what a seat stands for,
        or of the neighbour.
        """
        low, high = surface.vertices.amin(0), surface.vertices.amax(0)
        radius = 0.5 * float((high - low).max())
        count = len(seats.positions)
        if count == 1:
            whole = Seats((0.5 * (low + high))[None], torch.eye(3)[None].to(low), seats.colors)
            return cls._placed(whole, COVER * (0.5 * (high - low)).clamp_min(0.05 * radius)[None], metadata)
        least = radius / base_scale(count)
        if seats.half_extents is not None:
            return cls._placed(seats, (seats.half_extents / NEIGHBOUR_SHARE).clamp_min(least), metadata)
        half = (spacing(seats.positions) / (2 * NEIGHBOUR_SHARE)).clamp_min(least)
        return cls._placed(seats, half[:, None].expand(-1, 3), metadata)

    @classmethod
    def _placed(cls, seats: Seats, half_extents: Float[Tensor, "n 3"], metadata: Mapping[str, Any]) -> Self:
        values = cls.checked_metadata(metadata)
        count, side = len(seats.positions), values["voxels"]
        density = -math.log1p(-values["initial_opacity"])
        raw = density if values["density_activation"] == "relu" else float(inverse_softplus(torch.tensor(density)))
        parameters = {
            "centres": seats.positions.float(),
            "quaternions": quaternion_from_matrix(seats.rotations.double()).float(),
            "log_half_extents": (half_extents.float() * values["initial_scale"]).log(),
            "colors": seats.colors.float()[:, None, None, None].expand(count, side, side, side, 3),
            "raw_densities": torch.full((count, side, side, side), raw),
        }
        if values["warp_voxels"]:
            parameters["warps"] = torch.zeros(count, *[values["warp_voxels"]] * 3, 3)
        return cls({key: value.to(seats.positions.device) for key, value in parameters.items()}, values)

    # -- drawing ------------------------------------------------------------------------------------------------------
    def densities(self) -> Float[Tensor, "n mz my mx"]:
        """Per world unit, without the window. Differentiable."""
        return self._activated(self.parameters["raw_densities"]) / float(self.metadata["density_unit"])

    def _activated(self, raw: Tensor) -> Tensor:
        relu = self.metadata["density_activation"] == "relu"
        return torch.relu(raw) if relu else torch.nn.functional.softplus(raw)

    def _raw(self, activated: Tensor) -> Tensor:
        relu = self.metadata["density_activation"] == "relu"
        return activated if relu else inverse_softplus(activated.double()).to(activated)

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[BoxDrawable]:
        values = self.parameters
        warps = values.get("warps")
        options = {key: self.metadata[key] for key in ("step", "fade_scale", "fade_exponent", "accumulation")}
        drawn = BoxDrawable(
            centres=values["centres"],
            quaternions=values["quaternions"],
            half_extents=self.sizes(),
            payload=torch.cat([values["colors"], self.densities()[..., None]], dim=-1),
            warp=None if warps is None else warps + identity_grid(warps),
            **options,
        )
        return [drawn]

    # -- measures -----------------------------------------------------------------------------------------------------
    def positions(self) -> Float[Tensor, "n 3"]:
        return self.parameters["centres"]

    def opacities(self) -> Float[Tensor, "n"]:
        """Of the mean density over the mean edge, without the window."""
        depth = self.densities().flatten(1).mean(dim=1) * 2.0 * self.sizes().mean(dim=1)
        return -torch.expm1(-depth)

    def sizes(self) -> Float[Tensor, "n 3"]:
        """Half extents."""
        return self.parameters["log_half_extents"].exp()

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, "n 2 3"]:
        """Exact."""
        half = (matrix_from_quaternion(self.parameters["quaternions"]).abs() * self.sizes()[:, None, :]).sum(dim=2)
        return torch.stack([self.positions() - half, self.positions() + half], dim=1)

    @torch.no_grad()
    def volumes(self) -> Float[Tensor, "n"]:
        return 8.0 * self.sizes().prod(dim=1)

    @torch.no_grad()
    def importance(self) -> Float[Tensor, "n"]:
        """Density over the volume: what a box absorbs from all sides."""
        return self.densities().flatten(1).mean(dim=1) * self.volumes()

    @torch.no_grad()
    def areas(self) -> Float[Tensor, "n"]:
        a, b, c = self.sizes().unbind(1)
        return 8.0 * (a * b + b * c + c * a)

    @torch.no_grad()
    def sample_points(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
        """Points around voxels that are chosen in proportion to density times volume; with their colours. The warp is
        not followed.
        """
        values = {key: value.detach().cpu() for key, value in self.parameters.items()}
        densities = self.densities().cpu().double()
        side = torch.tensor(densities.shape[1:])
        flat = picked((densities * self.volumes().cpu()[:, None, None, None]).flatten(), count, generator)
        row, z, y, x = torch.unravel_index(flat, densities.shape)
        voxel = torch.stack([x, y, z], dim=1) + torch.rand(count, 3, generator=generator) - 0.5
        local = (2.0 * voxel / (side.flip(0) - 1) - 1.0).clamp(-1.0, 1.0) * values["log_half_extents"][row].exp()
        turn = matrix_from_quaternion(values["quaternions"][row])
        points = values["centres"][row] + (turn * local[:, None, :]).sum(dim=2)
        return points.to(self.device), values["colors"][row, z, y, x].clamp(0, 1).to(self.device)

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        """Step and unit of density grow with the world (metadata)."""
        values = self.parameters
        turn = quaternion_from_matrix(similarity.rotation.double().cpu()).to(values["quaternions"])
        self.replace(
            {
                "centres": similarity.apply(values["centres"]),
                "quaternions": quaternion_multiply(turn.expand_as(values["quaternions"]), values["quaternions"]),
                "log_half_extents": values["log_half_extents"] + math.log(similarity.scale),
            }
        )
        for name in ("step", "density_unit"):
            self.metadata[name] *= similarity.scale

    @classmethod
    def common_metadata(cls) -> tuple[str, ...]:
        return ("step",)

    @torch.no_grad()
    def adopt(self, metadata: Mapping[str, Any]) -> None:
        """Raw densities follow `density_unit`; another `step` only samples the same boxes elsewhere."""
        unit = float(metadata["density_unit"])
        ratio = unit / float(self.metadata["density_unit"])
        self.metadata = {**self.metadata, "density_unit": unit, "step": metadata["step"]}
        super().adopt(metadata)
        if ratio != 1.0:
            self.replace({"raw_densities": self._raw(self._activated(self.parameters["raw_densities"]) * ratio)})

    @torch.no_grad()
    def mirror(self, plane: Float[Tensor, "4"]) -> None:
        """The local x axis is reversed, and with it the payload's last axis."""
        values = self.parameters
        frames = mirrored_frames(plane, matrix_from_quaternion(values["quaternions"].double()), 0)
        changed = {
            "centres": reflected(plane, values["centres"]),
            "quaternions": quaternion_from_matrix(frames).to(values["quaternions"]),
            "colors": values["colors"].flip(3),
            "raw_densities": values["raw_densities"].flip(3),
        }
        if "warps" in values:
            changed["warps"] = values["warps"].flip(3) * values["warps"].new_tensor([-1.0, 1.0, 1.0])
        self.replace(changed)

    @torch.no_grad()
    def base_colors(self) -> Float[Tensor, "n 3"]:
        """Of the voxels, weighted by density."""
        weight = self.densities().flatten(1).clamp_min(1e-12)[..., None]
        colors = self.parameters["colors"].flatten(1, 3)
        return ((colors * weight).sum(dim=1) / weight.sum(dim=1)).clamp(0, 1)

    @torch.no_grad()
    def recolor(self, function: ColorFunction, linear: bool) -> None:
        held = self.parameters["colors"].detach()
        self.replace({"colors": mapped(function, held if linear else held.clamp_min(0))})

    @torch.no_grad()
    def set_opacities(self, wanted: Float[Tensor, "n"]) -> None:
        """Densities are multiplied; boxes without any stay empty."""
        depths = -torch.log1p(-self.opacities().double().clamp_max(1 - 1e-12))
        factor = -torch.log1p(-wanted.double().clamp(0, 1 - 1e-6)) / depths
        raw = self.parameters["raw_densities"]
        factor = torch.where(depths > 0, factor, torch.ones_like(factor)).to(raw)
        self.replace({"raw_densities": self._raw(self._activated(raw) * factor[:, None, None, None])})

    def regularizers(self, context: LossContext) -> Mapping[str, Callable[[], Float[Tensor, ""]]]:
        """`volume` is MVP's prior: the sum of the products of half extents, over the extent cubed."""
        return {
            **super().regularizers(context),
            "volume": lambda: (self.sizes() / context.extent).prod(dim=1).sum(),
        }

    # -- density control ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def growth_signal(self) -> Float[Tensor, "n"] | None:
        """Norm of the gradient of the centres, in units of each box's own half extents."""
        gradient = self.parameters["centres"].grad
        return None if gradient is None else (gradient * self.sizes().amax(dim=1, keepdim=True)).norm(dim=1)

    @torch.no_grad()
    def shrink_split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> None:
        """Slabs of the parent across its longest axis, with their part of its payload (exact without the window; with
        a warp, whose lookup may lead anywhere, the payload stays whole and the warp is cut).
        """
        values = self.parameters
        number = torch.arange(len(rows), device=rows.device) // (len(rows) // copies)
        axis = values["log_half_extents"][rows].argmax(dim=1)
        shift = (2.0 * number.to(values["centres"]) + 1.0 - copies) / copies
        unit = torch.nn.functional.one_hot(axis, 3).to(shift)
        turn = matrix_from_quaternion(values["quaternions"][rows])
        offset = self.sizes()[rows] * unit * shift[:, None]
        values["centres"].data[rows] += (turn * offset[:, None, :]).sum(dim=2)
        values["log_half_extents"].data[rows] -= unit * math.log(copies)
        if "warps" in values:
            warps = values["warps"].data
            whole = warps[rows] + identity_grid(warps)
            warps[rows] = sampled_slab(whole, axis, shift, copies) - identity_grid(warps)
            return
        values["colors"].data[rows] = sampled_slab(values["colors"][rows], axis, shift, copies)
        density = sampled_slab(self._activated(values["raw_densities"][rows])[..., None], axis, shift, copies)
        values["raw_densities"].data[rows] = self._raw(density[..., 0])

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """The density is divided: exact on every ray, in both accumulations."""
        self._scale_densities(rows, 1.0 / copies.to(self.parameters["raw_densities"]))

    @torch.no_grad()
    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """As Gaussians, with the half extents as scales."""
        weight, turn = (
            strength * noise_weights(self.opacities()),
            matrix_from_quaternion(self.parameters["quaternions"]),
        )
        self.parameters["centres"].data += noise_steps(weight, turn, self.sizes(), generator)

    @torch.no_grad()
    def cap_opacities(self, maximum: float) -> None:
        """Scales the densities of boxes above it."""
        depth = -torch.log1p(-self.opacities().double().clamp_max(1 - 1e-12))
        rows = torch.nonzero(depth > -math.log1p(-maximum)).squeeze(1)
        self._scale_densities(rows, (-math.log1p(-maximum) / depth[rows]).to(self.parameters["raw_densities"]))

    def _scale_densities(self, rows: Int[Tensor, "k"], factors: Float[Tensor, "k"]) -> None:
        raw = self.parameters["raw_densities"]
        raw.data[rows] = self._raw(self._activated(raw[rows]) * factors[:, None, None, None])


FAMILY = Boxes
