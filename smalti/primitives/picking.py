"""Rows chosen at random by weight."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def picked(weights: Float[Tensor, "n"], count: int, generator: torch.Generator) -> Int[Tensor, "count"]:
    """`count` rows in proportion to `weights` (not negative), with replacement; on the CPU, as the generator is.

    Sums are taken in double precision, so the number of rows is not bounded as that of `torch.multinomial` is.
    """
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    sums = weights.cpu().double().cumsum(0)
    places = torch.rand(count, dtype=torch.float64, generator=generator) * sums[-1]
    return torch.searchsorted(sums, places, right=True).clamp_max(len(sums) - 1)
