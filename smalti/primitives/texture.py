"""Texture lookups in torch, as kind `triangle` does them: bilinear, texel centres at +0.5, clamped or wrapped in u."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
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


def shared_logits(logits: Float[Tensor, "k"], copies: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Logits of 1 - (1 - o)^(1/N), kept 1e-6 away from 0 and 1: N layers of them pass what one of opacity o passed."""
    share = -torch.expm1(torch.nn.functional.logsigmoid(-logits.double()) / copies)
    return torch.logit(share.clamp(1e-6, 1 - 1e-6)).to(logits)


@torch.no_grad()
def painted(
    corner_colors: Float[Tensor, "f 3 3"], uvs: Float[Tensor, "f 3 2"], size: int
) -> Float[Tensor, "size size 3"]:
    """A texture for `face_cells` that shows colours interpolated between the corners; mid grey elsewhere."""
    texture = torch.full((size * size, 3), 0.5, device=uvs.device, dtype=uvs.dtype)
    origin = uvs[:, 0] * size - 0.5
    edge_1, edge_2 = (uvs[:, 1] - uvs[:, 0]) * size, (uvs[:, 2] - uvs[:, 0]) * size
    reach = int(edge_1[:, 0].abs().max().round()) + 1 if len(uvs) else 0
    for i in range(reach + 1):
        for j in range(reach + 1 - i):
            # The diagonal beyond the corners is what bilinear lookups on the long edge read: extrapolated.
            second, third = i / edge_1[:, 0].abs(), j / edge_2[:, 1].abs()
            weights = torch.stack([1 - second - third, second, third], dim=1)
            value = (corner_colors * weights[..., None]).sum(dim=1).clamp(0, 1)
            texel = (origin + torch.stack([i * edge_1[:, 0].sign(), j * edge_2[:, 1].sign()], dim=1)).round().long()
            texture[texel[:, 1] * size + texel[:, 0]] = value
    return texture.reshape(size, size, 3)
