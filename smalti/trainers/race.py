"""Which way of dividing the bytes among layers pays, found by training on with each for a while.

What bytes are worth in a layer, measured by leaving some out, says how much a picture leans on them, not what as many
would do in another layer that had learned to stand in for them: of two families, one behind the other, the first keeps
a third of the bytes by that measure, and half a decibel is lost. So the run itself is asked, once, before bytes move
between layers: it goes on in a twin as it is, and in one for each layer that is given the bytes of all others; the
least loss is followed. What a trial costs is `exchange.race` steps for each of them. A layer that could not take all
within these steps, because it began with too few to branch from, has not shown what it does alone, and is not followed:
it would go on to displace what the picture is made of (seen once, at 3 % of the primitives; it cost 8 dB).
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from smalti.trainers.adam import Adam
from smalti.trainers.density.population import Population
from smalti.trainers.edited import EditedState, trained_layers
from smalti.trainers.ordering import ViewOrder
from smalti.trainers.perceptual import perceptual_term
from smalti.trainers.refinement import Refinement

if TYPE_CHECKING:
    from smalti.trainers.trainer import Trainer


def raced(trainer: Trainer) -> str:
    """The layer that is to have the bytes of all others, or "" where they do best as they are.

    What counts is the loss at the end, of the same training views for all of them (the losses of steps are of one view
    each, and come to differ by the order of views). Of the trainer nothing is changed.
    """
    config, count = trainer.config.exchange, len(trainer.source)
    wanted = min(count, 4 * config.views)
    rows = [number * count // wanted for number in range(wanted)]
    losses: dict[str, float] = {}
    for choice in ("", *trainer.exchange.candidates(trainer.active)):
        twin = twin_of(trainer)
        twin.exchange.choice = choice
        twin.move_bytes()
        for _ in range(config.race):
            twin.step()
        loss = twin.loss_of(rows) if twin.exchange.is_settled(twin.active) else math.inf
        losses[choice] = loss if math.isfinite(loss) else math.inf
    return min(losses, key=lambda choice: losses[choice])


def twin_of(trainer: Trainer) -> Trainer:
    """A trainer in the same state that shares nothing with this one but what neither changes: pictures, cameras, the
    configuration. It goes on as this one would; it is not to be saved (the run folder is the first one's).
    """
    twin = copy(trainer)
    twin.generator = torch.Generator()
    twin.generator.set_state(trainer.generator.get_state())
    twin.notices = []
    twin.scene = trainer.scene.like()
    twin.scene.near = trainer.scene.near
    twin.scene.layers = {layer.name: replace(layer, family=layer.family.copy()) for layer in trainer.scene}
    for layer in twin.scene:
        layer.family.require_gradients(not layer.locked)
    twin.adam = Adam(trainer.adam.settings)
    twin.adam.load(*trainer.adam.state(), trainer.device)
    twin.order = ViewOrder(trainer.order.count, twin.generator)
    twin.order.load(trainer.order.state())
    twin.refinement = Refinement(trainer.config.refine, len(trainer.source), trainer.extent)
    twin.refinement.load(trainer.refinement.state())
    twin.budget = copy(trainer.budget)
    twin.exchange = copy(trainer.exchange)
    twin.exchange.load(trainer.exchange.state())
    if trainer.perceptual is not None:
        twin.perceptual = perceptual_term(trainer.config.loss, twin.generator, trainer.perceptual.kind)
    statistics = {population.layer.name: population.state() for population in trainer.populations}
    populations = [Population(layer, twin.adam) for layer in trained_layers(twin.scene)]
    for population in populations:
        population.load(statistics[population.layer.name])
    context = trainer.options.context
    assert context is not None
    twin.plan(populations, replace(context, generator=twin.generator))
    twin.edited = EditedState(twin)
    return twin
