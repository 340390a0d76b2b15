"""What an edit did to one layer's tensors, as small as the edit: rows that went, came or changed, to the byte.

A tensor after an edit is: the rows that were kept, in their order, then new ones, with some rows overwritten. Constants
that number the rows of a parameter (a mesh's faces) are renumbered in between, so a hole in a mesh costs no more than
what was in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from smalti.primitives.family import Family
from smalti.primitives.rows import RowMap


class EditError(ValueError):
    """An edit that cannot be made; the scene is as it was. The message says why and what to do instead."""


@dataclass(frozen=True, eq=False)
class Renumbering:
    """Row numbers before and after some of `count` rows went."""

    count: int
    removed: Int[Tensor, "r"]

    def _kept(self) -> Int[Tensor, "k"]:
        return torch.nonzero(left_over(self.count, self.removed)).squeeze(1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers before to numbers after."""
        after = left_over(self.count, self.removed).long().cumsum(0) - 1
        return after[numbers.long()].to(numbers.dtype)

    def backward(self, numbers: Tensor) -> Tensor:
        """Numbers after to numbers before."""
        return self._kept()[numbers.long()].to(numbers.dtype)


@dataclass(frozen=True, eq=False)
class TensorChange:
    """Rows that went, came and changed."""

    rows: int
    """Before."""
    removed: Int[Tensor, "r"]
    removed_values: Tensor
    appended: Tensor
    changed: Int[Tensor, "c"]
    """Numbered as after the removal."""
    before: Tensor
    after: Tensor
    renumbering: Renumbering | None = None

    @staticmethod
    def between(old: Tensor, new: Tensor, rows: RowMap | None, renumbering: Renumbering | None) -> TensorChange:
        """`rows` says where the new rows come from, with the fresh ones last; None: every row stayed in its place."""
        count = len(old)
        kept = torch.ones(count, dtype=torch.bool, device=old.device)
        added = 0
        if rows is not None:
            added = int(rows.fresh.sum())
            kept = torch.zeros_like(kept).index_fill(0, rows.source[: len(rows.source) - added], True)
        removed = torch.nonzero(~kept).squeeze(1)
        base = old[kept] if len(removed) else old
        if renumbering is not None and len(renumbering.removed):
            base = renumbering.forward(base)
        stay = new[: len(new) - added]
        changed = torch.nonzero(rows_that_differ(base, stay)).squeeze(1)
        return TensorChange(
            *(count, removed, old[removed], new[len(new) - added :].clone()),
            *(changed, base[changed], stay[changed], renumbering),
        )

    @property
    def bytes(self) -> int:
        """Held in memory."""
        tensors = [self.removed, self.removed_values, self.appended, self.changed, self.before, self.after]
        tensors += [self.renumbering.removed] if self.renumbering is not None else []
        return sum(value.numel() * value.element_size() for value in tensors)

    def forward(self, old: Tensor) -> Tensor:
        """The tensor after the edit."""
        self._require(len(old) == self.rows)
        base = old[left_over(self.rows, self.removed)] if len(self.removed) else old
        if self.renumbering is not None and len(self.renumbering.removed):
            base = self.renumbering.forward(base)
        new = torch.cat([base, self.appended])
        new[self.changed] = self.after
        return new

    def backward(self, new: Tensor) -> Tensor:
        """The tensor before the edit."""
        stay = self.rows - len(self.removed)
        self._require(len(new) == stay + len(self.appended))
        base = new[:stay].clone()
        base[self.changed] = self.before
        if self.renumbering is not None and len(self.renumbering.removed):
            base = self.renumbering.backward(base)
        if not len(self.removed):
            return base
        old = base.new_empty(self.rows, *base.shape[1:])
        old[left_over(self.rows, self.removed)] = base
        old[self.removed] = self.removed_values
        return old

    def _require(self, fits: bool) -> None:
        if not fits:
            raise EditError(
                "undo: a layer's number of rows was changed outside of the history, which fits it no longer; "
                "call scene.history.clear()"
            )


