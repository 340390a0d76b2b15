"""Family `backdrops`: what stands behind blocks (Monnier et al. 2023, Differentiable Blocks World, section 3.1 and
supplement): rigid textured surfaces of opacity 1, drawn by kind `triangle`.

`form` `plane`: a square in the own xz plane, seen from above (+y), of 128 faces; `dome`: an icosphere of 320 faces seen
from inside. Half side and radius are `reach` times `ratio`, the world's length of one unit (metadata; chosen once where
it is 0: the half side of what the backdrop is put behind).

Parameters, per backdrop: `translations` [n, 3] world units; `rotations` [n, 6], raw directions of its x and y axes in
the world (Zhou et al. 2019); `raw_textures` [n, h, w, 3], drawn through a sigmoid, unlit, bilinear: over the plane u
goes with x and v with z; over the dome as over a block, around in u, row 0 at the lower pole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives import superquadric_shape as shapes
from smalti.primitives.block_textures import check_blocks, drawn_atlas, initial_noise, pool_factor, total_variation
from smalti.primitives.family import Family, LossContext
from smalti.primitives.metadata import Ranges
from smalti.primitives.picking import picked
from smalti.primitives.registry import check_points
from smalti.primitives.surface import Surface, uniform_barycentrics
from smalti.primitives.texture import logit, texture_lookup
from smalti.primitives.topology import gathered
from smalti.renderers.drawables import TriangleDrawable

CELLS = 8
"""Of a plane along each side: two triangles, cut in four three times."""
DOME_LEVEL = 2
"""Of the icosphere."""


class Backdrops(Family):
    """See the module. Metadata: `form`; `reach` and `ratio`; `edges` hard or soft with `sigma` (squared NDC);
    `detach_barycentrics`: colour does not move it. Of new ones: `texture_size`, `initial_height` of a plane over the
    middle, in units of `ratio`, `initial_seed` of the texture's noise. Up to the share `pooled_until` of a training run
    textures are averaged over `pool` texels, so that they do not paint what blocks should be.
    """

    name: ClassVar[str] = "backdrops"
    grows: ClassVar[bool] = False
    color_logits: ClassVar[tuple[str, ...]] = ("raw_textures",)

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {
            **{"form": "plane", "reach": 10.0, "ratio": 0.0, "edges": "hard", "sigma": 1e-4},
            **{"detach_barycentrics": False, "texture_size": 256, "initial_height": -0.9, "initial_seed": 0},
            **{"pool": 8, "pooled_until": 0.4},
        }

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {
            "form": (values["form"] in ("plane", "dome"), "plane or dome"),
            "edges": (values["edges"] in ("hard", "soft"), "hard or soft"),
            **{name: (values[name] > 0, "positive") for name in ("reach", "sigma")},
            "ratio": (values["ratio"] >= 0, "not negative"),
            "texture_size": (values["texture_size"] >= 2, "2 or more"),
            "pool": (values["pool"] >= 1, "1 or more"),
        }

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {"translations": 5e-3, "rotations": 5e-3, "raw_textures": 5e-2}

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return ("translations",)

    @classmethod
    def default_regularizers(cls) -> dict[str, float]:
        return {"total_variation": 0.1}

    def check_shapes(self) -> None:
        super().check_shapes()
        check_blocks(self.name, self.parameters, {})
        if self.metadata["ratio"] == 0:
            self.metadata["ratio"] = 1.0
        self._pool = 1

    # -- initialisers -------------------------------------------------------------------------------------------------
    @classmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Self:
        """One, behind the points' bounding box, of their mean colour."""
        check_points(cls.name, positions, colors, 1)
        bounds = torch.stack([positions.amin(0), positions.amax(0)]).float()
        return cls._placed(bounds, colors.float().mean(0), cls.checked_metadata(metadata))

    @classmethod
    def at_random(
        cls,
        bounds: Float[Tensor, "2 3"],
        count: int,
        generator: torch.Generator,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """As published, with `bounds` (low, high) for the cube [-1, 1]^3: one, upright and grey. `count` is ignored,
        nothing but the texture's noise is random.
        """
        return cls._placed(bounds.float(), torch.full((3,), 0.5), cls.checked_metadata(metadata or {}))

    @classmethod
    def _placed(cls, bounds: Tensor, color: Tensor, values: dict[str, Any]) -> Self:
        low, high = bounds.unbind(0)
        span = 0.5 * float((high - low).max())
        if values["ratio"] == 0:
            values["ratio"] = span if span > 0 else 1.0
        centre = 0.5 * (low + high)
        if values["form"] == "plane":
            centre = centre + values["ratio"] * values["initial_height"] * centre.new_tensor([0.0, 1.0, 0.0])
        noise = initial_noise(1, values["texture_size"], values["initial_seed"])
        parameters = {
            "translations": centre[None],
            "rotations": centre.new_tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]),
            "raw_textures": logit(color.cpu()) + noise,
        }
        return cls({key: value.to(bounds.device) for key, value in parameters.items()}, values)

    # -- shape --------------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> shapes.Template:
        """The mesh that all of them share, within 1 of its middle."""
        return plane_template() if self.metadata["form"] == "plane" else dome_template()

    @property
    def _around(self) -> bool:
        return self.metadata["form"] == "dome"

    @property
    def _reach(self) -> float:
        """Half side or radius, world units."""
        return float(self.metadata["reach"] * self.metadata["ratio"])

    def axes(self) -> Float[Tensor, "n 3 3"]:
        """Rotations; columns are the own axes in the world, a plane's normal is the second. Differentiable."""
        return shapes.rotation_from_six(self.parameters["rotations"])

    def backdrop_vertices(self) -> Float[Tensor, "n v 3"]:
        """World units. Differentiable."""
        local = self._reach * self.shape.directions.to(self.parameters["translations"])
        return local @ self.axes().mT + self.parameters["translations"][:, None, :]

    # -- drawing ------------------------------------------------------------------------------------------------------
    def begin_step(self, share: float, generator: torch.Generator) -> None:
        self._pool = pool_factor(self.metadata, share)

    def end_step(self) -> None:
        self._pool = 1

    def owners(self) -> Int[Tensor, "m"]:
        return torch.arange(len(self), device=self.device).repeat_interleave(len(self.shape.faces))

    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[TriangleDrawable]:
        vertices, faces = self.backdrop_vertices(), self.shape.faces.to(self.device)
        texture, uvs = self._atlas()
        corners = gathered(vertices.reshape(-1, 3), shapes.repeated(faces, *vertices.shape[:2]))
        drawn = TriangleDrawable(
            corners=corners,
            opacities=corners.new_ones(len(corners)),
            texture=texture,
            uvs=uvs,
            edges=self.metadata["edges"],
            sigma=float(self.metadata["sigma"]),
            detach_barycentrics=bool(self.metadata["detach_barycentrics"]),
        )
        return [drawn]

    def _atlas(self) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "m 3 2"]]:
        raw, uvs = self.parameters["raw_textures"], self.shape.uvs.to(self.device)
        return drawn_atlas(raw, self._pool, uvs, self.shape.overflow, self._around)

    # -- measures -----------------------------------------------------------------------------------------------------
    def positions(self) -> Float[Tensor, "n 3"]:
        return self.parameters["translations"]

    def opacities(self) -> Float[Tensor, "n"]:
        """1: they are what is behind everything."""
        return self.parameters["translations"].new_ones(len(self))

    def sizes(self) -> Float[Tensor, "n 3"]:
        """Half sides (of a plane 0 along its normal), or the radius three times."""
        extent = [self._reach, 0.0 if self.metadata["form"] == "plane" else self._reach, self._reach]
        return self.parameters["translations"].new_tensor(extent).expand(len(self), 3)

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, "n 2 3"]:
        vertices = self.backdrop_vertices()
        return torch.stack([vertices.amin(dim=1), vertices.amax(dim=1)], dim=1)

    @torch.no_grad()
    def volumes(self) -> Float[Tensor, "n"]:
        """0: they are surfaces, and what a dome encloses is the scene."""
        return torch.zeros_like(self.parameters["translations"][:, 0])

    @torch.no_grad()
    def areas(self) -> Float[Tensor, "n"]:
        one = Surface(self._reach * self.shape.directions, self.shape.faces).areas().sum()
        return one.to(self.parameters["translations"]).expand(len(self))

    @torch.no_grad()
    def surface(self) -> Surface:
        """Of all of them together, coloured at the vertices, with coordinates in `texture`."""
        vertices, faces = self.backdrop_vertices(), self.shape.faces.to(self.device)
        texture, uvs = self._atlas()
        joined = shapes.repeated(faces, *vertices.shape[:2])
        colors = torch.zeros_like(vertices.reshape(-1, 3), dtype=texture.dtype)
        colors[joined.reshape(-1)] = texture_lookup(texture, uvs.reshape(-1, 2))
        return Surface(vertices.reshape(-1, 3), joined, colors, uvs)

    @torch.no_grad()
    def texture(self) -> Float[Tensor, "h w 3"]:
        return self._atlas()[0]

    @torch.no_grad()
    def sample_points(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
        """Even over the area, with the texture's colours."""
        surface = self.surface()
        found = picked(surface.areas(), count, generator).to(self.device)
        barycentrics = uniform_barycentrics(count, generator).to(surface.vertices)
        texture, uvs = self._atlas()
        colors = texture_lookup(texture, (uvs[found] * barycentrics[..., None]).sum(dim=1))
        return surface.at(found, barycentrics).positions, colors

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        """`ratio` grows with the world (metadata)."""
        turned = shapes.turned(self.parameters["rotations"], similarity.rotation)
        self.replace({"translations": similarity.apply(self.parameters["translations"]), "rotations": turned})
        self.metadata["ratio"] *= similarity.scale

    def regularizers(self, context: LossContext) -> Mapping[str, Callable[[], Float[Tensor, ""]]]:
        """`total_variation`: mean squared forward differences of the textures, summed over colours and backdrops; of a
        dome's around the back too.
        """
        textures = self.parameters["raw_textures"]
        return {"total_variation": lambda: total_variation(textures, self._around).sum()}

    # -- density control: there is nothing to thin out or to share ----------------------------------------------------
    @torch.no_grad()
    def growth_signal(self) -> Float[Tensor, "n"] | None:
        """Norm of the gradient of the translations, in units of the half side or radius."""
        gradient = self.parameters["translations"].grad
        return None if gradient is None else gradient.norm(dim=1) * self._reach

    def shrink_split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> None:
        """All of one layer are of one size: the parts stay whole, one behind the other, and draw what the one drew."""

    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """Opaque copies in one place draw what the one drew."""

    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """They stay: noise is for what is faint."""

    def cap_opacities(self, maximum: float) -> None:
        """They stay opaque."""


@lru_cache(maxsize=1)
def plane_template() -> shapes.Template:
    """The square from (-1, 0, -1) to (1, 0, 1), seen counter-clockwise from +y; u grows with x and v with z."""
    steps = torch.linspace(-1.0, 1.0, CELLS + 1, dtype=torch.float64)
    z, x = torch.meshgrid(steps, steps, indexing="ij")
    vertices = torch.stack([x, torch.zeros_like(x), z], dim=-1).reshape(-1, 3)
    number = torch.arange((CELLS + 1) ** 2).reshape(CELLS + 1, CELLS + 1)
    here, right, up, across = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    faces = torch.stack([torch.stack([here, across, right], -1), torch.stack([here, up, across], -1)], 2).reshape(-1, 3)
    uvs = 0.5 * (vertices[:, [0, 2]] + 1.0)
    return shapes.Template(vertices, faces, uvs[faces], 0.0, shapes.face_neighbours(faces))


@lru_cache(maxsize=1)
def dome_template() -> shapes.Template:
    """The unit icosphere seen from inside, with the texture coordinates of a block."""
    ball = shapes.template(DOME_LEVEL)
    faces = ball.faces.flip(1)
    return shapes.Template(ball.directions, faces, ball.uvs.flip(1), ball.overflow, shapes.face_neighbours(faces))


FAMILY = Backdrops
