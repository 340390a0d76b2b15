"""Points and directions as users write them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Point = Sequence[float] | Tensor


def vector(values: Point, what: str) -> Float[Tensor, "3"]:
    """Three finite numbers as float64; ValueError for anything else.

    >>> from smalti.scene.vectors import vector
    >>> vector([1, 2, 3], "offset").tolist()
    [1.0, 2.0, 3.0]
    """
    result = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if tuple(result.shape) != (3,) or not bool(torch.isfinite(result).all()):
        raise ValueError(f"{what}: expected three finite numbers, got {values}")
    return result


def direction(values: Point, what: str) -> Float[Tensor, "3"]:
    """A unit vector, float64; ValueError for zero.

    >>> from smalti.scene.vectors import direction
    >>> direction([0, 0, 2], "axis").tolist()
    [0.0, 0.0, 1.0]
    """
    result = vector(values, what)
    if not float(result.norm()) > 0:
        raise ValueError(f"{what}: a direction cannot be zero")
    return result / result.norm()
