"""The inverse of softplus, for parameters that are stored before it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def inverse_softplus(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """x with ln(1 + exp(x)) = `values` (floored at 1e-12)."""
    values = values.clamp_min(1e-12)
    return values + torch.log(-torch.expm1(-values))
