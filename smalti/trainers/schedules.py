"""What depends on the step alone: learning rates, colour degree, resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from smalti.configs.config import OptimizerConfig, ScheduleConfig, TrainConfig
from smalti.primitives.family import Family


def length(config: TrainConfig) -> int:
    """Steps that shares of the run are of."""
    return config.schedule.length or config.run.steps


def share(step: int, config: TrainConfig) -> float:
    """How much of the schedule is over, 0..1."""
    return min(step / length(config), 1.0)


def decay(step: int, steps: int, final: float) -> float:
    """Exponential from 1 at step 0 to `final` at `steps`."""
    return final ** min(max(step / max(steps, 1), 0.0), 1.0)


def warm_up(step: int, warmup: int) -> float:
    """Linear from 1 / (warmup + 1) at step 0 to 1 at `warmup`."""
    return min((step + 1) / (warmup + 1), 1.0)


def dropped(step: int, drops: Sequence[tuple[int, float]]) -> float:
    """The product of the factors of all [step, factor] that came."""
    return math.prod(factor for at, factor in drops if step >= at)


def weight_factor(step: int, term: str, changes: Sequence[tuple[int, str, float]], layer: str = "") -> float:
    """What the weight of `term` (of the pictures, or of `layer`) is multiplied by: the product of the factors of all
    [step, term, factor] that came and name it, with or without its layer.
    """
    names = (term, f"{layer}/{term}") if layer else (term,)
    return math.prod(factor for at, name, factor in changes if step >= at and name in names)


def learning_rates(
    family: Family, given: Mapping[str, float], config: OptimizerConfig, step: int, steps: int
) -> dict[str, float]:
    """Rate by parameter name, `given` over the family's defaults, before multiplication of position rates with the
    scene's extent.
    """
    base = {name: rate for name, rate in family.default_learning_rates().items() if name in family.parameters}
    base |= given
    positions = set(family.position_parameters())
    warm = warm_up(step, config.warmup) * dropped(step, config.drops)
    return {
        name: rate * warm * decay(step, steps, config.position_final if name in positions else config.other_final)
        for name, rate in base.items()
    }


def color_degree(step: int, config: ScheduleConfig) -> int:
    """Degree of spherical harmonics in use; families cap it at what they hold."""
    return step // config.sh_every


def reduction(step: int, config: ScheduleConfig) -> int:
    """Further reduction of the pictures at this step."""
    for until, factor in config.resolution:
        if step < until:
            return factor
    return 1
