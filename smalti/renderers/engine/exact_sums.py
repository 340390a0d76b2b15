"""Sums by integer atomics (fixed_sums_cuda.h): the same bits in whatever order threads add; their units, and back.

A value is added as two integers: its whole part in units of 2^-k, and the rest. No word overflows: with N additions at
most, a value counts less than 2^62 / N units, and so does its rest in units that are as much smaller. So what is larger
than about N^2 / 2^124 of the greatest addition is kept: with a million of them, 84 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.engine.library import KIND_TENSORS
from smalti.renderers.engine.parameters import address

WORD_BITS = 62
LEAST_EXPONENT = -900
"""Of the greatest addition: below, its unit would be no double any more."""
TABLE_ADDITIONS = 8
"""To one element by one event: all corners of a trilinear lookup, where a grid has one voxel."""
CARRIED_AT_ONCE = 1 << 24
"""Elements, so that the doubles on the way take little memory."""
ADD_FLOATS, MEASURE, ADD_FIXED = 0, 1, 2
"""Passes over tables (TablePass)."""


def rest_bits(additions: int) -> int:
    """Bits of one addition, so that so many of them cannot overflow a word."""
    return WORD_BITS - max(additions, 1).bit_length()


@dataclass(eq=False)
class FixedVector:
    """Sums [n] of non-negative numbers up to 1, `additions` of them at most."""

    plain: Tensor
    words: Tensor | None
    bits: int

    @classmethod
    def over(cls, plain: Tensor, additions: int, deterministic: bool) -> FixedVector:
        """Into `plain`, zeros; by integers where it must be deterministic."""
        words = torch.zeros((*plain.shape, 2), dtype=torch.int64, device=plain.device) if deterministic else None
        return cls(plain, words, rest_bits(additions))

    def structure(self, structures: SimpleNamespace) -> Any:
        """FixedSums. The unit leaves room for weights that rounding has lifted above 1."""
        return structures.FixedSums(address(self.plain), address(self.words), self.unit, 2.0**self.bits)

    @property
    def unit(self) -> float:
        return 2.0 ** (self.bits - 1)

    def finish(self) -> None:
        """Carry the words into `plain`."""
        if self.words is not None:
            _carry(self.words, self.plain, self.unit, 2.0**self.bits)


class FixedTables:
    """Gradients of textures and voxels in fixed point: measured in one pass, added in a second."""

    def __init__(self, tables: dict[int, Tensor], drawables: int, additions: int) -> None:
        """`tables`: zeros to add to, by drawable * KIND_TENSORS + number of the tensor; at least one."""
        self.tables = tables
        like = next(iter(tables.values()))
        places, total = [0] * (drawables * KIND_TENSORS), 0
        for place, table in tables.items():
            places[place], total = total, total + table.numel()
        self.places = torch.tensor(places, device=like.device)
        self.words = torch.zeros((total, 2), dtype=torch.int64, device=like.device)
        self.most = torch.zeros(len(places), dtype=like.dtype, device=like.device)
        self.units = torch.zeros(len(places), dtype=torch.float64, device=like.device)
        self.bits = rest_bits(TABLE_ADDITIONS * additions)

    def structure(self, structures: SimpleNamespace, table_pass: int) -> Any:
        """ExactTables."""
        tensors = [address(t) for t in (self.words, self.places, self.units, self.most)]
        return structures.ExactTables(*tensors, 2.0**self.bits, table_pass)

    def choose_units(self) -> None:
        """After the measuring pass. Waits for the device."""
        exponents = [math.frexp(most)[1] for most in self.most.tolist()]
        units = [2.0 ** (self.bits - max(exponent, LEAST_EXPONENT)) for exponent in exponents]
        self.units.copy_(torch.tensor(units, dtype=torch.float64))

    def finish(self) -> None:
        """After the adding pass: carry the words into the tables."""
        units, places = self.units.tolist(), self.places.tolist()
        for place, table in self.tables.items():
            words = self.words[places[place] : places[place] + table.numel()]
            _carry(words, table.view(-1), units[place], 2.0**self.bits)


def _carry(words: Tensor, to: Tensor, unit: float, rest_unit: float) -> None:
    """What was not finite is in `to` already, as NaN, and stays."""
    for part, sums in zip(words.split(CARRIED_AT_ONCE), to.split(CARRIED_AT_ONCE), strict=True):
        whole, rest = part[:, 0].double(), part[:, 1].double()
        sums += (whole / unit + rest / rest_unit / unit).to(to.dtype)
