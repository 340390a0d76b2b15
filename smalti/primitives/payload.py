"""Voxel grids over [-1, 1]^3, corner-aligned: component x runs along the last axis of voxels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def identity_grid(like: Float[Tensor, "n z y x c"]) -> Float[Tensor, "z y x 3"]:
    """The local coordinate (x, y, z) of every voxel of a grid of this resolution."""
    axes = [torch.linspace(-1.0, 1.0, size, dtype=like.dtype, device=like.device) for size in like.shape[1:4]]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


def sampled_slab(
    grids: Float[Tensor, "n z y x c"], axis: Int[Tensor, "n"], middle: Float[Tensor, "n"], copies: int
) -> Float[Tensor, "n z y x c"]:
    """Each grid's slab of thickness 2 / `copies` around `middle` across `axis` (0 is x), at the same resolution.

    Exact where the slabs tile the grid: the old voxels are among the new ones. Linear in between.
    """
    result = grids.clone()
    for number in range(3):
        rows = torch.nonzero(axis == number).squeeze(1)
        if len(rows):
            dimension = 3 - number
            moved = grids[rows].movedim(dimension, 1)
            result[rows] = _resampled(moved, middle[rows], copies).movedim(1, dimension)
    return result


def _resampled(grids: Float[Tensor, "n m a b c"], middle: Float[Tensor, "n"], copies: int) -> Tensor:
    size = grids.shape[1]
    place = middle[:, None] + torch.linspace(-1.0, 1.0, size, dtype=grids.dtype, device=grids.device) / copies
    position = ((place + 1.0) * 0.5 * (size - 1)).clamp(0.0, size - 1.0)
    low = position.floor().clamp_max(size - 2).long()
    share = (position - low).to(grids)[..., None, None, None]
    row = torch.arange(len(grids), device=grids.device)[:, None]
    return torch.lerp(grids[row, low], grids[row, low + 1], share)
