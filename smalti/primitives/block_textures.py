"""Textures of blocks and of what stands behind them: many in one atlas without bleeding, pooled on a schedule, and how
much they vary.

Textures are most of what such a scene has to learn, and of the arithmetic in a training step: `drawn_atlas` and
`total_variation` have derivatives of their own, a few passes over the texels instead of dozens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from smalti.primitives.registry import FamilyError


def atlas(
    textures: Float[Tensor, "n h w 3"], uvs: Float[Tensor, "f 3 2"], overflow: float, around: bool = True
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "m 3 2"]]:
    """All textures on top of each other, and the coordinates of all blocks' face corners in that picture.

    `uvs` are those of the faces that every block has, u at most `overflow` outside of 0..1. Every texture goes on
    around at its sides as far as any face reaches, and has one more row at either pole: no bilinear lookup reads
    another's texels. Where they do not go `around`, their sides are repeated instead. The picture is not differentiable
    (`drawn_atlas` is).
    """
    picture = _framed(textures, _padding(textures, overflow), around)
    return picture, _coordinates(textures, uvs, overflow)


def drawn_atlas(
    raw: Float[Tensor, "n h w 3"], pool: int, uvs: Float[Tensor, "f 3 2"], overflow: float, around: bool = True
) -> tuple[Float[Tensor, "height width 3"], Float[Tensor, "m 3 2"]]:
    """`atlas` of the textures' sigmoids, averaged over squares of `pool` texels. Differentiable once, in `raw`."""
    return _DrawnAtlas.apply(raw, pool, _padding(raw, overflow), around), _coordinates(raw, uvs, overflow)


def total_variation(raw: Float[Tensor, "n h w 3"], around: bool = True) -> Float[Tensor, "n"]:
    """Of the sigmoids of textures: mean over texels of squared forward differences, summed over colours (Monnier et
    al. 2023, section 3.3); in u from the last column on to the first where they go `around`, never over the poles.
    Differentiable once.
    """
    return _Variation.apply(raw, around)


def pooled(textures: Float[Tensor, "n h w 3"], factor: int) -> Float[Tensor, "n h w 3"]:
    """Averaged over squares of `factor` texels (fewer at the far edges), at the same resolution. Linear, and its own
    transpose.
    """
    if factor == 1:
        return textures
    height, width = textures.shape[1:3]
    if height % factor or width % factor:
        planes = textures.permute(0, 3, 1, 2)
        small = torch.nn.functional.avg_pool2d(planes, factor, ceil_mode=True)
        big = small.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
        return big[:, :, :height, :width].permute(0, 2, 3, 1)
    squares = textures.reshape(len(textures), height // factor, factor, width // factor, factor, 3)
    return squares.sum(2, keepdim=True).mean(4, keepdim=True).div_(factor).expand(squares.shape).reshape(textures.shape)


def check_blocks(family: str, parameters: Mapping[str, Tensor], widths: Mapping[str, int]) -> None:
    """FamilyError where `translations` are not [n, 3], `rotations` [n, 6], others [n, width], or `raw_textures` not
    [n, h, w, 3].
    """
    for name, width in {"translations": 3, "rotations": 6, **widths}.items():
        got = tuple(parameters[name].shape[1:])
        if got != (width,):
            raise FamilyError(f"family {family}: {name} should be [n, {width}], its rows are {got}")
    textures = parameters["raw_textures"]
    if textures.dim() != 4 or textures.shape[3] != 3:
        raise FamilyError(f"family {family}: raw_textures should be [n, h, w, 3], it is {tuple(textures.shape)}")


def pool_factor(metadata: Mapping[str, Any], share: float) -> int:
    """Texels over which textures are averaged when `share` of a run is over: `pool` up to `pooled_until`, then 1."""
    return int(metadata["pool"]) if share < metadata["pooled_until"] else 1


def initial_noise(count: int, size: int, seed: int) -> Float[Tensor, "n size size 3"]:
    """What is added to new textures before the sigmoid: N(0, 0.1^2), as published."""
    return 0.1 * torch.randn(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


class _DrawnAtlas(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, pool: int, pad: int, around: bool) -> Tensor:
        colors = raw.sigmoid()
        ctx.save_for_backward(colors)
        ctx.how = pool, pad, around
        return _framed(pooled(colors, pool), pad, around)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None, None]:
        (colors,), (pool, pad, around) = ctx.saved_tensors, ctx.how
        inner = _unframed(gradients[0], colors, pad, around)
        return pooled(inner, pool) * colors * (1.0 - colors), None, None, None


class _Variation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, around: bool) -> Tensor:
        colors = raw.sigmoid()
        height, width = colors.shape[1:3]
        slopes = torch.zeros_like(colors)
        down = colors[:, 1:] - colors[:, :-1]
        across = (colors.roll(-1, dims=2) if around else colors[:, :, 1:]) - colors[:, :, : width if around else -1]
        shares = 1.0 / (max(height - 1, 1) * width), 1.0 / (height * (width if around else max(width - 1, 1)))
        squares = [each.flatten(1).square().sum(1) for each in (down, across)]
        value = shares[0] * squares[0] + shares[1] * squares[1]
        down *= 2.0 * shares[0]
        across *= 2.0 * shares[1]
        slopes[:, 1:] += down
        slopes[:, :-1] -= down
        slopes[:, :, 1:] += across[:, :, : width - 1]
        slopes[:, :, : across.shape[2]] -= across
        if around:
            slopes[:, :, 0] += across[:, :, -1]
        slopes *= colors
        ctx.save_for_backward(slopes.mul_(1.0 - colors))
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * gradients[0][:, None, None, None], None


