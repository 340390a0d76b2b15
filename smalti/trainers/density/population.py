"""A layer's primitives together with everything whose rows must follow them: optimiser moments and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from smalti.primitives.family import Restructure
from smalti.scene.scene import Layer
from smalti.trainers.adam import Adam
from smalti.trainers.guard import BadGradient


class Population:
    """Clone, split, prune and relocate the rows of one layer; parameters, moments and statistics stay aligned."""

    most = 0
    """Primitives that this layer may grow to; 0 for no limit of its own."""
    changes = True
    """Whether a rule changes their number."""

    def __init__(self, layer: Layer, adam: Adam) -> None:
        self.layer = layer
        self.family = layer.family
        self.adam = adam
        self.statistics: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.family)

    @property
    def bytes_per_primitive(self) -> int:
        """Parameters, gradients and two moments, and the statistics."""
        extra = sum(value[:1].numel() * value.element_size() for value in self.statistics.values())
        return 4 * self.family.bytes_per_primitive + extra

    @property
    def bytes(self) -> int:
        """All of them now, by their exact sizes; constants have neither gradient nor moments."""
        held = sum(value.numel() * value.element_size() for value in self.family.parameters.values())
        statistics = sum(value.numel() * value.element_size() for value in self.statistics.values())
        return self.family.bytes + 3 * held + statistics

    def statistic(self, name: str) -> Tensor:
        """Running float32 statistic of one number per primitive, zero at first."""
        if name not in self.statistics:
            self.statistics[name] = torch.zeros(len(self), device=self.family.device)
        return self.statistics[name]

    def parameters(self) -> dict[str, Tensor]:
        """Parameters by their full names `layer/parameter`."""
        return {f"{self.layer.name}/{key}": value for key, value in self.family.parameters.items()}

    def rows_to_hold(self, bad: Sequence[BadGradient]) -> dict[str, Int[Tensor, "k"]]:
        """By parameter's full name, the rows of all primitives of which a gradient of this layer is bad."""
        found: dict[str, list[Tensor]] = {}
        for each in bad:
            if each.layer == self.layer.name:
                for name, rows in self.family.same_primitives(each.parameter, each.rows).items():
                    found.setdefault(f"{self.layer.name}/{name}", []).append(rows)
        return {name: torch.unique(torch.cat(rows)) for name, rows in found.items()}

    def _follow(self, change: Restructure) -> None:
        """Moments and statistics after a structural change of the family."""
        for name, rows in change.parameters.items():
            self.adam.rearrange(f"{self.layer.name}/{name}", rows)
        self.statistics = {key: change.primitives.carry(value) for key, value in self.statistics.items()}

    # -- the changes --------------------------------------------------------------------------------------------------
    def prune(self, doomed: Bool[Tensor, "n"]) -> int:
        """Remove primitives; returns how many."""
        count = int(doomed.sum())
        if count:
            self._follow(self.family.prune(doomed))
        return count

    def clone(self, rows: Int[Tensor, "k"]) -> None:
        """Append an exact copy of each of `rows`, with zero moments."""
        if len(rows):
            self._follow(self.family.clone(rows))

    def split(self, rows: Int[Tensor, "k"], generator: torch.Generator, copies: int = 2) -> None:
        """Replace each of `rows` by `copies` smaller ones inside it, with zero moments, at the end."""
        if len(rows):
            self._follow(self.family.split(rows, copies, generator))

    def branch(self, rows: Int[Tensor, "k"], generator: torch.Generator) -> None:
        """One primitive more in the place of each of `rows`, as the family sees fit."""
        if len(rows):
            self._follow(self.family.branch(rows, generator))

    def relocate(self, dead: Int[Tensor, "k"], hosts: Int[Tensor, "k"]) -> None:
        """Move `dead[j]` onto `hosts[j]`; host and newcomers share what the host drew, all with zero moments."""
        if len(dead):
            self._follow(self.family.relocate(dead, hosts))

    def multiply(self, hosts: Int[Tensor, "k"]) -> None:
        """Append a copy on each of `hosts`; host and newcomers share what the host drew, all with zero moments."""
        if len(hosts):
            self._follow(self.family.multiply(hosts))

    # -- state --------------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """Statistics by name."""
        return dict(self.statistics)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.statistics = {key: value.to(self.family.device).clone() for key, value in tensors.items()}
