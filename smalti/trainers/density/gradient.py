"""The rule of 3D Gaussian splatting (Kerbl et al. 2023, section 5.2): clone and split where the picture pulls, prune,
reset.

The pull is the mean, over the views that saw a primitive, of the length of d loss / d centre with the centre measured
in half picture sizes, so that the threshold does not depend on the resolution. With `absolute` it is the sum of
absolute per-pixel gradients (Ye et al. 2024, AbsGS). Families may measure it themselves (`Family.growth_signal`):
neural splats by their networks' gradients, of which `prune_pull` is the lower threshold (Zhou et al. 2025).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.configs.config import TrainConfig
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change, DensityRule, Sighting


class GradientRule(DensityRule):
    """See the module."""

    wants_gradient = True

    def __init__(self, config: TrainConfig, extent: float) -> None:
        super().__init__(config, extent)
        self.options = config.gradient
        self.absolute_gradient = self.options.absolute

    @torch.no_grad()
    def observe(self, population: Population, sighting: Sighting) -> None:
        seen = sighting.visible
        if sighting.gradient is None:
            return
        half = sighting.gradient.new_tensor([0.5 * sighting.width, 0.5 * sighting.height])
        pull = torch.linalg.vector_norm(sighting.gradient * half, dim=1)
        population.statistic("pull").add_(torch.where(seen & torch.isfinite(pull), pull, torch.zeros_like(pull)))
        population.statistic("seen").add_(seen.to(pull))
        share = sighting.radii / max(sighting.width, sighting.height)
        torch.maximum(population.statistic("radius"), share.to(pull), out=population.statistic("radius"))

    @torch.no_grad()
    def feel(self, population: Population, pull: Float[Tensor, "n"], seen: Bool[Tensor, "n"]) -> None:
        population.statistic("pull").add_(torch.where(seen & torch.isfinite(pull), pull, torch.zeros_like(pull)))
        population.statistic("seen").add_(seen.to(pull))

    def after_update(self, population: Population, change: Change) -> None:
        if self._is_reset(change.step):
            population.family.cap_opacities(self.options.reset_opacity)
            for name in population.family.opacity_parameters():
                population.adam.forget(f"{population.layer.name}/{name}")

    @torch.no_grad()
    def change(self, population: Population, doomed: Bool[Tensor, "n"], change: Change) -> dict[str, int]:
        """Prune first, so that the growth may use the room. Where everything would go, nothing does: an empty scene
        trains no more.
        """
        gone = doomed | self._useless(population, change.step)
        pruned = 0 if bool(gone.all()) else population.prune(gone)
        pull = _mean_pull(population)
        wanting = torch.nonzero(pull >= self.options.threshold).squeeze(1)
        granted = change.budget.grant(change.populations, population, len(wanting))
        refused = len(wanting) - granted
        if refused:
            strongest = torch.argsort(pull[wanting], descending=True, stable=True)[:granted]
            wanting = wanting[strongest].sort().values
        size = population.family.sizes().detach().amax(dim=1)
        small = size[wanting] <= self.options.clone_size * self.extent
        cloned, parted = wanting[small], wanting[~small]
        population.clone(cloned)
        population.split(parted, change.generator)
        for name in ("pull", "seen", "radius"):
            population.statistic(name).zero_()
        return {"pruned": pruned, "cloned": len(cloned), "split": len(parted), "refused": refused}

    def _useless(self, population: Population, step: int) -> Bool[Tensor, "n"]:
        useless = population.family.opacities() < self.config.density.opacity_min
        if self.options.reset_every and step > self.options.reset_every:
            useless |= population.family.sizes().amax(dim=1) > self.options.prune_size * self.extent
            useless |= population.statistic("radius") > self.options.prune_screen
        if self.options.prune_pull:
            idle = (population.statistic("seen") > 0) & (_mean_pull(population) < self.options.prune_pull)
            if not bool((useless | idle).all()):  # where nothing pulls any more, everything would go
                useless |= idle
        return useless

    def _is_reset(self, step: int) -> bool:
        every = self.options.reset_every
        # Not so late that opacities could not recover before growth (and pruning) ends.
        return bool(every) and step > 0 and step % every == 0 and step + every // 2 <= self.config.density.stop


def _mean_pull(population: Population) -> Float[Tensor, "n"]:
    """Over the views that saw each primitive; 0 where none did."""
    return population.statistic("pull") / population.statistic("seen").clamp_min(1)
