"""Where to put few large primitives: spread over points, on a regular grid of texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.primitives.neighbours import nearest_of, neighbour_distances
from smalti.primitives.surface import Surface, tangent_frames


@torch.no_grad()
def farthest_points(points: Float[Tensor, "n 3"], count: int) -> Int[Tensor, "k"]:
    """Rows of at most `count` points, each as far as may be from those before (Gonzalez 1985); the first is the
    farthest from the mean. Ties go to the lower row.
    """
    count = min(count, len(points))
    values = points.detach().double().cpu()
    nearest = torch.full((len(values),), torch.inf, dtype=torch.float64)
    rows = [int((values - values.mean(0)).square().sum(1).argmax())] if count else []
    while len(rows) < count:
        nearest = torch.minimum(nearest, (values - values[rows[-1]]).square().sum(1))
        rows.append(int(nearest.argmax()))
    return torch.tensor(rows, dtype=torch.int64, device=points.device)


@dataclass(frozen=True, eq=False)
class Cells:
    """Points shared out to the nearest of a few centres."""

    centres: Float[Tensor, "k 3"]
    """Middles of the cells' axis-aligned boxes."""
    half_extents: Float[Tensor, "k 3"]
    """Of those boxes; at least half the distance to the nearest other centre, in every direction."""
    colors: Float[Tensor, "k 3"]
    """Mean of the points in the cell."""


@torch.no_grad()
def point_cells(points: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], count: int) -> Cells:
    """At most `count` cells around farthest points; as many as there are points where `count` is 0."""
    if 0 < count < len(points):
        seeds = points[farthest_points(points, count)].float()
        owner = nearest_of(points, seeds)
    else:
        seeds, owner = points.float(), torch.arange(len(points), device=points.device)
    low, high = torch.full_like(seeds, torch.inf), torch.full_like(seeds, -torch.inf)
    index = owner[:, None].expand(-1, 3)
    low = low.scatter_reduce(0, index, points.float(), "amin")
    high = high.scatter_reduce(0, index, points.float(), "amax")
    sums = torch.zeros_like(seeds).index_add(0, owner, colors.float())
    members = torch.bincount(owner, minlength=len(seeds)).clamp_min(1)
    half = 0.5 * (high - low)
    return Cells(0.5 * (low + high), torch.maximum(half, 0.5 * spacing(seeds)[:, None]), sums / members[:, None])


@torch.no_grad()
def spacing(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """Distance to the nearest other point; where that is in the same place, the mean of the others' distances."""
    nearest = neighbour_distances(points, 1)
    apart = nearest > 0
    usual = nearest[apart].mean() if bool(apart.any()) else nearest.new_ones(())
    return torch.where(apart, nearest, usual)


def base_scale(count: int) -> int:
    """MVP's inverse half extent of each of `count` boxes in the cube [-1, 1]^3: 2 round(count^(1/3)) (Lombardi et al.
    2021; the released code truncates, which goes wrong at 64, 512 and 4096).
    """
    return 2 * max(1, round(count ** (1.0 / 3.0)))


@dataclass(frozen=True, eq=False)
class Seats:
    """Places on a surface with their own axes."""

    positions: Float[Tensor, "n 3"]
    rotations: Float[Tensor, "n 3 3"]
    """Proper; columns are tangent, bitangent, normal."""
    colors: Float[Tensor, "n 3"]


@torch.no_grad()
def uv_grid(surface: Surface, across: int, down: int) -> Seats:
    """Places at the centres of `across` x `down` cells of the texture; cells in which the surface has nothing are left
    out. Tangents follow u. ValueError where the surface has no texture coordinates.
    """
    if surface.uvs is None:
        raise ValueError("uv_grid: the surface has no texture coordinates; spread points over it instead")
    u = (torch.arange(across) + 0.5) / across
    v = (torch.arange(down) + 0.5) / down
    cells = torch.stack([u.repeat(down), v.repeat_interleave(across)], dim=1).double()
    corners = surface.uvs.double().cpu()
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    safe = torch.where(area == 0, torch.ones_like(area), area)
    faces, weights = [], []
    for cell in cells.split(256):
        offset = cell[:, None] - corners[None, :, 0]
        second = (offset[..., 0] * edge_2[:, 1] - offset[..., 1] * edge_2[:, 0]) / safe
        third = (edge_1[:, 0] * offset[..., 1] - edge_1[:, 1] * offset[..., 0]) / safe
        inside = torch.stack([1 - second - third, second, third], dim=-1)
        least = torch.where(area == 0, -torch.inf, inside.amin(-1))
        best = least.argmax(dim=1)
        found = least.gather(1, best[:, None])[:, 0] >= -1e-9
        faces.append(best[found])
        weights.append(inside[torch.arange(len(cell)), best][found])
    face, weight = torch.cat(faces), torch.cat(weights)
    points = surface.at(face.to(surface.faces.device), weight.to(surface.vertices))
    along = surface.corners[face.to(surface.faces.device)].double().cpu()
    # d position / d u, from the two edges' change of (u, v).
    tangent = (along[:, 1] - along[:, 0]) * edge_2[face, 1:] - (along[:, 2] - along[:, 0]) * edge_1[face, 1:]
    tangent = (tangent / safe[face, None]).to(points.normals)
    return Seats(points.positions, tangent_frames(points.normals, tangent), points.colors)


@torch.no_grad()
def spread_seats(surface: Surface, count: int, generator: torch.Generator) -> Seats:
    """`count` places far from each other: the farthest of eight times as many random ones."""
    points = surface.sample(8 * count, generator)
    rows = farthest_points(points.positions, count)
    normals = points.normals[rows]
    return Seats(points.positions[rows], tangent_frames(normals), points.colors[rows])
