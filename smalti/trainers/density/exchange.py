"""Bytes move to where they pay, inside layers and between them.

Inside every layer, the primitives that contribute least to a few training views go, and as many branch elsewhere
(`Family.branch`: copies in one place would stay copies), drawn in proportion to the error that they dominate: every
pixel hands its absolute error to the primitive that weighs most there (after Rota Bulo et al. 2024, who hand it out by
weight).
Between layers: at the best division of a budget the last bytes of every layer are worth the same, else some would be
moved. What they are worth is not estimated but tried: the share `exchange.trial` of a layer's primitives, those of
least contribution, is left out of these views, and the loss rises by so much per byte. (An equal share of each layer,
not equal bytes: those would be the very last of a large layer and half of a small one.) The layer in which they are
worth least gives bytes to the one in which they are worth most, where that is clearly more.
With `exchange.race` that is for layers which do better together than any of them would with the bytes of all: the run
finds that out first (`race.py`), and where one does better alone the others give all but their last primitive.
Nothing here knows families: a primitive has a row, a number of bytes, and what a frame with statistics says of it.
"""

from __future__ import annotations

import math
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
    """See the module. Its state is what layers' bytes were worth so far, smoothed, and who won them all."""

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config
        self.worth: dict[str, float] = {}
        """By layer, what the trials of its cheapest bytes cost, as loss per byte."""
        self.choice: str | None = None
        """The layer that is to have all bytes, "" where all share them, None as long as they did not race for them."""

    def due(self, step: int, start: int, stop: int) -> bool:
        """Whether bytes move after `step` steps, while structure changes from `start` to `stop`."""
        return self.config.every > 0 and start <= step <= stop and step % self.config.every == 0

    def candidates(self, populations: Sequence[Population]) -> list[str]:
        """The layers among which bytes may move."""
        return [each.layer.name for each in _taking_part(populations)]

    def undecided(self, populations: Sequence[Population]) -> bool:
        """Whether these layers are to race for the bytes before any are moved."""
        return self.config.race > 0 and self.choice is None and len(_taking_part(populations)) > 1

    def is_settled(self, populations: Sequence[Population]) -> bool:
        """Whether the layer that is to have all bytes has them: the others are down to one primitive."""
        return self._winner(populations) is None or all(
            len(each) <= 1 for each in _taking_part(populations) if each.layer.name != self.choice
        )

    @torch.no_grad()
    def change(self, scene: Scene, change: Change, views: int, judge: Judge) -> dict[str, int]:
        """Move bytes once; `views` is the number of training views. Returns counts for the record."""
        able = [each for each in change.populations if each.changes and each.family.grows and each.layer.visible]
        taking_part = [each for each in able if len(each)]
        if not taking_part:
            return {}
        rows = spread(views, self.config.views, change.generator)
        evidence = evidence_of(scene, rows, judge)
        if len(taking_part) > 1 and self._winner(taking_part) is None:
            for each in taking_part:
                self._try(each, scene, rows, evidence, judge)
        giver, taker = self._parties(taking_part)
        hosts = int((evidence.error[taker.layer.name] > 0).sum()) - int(self.config.share * len(taker))
        given = self._given(giver, taker, taking_part, hosts) if giver is not taker else 0
        gone: dict[str, int] = {}
        kept: dict[str, Tensor] = {}
        for each in taking_part:
            name = each.layer.name
            own = min(int(self.config.share * len(each)), int((evidence.error[name] > 0).sum()) // 2)
            stay = torch.ones(len(each), dtype=torch.bool)
            stay[_cheapest(each, evidence)[: min(own + (given if each is giver else 0), len(each) - 1)]] = False
            gone[name], kept[name] = each.prune(~stay.to(each.family.device)), evidence.error[name][stay]
        freed = given * giver.family.bytes_per_primitive
        taken = 0
        for each in taking_part:
            wanted = gone[each.layer.name] - (given if each is giver else 0)
            if each is taker and given:
                wanted += max(freed // max(each.family.bytes_per_primitive, 1), 1)
            taken += self._branch(each, wanted, kept[each.layer.name], change)
        return {"moved": taken, "moved_between": given}

    def _try(self, population: Population, scene: Scene, rows: Sequence[int], evidence: Evidence, judge: Judge) -> None:
        """Learn what a layer's cheapest bytes are worth."""
        name = population.layer.name
        tried = _cheapest(population, evidence)[: math.ceil(self.config.trial * len(population))]
        without = evidence_of(without_rows(scene, population.layer, tried), rows, judge)
        cost = (without.loss - evidence.loss) / (len(tried) * max(population.family.bytes_per_primitive, 1))
        before = self.worth.get(name, cost)
        self.worth[name] = before + self.config.memory * (cost - before)

    def _parties(self, populations: Sequence[Population]) -> tuple[Population, Population]:
        """(who gives, who takes), the same one where no difference is worth it or nobody can."""
        givers = [each for each in populations if len(each) > 1]
        winner = self._winner(populations)
        if winner is not None:
            losers = [each for each in givers if each is not winner]
            return (max(losers, key=lambda each: each.family.bytes), winner) if losers else (winner, winner)
        takers = [each for each in populations if not each.most or len(each) < each.most]
        if len(populations) < 2 or not givers or not takers:
            return populations[0], populations[0]
        giver = min(givers, key=lambda each: self.worth[each.layer.name])
        taker = max(takers, key=lambda each: self.worth[each.layer.name])
        low, high = self.worth[giver.layer.name], self.worth[taker.layer.name]
        return (giver, taker) if high > (1.0 + self.config.margin) * max(low, 0.0) else (giver, giver)

    def _given(self, giver: Population, taker: Population, populations: Sequence[Population], hosts: int) -> int:
        """How many primitives the giver gives: the share of all bytes, at most a quarter of what it has left, and no
        more than half of the taker's could be hosts for; where the taker won the race all but one, if it has as many
        hosts. `hosts`: primitives of the taker that there is any error to hand to.
        """
        size, larger = max(giver.family.bytes_per_primitive, 1), max(taker.family.bytes_per_primitive, 1)
        wanted = int(self.config.share * sum(each.family.bytes for each in populations)) // size
        won = taker is self._winner(populations)
        hosts = max(hosts if won else min(len(taker) // 2, hosts), 1)
        hosts = min(hosts, taker.most - len(taker)) if taker.most else hosts
        left = len(giver) - 1 if won else min(max(wanted, 1), max(len(giver) // 4, 1))
        return min(left, -(-hosts * larger // size))

    def _winner(self, populations: Sequence[Population]) -> Population | None:
        """Who is to have all bytes, if that was found and it is still among these."""
        return next((each for each in populations if each.layer.name == self.choice), None)

    def _branch(self, population: Population, wanted: int, error: Float[Tensor, "n"], change: Change) -> int:
        room = change.budget.room(change.populations, population)
        count = min(wanted, room, int((error > 0).sum()))
        if count <= 0:
            return 0
        hosts = torch.multinomial(error, count, generator=change.generator).sort().values
        population.branch(hosts.to(population.family.device), change.generator)
        return count

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"worth": dict(self.worth), "choice": self.choice}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.worth = {str(name): float(value) for name, value in state["worth"].items()}
        self.choice = state.get("choice")


def _taking_part(populations: Sequence[Population]) -> list[Population]:
    return [each for each in populations if each.changes and each.family.grows and each.layer.visible]


def _cheapest(population: Population, evidence: Evidence) -> Int[Tensor, "n"]:
    """A layer's rows, those of the least contribution first."""
    return torch.argsort(evidence.contribution[population.layer.name], stable=True)


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
    result = scene.like()
    for each in scene:
        family = each.family
        if each is layer:
            family = family.borrowed()
            doomed = torch.zeros(len(family), dtype=torch.bool)
            doomed[rows] = True
            family.prune(doomed.to(family.device))
        result.add(each.name, family, visible=each.visible, locked=each.locked, similarity=each.similarity)
    return result
