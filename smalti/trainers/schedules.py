"""What depends on the step alone: learning rates, colour degree, resolution."""

from __future__ import annotations

from collections.abc import Mapping

from smalti.configs.config import OptimizerConfig, ScheduleConfig
from smalti.primitives.family import Family


def decay(step: int, steps: int, final: float) -> float:
    """Exponential from 1 at step 0 to `final` at `steps`."""
    return final ** min(max(step / max(steps, 1), 0.0), 1.0)


def warm_up(step: int, warmup: int) -> float:
    """Linear from 1 / (warmup + 1) at step 0 to 1 at `warmup`."""
    return min((step + 1) / (warmup + 1), 1.0)


def learning_rates(
    family: Family, given: Mapping[str, float], config: OptimizerConfig, step: int, steps: int
) -> dict[str, float]:
    """Rate by parameter name, `given` over the family's defaults, before multiplication of position rates with the
    scene's extent.
    """
    base = {name: rate for name, rate in family.default_learning_rates().items() if name in family.parameters}
    base |= given
    positions = set(family.position_parameters())
    warm = warm_up(step, config.warmup)
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
