"""Family `meshes`: one triangle mesh, drawn by kind `triangle`.

Primitives are faces. Parameters: `vertices` [v, 3] world units; either `raw_colors` [v, 3] per vertex or `raw_texture`
[h, w, 3 or 4], both drawn through a sigmoid (a fourth channel multiplies the opacity); optionally `logit_opacities`
[f] per face: without it faces are exactly opaque. Constants: `faces` [f, 3] int32 (given as any whole numbers),
counter-clockwise from outside; with a texture `uvs` [f, 3, 2] per corner.

Structure changes by the mesh's own means: pruning drops faces and the vertices that nobody needs any more; split,
clone and multiply all subdivide (a copy of an opaque face in the same place would draw nothing), without hanging
vertices and without changing the picture; relocation removes the dead faces and subdivides the hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.family import Family, FamilyError, LossContext
from smalti.primitives.mesh_structure import FaceStructure
from smalti.primitives.metadata import Ranges
from smalti.primitives.neighbours import nearest_of
from smalti.primitives.picking import picked
from smalti.primitives.registry import check_points
from smalti.primitives.surface import Surface, icosphere, uniform_barycentrics
from smalti.primitives.surface_nets import smoothed, solid_from_points, surface_nets
from smalti.primitives.texture import logit, painted, texture_lookup
from smalti.primitives.topology import (
    face_cells,
    face_edges,
    gathered,
    vertex_normals,
)
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.mipmaps import mipmaps


class Meshes(FaceStructure):
    """See the module. Metadata: `edges` hard, antialiased or soft, `sigma` of the soft ones (squared NDC);
    `smooth_normals`; `wrap` of the texture in u; `mipmaps`, how many coarser levels of it far faces are drawn with: 0
    for the texture alone, 24 for all (level k mixes what lies less than 2^k texels apart, so where faces have cells of
    their own it mixes those); `detach_barycentrics`. For new meshes: `texture_size`, 0 for colours per vertex;
    `texel_opacity`, whether a texture has an alpha of its own; `initial_opacity` of texels or else faces, 1 for exactly
    opaque faces without a parameter; `resolution` of the grid on which points become a solid; `level` of the icosphere.
    """

    name: ClassVar[str] = "meshes"
    grows: ClassVar[bool] = False
    color_logits: ClassVar[tuple[str, ...]] = ("raw_colors", "raw_texture")

    @classmethod
    def default_metadata(cls) -> dict[str, Any]:
        return {
            **{"edges": "antialiased", "sigma": 1e-4, "smooth_normals": False, "wrap": False, "mipmaps": 0},
            **{"detach_barycentrics": False, "texture_size": 0, "texel_opacity": False, "initial_opacity": 1.0},
            **{"resolution": 32, "level": 3},
        }

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        return {
            "edges": (values["edges"] in ("hard", "antialiased", "soft"), "hard, antialiased or soft"),
            "sigma": (values["sigma"] > 0, "positive"),
            "mipmaps": (0 <= values["mipmaps"] <= 24, "0 to 24"),
            "texture_size": (values["texture_size"] >= 0, "not negative"),
            "initial_opacity": (0 < values["initial_opacity"] <= 1, "above 0 and at most 1"),
            "resolution": (4 <= values["resolution"] <= 256, "4 to 256"),
            "level": (0 <= values["level"] <= 7, "0 to 7"),
        }

    @classmethod
    def default_learning_rates(cls) -> dict[str, float]:
        return {"vertices": 1.6e-4, "raw_colors": 2.5e-2, "raw_texture": 5e-2, "logit_opacities": 5e-2}

    @classmethod
    def optional_parameters(cls) -> tuple[str, ...]:
        return ("raw_colors", "raw_texture", "logit_opacities")

    @classmethod
    def constant_names(cls) -> tuple[str, ...]:
        return ("faces", "uvs")

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        return ("vertices",)

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        return ("logit_opacities",)

    def check_shapes(self) -> None:
        values, constants = self.parameters, self.constants
        if "faces" not in constants:
            raise FamilyError(f"family {self.name}: the constant `faces` is missing")
        faces = constants["faces"]
        try:
            Surface(values["vertices"].detach(), faces.long(), uvs=constants.get("uvs"))
        except ValueError as error:
            raise FamilyError(f"family {self.name}: {error}") from error
        if ("raw_colors" in values) == ("raw_texture" in values) or ("uvs" in constants) != ("raw_texture" in values):
            raise FamilyError(
                f"family {self.name}: give either raw_colors per vertex, or raw_texture with the constant uvs"
            )
        rows = {"raw_colors": len(values["vertices"]), "logit_opacities": len(faces)}
        for name, count in rows.items():
            if name in values and len(values[name]) != count:
                raise FamilyError(f"family {self.name}: {name} should have {count} rows, it has {len(values[name])}")
        if "raw_texture" in values and (
            values["raw_texture"].dim() != 3 or values["raw_texture"].shape[2] not in (3, 4)
        ):
            shape = tuple(values["raw_texture"].shape)
            raise FamilyError(f"family {self.name}: raw_texture should be [h, w, 3 or 4], it is {shape}")
        self._hold(faces)

    # -- initialisers -------------------------------------------------------------------------------------------------
    @classmethod
    def from_mesh(
        cls,
        vertices: Float[Tensor, "v 3"],
        faces: Int[Tensor, "f 3"],
        colors: Float[Tensor, "v 3"],
        metadata: Mapping[str, Any],
    ) -> Self:
        """This mesh, with a primitive per face."""
        return cls._made(Surface(vertices, faces, colors), cls.checked_metadata(metadata))

    @classmethod
    def from_surface(
        cls, surface: Surface, count: int, generator: torch.Generator, metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """The surface itself, every face cut in four as long as there are at most `count` then. With texture
        coordinates of its own where the surface has some and `texture_size` is not 0.
        """
        made = cls._made(surface, cls.checked_metadata(metadata or {}))
        while 0 < 4 * len(made) <= count:
            made.split(torch.arange(len(made)), 4, generator)
        return made

    @classmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Self:
        """The surface of the solid that the points enclose, on a grid of `resolution` voxels along the longest side;
        colours of the nearest points.
        """
        check_points(cls.name, positions, colors, 1)
        values = cls.checked_metadata(metadata)
        solid, origin, edge = solid_from_points(positions.detach().cpu().float(), values["resolution"])
        surface = surface_nets(solid, 0.5)
        return cls._placed(surface, (origin, edge), (positions, colors), values)

    @classmethod
    def from_voxels(
        cls,
        voxels: Int[Tensor, "n 3"],
        place: tuple[Float[Tensor, "3"], float],
        colors: Float[Tensor, "n 3"],
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """The surface of a set of voxels; `place` is (position of the low corner of voxel 0, edge), world units."""
        low = voxels.amin(0)
        grid = torch.zeros(tuple((voxels.amax(0) - low + 3).tolist()))
        grid[tuple((voxels - low + 1).T)] = 1.0
        origin, edge = place
        first = origin + (low - 0.5) * edge
        centres = origin + (voxels + 0.5) * edge
        values = cls.checked_metadata(metadata or {})
        return cls._placed(surface_nets(smoothed(grid), 0.5), (first, edge), (centres, colors), values)

    @classmethod
    def sphere(cls, centre: Float[Tensor, "3"], radius: float, metadata: Mapping[str, Any] | None = None) -> Self:
        """A grey icosphere of the metadata's `level`."""
        values = cls.checked_metadata(metadata or {})
        ball = icosphere(values["level"])
        return cls._made(Surface(centre + radius * ball.vertices.float(), ball.faces), values)

    @classmethod
    def at_random(
        cls,
        bounds: Float[Tensor, "2 3"],
        count: int,
        generator: torch.Generator,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """A sphere that fills the box, with noise of 5 % on its radii; `count` is ignored: the `level` decides."""
        low, high = bounds.float().unbind(0)
        made = cls.sphere(torch.zeros(3), 1.0, metadata)
        shape = made.parameters["vertices"].detach()
        shape = shape * (0.95 + 0.05 * torch.rand(len(shape), 1, generator=generator))
        made.replace({"vertices": 0.5 * (low + high) + 0.5 * (high - low) * shape})
        return made

    @classmethod
    def from_family(
        cls, other: Family, count: int, generator: torch.Generator, metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """The other family's own surface where it has one, else as from points."""
        surface = other.surface()
        if surface is None:
            return super().from_family(other, count, generator, metadata)
        return cls.from_surface(surface, count, generator, metadata)

    @classmethod
    def _placed(
        cls, surface: Surface, place: tuple[Tensor, float], points: tuple[Tensor, Tensor], values: Mapping[str, Any]
    ) -> Self:
        vertices = surface.vertices * place[1] + place[0].cpu()
        colors = points[1].detach().cpu().float()[nearest_of(vertices, points[0])]
        return cls._made(Surface(vertices, surface.faces, colors), values)

    @classmethod
    def _made(cls, surface: Surface, values: Mapping[str, Any]) -> Self:
        vertices = surface.vertices.detach().float()
        colors = torch.full_like(vertices, 0.5) if surface.colors is None else surface.colors.detach().float()
        parameters, constants = {"vertices": vertices}, {"faces": surface.faces}
        size = values["texture_size"]
        if size == 0:
            parameters["raw_colors"] = logit(colors)
        elif surface.uvs is not None:
            parameters["raw_texture"] = logit(colors.mean(0).expand(size, size, 3))
            constants["uvs"] = surface.uvs.float()
        else:
            uvs = face_cells(len(surface.faces), size).to(vertices)
            parameters["raw_texture"] = logit(painted(colors[surface.faces], uvs, size))
            constants["uvs"] = uvs
        opacity = values["initial_opacity"]
        if values["texel_opacity"] and size:
            alpha = logit(torch.full((size, size, 1), opacity, device=vertices.device))
            parameters["raw_texture"] = torch.cat([parameters["raw_texture"], alpha], dim=2)
        elif opacity < 1:
            parameters["logit_opacities"] = logit(torch.full((len(surface.faces),), opacity, device=vertices.device))
        return cls(parameters, values, constants)

    # -- drawing ------------------------------------------------------------------------------------------------------
    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[TriangleDrawable]:
        values, faces = self.parameters, self.faces
        smooth = bool(self.metadata["smooth_normals"])
        texture = values["raw_texture"].sigmoid() if "raw_texture" in values else None
        levels = int(self.metadata["mipmaps"])
        drawn = TriangleDrawable(
            corners=gathered(values["vertices"], faces),
            opacities=self.opacities(),
            colors=gathered(values["raw_colors"].sigmoid(), faces) if texture is None else None,
            normals=gathered(vertex_normals(values["vertices"], faces), faces) if smooth else None,
            texture=texture,
            uvs=None if texture is None else self.constants["uvs"].to(values["vertices"].dtype),
            neighbours=self.neighbours() if self.metadata["edges"] == "antialiased" else None,
            edges=self.metadata["edges"],
            sigma=float(self.metadata["sigma"]),
            wrap=bool(self.metadata["wrap"]),
            detach_barycentrics=bool(self.metadata["detach_barycentrics"]),
            mipmaps=None if texture is None or levels == 0 else mipmaps(texture, levels),
        )
        return [drawn]

    # -- measures -----------------------------------------------------------------------------------------------------
    def surface(self) -> Surface:
        """The mesh as it stands, coloured where colours are per vertex."""
        colors = self.parameters.get("raw_colors")
        uvs = self.constants.get("uvs")
        vertices = self.parameters["vertices"].detach()
        return Surface(vertices, self.faces, None if colors is None else colors.detach().sigmoid(), uvs)

    @torch.no_grad()
    def texture(self) -> Float[Tensor, "h w c"] | None:
        raw = self.parameters.get("raw_texture")
        return None if raw is None else raw.sigmoid()

    def positions(self) -> Float[Tensor, "f 3"]:
        """Centroids of the faces."""
        return self.corners().mean(dim=1)

    @torch.no_grad()
    def bounds(self) -> Float[Tensor, "f 2 3"]:
        """Boxes of the faces; soft and antialiased edges reach a little beyond, in pixels."""
        corners = self.corners()
        return torch.stack([corners.amin(dim=1), corners.amax(dim=1)], dim=1)

    @torch.no_grad()
    def volumes(self) -> Float[Tensor, "f"]:
        """0: faces are thin. `surface().volume()` is what a closed mesh encloses."""
        return torch.zeros(len(self), device=self.device)

    @torch.no_grad()
    def areas(self) -> Float[Tensor, "f"]:
        return self.surface().areas()

    @torch.no_grad()
    def sample_points(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
        """Even over the area, weighted by the faces' opacity; with the colours there."""
        rows = picked(self.areas() * self.opacities(), count, generator).to(self.device)
        barycentrics = uniform_barycentrics(count, generator).to(self.parameters["vertices"])
        points = self.surface().at(rows, barycentrics)
        texture = self.parameters.get("raw_texture")
        if texture is None:
            return points.positions, points.colors
        uvs = (self.constants["uvs"][rows] * barycentrics[..., None]).sum(dim=1)
        return points.positions, texture_lookup(texture.sigmoid(), uvs, bool(self.metadata["wrap"]))[:, :3]

    @torch.no_grad()
    def transform(self, similarity: Similarity) -> None:
        self.replace({"vertices": similarity.apply(self.parameters["vertices"])})

    @torch.no_grad()
    def base_colors(self) -> Float[Tensor, "f 3"]:
        """In the middles of the faces."""
        if "raw_colors" in self.parameters:
            return self.parameters["raw_colors"].sigmoid()[self.faces].mean(dim=1)
        texture = self.parameters["raw_texture"].sigmoid()
        uvs = self.constants["uvs"].mean(dim=1).to(texture)
        return texture_lookup(texture, uvs, bool(self.metadata["wrap"]))[:, :3]

    def regularizers(self, context: LossContext) -> Mapping[str, Callable[[], Float[Tensor, ""]]]:
        """`smoothness`: mean squared distance of vertices from the mean of their neighbours (uniform Laplacian), over
        the mean squared edge; `edges`: variance of the edges' lengths over their mean squared.
        """

        def lengths() -> tuple[Tensor, Tensor]:
            edges, _ = face_edges(self.faces)
            ends = gathered(self.parameters["vertices"], edges)
            return edges, (ends[:, 0] - ends[:, 1]).norm(dim=1)

        def smoothness() -> Tensor:
            edges, length = lengths()
            vertices = self.parameters["vertices"]
            both = torch.cat([edges, edges.flip(1)])
            sums = torch.zeros_like(vertices).index_add(0, both[:, 0], gathered(vertices, both[:, 1]))
            degree = torch.bincount(both[:, 0], minlength=len(vertices)).clamp_min(1)[:, None]
            return (sums / degree - vertices).square().sum(dim=1).mean() / length.square().mean()

        def evenness() -> Tensor:
            _, length = lengths()
            return length.var(correction=0) / length.mean().square()

        return {"opacity": lambda: self.opacities().mean(), "smoothness": smoothness, "edges": evenness}


FAMILY = Meshes
