"""Density control as Markov chain Monte Carlo (Kheradmand et al. 2024): relocation of the dead, growth by sharing,
noise.

Relocation and growth leave the picture as it is: host and newcomers share opacity and extent exactly (their equation
9). Noise on positions is weighted by transparency and shaped by each primitive. It is scaled so that a scene in other
units moves alike: strength = noise * rate / extent, with the rate per unit of extent (the paper's where the extent is
1).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from smalti.primitives.picking import picked
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change, DensityRule


class McmcRule(DensityRule):
    """See the module."""

    def after_update(self, population: Population, change: Change) -> None:
        strength = self.config.mcmc.noise * change.position_rate / self.extent
        if strength > 0:
            population.family.perturb(strength, change.generator)

    @torch.no_grad()
    def change(self, population: Population, doomed: Bool[Tensor, "n"], change: Change) -> dict[str, int]:
        opacity = population.family.opacities().cpu().nan_to_num(0.0)
        dead = (opacity <= self.config.density.opacity_min) | doomed.cpu()
        if bool(dead.all()):
            return {}
        excess = change.budget.excess(change.populations, population)
        if excess > 0:
            return {"pruned": population.prune(_faintest(opacity, dead, excess).to(doomed.device))}
        rows = torch.nonzero(dead).squeeze(1)
        hosts = picked(torch.where(dead, torch.zeros_like(opacity), opacity), len(rows), change.generator)
        population.relocate(rows.to(doomed.device), hosts.to(doomed.device))
        wanted = int(len(population) * self.config.mcmc.growth)
        granted = change.budget.grant(change.populations, population, wanted)
        opacity = population.family.opacities().cpu().nan_to_num(0.0)
        hosts = picked(opacity, granted, change.generator)
        population.multiply(hosts.to(doomed.device))
        return {"relocated": len(rows), "grown": granted, "refused": wanted - granted}


def _faintest(opacity: Tensor, dead: Tensor, count: int) -> Bool[Tensor, "n"]:
    """The `count` rows to give up: the dead first, then by opacity; at least one row stays."""
    order = torch.argsort(torch.where(dead, torch.full_like(opacity, -1.0), opacity), stable=True)
    doomed = torch.zeros_like(dead)
    doomed[order[: min(count, len(order) - 1)]] = True
    return doomed
