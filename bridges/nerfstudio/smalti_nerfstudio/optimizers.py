"""Adam over rows that come and go, as an optimiser of nerfstudio's, and the decay of its rate.

nerfstudio's `Optimizers` own one per parameter: its command line sets the rates, its checkpoints hold the moments and
its schedulers step them. The arithmetic is Smalti's (`smalti.trainers.adam`), so a step is the same as in `smalti
train`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import OptimizerConfig, Optimizers
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from smalti.primitives.family import RowMap
from smalti.trainers import schedules
from smalti.trainers.adam import Adam, AdamSettings, adam_update


class RowAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015) on one parameter.

    The rate is `lr * scale`; the scale is the scene's extent for positions, whose rates are per unit of it. Rows whose
    gradient holds NaN or Inf keep their values and moments; `held` counts them.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float, beta_1: float, beta_2: float) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "beta_1": beta_1, "beta_2": beta_2, "scale": 1.0})
        self.held = 0

    @property
    def parameter(self) -> Tensor:
        """The one."""
        return self.param_groups[0]["params"][0]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update, where there is a gradient."""
        group, parameter = self.param_groups[0], self.parameter
        gradient = parameter.grad
        if gradient is None or parameter.numel() == 0:
            return
        state = self.state[parameter]
        if not state:
            state |= {"first": torch.zeros_like(parameter), "second": torch.zeros_like(parameter), "count": 0}
        state["count"] += 1
        saved = self._spoiled(gradient, state)
        settings = AdamSettings(group["beta_1"], group["beta_2"], group["eps"])
        rate = float(group["lr"]) * float(group["scale"])
        adam_update(parameter.data, gradient, (state["first"], state["second"]), rate, state["count"], settings)
        if saved is not None:
            rows, values = saved
            for tensor, value in zip((parameter.data, state["first"], state["second"]), values, strict=True):
                tensor[rows] = value

    def _spoiled(self, gradient: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]] | None:
        """Rows that must not move, with what they hold; their gradient is cleared."""
        if bool(torch.isfinite(gradient.sum())):  # a sum is finite only where all terms are
            return None
        rows = torch.nonzero(~torch.isfinite(gradient).reshape(len(gradient), -1).all(dim=1)).squeeze(1)
        if not len(rows):
            return None
        self.held += len(rows)
        gradient[rows] = 0
        return rows, [tensor[rows].clone() for tensor in (self.parameter.data, state["first"], state["second"])]

    def exchange(self, parameter: nn.Parameter) -> None:
        """Optimise this tensor from now on, with the moments there are (they have its rows already)."""
        state = self.state.pop(self.parameter, None)
        self.param_groups[0]["params"][0] = parameter
        if state:
            self.state[parameter] = state


@dataclass
class RowAdamConfig(OptimizerConfig):
    """Adam whose rows follow density control"""

    _target: type = field(default_factory=lambda: RowAdam)
    eps: float = 1e-15
    """Adam's epsilon."""
    beta_1: float = 0.9
    """Decay of the first moment."""
    beta_2: float = 0.999
    """Decay of the second moment."""


class Moments(Adam):
    """Smalti's density control moves moments by `layer/parameter`; here they are in nerfstudio's optimisers."""

    def __init__(self, optimizers: Optimizers, group_of: Mapping[str, str]) -> None:
        super().__init__(AdamSettings())
        self.optimizers, self.group_of = optimizers, group_of

    def of(self, name: str) -> RowAdam:
        """The optimiser of a parameter."""
        return self.optimizers.optimizers[self.group_of[name]]

    def rearrange(self, name: str, rows: RowMap) -> None:
        """Follow a change of rows."""
        adam = self.of(name)
        state = adam.state.get(adam.parameter)
        if state:
            state["first"], state["second"] = rows.carry(state["first"]), rows.carry(state["second"])

    def forget(self, name: str, rows: Tensor | None = None) -> None:
        """Zero the moments of `rows`, of all by default."""
        adam = self.of(name)
        state = adam.state.get(adam.parameter)
        for key in ("first", "second") if state else ():
            state[key][slice(None) if rows is None else rows] = 0

    def exchange(self, name: str, parameter: nn.Parameter) -> None:
        """The tensor of that name is another one now."""
        self.of(name).exchange(parameter)
        self.optimizers.parameters[self.group_of[name]] = [parameter]

    @property
    def bytes(self) -> int:
        """Bytes of all moments."""
        states = [state for each in self.group_of for state in self.of(each).state.values()]
        return sum(state[key].numel() * state[key].element_size() for state in states for key in ("first", "second"))


class Decay(LRScheduler):
    """`lr` times Smalti's warm-up and exponential decay to `final` over `steps`. Plain floats alone, so that a
    checkpoint can be read without unpickling numpy's.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, final: float, steps: int, warmup: int) -> None:
        self.final, self.steps, self.warmup = final, steps, warmup
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """Of every group, at `last_epoch`."""
        step = self.last_epoch
        share = schedules.warm_up(step, self.warmup) * schedules.decay(step, self.steps, self.final)
        return [float(base) * share for base in self.base_lrs]


@dataclass
class DecayConfig(SchedulerConfig):
    """Exponential decay over the run"""

    _target: type = field(default_factory=lambda: _DecayMaker)
    final: float = 1.0
    """The rate decays to this share of itself."""
    steps: int = 0
    """Over so many steps; 0: the length of the run."""
    warmup: int = 0
    """Steps of linear warm-up."""


class _DecayMaker(Scheduler):
    config: DecayConfig

    def get_scheduler(self, optimizer: torch.optim.Optimizer, lr_init: float) -> LRScheduler:
        return Decay(optimizer, self.config.final, self.config.steps, self.config.warmup)


def follow_run(optimizers: Optimizers, steps: int) -> None:
    """Give the length of the run to every decay that was told none."""
    for scheduler in optimizers.schedulers.values():
        if isinstance(scheduler, Decay) and scheduler.steps == 0:
            scheduler.steps = steps


def rate_of(adam: Any) -> float:
    """The present rate, without the scale."""
    return float(adam.param_groups[0]["lr"])
