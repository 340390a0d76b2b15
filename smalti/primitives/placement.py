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
def even_means(points: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "k 3"]:
    """Means of `count` cells of points, each point in the cell of the nearest mean (Lloyd 1982, 20 rounds from the
    first points): spread as the points are, but evenly.
    """
    means = points[:count]
    for _ in range(20 if count else 0):
        owner = nearest_of(points, means)
        members = torch.bincount(owner, minlength=len(means))[:, None]
        sums = torch.zeros_like(means).index_add(0, owner, points)
        means = torch.where(members > 0, sums / members.clamp_min(1), means)
    return means


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
    half_extents: Float[Tensor, "n 3"] | None = None
    """Along those axes, of what a place stands for; None where that is not known."""


SUBCELLS = 3
"""Places per side at which a cell of a texture is asked for its surface."""


@torch.no_grad()
def uv_grid(surface: Surface, across: int, down: int) -> Seats:
    """Places in `across` x `down` cells of the texture, at their centres or where the surface lies nearest to them;
    cells in which it has nothing are left out. Tangents follow u. Extents reach around the cell's piece of the surface,
    as far as it hangs together (of two charts in one cell, the one at its place counts).

    A cell is asked in 3 x 3 places, so a piece smaller than a third of one may be missed. ValueError where the surface
    has no texture coordinates.
    """
    if surface.uvs is None:
        raise ValueError("uv_grid: the surface has no texture coordinates; spread points over it instead")
    fine_across, fine_down = SUBCELLS * across, SUBCELLS * down
    u = (torch.arange(fine_across) + 0.5) / fine_across
    v = (torch.arange(fine_down) + 0.5) / fine_down
    found, face, weight, tangents = _texture_places(
        surface, torch.stack([u.repeat(fine_down), v.repeat_interleave(fine_across)], dim=1).double()
    )
    points = surface.at(face.to(surface.faces.device), weight.to(surface.vertices))
    column, row = found % fine_across, found // fine_across
    cell = row // SUBCELLS * across + column // SUBCELLS
    middle = SUBCELLS // 2
    away = (column % SUBCELLS - middle).square() + (row % SUBCELLS - middle).square()
    # The nearest to the middle of each cell: sorted by cell and distance, the first of its cell.
    order = torch.argsort(cell * (2 * SUBCELLS**2) + away, stable=True)
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = cell[order][1:] != cell[order][:-1]
    seats = order[first].to(points.positions.device)
    along_u = tangents[0].to(points.normals)
    rotations = tangent_frames(points.normals[seats], along_u[seats])
    owner = torch.empty_like(order).scatter(0, order, first.cumsum(0) - 1).to(seats.device)
    offset = points.positions - points.positions[seats][owner]
    # A cell as its place would have it, were the surface flat: what lies beyond twice that belongs to another chart.
    size = (tangents[0].norm(dim=1) / across + tangents[1].norm(dim=1) / down).to(offset)[seats]
    together = offset.norm(dim=1) <= 2 * size[owner]
    turn = rotations[owner]
    local = (offset[:, None, :] @ turn)[:, 0].abs()
    for tangent, count in zip(tangents, (fine_across, fine_down), strict=True):  # and the places' own surroundings
        local += (tangent.to(offset)[:, None, :] @ turn)[:, 0].abs() / (2 * count)
    index = owner[:, None].expand(-1, 3)
    half = torch.zeros_like(rotations[:, 0]).scatter_reduce(0, index, local * together[:, None], "amax")
    return Seats(points.positions[seats], rotations, points.colors[seats], half)


def _texture_places(
    surface: Surface, places: Float[Tensor, "p 2"]
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Of the places in the texture at which there is surface: their rows, faces and barycentrics, and the derivatives
    of the position by u and by v.
    """
    assert surface.uvs is not None
    corners = surface.uvs.double().cpu()
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_1[:, 0] * edge_2[:, 1] - edge_1[:, 1] * edge_2[:, 0]
    safe = torch.where(area == 0, torch.ones_like(area), area)
    rows, faces, weights = [], [], []
    for first, part in enumerate(places.split(256)):
        offset = part[:, None] - corners[None, :, 0]
        second = (offset[..., 0] * edge_2[:, 1] - offset[..., 1] * edge_2[:, 0]) / safe
        third = (edge_1[:, 0] * offset[..., 1] - edge_1[:, 1] * offset[..., 0]) / safe
        inside = torch.stack([1 - second - third, second, third], dim=-1)
        least = torch.where(area == 0, -torch.inf, inside.amin(-1))
        best = least.argmax(dim=1)
        found = least.gather(1, best[:, None])[:, 0] >= -1e-9
        rows.append(256 * first + found.nonzero()[:, 0])
        faces.append(best[found])
        weights.append(inside[torch.arange(len(part)), best][found])
    face = torch.cat(faces)
    along = surface.corners[face.to(surface.faces.device)].double().cpu()
    # From the two edges' change of (u, v).
    side_1, side_2, scale = along[:, 1] - along[:, 0], along[:, 2] - along[:, 0], safe[face, None]
    by_u = (side_1 * edge_2[face, 1:] - side_2 * edge_1[face, 1:]) / scale
    by_v = (side_2 * edge_1[face, :1] - side_1 * edge_2[face, :1]) / scale
    return torch.cat(rows), face, torch.cat(weights), (by_u, by_v)


@torch.no_grad()
def spread_seats(surface: Surface, count: int, generator: torch.Generator) -> Seats:
    """`count` places far from each other: the farthest of eight times as many random ones."""
    points = surface.sample(8 * count, generator)
    rows = farthest_points(points.positions, count)
    normals = points.normals[rows]
    return Seats(points.positions[rows], tangent_frames(normals), points.colors[rows])
