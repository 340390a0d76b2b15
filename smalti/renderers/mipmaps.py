"""Coarser levels of a texture, for `TriangleDrawable.mipmaps`: what is far away is looked up where it is averaged.

Level k has max(1, height >> k) rows and max(1, width >> k) columns; every texel is the mean of the texels of the level
before over its own area, so that every level has the texture's mean (docs/kinds.md, section 3; Williams 1983, Pyramidal
parametrics; sides that are not powers of two: Guthe and Heckbert 2005, Non-power-of-two mipmap creation).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mipmap_sizes(height: int, width: int, levels: int | None = None) -> list[tuple[int, int]]:
    """Rows and columns of the levels below the texture itself: at most `levels`, the last has one texel."""
    most = max(height, width).bit_length() - 1
    count = most if levels is None else min(levels, most)
    return [(max(1, height >> k), max(1, width >> k)) for k in range(1, count + 1)]


def mipmaps(texture: Float[Tensor, "h w c"], levels: int | None = None) -> Float[Tensor, "m c"]:
    """The texels of at most `levels` coarser levels (None: down to one texel), level by level, row by row.

    Differentiable: what the levels feel reaches the texture. Where a texture is an atlas, level k mixes neighbours that
    lie less than 2^k texels apart: give parts that far a border of their own colour, or stop before.
    """
    height, width, channels = texture.shape
    sizes = mipmap_sizes(height, width, levels)
    found: list[Tensor] = []
    for _ in sizes:
        texture = _halved(_halved(texture, 0), 1)
        found.append(texture.reshape(-1, channels))
    return torch.cat(found) if found else texture.new_zeros(0, channels)


def mipmap_count(height: int, width: int, texels: int) -> int:
    """How many levels `texels` rows of `mipmaps` are. ValueError where they are no whole number of levels."""
    sizes, left = mipmap_sizes(height, width), texels
    count = 0
    while left > 0 and count < len(sizes):
        left -= sizes[count][0] * sizes[count][1]
        count += 1
    if left:
        ends = [sum(r * c for r, c in sizes[: k + 1]) for k in range(len(sizes))]
        raise ValueError(
            f"{texels} texels are no levels of a texture of {height} x {width} ({', '.join(map(str, ends)) or 'none'} "
            "would be); make them by smalti.renderers.mipmaps.mipmaps"
        )
    return count


def _halved(texture: Tensor, axis: int) -> Tensor:
    """Half as many along an axis: means of two, or of three that share the middle of an odd side by their areas."""
    size = texture.shape[axis]
    if size == 1:
        return texture
    half = size // 2
    if size % 2 == 0:
        first, second = texture.unflatten(axis, (half, 2)).unbind(axis + 1)  # four times as fast as their mean
        return 0.5 * (first + second)
    shape = (half, 1, 1) if axis == 0 else (1, half, 1)
    index = torch.arange(half, device=texture.device, dtype=texture.dtype).reshape(shape)
    # Texels 2i, 2i + 1 and 2i + 2 make texel i, which begins i / half within the first of them.
    pairs = texture.narrow(axis, 0, size - 1).unflatten(axis, (half, 2))
    first, middle = pairs.unbind(axis + 1)
    last = texture.narrow(axis, 1, size - 1).unflatten(axis, (half, 2)).select(axis + 1, 1)
    return ((half - index) * first + half * middle + (index + 1) * last) / size
