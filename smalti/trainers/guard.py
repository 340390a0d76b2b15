"""NaN and Inf in gradients: named by layer, parameter, primitives and views, and kept away from the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from smalti.scene.scene import Layer

NAMED_ROWS = 8
"""Rows written out in a message; the rest is counted."""


class BadGradientError(FloatingPointError):
    """Training was told to stop at a gradient that is not a number."""


@dataclass(frozen=True, eq=False)
class BadGradient:
    """One parameter's rows with NaN or Inf."""

    layer: str
    parameter: str
    rows: Int[Tensor, "k"]
    views: tuple[str, ...]
    step: int

    def __str__(self) -> str:
        shown = ", ".join(str(row) for row in self.rows[:NAMED_ROWS].tolist())
        more = f" and {len(self.rows) - NAMED_ROWS} more" if len(self.rows) > NAMED_ROWS else ""
        views = ", ".join(self.views) or "regulariser"
        where = f"{self.layer}/{self.parameter}"
        return f"step {self.step}: gradient of {where} is NaN or Inf in primitives {shown}{more} (view {views})"


@torch.no_grad()
def find_bad_gradients(
    layer: Layer, step: int, views: tuple[str, ...], known: Sequence[BadGradient] = ()
) -> list[BadGradient]:
    """All parameters of a layer whose gradients hold NaN or Inf in rows that are not `known` to do so (gradients add up
    over the views of a step, so that what one view spoiled stays spoiled). One pass where there are none.
    """
    found = []
    for name, parameter in layer.family.parameters.items():
        gradient = parameter.grad
        # A sum is finite only where all terms are; where it is not (overflow included), look closely.
        if gradient is None or gradient.numel() == 0 or bool(torch.isfinite(gradient.sum())):
            continue
        bad = ~torch.isfinite(gradient).reshape(len(gradient), -1).all(dim=1)
        for each in known:
            if (each.layer, each.parameter) == (layer.name, name):
                bad[each.rows] = False
        if bool(bad.any()):
            found.append(BadGradient(layer.name, name, torch.nonzero(bad).squeeze(1), views, step))
    return found