@dataclass(frozen=True, eq=False)
class LayerChange:
    """One layer's tensors and metadata, before and after."""

    layer: str
    tensors: Mapping[str, TensorChange]
    """By name, constants after `constants/`."""
    metadata: tuple[dict[str, Any], dict[str, Any]]

    @staticmethod
    def between(layer: str, old: Family, new: Family, maps: Mapping[str, RowMap] | None = None) -> LayerChange:
        """`maps`: what became of the rows of parameters (`Family.rearrange`) and, under "", of the primitives."""
        maps = maps or {}
        parts: dict[str, TensorChange] = {}
        for name, value in new.parameters.items():
            _note(parts, name, old.parameters[name], value, (maps.get(name), None))
        for name, value in new.constants.items():
            target = new.references().get(name)
            rows = maps.get("") if len(old.constants[name]) == len(old) else None
            renumbering = _renumbering(old, target, maps) if target is not None else None
            _note(parts, f"constants/{name}", old.constants[name], value, (rows, renumbering))
        return LayerChange(layer, parts, (dict(old.metadata), dict(new.metadata)))

    @property
    def bytes(self) -> int:
        """Held in memory by the tensors."""
        return sum(change.bytes for change in self.tensors.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed at all."""
        touched = any(len(c.removed) + len(c.appended) + len(c.changed) for c in self.tensors.values())
        return not touched and self.metadata[0] == self.metadata[1]

    def moved(self, family: Family, forwards: bool) -> Family:
        """A family after the change, or before it; the given one is left alone."""
        result = shallow(family)
        for name, change in self.tensors.items():
            held = result.constants if name.startswith("constants/") else result.parameters
            key = name.removeprefix("constants/")
            held[key] = (change.forward if forwards else change.backward)(held[key].detach())
        result.metadata = dict(self.metadata[1 if forwards else 0])
        return result


def _note(
    parts: dict[str, TensorChange], name: str, old: Tensor, new: Tensor, how: tuple[RowMap | None, Renumbering | None]
) -> None:
    same = new.data_ptr() == old.data_ptr() and new.shape == old.shape
    if not same or (how[1] is not None and len(how[1].removed)):
        parts[name] = TensorChange.between(old.detach(), new.detach(), *how)


def _renumbering(old: Family, target: str, maps: Mapping[str, RowMap]) -> Renumbering | None:
    if target not in maps:
        return None
    count, rows = len(old.parameters[target]), maps[target]
    kept = torch.zeros(count, dtype=torch.bool, device=rows.source.device)
    kept[rows.source[~rows.fresh]] = True
    return Renumbering(count, torch.nonzero(~kept).squeeze(1))


def shallow(family: Family) -> Family:
    """The same tensors in a family object of its own: what replaces tensors in one does not in the other."""
    return family.borrowed()


def install(family: Family, state: Family) -> None:
    """Give `family` the tensors and metadata of `state`, keeping which parameters want gradients."""
    wanted = {key: value.requires_grad for key, value in family.parameters.items()}
    family.constants, family.metadata = dict(state.constants), dict(state.metadata)
    changed = {k: v for k, v in state.parameters.items() if v.data_ptr() != family.parameters[k].data_ptr()}
    family.replace({**changed, **{k: v for k, v in state.parameters.items() if len(v) != len(family.parameters[k])}})
    for key, value in family.parameters.items():
        value.requires_grad_(wanted[key])
    # Whatever the family derived from its tensors is stale now.
    family.check_shapes()


def rows_that_differ(first: Tensor, second: Tensor) -> Bool[Tensor, "n"]:
    """By their bytes: NaN equals itself, -0 differs from 0."""
    if len(first) == 0:
        return torch.zeros(0, dtype=torch.bool, device=first.device)
    one, two = (value.contiguous().reshape(len(value), -1).view(torch.uint8) for value in (first, second))
    return (one != two).any(dim=1)


def left_over(count: int, removed: Int[Tensor, "r"]) -> Bool[Tensor, "n"]:
    """True for every row that is not in `removed`."""
    return torch.ones(count, dtype=torch.bool, device=removed.device).index_fill(0, removed, False)
