"""The structure of a mesh as a family's: faces are the primitives, vertices and texels have rows of their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.primitives.collapse import CollapsibleMesh, collapsed
from smalti.primitives.editing import reflected
from smalti.primitives.family import Family
from smalti.primitives.rows import Restructure, RowMap
from smalti.primitives.splats import noise_weights
from smalti.primitives.texture import logit, shared_logits
from smalti.primitives.topology import (
    Subdivision,
    compacted,
    face_edges,
    face_neighbours,
    gathered,
    subdivided,
    with_middles,
)


class FaceStructure(Family):
    """What a mesh does with its faces. Parameters `vertices` [v, 3], optionally `raw_colors` [v, 3], `raw_texture` and
    `logit_opacities` [f]; constants `faces` [f, 3] int32, optionally `uvs` [f, 3, 2].
    """

    _neighbours: Tensor | None

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """Vertex numbers, int64 as indexing wants them."""
        return self.constants["faces"].long()

    def _hold(self, faces: Int[Tensor, "f 3"]) -> None:
        """Take these faces. They are held in 32 bits: no mesh here has 2^31 vertices, and faces outweigh vertices."""
        self.constants["faces"] = faces.to(torch.int32)
        self._neighbours = None

    def neighbours(self) -> Int[Tensor, "f 3"]:
        """The face across each edge, or -1 (int32)."""
        if self._neighbours is None or self._neighbours.device != self.device:
            self._neighbours = face_neighbours(self.faces)
        return self._neighbours

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def bytes_per_primitive(self) -> int:
        held = sum(value.numel() * value.element_size() for value in self.parameters.values())
        return -(-held // max(len(self), 1))

    def corners(self) -> Float[Tensor, "f 3 3"]:
        """(face, corner, xyz), world units. Differentiable."""
        return gathered(self.parameters["vertices"], self.faces)

    def opacities(self) -> Float[Tensor, "f"]:
        """Of the faces; a texture's own alpha is not in them."""
        logits = self.parameters.get("logit_opacities")
        return self.parameters["vertices"].new_ones(len(self)) if logits is None else logits.sigmoid()

    def sizes(self) -> Float[Tensor, "f 3"]:
        """Lengths of the edges."""
        corners = self.corners()
        return (corners - corners.roll(-1, dims=1)).norm(dim=2)

    # -- edits --------------------------------------------------------------------------------------------------------
    @classmethod
    def references(cls) -> dict[str, str]:
        return {"faces": "vertices"}

    @torch.no_grad()
    def mirror(self, plane: Float[Tensor, "4"]) -> None:
        """The winding is reversed, so that what was outside stays outside."""
        self.replace({"vertices": reflected(plane, self.parameters["vertices"])})
        self.constants = {key: value.flip(1) for key, value in self.constants.items()}
        self._hold(self.constants["faces"])

    @torch.no_grad()
    def simplify(
        self, chosen: Bool[Tensor, "n"], count: int, weights: Float[Tensor, "n"]
    ) -> tuple[RowMap, dict[str, RowMap]]:
        """Edges are collapsed by quadric error; corners of faces that are not chosen, and seams of textures, stay. What
        cannot be collapsed is left: there may be more than `count`.
        """

        def plain(value: Tensor | None) -> Any:
            return None if value is None else value.detach().cpu().numpy()

        colors = self.parameters.get("raw_colors")
        mesh = CollapsibleMesh(
            *(plain(self.parameters["vertices"]), plain(self.faces), plain(weights.double()), plain(chosen)),
            colors=None if colors is None else plain(colors.sigmoid()),
            uvs=plain(self.constants.get("uvs")),
        )
        alive, faces, uvs = collapsed(mesh, count)
        corners = torch.from_numpy(faces).to(self.device)
        left = torch.from_numpy(alive).to(self.device)
        moved = (corners != self.faces).any(dim=1)
        source = torch.cat([torch.nonzero(left & ~moved).squeeze(1), torch.nonzero(left & moved).squeeze(1)])
        # What has other corners now is another face: it comes behind those that stay.
        rows = RowMap(source, moved[source])
        compact = compacted(corners[source], len(self.parameters["vertices"]))
        self.constants = {key: value[source] for key, value in self.constants.items()}
        if uvs is not None:
            self.constants["uvs"] = torch.from_numpy(uvs).to(self.constants["uvs"])[source]
        self._hold(compact.faces)
        still = torch.zeros_like(compact.kept, dtype=torch.bool)
        return rows, self._moved(rows, RowMap(compact.kept, still))

    # -- density control ----------------------------------------------------------------------------------------------
    def rearrange(self, rows: RowMap) -> dict[str, RowMap]:
        """Faces as `rows` says. Fresh faces are patches of their own: they get copies of their vertices, shared among
        each other as before; vertices without a face go.
        """
        old, fresh = self.faces[rows.source], rows.fresh
        count = len(self.parameters["vertices"])
        copies = torch.unique(old[fresh])
        number = torch.arange(count, device=old.device)
        number[copies] = count + torch.arange(len(copies), device=old.device)
        compact = compacted(torch.where(fresh[:, None], number[old], old), count + len(copies))
        source = torch.cat([torch.arange(count, device=old.device), copies])[compact.kept]
        vertices = RowMap(source, compact.kept >= count)
        self.constants = {key: value[rows.source] for key, value in self.constants.items()}
        self._hold(compact.faces)
        return self._moved(rows, vertices)

    def _moved(self, faces: RowMap, vertices: RowMap) -> dict[str, RowMap]:
        """Parameters follow; a texture stays."""
        self._neighbours = None
        maps = {"vertices": vertices, "raw_colors": vertices, "logit_opacities": faces}
        maps = {key: value for key, value in maps.items() if key in self.parameters}
        self.replace({key: self.parameters[key].detach()[rows.source] for key, rows in maps.items()})
        return maps

    def split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> Restructure:
        """Two copies: the faces' longest edges are cut; more: all of their edges. Faces next to a cut are cut too, so
        that no vertex hangs. The picture stays, up to the rounding of positions.
        """
        edges, place = face_edges(self.faces)
        cut = torch.zeros(len(edges), dtype=torch.bool, device=self.device)
        if copies == 2:
            longest = self.sizes().detach()[rows].argmax(dim=1)
            cut[place[rows, longest]] = True
        else:
            cut[place[rows].reshape(-1)] = True
        return self._subdivide(subdivided(self.faces, len(self.parameters["vertices"]), cut))

    @torch.no_grad()
    def _subdivide(self, after: Subdivision) -> Restructure:
        count = len(self.parameters["vertices"])
        fresh = torch.arange(len(after.faces), device=self.device) >= after.untouched
        faces = RowMap(after.source, fresh)
        new = torch.arange(count + len(after.ends), device=self.device)
        vertices = RowMap(torch.cat([new[:count], after.ends[:, 0]]), new >= count)
        middles = {"vertices": self.parameters["vertices"][after.ends].mean(dim=1)}
        if "raw_colors" in self.parameters:
            middles["raw_colors"] = logit(self.parameters["raw_colors"][after.ends].sigmoid().mean(dim=1))
        if "uvs" in self.constants:
            six = with_middles(self.constants["uvs"])[after.source]
            self.constants["uvs"] = six.gather(1, after.corners[..., None].expand(-1, -1, 2))
        self._hold(after.faces)
        maps = self._moved(faces, vertices)
        for name, value in middles.items():
            self.parameters[name].data[count:] = value
        return Restructure(faces, maps)

    def clone(self, rows: Int[Tensor, "k"]) -> Restructure:
        """As `split` in two: a face does not draw more for being there twice."""
        return self.split(rows, 2, torch.Generator())

    def multiply(self, hosts: Int[Tensor, "k"]) -> Restructure:
        """As `split` in two, each host once."""
        return self.split(torch.unique(hosts), 2, torch.Generator())

    def relocate(self, dead: Int[Tensor, "k"], hosts: Int[Tensor, "k"]) -> Restructure:
        """The dead faces go; each host is split in two, once."""
        doomed = torch.zeros(len(self), dtype=torch.bool, device=self.device)
        doomed[dead] = True
        first = self.prune(doomed)
        number = (~doomed).long().cumsum(0) - 1
        alive = torch.unique(hosts[~doomed[hosts]])
        second = self.split(number[alive], 2, torch.Generator())
        parameters = {key: rows.then(second.parameters[key]) for key, rows in first.parameters.items()}
        return Restructure(first.primitives.then(second.primitives), parameters)

    def same_primitives(self, parameter: str, rows: Int[Tensor, "k"]) -> dict[str, Int[Tensor, "j"]]:
        """Rows of a texture belong to no face in particular: they concern themselves alone."""
        if parameter == "raw_texture":
            return {parameter: rows}
        if parameter == "logit_opacities":
            faces = rows
        else:
            faces = torch.nonzero(torch.isin(self.faces, rows).any(dim=1)).squeeze(1)
        corners = torch.unique(self.faces[faces])
        found = {"vertices": corners, "raw_colors": corners, "logit_opacities": faces}
        return {key: value for key, value in found.items() if key in self.parameters}

    @torch.no_grad()
    def growth_signal(self) -> Float[Tensor, "f"] | None:
        """Norm of the mean gradient of the corners, in units of the longest edge."""
        gradient = self.parameters["vertices"].grad
        return None if gradient is None else gradient[self.faces].mean(dim=1).norm(dim=1) * self.sizes().amax(dim=1)

    @torch.no_grad()
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """1 - (1 - o)^(1/N) each; opaque faces stay so."""
        logits = self.parameters.get("logit_opacities")
        if logits is not None:
            logits.data[rows] = shared_logits(logits[rows], copies)

    @torch.no_grad()
    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """Isotropic noise on the vertices of faint faces, of the variance of the squared edges; opaque meshes stay."""
        if "logit_opacities" not in self.parameters:
            return
        vertices = self.parameters["vertices"]
        weight = noise_weights(self.opacities())
        step = (weight * self.sizes().square().mean(dim=1)).repeat_interleave(3)
        reach = torch.zeros_like(vertices[:, 0]).scatter_reduce(0, self.faces.reshape(-1), step, "amax")
        noise = torch.randn(len(vertices), 3, generator=generator).to(vertices)
        vertices.data += strength * reach[:, None] * noise

    @torch.no_grad()
    def cap_opacities(self, maximum: float) -> None:
        """Of faces and texels; opaque faces stay so."""
        limit = math.log(maximum / (1 - maximum))
        if "logit_opacities" in self.parameters:
            self.parameters["logit_opacities"].data.clamp_(max=limit)
        if "raw_texture" in self.parameters:
            self.parameters["raw_texture"].data[..., 3:].clamp_(max=limit)
