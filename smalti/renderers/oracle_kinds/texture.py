"""Lookups in pictures and voxel grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def bilinear(texture: Float[Tensor, "h w c"], uv: Float[Tensor, "k 2"], wrap: bool) -> Float[Tensor, "k c"]:
    """Texel centres at +0.5, u over the width and v over the height; clamped at the border, or repeated in u."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (uv[:, 1] * height - 0.5).clamp(0, height - 1)
    x = x if wrap else x.clamp(0, width - 1)
    left, top = x.detach().floor(), y.detach().floor()
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    columns = [(left.long() + k) % width if wrap else (left.long() + k).clamp(max=width - 1) for k in range(2)]
    rows = [(top.long() + k).clamp(max=height - 1) for k in range(2)]
    upper, lower = ((1 - fx) * texture[r, columns[0]] + fx * texture[r, columns[1]] for r in rows)
    return (1 - fy) * upper + fy * lower


def mipmapped(
    levels: Sequence[Float[Tensor, "h w c"]], uv: Float[Tensor, "k 2"], width: Float[Tensor, "k"], wrap: bool
) -> Float[Tensor, "k c"]:
    """From the two levels whose texels are next to `width` texels of the first wide, in shares that make it that."""
    found = uv.new_zeros(len(uv), levels[0].shape[2])
    for k, level in enumerate(levels):
        size = 2.0**k
        share = torch.ones_like(width)
        if k + 1 < len(levels):
            share = 2 - width / size
        if k > 0:
            share = torch.where(width < size, 2 * width / size - 1, share)
        seen = (share.detach() > 0).nonzero()[:, 0]
        found = found.index_add(0, seen, share[seen, None] * bilinear(level, uv[seen], wrap))
    return found


def trilinear(
    grids: Float[Tensor, "n z y x c"], row: Int[Tensor, "k"], y: Float[Tensor, "k 3"]
) -> Float[Tensor, "k c"]:
    """Corner-aligned: -1 is the first voxel's centre, +1 the last's; y's x component runs along the last voxel axis."""
    total = y.new_zeros(len(y), grids.shape[-1])
    lower: list[Tensor] = []
    share: list[Tensor] = []
    sizes = [grids.shape[3], grids.shape[2], grids.shape[1]]
    for axis, size in enumerate(sizes):
        place = (y[:, axis] + 1) / 2 * (size - 1)
        floor = place.detach().floor().clamp(0, max(size - 2, 0))
        lower.append(floor.long())
        share.append(place - floor)
    for corner in range(8):
        step = [corner >> axis & 1 for axis in range(3)]
        weight = torch.ones_like(y[:, 0])
        for axis in range(3):
            weight = weight * (share[axis] if step[axis] else 1 - share[axis])
        x, y_, z = (torch.clamp(lower[axis] + step[axis], max=sizes[axis] - 1) for axis in range(3))
        total = total + weight[:, None] * grids[row, z, y_, x]
    return total
