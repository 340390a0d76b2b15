"""Bytes move between layers to where they pay: the worth of each layer's cheapest bytes is tried out, and the layer in
which they are worth least gives them to the one in which they are worth most.

At the best division of a budget the last bytes of every layer are worth the same (else some would be moved). What they
are worth is not estimated but tried: the layer's primitives of the least contribution, `exchange.share` of the bytes in
play, are left out of a few training views, and the loss rises by so much. In the layer that takes, primitives branch
(`Family.branch`: copies in one place would stay copies), drawn in proportion to the error that they dominate: every
pixel hands its absolute error to the primitive that weighs most there (after Rota Bulo et al. 2024, who hand it out by
weight). Where no layer's bytes are worth clearly more, they move inside the layer in which they are worth least.
Nothing here knows families: a primitive has a row, a number of bytes, and what a frame with statistics says of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.configs.config import ExchangeConfig
from smalti.primitives.family import Family
from smalti.renderers.frame import Frame
from smalti.scene.scene import Layer, Scene
from smalti.trainers.density.evidence import drawn_count
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change


@dataclass(frozen=True, eq=False)
class Judged:
    """One training view of a scene: the frame with statistics, its absolute error per pixel, its loss."""

    frame: Frame
    error: Float[Tensor, "h w"]
    loss: float


Judge = Callable[[Scene, int], Judged]
"""(scene, row of the training view) -> what is to be said of it. Nothing is differentiated."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a few views say of a scene's primitives, by layer."""

    loss: float
    contribution: dict[str, Float[Tensor, "n"]]
    """Sum of the weights T a."""
    error: dict[str, Float[Tensor, "n"]]
    """Absolute error of the pixels that a primitive dominates."""


