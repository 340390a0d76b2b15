"""Texture lookups in torch, as kind `triangle` does them: bilinear, texel centres at +0.5, clamped or wrapped in u."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def texture_lookup(
    texture: Float[Tensor, "h w c"], uvs: Float[Tensor, "n 2"], wrap: bool = False
) -> Float[Tensor, "n c"]:
    """Values at (u, v). Differentiable."""
    height, width = texture.shape[:2]
    x, y = uvs[:, 0] * width - 0.5, (uvs[:, 1] * height - 0.5).clamp(0, height - 1)
    if not wrap:
        x = x.clamp(0, width - 1)
    left, top = x.floor(), y.floor()
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns = [(left.long() + k) % width if wrap else (left.long() + k).clamp_max(width - 1) for k in (0, 1)]
    rows = [(top.long() + k).clamp_max(height - 1) for k in (0, 1)]
    upper, lower = (torch.lerp(texture[row, columns[0]], texture[row, columns[1]], across) for row in rows)
    return torch.lerp(upper, lower, down)


def logit(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The inverse of the sigmoid, of values kept 1e-4 away from 0 and 1."""
    return torch.logit(values.clamp(1e-4, 1 - 1e-4))