def _padding(textures: Tensor, overflow: float) -> int:
    """Columns that are added at either side."""
    return math.ceil(overflow * textures.shape[2]) + 1


def _coordinates(textures: Tensor, uvs: Tensor, overflow: float) -> Tensor:
    count, height, width = textures.shape[:3]
    pad = _padding(textures, overflow)
    across = (uvs[..., 0] * width + pad) / (width + 2 * pad)
    first = torch.arange(count, device=uvs.device)[:, None, None] * (height + 2) + 1
    down = (first + uvs[..., 1] * height) / (count * (height + 2))
    return torch.stack([across.expand_as(down), down], dim=-1).reshape(-1, 3, 2).to(textures.dtype)


def _framed(textures: Tensor, pad: int, around: bool) -> Tensor:
    count, height, width = textures.shape[:3]
    picture = textures.new_empty(count, height + 2, width + 2 * pad, 3)
    picture[:, 1:-1, pad:-pad] = textures
    picture[:, 1:-1, :pad] = textures[:, :, -pad:] if around else textures[:, :, :1]
    picture[:, 1:-1, -pad:] = textures[:, :, :pad] if around else textures[:, :, -1:]
    picture[:, 0], picture[:, -1] = picture[:, 1], picture[:, -2]
    return picture.reshape(count * (height + 2), width + 2 * pad, 3)


def _unframed(gradient: Tensor, textures: Tensor, pad: int, around: bool) -> Tensor:
    """The transpose of `_framed`."""
    count, height, width = textures.shape[:3]
    framed = gradient.reshape(count, height + 2, width + 2 * pad, 3)
    tall = framed[:, 1:-1].clone()
    tall[:, 0] += framed[:, 0]
    tall[:, -1] += framed[:, -1]
    inner, left, right = tall[:, :, pad:-pad], tall[:, :, :pad], tall[:, :, -pad:]
    if around:
        inner[:, :, -pad:] += left
        inner[:, :, :pad] += right
    else:
        inner[:, :, 0] += left.sum(2)
        inner[:, :, -1] += right.sum(2)
    return inner