class Exchange:
    """See the module. Its state is what layers' bytes were worth so far, smoothed."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config
        self.worth: dict[str, float] = {}
        """By layer, what the last trials of its cheapest bytes cost, as loss per byte of the share."""

    def due(self, step: int, start: int, stop: int) -> bool:
        """Whether bytes move after `step` steps, while structure changes from `start` to `stop`."""
        return self.config.every > 0 and start <= step <= stop and step % self.config.every == 0

    @torch.no_grad()
    def change(self, scene: Scene, change: Change, views: int, judge: Judge) -> dict[str, int]:
        """Move bytes once; `views` is the number of training views. Returns counts for the record."""
        taking_part = [each for each in change.populations if each.changes and each.family.grows and each.layer.visible]
        if not taking_part:
            return {}
        rows = spread(views, self.config.views, change.generator)
        evidence = evidence_of(scene, rows, judge)
        total = sum(each.family.bytes for each in taking_part)
        offers = {each.layer.name: self._offer(each, evidence, total) for each in taking_part}
        for each in taking_part:
            offered = offers[each.layer.name]
            if len(offered):
                without = evidence_of(without_rows(scene, each.layer, offered), rows, judge)
                cost = (without.loss - evidence.loss) / (len(offered) * each.family.bytes_per_primitive)
                before = self.worth.get(each.layer.name, cost)
                self.worth[each.layer.name] = before + self.config.memory * (cost - before)
        giver, taker = self._parties(taking_part, offers, change)
        if giver is None or taker is None:
            return {}
        return self._move(giver, taker, offers[giver.layer.name], evidence, change)

    def _offer(self, population: Population, evidence: Evidence, total: int) -> Int[Tensor, "k"]:
        """The primitives that contribute least, of at most the share's bytes; half a layer stays in any case."""
        family = population.family
        count = min(int(self.config.share * total) // max(family.bytes_per_primitive, 1), len(family) // 2)
        return torch.argsort(evidence.contribution[population.layer.name], stable=True)[:count]

    def _parties(
        self, populations: Sequence[Population], offers: Mapping[str, Tensor], change: Change
    ) -> tuple[Population | None, Population | None]:
        """(who gives, who takes). Where the difference is not worth it, the bytes stay with the giver."""
        givers = [each for each in populations if len(offers[each.layer.name])]
        if not givers:
            return None, None
        giver = min(givers, key=lambda each: self.worth[each.layer.name])
        takers = [each for each in givers if not each.most or len(each) < each.most or each is giver]
        taker = max(takers, key=lambda each: self.worth[each.layer.name])
        if self.worth[taker.layer.name] <= (1.0 + self.config.margin) * max(self.worth[giver.layer.name], 0.0):
            taker = giver
        return giver, taker

    def _move(
        self, giver: Population, taker: Population, offered: Int[Tensor, "k"], evidence: Evidence, change: Change
    ) -> dict[str, int]:
        gone = torch.zeros(len(giver), dtype=torch.bool)
        gone[offered] = True
        error = evidence.error[taker.layer.name]
        if giver is taker:
            error = error[~gone]
        freed = giver.prune(gone.to(giver.family.device))
        wanted = max(freed * giver.family.bytes_per_primitive // max(taker.family.bytes_per_primitive, 1), 1)
        count = min(wanted, change.budget.room(change.populations, taker), int((error > 0).sum()))
        if count > 0:
            hosts = torch.multinomial(error, count, generator=change.generator).sort().values
            taker.branch(hosts.to(taker.family.device), change.generator)
        return {"given": freed, "taken": max(count, 0), "moved_between": freed if giver is not taker else 0}

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"worth": dict(self.worth)}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.worth = {str(name): float(value) for name, value in state["worth"].items()}


def spread(count: int, wanted: int, generator: torch.Generator) -> list[int]:
    """`wanted` of `count` rows (all, where there are fewer), evenly apart from a random first one on."""
    wanted = min(wanted, count)
    first = int(torch.randint(count, (1,), generator=generator))
    return sorted((first + row * count // wanted) % count for row in range(wanted))


def evidence_of(scene: Scene, rows: Sequence[int], judge: Judge) -> Evidence:
    """What these training views say of the scene's primitives."""
    layers = scene.visible_layers()
    counts = [drawn_count(layer.family) for layer in layers]
    contribution, error, loss = torch.zeros(sum(counts)), torch.zeros(sum(counts)), 0.0
    for row in rows:
        judged = judge(scene, row)
        if judged.frame.contribution_sum is None:
            raise ValueError("the renderer gave no contributions; the exchange of bytes needs statistics=True")
        contribution += judged.frame.contribution_sum.cpu()
        dominant = judged.frame.ids["dominant"].reshape(-1).cpu().long()
        hit = dominant >= 0
        error.index_add_(0, dominant[hit], judged.error.reshape(-1).cpu()[hit])
        loss += judged.loss / len(rows)
    parts = zip(layers, contribution.split(counts), error.split(counts), strict=True)
    found = {layer.name: (summed(first, layer.family), summed(second, layer.family)) for layer, first, second in parts}
    return Evidence(loss, {name: pair[0] for name, pair in found.items()}, {n: pair[1] for n, pair in found.items()})


def summed(rows: Float[Tensor, "r"], family: Family) -> Float[Tensor, "n"]:
    """The drawn rows' values of each primitive, added up; on the CPU."""
    owners = family.owners()
    return rows if owners is None else torch.zeros(len(family)).index_add_(0, owners.cpu().long(), rows)


def without_rows(scene: Scene, layer: Layer, rows: Int[Tensor, "k"]) -> Scene:
    """The scene as it would be without some primitives of a layer; it shares everything else with this one."""
    result = Scene(order=scene.order, near=scene.near, background=scene.background)
    for each in scene:
        family = each.family
        if each is layer:
            family = family.borrowed()
            doomed = torch.zeros(len(family), dtype=torch.bool)
            doomed[rows] = True
            family.prune(doomed.to(family.device))
        result.add(each.name, family, visible=each.visible, locked=each.locked, similarity=each.similarity)
    return result
