"""Structural changes as values: which old row every new row is copied from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowMap:
    """A change of the rows: new row i is a copy of old row `source[i]`; where `fresh[i]`, its moments start at zero."""

    source: Int[Tensor, "m"]
    fresh: Bool[Tensor, "m"]

    @staticmethod
    def keep(mask: Bool[Tensor, "n"]) -> RowMap:
        """Only the rows in `mask`, in their order."""
        source = torch.nonzero(mask).squeeze(1)
        return RowMap(source, torch.zeros_like(source, dtype=torch.bool))

    @staticmethod
    def append(count: int, rows: Int[Tensor, "k"]) -> RowMap:
        """All `count` rows, then fresh copies of `rows`."""
        source = torch.cat([torch.arange(count, device=rows.device), rows])
        return RowMap(source, torch.arange(len(source), device=rows.device) >= count)

    @staticmethod
    def overwrite(count: int, targets: Int[Tensor, "k"], sources: Int[Tensor, "k"]) -> RowMap:
        """The same number of rows; row `targets[j]` becomes a fresh copy of row `sources[j]`."""
        source = torch.arange(count, device=targets.device)
        source[targets] = sources
        fresh = torch.zeros(count, dtype=torch.bool, device=targets.device)
        fresh[targets] = True
        return RowMap(source, fresh)

    def carry(self, rows: Tensor) -> Tensor:
        """`rows` after the change; fresh rows are zero."""
        moved = rows[self.source]
        moved[self.fresh] = 0
        return moved

    def then(self, later: RowMap) -> RowMap:
        """This change and then `later` in one."""
        return RowMap(self.source[later.source], self.fresh[later.source] | later.fresh)

    def with_fresh(self, rows: Int[Tensor, "k"]) -> RowMap:
        """The same change, in which the new rows `rows` start with zero moments too."""
        fresh = self.fresh.clone()
        fresh[rows] = True
        return RowMap(self.source, fresh)


@dataclass(frozen=True, eq=False)
class Restructure:
    """A change of a family's structure, which it has already made to itself."""

    primitives: RowMap
    """What became of the primitives: statistics follow it."""
    parameters: Mapping[str, RowMap]
    """What became of every parameter's own rows: optimiser moments follow these."""
