"""Adam (Kingma and Ba 2015, algorithm 1) over named structure-of-arrays parameters whose rows come and go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.primitives.family import RowMap


@dataclass(frozen=True)
class AdamSettings:
    """Decay of the moments, and epsilon."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-15


@torch.no_grad()
def adam_update(
    parameter: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], rate: float, step: int, settings: AdamSettings
) -> None:
    """One step, in place, of a contiguous tensor and its two moments; `step` counts from 1."""
    if parameter.device.type == "cpu" and parameter.dtype in (torch.float32, torch.float64):
        from smalti.renderers.engine.training import adam_update as native_adam_update

        constants = (settings.beta_1, settings.beta_2, settings.epsilon)
        return native_adam_update(parameter, gradient.contiguous(), moments, rate, step, constants)
    first, second = moments
    first.lerp_(gradient, 1.0 - settings.beta_1)
    second.mul_(settings.beta_2).addcmul_(gradient, gradient, value=1.0 - settings.beta_2)
    correction = math.sqrt(1.0 - settings.beta_2**step)
    denominator = second.sqrt().div_(correction).add_(settings.epsilon)
    parameter.addcdiv_(first, denominator, value=-rate / (1.0 - settings.beta_1**step))


class Adam:
    """Moments by parameter name; density control moves their rows along with the parameters'."""

    def __init__(self, settings: AdamSettings) -> None:
        self.settings = settings
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.counts: dict[str, int] = {}

    def step(
        self,
        parameters: Mapping[str, Tensor],
        rates: Mapping[str, float],
        held: Mapping[str, Int[Tensor, "k"]] | None = None,
    ) -> None:
        """Update every parameter that has a gradient; rows in `held` keep their values and moments exactly."""
        for name, parameter in parameters.items():
            gradient = parameter.grad
            if gradient is None:
                continue
            if name not in self.moments:
                self.moments[name] = (torch.zeros_like(parameter.data), torch.zeros_like(parameter.data))
                self.counts[name] = 0
            self.counts[name] += 1
            rows = (held or {}).get(name)
            saved = None
            if rows is not None and len(rows):
                gradient[rows] = 0
                saved = [tensor[rows].clone() for tensor in (parameter.data, *self.moments[name])]
            adam_update(parameter.data, gradient, self.moments[name], rates[name], self.counts[name], self.settings)
            if saved is not None:
                for tensor, value in zip((parameter.data, *self.moments[name]), saved, strict=True):
                    tensor[rows] = value

    def rearrange(self, name: str, rows: RowMap) -> None:
        """Follow a change of the parameter's rows; fresh rows start with zero moments."""
        if name in self.moments:
            first, second = self.moments[name]
            self.moments[name] = (rows.carry(first), rows.carry(second))

    def forget(self, name: str, rows: Int[Tensor, "k"] | None = None) -> None:
        """Zero the moments of `rows` (of all by default), after values were set from outside."""
        for moment in self.moments.get(name, ()):
            moment[slice(None) if rows is None else rows] = 0

    @property
    def bytes(self) -> int:
        """Bytes of all moments."""
        return sum(moment.numel() * moment.element_size() for pair in self.moments.values() for moment in pair)

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """(tensors, step counts)."""
        tensors = {
            f"{name}/{order}": pair[k]
            for name, pair in self.moments.items()
            for k, order in enumerate(("first", "second"))
        }
        return tensors, dict(self.counts)

    def load(self, tensors: Mapping[str, Tensor], counts: Mapping[str, int], device: torch.device) -> None:
        """The inverse of `state`."""
        self.counts = dict(counts)
        self.moments = {
            name: (tensors[f"{name}/first"].to(device).clone(), tensors[f"{name}/second"].to(device).clone())
            for name in counts
        }


class RowAdam:
    """Adam on a small table of which only the visited rows move: each with its own step count (poses, exposures)."""

    def __init__(self, shape: tuple[int, ...], settings: AdamSettings) -> None:
        self.settings = settings
        self.first, self.second = torch.zeros(shape), torch.zeros(shape)
        self.counts = torch.zeros(shape[0], dtype=torch.int64)

    @torch.no_grad()
    def step(self, table: Float[Tensor, "v ..."], rows: list[int], rate: float) -> list[int]:
        """Move `rows` of `table` against its gradient and clear it; rows with NaN or Inf stay, and are returned."""
        gradient, bad = table.grad, []
        if gradient is None:
            return bad
        for row in sorted(set(rows)):
            if not bool(torch.isfinite(gradient[row]).all()):
                bad.append(row)
                continue
            self.counts[row] += 1
            moments = (self.first[row], self.second[row])
            adam_update(table.data[row], gradient[row], moments, rate, int(self.counts[row]), self.settings)
        table.grad = None
        return bad

    def state(self) -> dict[str, Tensor]:
        """Moments and counts."""
        return {"first": self.first, "second": self.second, "counts": self.counts}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.first, self.second, self.counts = (tensors[key].clone() for key in ("first", "second", "counts"))
