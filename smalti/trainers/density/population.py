"""A layer's primitives together with everything whose rows must follow them: optimiser moments and statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from smalti.primitives.family import RowMap
from smalti.scene.scene import Layer
from smalti.trainers.adam import Adam

MOST_COPIES = 51
"""Copies that one primitive may be shared into at once (float64 holds the alternating sum up to here)."""


class Population:
    """Clone, split, prune and relocate the rows of one layer; parameters, moments and statistics stay aligned."""

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

    def statistic(self, name: str) -> Tensor:
        """Running float32 statistic of one number per primitive, zero at first."""
        if name not in self.statistics:
            self.statistics[name] = torch.zeros(len(self), device=self.family.device)
        return self.statistics[name]

    def parameters(self) -> dict[str, Tensor]:
        """Parameters by their full names `layer/parameter`."""
        return {f"{self.layer.name}/{key}": value for key, value in self.family.parameters.items()}

    def rearrange(self, rows: RowMap) -> None:
        """Apply one structural change to all that follows the rows."""
        for name in self.parameters():
            self.adam.rearrange(name, rows)
        self.statistics = {key: rows.carry(value) for key, value in self.statistics.items()}
        self.family.rearrange(rows)

    # -- the four changes ---------------------------------------------------------------------------------------------
    def prune(self, doomed: Bool[Tensor, "n"]) -> int:
        """Remove primitives; returns how many."""
        count = int(doomed.sum())
        if count:
            self.rearrange(RowMap.keep(~doomed))
        return count

    def clone(self, rows: Int[Tensor, "k"]) -> None:
        """Append an exact copy of each of `rows`, with zero moments."""
        if len(rows):
            self.rearrange(RowMap.append(len(self), rows))

    def split(self, rows: Int[Tensor, "k"], generator: torch.Generator, copies: int = 2) -> None:
        """Replace each of `rows` by `copies` smaller ones inside it, with zero moments, at the end."""
        if not len(rows):
            return
        keep = torch.ones(len(self), dtype=torch.bool, device=rows.device)
        keep[rows] = False
        kept = torch.nonzero(keep).squeeze(1)
        source = torch.cat([kept, rows.repeat(copies)])
        self.rearrange(RowMap(source, torch.arange(len(source), device=rows.device) >= len(kept)))
        self.family.shrink_split(torch.arange(len(kept), len(source), device=rows.device), copies, generator)

    def relocate(self, dead: Int[Tensor, "k"], hosts: Int[Tensor, "k"]) -> None:
        """Move `dead[j]` onto `hosts[j]`; host and newcomers share what the host drew, all with zero moments."""
        if not len(dead):
            return
        touched = self._share(hosts)
        rows = RowMap.overwrite(len(self), dead, hosts)
        fresh = rows.fresh.clone()
        fresh[touched] = True
        self.rearrange(RowMap(rows.source, fresh))

    def multiply(self, hosts: Int[Tensor, "k"]) -> None:
        """Append a copy on each of `hosts`; host and newcomers share what the host drew, all with zero moments."""
        if not len(hosts):
            return
        touched = self._share(hosts)
        rows = RowMap.append(len(self), hosts)
        fresh = rows.fresh.clone()
        fresh[touched] = True
        self.rearrange(RowMap(rows.source, fresh))

    def _share(self, hosts: Int[Tensor, "k"]) -> Int[Tensor, "u"]:
        touched, times = torch.unique(hosts, return_counts=True)
        self.family.share_opacity(touched, (times + 1).clamp_max(MOST_COPIES))
        return touched

    # -- state --------------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """Statistics by name."""
        return dict(self.statistics)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.statistics = {key: value.to(self.family.device).clone() for key, value in tensors.items()}
