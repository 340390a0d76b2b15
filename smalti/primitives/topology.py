"""Triangle lists: edges, neighbours, conforming subdivision, texture cells of their own. Pure functions on tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CHILDREN: dict[int, tuple[tuple[int, int, int], ...]] = {
    1: ((0, 3, 2), (3, 1, 2)),
    2: ((1, 4, 0), (4, 2, 0)),
    4: ((2, 5, 1), (5, 0, 1)),
    3: ((3, 1, 4), (0, 3, 4), (0, 4, 2)),
    6: ((4, 2, 5), (1, 4, 5), (1, 5, 0)),
    5: ((5, 0, 3), (2, 5, 3), (2, 3, 1)),
    7: ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
}
"""By the set of a face's edges that are cut (bit i: from corner i to i + 1): the faces that replace it, of its corners
0, 1, 2 and the middles 3 + i of its edges, in the same winding.
"""


def gathered(rows: Float[Tensor, "v c"], index: Int[Tensor, "*n"]) -> Float[Tensor, "*n c"]:
    """`rows[index]`, whose gradient is summed in one order whatever the number of threads (that of indexing is not)."""
    return torch.nn.functional.embedding(index, rows)


def face_edges(faces: Int[Tensor, "f 3"]) -> tuple[Int[Tensor, "e 2"], Int[Tensor, "f 3"]]:
    """Every edge once, low vertex first; and which edge runs from corner i to corner i + 1 of each face."""
    pairs = torch.stack([faces, faces.roll(-1, dims=1)], dim=2).reshape(-1, 2)
    unique, place = torch.unique(pairs.sort(dim=1).values, dim=0, return_inverse=True)
    return unique, place.reshape(-1, 3)


def face_neighbours(faces: Int[Tensor, "f 3"]) -> Int[Tensor, "f 3"]:
    """The face across the edge from corner i to i + 1; -1 where there is none, or more than one."""
    edges, place = face_edges(faces)
    flat = place.reshape(-1)
    owner = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    # The sum of the two faces at an edge, less oneself, is the other one.
    total = torch.zeros(len(edges), dtype=torch.int64, device=faces.device).index_add(0, flat, owner)
    two = torch.bincount(flat, minlength=len(edges)) == 2
    other = torch.where(two[flat], total[flat] - owner, torch.full_like(owner, -1))
    return other.reshape(-1, 3).to(torch.int32)


@dataclass(frozen=True, eq=False)
class Subdivision:
    """Faces before and after some edges were cut in their middles, without hanging vertices."""

    faces: Int[Tensor, "g 3"]
    """Untouched faces first, in their order."""
    source: Int[Tensor, "g"]
    """The face that each came from."""
    untouched: int
    ends: Int[Tensor, "k 2"]
    """New vertex j, numbered behind the old ones, lies between these two."""
    corners: Int[Tensor, "g 3"]
    """Each new corner among its old face's: 0, 1, 2, or 3 + i for the middle of the edge from corner i to i + 1."""


def subdivided(faces: Int[Tensor, "f 3"], vertex_count: int, cut: Bool[Tensor, "e"]) -> Subdivision:
    """Cut the edges `cut` (rows of `face_edges`); every face at one of them is replaced."""
    edges, place = face_edges(faces)
    number = torch.where(cut, cut.long().cumsum(0) - 1 + vertex_count, torch.full_like(cut, -1, dtype=torch.int64))
    six = torch.cat([faces, number[place]], dim=1)
    pattern = (cut[place].long() * faces.new_tensor([1, 2, 4])).sum(dim=1)
    same = torch.nonzero(pattern == 0).squeeze(1)
    parts, sources, corners = [faces[same]], [same], [faces.new_tensor([0, 1, 2]).expand(len(same), 3)]
    for mask, children in CHILDREN.items():
        rows = torch.nonzero(pattern == mask).squeeze(1)
        for child in children:
            parts.append(six[rows][:, list(child)])
            sources.append(rows)
            corners.append(faces.new_tensor(child).expand(len(rows), 3))
    return Subdivision(torch.cat(parts), torch.cat(sources), len(same), edges[cut], torch.cat(corners))


def with_middles(corners: Float[Tensor, "f 3 c"]) -> Float[Tensor, "f 6 c"]:
    """Corners, then the middles of the edges from each to the next."""
    return torch.cat([corners, 0.5 * (corners + corners.roll(-1, dims=1))], dim=1)


@dataclass(frozen=True, eq=False)
class Compaction:
    """Vertices that are still used, and the faces by their new numbers."""

    faces: Int[Tensor, "f 3"]
    kept: Int[Tensor, "v"]


def compacted(faces: Int[Tensor, "f 3"], vertex_count: int) -> Compaction:
    """Without the vertices that no face uses."""
    used = torch.zeros(vertex_count, dtype=torch.bool, device=faces.device)
    used[faces.reshape(-1)] = True
    return Compaction((used.long().cumsum(0) - 1)[faces], torch.nonzero(used).squeeze(1))


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Sums of the normals of the faces around, weighted by area (not of unit length). Differentiable."""
    a, b, c = gathered(vertices, faces).unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    return torch.zeros_like(vertices).index_add(0, faces.reshape(-1), normals.repeat_interleave(3, dim=0))


def cell_size(face_count: int, size: int) -> int:
    """Texels along a cell of `face_cells`; ValueError where there are fewer than the 4 that two faces need."""
    cells = max(1, math.ceil(math.sqrt(math.ceil(face_count / 2))))
    if size // cells < 4:
        raise ValueError(f"a texture of {size} texels is too small for {face_count} faces; {4 * cells} are needed")
    return size // cells


def face_cells(face_count: int, size: int) -> Float[Tensor, "f 3 2"]:
    """Texture coordinates that give every face texels of its own, two faces to a square cell of a texture of `size`.

    Corners lie on texel centres; the two triangles of a cell are so far apart that no bilinear lookup reads a texel of
    the other.
    """
    side = cell_size(face_count, size)
    cells = max(1, math.ceil(math.sqrt(math.ceil(face_count / 2))))
    cell = torch.arange(face_count) // 2
    origin = torch.stack([cell % cells, cell // cells], dim=1)[:, None] * side
    far = side - 1
    near = torch.tensor([[0, 0], [far - 2, 0], [0, far - 2]])
    upper = torch.tensor([[far, far], [2, far], [far, 2]])
    local = torch.where((torch.arange(face_count) % 2 == 0)[:, None, None], near, upper)
    return ((origin + local).double() + 0.5).div(size).float()
