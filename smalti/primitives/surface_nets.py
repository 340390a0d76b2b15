"""Surfaces of solids given on a grid (naive surface nets, Gibson 1998), and solids from points."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.primitives.surface import Surface


@torch.no_grad()
def surface_nets(values: Float[Tensor, "x y z"], level: float) -> Surface:
    """The surface between samples above `level` (inside) and the others, in units of samples, outward, closed.

    One vertex per cell that it crosses, at the mean of the crossings of the cell's edges. What lies beyond the grid is
    outside.
    """
    values = torch.nn.functional.pad(values.float(), (1, 1, 1, 1, 1, 1), value=-torch.inf)
    finite = values.clamp_min(2 * level - float(values.max()))  # outside mirrors inside: a crossing half-way
    inside = values > level
    shape = torch.tensor(values.shape) - 1
    sums = torch.zeros(int(shape.prod()), 3, dtype=torch.float64)
    counts = torch.zeros(len(sums), dtype=torch.float64)
    quads: list[Tensor] = []
    for axis in range(3):
        low, high = inside.narrow(axis, 0, int(shape[axis])), inside.narrow(axis, 1, int(shape[axis]))
        index = torch.nonzero(low != high)
        unit = torch.nn.functional.one_hot(torch.tensor(axis), 3)
        first, second = finite[tuple(index.T)], finite[tuple((index + unit).T)]
        place = index.double() + unit * ((level - first) / (second - first)).double()[:, None]
        around = _cells_around(index, axis, shape)
        sums.index_add_(0, around.reshape(-1), place.repeat_interleave(4, dim=0))
        counts.index_add_(0, around.reshape(-1), torch.ones(around.numel(), dtype=torch.float64))
        outward = (first > level)[:, None]
        quads.append(torch.where(outward, around, around.flip(1)))
    if not len(torch.cat(quads)):
        return Surface(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    active = torch.nonzero(counts > 0).squeeze(1)
    number = torch.zeros(len(counts), dtype=torch.int64)
    number[active] = torch.arange(len(active))
    corners = number[torch.cat(quads)]
    faces = torch.cat([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])
    vertices = (sums[active] / counts[active, None] - 1.0).float()
    return Surface(vertices, faces)


def _cells_around(index: Int[Tensor, "n 3"], axis: int, shape: Int[Tensor, "3"]) -> Int[Tensor, "n 4"]:
    """The four cells at an edge along `axis`, counter-clockwise seen against the axis."""
    after, last = (axis + 1) % 3, (axis + 2) % 3
    cells = []
    for first, second in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
        cell = index.clone()
        cell[:, after] += first
        cell[:, last] += second
        cells.append((cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2])
    return torch.stack(cells, dim=1)


@torch.no_grad()
def solid_from_points(
    points: Float[Tensor, "n 3"], resolution: int
) -> tuple[Float[Tensor, "x y z"], Float[Tensor, "3"], float]:
    """(blurred occupancy 0..1, position of sample 0, distance of samples): what points on a surface enclose.

    A voxel is full where it or a neighbour holds a point, or where full voxels part it from the outside. `resolution`
    voxels span the longest side.
    """
    low, high = points.amin(0), points.amax(0)
    edge = float((high - low).max()) / resolution or 1.0
    counts = torch.ceil((high - low) / edge).long() + 1
    origin = 0.5 * (low + high) - 0.5 * edge * (counts - 1) - 3 * edge
    grid = torch.zeros(tuple((counts + 6).tolist()))
    index = ((points - origin) / edge).round().long()
    grid[tuple(index.T)] = 1.0
    filled = _filled(_spread(grid, 3, 1) > 0)
    # The neighbours' shell is taken off again; what was enclosed stays.
    solid = torch.maximum(1.0 - _spread(1.0 - filled.float(), 3, 1), grid)
    return smoothed(solid), origin, edge


def smoothed(grid: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
    """Weights 1 2 1 along every axis: flat sides stay in place, edges are rounded off. 0 beyond the grid."""
    for axis in range(3):
        first = torch.zeros_like(grid.narrow(axis, 0, 1))
        size = grid.shape[axis]
        padded = torch.cat([first, grid, first], dim=axis)
        grid = 0.25 * padded.narrow(axis, 0, size) + 0.5 * grid + 0.25 * padded.narrow(axis, 2, size)
    return grid


def _spread(grid: Float[Tensor, "x y z"], size: int, pad: int) -> Float[Tensor, "x y z"]:
    return torch.nn.functional.max_pool3d(grid[None, None], size, 1, pad)[0, 0]


def _filled(full: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """With everything that the outside does not reach through faces of empty voxels."""
    outside = torch.zeros_like(full)
    outside[0] = ~full[0]
    while True:
        grown = outside.clone()
        for axis in range(3):
            size = full.shape[axis]
            grown.narrow(axis, 1, size - 1).logical_or_(outside.narrow(axis, 0, size - 1))
            grown.narrow(axis, 0, size - 1).logical_or_(outside.narrow(axis, 1, size - 1))
        grown &= ~full
        if bool((grown == outside).all()):
            return ~outside
        outside = grown
