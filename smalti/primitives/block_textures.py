"""Textures of blocks and of what stands behind them: many in one atlas without bleeding, pooled on a schedule, and how
much they vary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def atlas(
    textures: Float[Tensor, "n h w 3"], uvs: Float[Tensor, "f 3 2"], overflow: float, around: bool = True
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "m 3 2"]]:
    """All textures on top of each other, and the coordinates of all blocks' face corners in that picture.

    `uvs` are those of the faces that every block has, u at most `overflow` outside of 0..1. Every texture goes on
    around at its sides as far as any face reaches, and has one more row at either pole: no bilinear lookup reads
    another's texels. Where they do not go `around`, their sides are repeated instead. Differentiable in the textures.
    """
    count, height, width = textures.shape[:3]
    pad = math.ceil(overflow * width) + 1
    tall = torch.cat([textures[:, :1], textures, textures[:, -1:]], dim=1)
    left, right = (tall[:, :, -pad:], tall[:, :, :pad]) if around else (tall[:, :, :1], tall[:, :, -1:])
    wide = torch.cat([left.expand(-1, -1, pad, -1), tall, right.expand(-1, -1, pad, -1)], dim=2)
    picture = wide.reshape(count * (height + 2), width + 2 * pad, 3)
    across = (uvs[..., 0] * width + pad) / (width + 2 * pad)
    first = torch.arange(count, device=uvs.device)[:, None, None] * (height + 2) + 1
    down = (first + uvs[..., 1] * height) / (count * (height + 2))
    return picture, torch.stack([across.expand_as(down), down], dim=-1).reshape(-1, 3, 2).to(textures.dtype)


def total_variation(textures: Float[Tensor, "n h w 3"], around: bool = True) -> Float[Tensor, "n"]:
    """Mean over texels of squared forward differences, summed over colours (Monnier et al. 2023, section 3.3); in u
    from the last column on to the first where they go `around`, never over the poles. Differentiable.
    """
    onward = textures.roll(-1, dims=2) if around else textures[:, :, 1:]
    across = (onward - textures[:, :, : onward.shape[2]]).square().sum(dim=3).mean(dim=(1, 2))
    down = (textures[:, 1:] - textures[:, :-1]).square().sum(dim=3).mean(dim=(1, 2))
    return across + down


def pooled(textures: Float[Tensor, "n h w 3"], factor: int) -> Float[Tensor, "n h w 3"]:
    """Averaged over squares of `factor` texels (fewer at the far edges), at the same resolution."""
    if factor == 1:
        return textures
    height, width = textures.shape[1:3]
    planes = textures.permute(0, 3, 1, 2)
    small = torch.nn.functional.avg_pool2d(planes, factor, ceil_mode=True)
    big = small.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return big[:, :, :height, :width].permute(0, 2, 3, 1)


def pool_factor(metadata: Mapping[str, Any], share: float) -> int:
    """Texels over which textures are averaged when `share` of a run is over: `pool` up to `pooled_until`, then 1."""
    return int(metadata["pool"]) if share < metadata["pooled_until"] else 1


def initial_noise(count: int, size: int, seed: int) -> Float[Tensor, "n size size 3"]:
    """What is added to new textures before the sigmoid: N(0, 0.1^2), as published."""
    return 0.1 * torch.randn(count, size, size, 3, generator=torch.Generator().manual_seed(seed))
