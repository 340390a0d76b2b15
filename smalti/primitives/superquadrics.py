"""Family `superquadrics`: textured superquadric blocks (Monnier et al. 2023, Differentiable Blocks World), drawn as
icospheres by kind `triangle`, all blocks in one drawable with one texture atlas.

Parameters, per block: `translations` [n, 3] world units; `rotations` [n, 6], raw directions of the block's x and y axes
in the world (Zhou et al. 2019: Gram-Schmidt, z is their cross product); `raw_scales` [n, 3], half extents are
`ratio` (exp(raw) + 0.2); `raw_exponents` [n, 2], exponents are 0.1 + 1.8 sigmoid(raw); `logit_opacities` [n];
`raw_textures` [n, h, w, 3], drawn through a sigmoid, row 0 at the lower pole, periodic around (texel centres at +0.5;
the published code aligns corners, which puts a seam of one texel at the back).

`ratio` is a length (metadata; chosen once where it is 0: a quarter of the half side of where the blocks are put).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives import superquadric_shape as shapes
from smalti.primitives.block_textures import check_blocks, drawn_atlas, initial_noise, pool_factor, total_variation
from smalti.primitives.family import Family, FamilyError, LossContext
from smalti.primitives.metadata import Ranges
from smalti.primitives.picking import picked
from smalti.primitives.placement import even_means, point_cells
from smalti.primitives.posed import PosedBlocks
from smalti.primitives.registry import check_points
from smalti.primitives.splats import noise_steps, noise_weights
from smalti.primitives.surface import Surface, uniform_barycentrics
from smalti.primitives.texture import logit, shared_logits, texture_lookup
from smalti.primitives.topology import gathered
from smalti.renderers.drawables import TriangleDrawable

FLOOR = 0.2
"""Least half extent, in units of `ratio`."""
DEAD = 0.01
"""Blocks at or below this opacity are not drawn, get no gradient, and stay so."""


class Superquadrics(Family, PosedBlocks):
    """See the module. Metadata: `level` of the icosphere; `edges` and `sigma` (squared NDC); `detach_barycentrics`:
    colour does not move the surface (as published); `texture_size`, `count`, `initial_opacity`, `initial_seed` of new
    blocks; of those `at_random`, whether they have `random` (as published) or `even` `initial_places`, and the mean of
    their half extents, `initial_size`, in units of `ratio` (published: 1; a half more or less). Schedule of a
    training run (shares of it): up to `pooled_until` textures are averaged over `pool` texels; up to `fine_from`
    opacities get noise of deviation `noise` before the sigmoid; from then on `binary` is set: blocks above one half are
    opaque, with `fine_sigma`, the others are gone. `overlap_samples`: points per block in that loss term. `assembly`:
    the text of the assembly that the blocks were read from (`smalti.files.assembly`).
    """

    name: ClassVar[str] = "superquadrics"
    grows: ClassVar[bool] = False
    color_logits: ClassVar[tuple[str, ...]] = ("raw_textures",)
    part_noun: ClassVar[str] = "block"
    least_scale: ClassVar[float] = FLOOR

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {
            **{"level": 1, "edges": "soft", "sigma": 1e-4, "fine_sigma": 5e-6, "detach_barycentrics": True},
            **{"ratio": 0.0, "texture_size": 256, "count": 10, "initial_opacity": 0.5, "initial_seed": 0},
            **{"initial_places": "random", "initial_size": 1.0, "binary": False, "pool": 8, "pooled_until": 0.4},
            **{"noise": 1.0, "fine_from": 0.8, "overlap_samples": 1000, "assembly": ""},
        }

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {
            "level": (0 <= values["level"] <= 5, "0 to 5"),
            "edges": (values["edges"] in ("hard", "antialiased", "soft"), "hard, antialiased or soft"),
            **{name: (values[name] > 0, "positive") for name in ("sigma", "fine_sigma")},
            **{name: (values[name] >= 0, "not negative") for name in ("ratio", "count", "noise")},
            "texture_size": (values["texture_size"] >= 2, "2 or more"),
            "initial_opacity": (0 < values["initial_opacity"] < 1, "between 0 and 1"),
            **{name: (values[name] >= 1, "1 or more") for name in ("pool", "overlap_samples")},
            "initial_places": (values["initial_places"] in ("random", "even"), "random or even"),
            "initial_size": (values["initial_size"] > 0.5 + FLOOR, f"above {0.5 + FLOOR}"),
        }

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        rates = dict.fromkeys(("rotations", "raw_scales", "raw_exponents", "logit_opacities"), 5e-3)
        return {"translations": 5e-3, **rates, "raw_textures": 5e-2}

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return ("translations",)

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        return ("logit_opacities",)

    @classmethod
    def default_regularizers(cls) -> dict[str, float]:
        return {"parsimony": 0.01, "total_variation": 0.1, "overlap": 1.0}

    def check_shapes(self) -> None:
        super().check_shapes()
        check_blocks(
            self.name, self.parameters, {"translations": 3, "rotations": 6, "raw_scales": 3, "raw_exponents": 2}
        )
        if self.metadata["ratio"] == 0:
            self.metadata["ratio"] = 0.25
        self._noise: Tensor | None = None
        self._pool = 1

    # -- initialisers -------------------------------------------------------------------------------------------------
    @classmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Self:
        """Ellipsoids along the world's axes, around the cells of at most `count` points that lie far from each
        other.
        """
        check_points(cls.name, positions, colors, 1)
        values = cls.checked_metadata(metadata)
        cells = point_cells(positions, colors, values["count"])
        if values["ratio"] == 0:
            span = 0.5 * float((positions.amax(0) - positions.amin(0)).max())
            values["ratio"] = 0.25 * span if span > 0 else 0.25
        count = len(cells.centres)
        six = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).expand(count, 6)
        scales = cells.half_extents.cpu() / values["ratio"]
        return cls._placed(cells.centres, six, scales, cells.colors, values)

    @classmethod
    def at_random(
        cls,
        bounds: Float[Tensor, "2 3"],
        count: int,
        generator: torch.Generator,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """As published, with `bounds` (low, high) for the cube [-1, 1]^3: centres N(0, 0.5^2), half extents U(0.5, 1.5)
        `ratio`, rotations uniform, grey textures. Where `initial_places` are `even`, the centres are means of the cells
        into which they cut that distribution.
        """
        values = cls.checked_metadata(metadata or {})
        low, high = bounds.cpu().float().unbind(0)
        half = 0.5 * (high - low)
        if values["ratio"] == 0:
            values["ratio"] = 0.25 * float(half.max())
        draws = 64 * count if values["initial_places"] == "even" else count
        drawn = even_means(torch.randn(draws, 3, generator=generator), count)
        centres = 0.5 * (low + high) + half * 0.5 * drawn
        # Two normal vectors are rotation-invariant, so their Gram-Schmidt frame is uniform.
        six = torch.randn(count, 6, generator=generator)
        scales = values["initial_size"] - 0.5 + torch.rand(count, 3, generator=generator)
        return cls._placed(centres, six, scales, torch.full((count, 3), 0.5), values)

    @classmethod
    def _placed(cls, centres: Tensor, six: Tensor, scales: Tensor, colors: Tensor, values: Mapping[str, Any]) -> Self:
        """`scales` are in units of `ratio`, `colors` one per block; textures get the published noise on top."""
        count, opacity = len(centres), values["initial_opacity"]
        noise = initial_noise(count, values["texture_size"], values["initial_seed"])
        parameters = {
            "translations": centres.float(),
            "rotations": six.clone(),
            "raw_scales": (scales.float() - FLOOR).clamp_min(1e-3).log(),
            "raw_exponents": torch.zeros(count, 2),
            "logit_opacities": torch.full((count,), math.log(opacity / (1 - opacity))),
            "raw_textures": logit(colors.cpu().float())[:, None, None, :] + noise,
        }
        return cls({key: value.to(centres.device) for key, value in parameters.items()}, values)

    # -- shape --------------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> shapes.Template:
        """The mesh that all blocks share."""
        return shapes.template(int(self.metadata["level"]))

    def exponents(self) -> Float[Tensor, "n 2"]:
        """(e1, e2), 0.1 to 1.9; 1 is an ellipsoid, near 0 a box. Differentiable."""
        return 0.1 + 1.8 * self.parameters["raw_exponents"].sigmoid()

    def axes(self) -> Float[Tensor, "n 3 3"]:
        """Rotations; columns are the block's axes in the world. Differentiable."""
        return shapes.rotation_from_six(self.parameters["rotations"])

    def block_vertices(self) -> Float[Tensor, "n v 3"]:
        """Of every block's mesh, world units. Differentiable."""
        local = shapes.surface_points(self.shape.directions, self.exponents()) * self.sizes()[:, None, :]
        return local @ self.axes().mT + self.parameters["translations"][:, None, :]

    def implicit_values(self, points: Float[Tensor, "m 3"]) -> Float[Tensor, "n m"]:
        """F of every block at world points: 1 on the surface, below 1 inside. Differentiable in blocks and points."""
        local = (points - self.parameters["translations"][:, None, :]) @ self.axes()
        unit = local / self.sizes()[:, None, :]
        return shapes.implicit(unit, self.exponents()[:, None, :].expand(-1, len(points), 2))

    # -- drawing ------------------------------------------------------------------------------------------------------
    def begin_step(self, share: float, generator: torch.Generator) -> None:
        values = self.metadata
        values["binary"] = bool(values["binary"]) or share >= values["fine_from"]
        self._pool = pool_factor(values, share)
        if values["noise"] > 0 and not values["binary"]:
            self._noise = values["noise"] * torch.randn(len(self), generator=generator).to(self.device)

    def end_step(self) -> None:
        self._noise, self._pool = None, 1

    @torch.no_grad()
    def _alive(self) -> Int[Tensor, "k"]:
        """Rows of the blocks that are there."""
        least = 0.5 if self.metadata["binary"] else DEAD
        return torch.nonzero(self.parameters["logit_opacities"].sigmoid() > least).squeeze(1)

    def _drawn(self) -> Int[Tensor, "k"]:
        """Rows of the blocks that are drawn; all (with opacity 0) where none is alive."""
        rows = self._alive()
        return rows if len(rows) else torch.arange(len(self), device=self.device)

    def _drawn_opacities(self, rows: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
        logits = self.parameters["logit_opacities"].index_select(0, rows)
        plain = logits.detach().sigmoid()
        if self.metadata["binary"]:
            return (plain > 0.5).to(plain)
        noisy = logits if self._noise is None else logits + self._noise[rows]
        return torch.where(plain > DEAD, noisy.sigmoid(), torch.zeros_like(plain))

    def owners(self) -> Int[Tensor, "m"]:
        return self._drawn().repeat_interleave(len(self.shape.faces))

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[TriangleDrawable]:
        rows, faces, around = self._drawn(), self.shape.faces.to(self.device), self.shape.neighbours.to(self.device)
        vertices = self.block_vertices().index_select(0, rows)
        texture, uvs = self._atlas(rows)
        edges = self.metadata["edges"]
        sigma = self.metadata["fine_sigma" if self.metadata["binary"] else "sigma"]
        drawn = TriangleDrawable(
            corners=gathered(vertices.reshape(-1, 3), shapes.repeated(faces, *vertices.shape[:2])),
            opacities=self._drawn_opacities(rows).repeat_interleave(len(faces)),
            texture=texture,
            uvs=uvs,
            neighbours=shapes.repeated(around, len(rows), len(around)) if edges == "antialiased" else None,
            edges=edges,
            sigma=float(sigma),
            detach_barycentrics=bool(self.metadata["detach_barycentrics"]),
        )
        return [drawn]

    def _atlas(self, rows: Int[Tensor, "k"]) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "m 3 2"]]:
        """Textures of `rows` in one, and the coordinates of their faces' corners."""
        raw = self.parameters["raw_textures"]
        raw = raw if len(rows) == len(self) else raw.index_select(0, rows)
        return drawn_atlas(raw, self._pool, self.shape.uvs.to(self.device), self.shape.overflow)

    # -- measures -----------------------------------------------------------------------------------------------------
    def positions(self) -> Float[Tensor, "n 3"]:
        return self.parameters["translations"]

    def opacities(self) -> Float[Tensor, "n"]:
        """Of one crossing; a block is crossed twice."""
        return self.parameters["logit_opacities"].sigmoid()

    def sizes(self) -> Float[Tensor, "n 3"]:
        """Half extents, world units."""
        return float(self.metadata["ratio"]) * (self.parameters["raw_scales"].exp() + FLOOR)

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, "n 2 3"]:
        """Of the oriented boxes around the blocks; soft edges reach a little beyond, in pixels."""
        half = (self.axes().abs() * self.sizes()[:, None, :]).sum(dim=2)
        return torch.stack([self.positions() - half, self.positions() + half], dim=1)

    @torch.no_grad()
    def volumes(self) -> Float[Tensor, "n"]:
        """Of the smooth shapes, in closed form; their meshes enclose less."""
        return shapes.volume(self.exponents().double(), self.sizes().double()).to(self.parameters["translations"])

    @torch.no_grad()
    def importance(self) -> Float[Tensor, "n"]:
        """Opacity times volume."""
        return self.opacities() * self.volumes()

    @torch.no_grad()
    def areas(self) -> Float[Tensor, "n"]:
        """Of the meshes."""
        a, b, c = self.block_vertices()[:, self.shape.faces.to(self.device)].unbind(2)
        return 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=2).sum(dim=1)

    @torch.no_grad()
    def surface(self) -> Surface:
        """Of all drawn blocks together, coloured at the vertices."""
        rows = self._drawn()
        vertices, faces = self.block_vertices()[rows], self.shape.faces.to(self.device)
        texture, uvs = self._atlas(rows)
        joined = shapes.repeated(faces, *vertices.shape[:2])
        colors = torch.zeros_like(vertices.reshape(-1, 3), dtype=texture.dtype)
        colors[joined.reshape(-1)] = texture_lookup(texture, uvs.reshape(-1, 2))
        return Surface(vertices.reshape(-1, 3), joined, colors)

    @torch.no_grad()
    def separate_parts(self) -> Int[Tensor, "k"]:
        rows = self._drawn()
        return rows[self._drawn_opacities(rows) > 0]

    @torch.no_grad()
    def sample_points(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
        """Even over the drawn blocks' meshes, weighted by opacity; with the texture's colours."""
        rows, surface = self._drawn(), self.surface()
        opacity = self._drawn_opacities(rows).clamp_min(1e-6).repeat_interleave(len(self.shape.faces))
        found = picked(surface.areas() * opacity, count, generator).to(self.device)
        barycentrics = uniform_barycentrics(count, generator).to(surface.vertices)
        texture, uvs = self._atlas(rows)
        colors = texture_lookup(texture, (uvs[found] * barycentrics[..., None]).sum(dim=1))
        return surface.at(found, barycentrics).positions, colors

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        """`ratio` grows with the world (metadata)."""
        turned = shapes.turned(self.parameters["rotations"], similarity.rotation)
        self.replace({"translations": similarity.apply(self.parameters["translations"]), "rotations": turned})
        self.metadata["ratio"] *= similarity.scale

    @torch.no_grad()
    def adopt(self, metadata: Mapping[str, Any]) -> None:
        """Raw scales follow `ratio`; FamilyError where a block is smaller than the other's least half extent."""
        relative = self.sizes() / float(metadata["ratio"]) - FLOOR
        if len(self) and not float(relative.min()) > 0:
            raise FamilyError(f"family {self.name}: blocks cannot be below {FLOOR} ratio; scale their whole layer")
        if metadata["ratio"] != self.metadata["ratio"]:
            self.replace({"raw_scales": relative.log()})
        self.metadata["ratio"] = metadata["ratio"]
        super().adopt(metadata)

    def regularizers(self, context: LossContext) -> Mapping[str, Callable[[], Float[Tensor, ""]]]:
        """`parsimony`: mean square root of the opacities. `total_variation` of the textures, summed over blocks.
        `overlap`: see `overlap_of`. Opacities with the step's noise; parsimony and overlap are 0 once `binary`. Blocks
        that are dead add nothing, and get no gradient.
        """
        values = self.metadata

        def until_binary(term: Callable[[], Tensor]) -> Callable[[], Tensor]:
            return lambda: self.parameters["logit_opacities"].new_zeros(()) if values["binary"] else term()

        def parsimony() -> Tensor:
            return self._drawn_opacities(self._alive()).clamp_min(1e-6).sqrt().sum() / len(self)

        def variation() -> Tensor:
            raw, rows = self.parameters["raw_textures"], self._alive()
            return total_variation(raw if len(rows) == len(self) else raw.index_select(0, rows)).sum()

        return {
            "opacity": lambda: self.opacities().mean(),
            "parsimony": until_binary(parsimony),
            "total_variation": variation,
            "overlap": until_binary(lambda: self.overlap_of(context.generator, self.metadata["overlap_samples"])),
        }

    def overlap_of(self, generator: torch.Generator, samples: int = 1000) -> Float[Tensor, ""]:
        """`superquadric_shape.overlap` of the drawn blocks, at `samples` points in the box of each."""
        rows = self._drawn()
        local = 2.0 * torch.rand(len(rows), samples, 3, generator=generator).to(self.parameters["translations"]) - 1.0
        frames = self.positions()[rows], self.axes()[rows], self.sizes()[rows]
        return shapes.overlap(local, frames, self.exponents()[rows], self._drawn_opacities(rows))

    # -- density control ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def growth_signal(self) -> Float[Tensor, "n"] | None:
        """Norm of the gradient of the translations, in units of each block's largest half extent."""
        gradient = self.parameters["translations"].grad
        return None if gradient is None else gradient.norm(dim=1) * self.sizes().amax(dim=1)

    @torch.no_grad()
    def shrink_split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> None:
        """Side by side along the parent's longest axis, which they share out; textures stay whole."""
        number = torch.arange(len(rows), device=rows.device) // (len(rows) // copies)
        sizes = self.sizes()[rows]
        unit = torch.nn.functional.one_hot(sizes.argmax(dim=1), 3).to(sizes)
        offset = sizes * unit * ((2.0 * number.to(sizes) + 1.0 - copies) / copies)[:, None]
        self.parameters["translations"].data[rows] += (self.axes()[rows] * offset[:, None, :]).sum(dim=2)
        relative = sizes / float(self.metadata["ratio"]) / torch.where(unit > 0, float(copies), 1.0)
        self.parameters["raw_scales"].data[rows] = (relative - FLOOR).clamp_min(1e-3).log()

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """1 - (1 - o)^(1/N) each: the same picture of coincident blocks, up to the order of front and back."""
        logits = self.parameters["logit_opacities"]
        logits.data[rows] = shared_logits(logits[rows], copies)

    @torch.no_grad()
    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """As Gaussians, with the half extents as scales."""
        weight = strength * noise_weights(self.opacities())
        self.parameters["translations"].data += noise_steps(weight, self.axes(), self.sizes(), generator)

    @torch.no_grad()
    def cap_opacities(self, maximum: float) -> None:
        self.parameters["logit_opacities"].data.clamp_(max=math.log(maximum / (1 - maximum)))


FAMILY = Superquadrics
