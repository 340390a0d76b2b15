"""What every density rule is asked by the trainer, and which rule a configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.configs.config import TrainConfig
from smalti.trainers.density.budget import Budget
from smalti.trainers.density.population import Population


@dataclass(frozen=True, eq=False)
class Sighting:
    """What one training view felt of one layer's primitives, after its backward pass."""

    visible: Bool[Tensor, "n"]
    radii: Float[Tensor, "n"]
    """Pixels."""
    gradient: Float[Tensor, "n 2"] | None
    """d loss of this view / d projected centre, per pixel (sum, or sum of absolute values)."""
    width: int
    height: int


@dataclass(eq=False)
class Change:
    """The moment of a structural change: where we are, and what may be used."""

    step: int
    populations: list[Population]
    budget: Budget
    generator: torch.Generator
    position_rate: float
    """Present learning rate of positions, per unit of scene extent."""


class DensityRule:
    """Does nothing; rules override what they need. `extent` is the scene's, in world units."""

    wants_gradient = False
    """Reads `Sighting.gradient`."""
    absolute_gradient = False
    """Reads the sum of absolute per-pixel gradients instead of their sum."""

    def __init__(self, config: TrainConfig, extent: float) -> None:
        self.config, self.extent = config, extent

    def observe(self, population: Population, sighting: Sighting) -> None:
        """Gather statistics of one view."""

    def feel(self, population: Population, pull: Float[Tensor, "n"], seen: Bool[Tensor, "n"]) -> None:
        """Gather how much one step pulled at each primitive, where the family itself measures it; `seen` by a view."""

    def due(self, step: int) -> bool:
        """Whether the structure changes after `step` steps."""
        density = self.config.density
        return density.start <= step <= density.stop and step % density.every == 0

    def after_update(self, population: Population, change: Change) -> None:
        """After every optimiser step."""

    def change(self, population: Population, doomed: Bool[Tensor, "n"], change: Change) -> dict[str, int]:
        """Change the structure; `doomed` must go in any case. Returns counts for the record."""
        return {"pruned": population.prune(doomed)}


def make_rule(name: str, config: TrainConfig, extent: float) -> DensityRule:
    """The rule of that name (a value of `density.rule`)."""
    from smalti.trainers.density.gradient import GradientRule
    from smalti.trainers.density.mcmc import McmcRule

    rules: dict[str, type[DensityRule]] = {"none": NoRule, "gradient": GradientRule, "mcmc": McmcRule}
    return rules[name](config, extent)


class NoRule(DensityRule):
    """The structure stays as it is."""

    def due(self, step: int) -> bool:
        return False

    def change(self, population: Population, doomed: Bool[Tensor, "n"], change: Change) -> dict[str, Any]:
        return {}
