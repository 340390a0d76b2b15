"""One step's forward and backward: a function of (scene, views). Gradients add up in the leaves; nothing is updated
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from smalti.primitives.family import Drawable, LossContext
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.scene.scene import Layer, Scene
from smalti.trainers.density.budget import CardMemory
from smalti.trainers.density.evidence import fold
from smalti.trainers.density.rule import Sighting
from smalti.trainers.guard import BadGradient, find_bad_gradients
from smalti.trainers.losses import (
    DepthLoss,
    ImageLossWeights,
    family_loss,
    image_loss,
    psnr_of,
)
from smalti.trainers.perceptual import PerceptualTerm
from smalti.trainers.refinement import Refinement
from smalti.trainers.schedules import weight_factor
from smalti.trainers.views import TrainingView


@dataclass(frozen=True, eq=False)
class StepOptions:
    """What a step needs to know besides scene and views."""

    image: ImageLossWeights
    perceptual: PerceptualTerm | None = None
    """Of pictures, beside `image`."""
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of the families' own loss terms: layer -> term -> weight."""
    changes: Sequence[tuple[int, str, float]] = ()
    """[step, term, factor] that multiply weights (`schedule.weights`)."""
    context: LossContext | None = None
    """For these terms; needed where there are weights."""
    backend: str = "auto"
    absolute_gradient: bool = False
    depth_loss: DepthLoss | None = None

    def at(self, step: int) -> StepOptions:
        """With the weights as they are at `step`, and no changes to come."""
        if not self.changes:
            return self
        factor = partial(weight_factor, step, changes=self.changes)
        seen = self.perceptual
        return replace(
            self,
            image=replace(self.image, dssim=self.image.dssim * factor("dssim")),
            perceptual=None if seen is None else replace(seen, weight=seen.weight * factor("perceptual")),
            weights={
                layer: {term: weight * factor(term, layer=layer) for term, weight in terms.items()}
                for layer, terms in self.weights.items()
            },
            changes=(),
        )


@dataclass(eq=False)
class StepResult:
    """What a step found."""

    loss: float
    psnr: float
    """Of the step's own pictures, mean."""
    sightings: list[dict[str, Sighting]]
    """Per view, by layer."""
    pulls: dict[str, Tensor]
    """By layer, how much the step's views together pull at each primitive, where the family measures it itself."""
    bad: list[BadGradient] = field(default_factory=list)
    arena: int = 0
    """Bytes that the renderer held for the largest of the renders."""

    def seen(self, layer: str) -> Bool[Tensor, "n"]:
        """Which primitives of a drawn layer were in a picture of the step."""
        return torch.stack([each[layer].visible for each in self.sightings if layer in each]).any(dim=0)


def backward(
    scene: Scene, views: Sequence[TrainingView], refinement: Refinement, options: StepOptions, step: int
) -> StepResult:
    """Mean loss over the views plus the regularisers, differentiated; views one after another, so memory does not
    grow.
    """
    options = options.at(step)
    trained = [layer for layer in scene.visible_layers() if not layer.locked]
    for layer in scene:  # those that were hidden meanwhile, too: no gradient of theirs is used twice
        for parameter in layer.family.parameters.values():
            parameter.grad = None
    total, quality, arena = 0.0, 0.0, 0
    sightings: list[dict[str, Sighting]] = []
    bad: list[BadGradient] = []
    for view in views:
        card = CardMemory(view.background.device)
        camera = refinement.camera(view.camera, view.index)
        drawn = [(layer, list(layer.drawables(camera, camera.time))) for layer in scene.visible_layers()]
        drawables = [drawable for _, parts in drawn for drawable in parts]
        settings = scene.settings(depth=options.depth_loss is not None, absolute_gradient=options.absolute_gradient)
        frame = render(drawables, camera, background=view.background, settings=settings, backend=options.backend)
        color = refinement.exposed(frame.color, view.index)
        loss = image_loss(color, view.target, view.mask, options.image)
        if options.perceptual is not None:
            seen = options.perceptual(color, view.target, view.mask, step)
            loss = loss if seen is None else loss + seen.to(loss)
        extra = refinement.loss(view.index)
        if extra is not None:
            loss = loss + extra.to(loss)
        if options.depth_loss is not None:
            loss = loss + options.depth_loss(frame, camera, view.index)
        (loss / len(views)).backward()
        arena = max(arena, frame.visibility.memory.get("arena", 0))
        total += float(loss.detach()) / len(views)
        quality += psnr_of(color, view.target, view.mask) / len(views)
        sightings.append(_sightings(drawn, frame, view, len(views), options.absolute_gradient))
        for layer in trained:
            bad += find_bad_gradients(layer, step, (view.camera.name,), bad)
        del frame, color, loss, drawn, drawables  # one render at a time holds memory
        arena = max(arena, card.taken())
    pulls = {layer.name: layer.family.growth_signal() for layer in trained}
    for layer in trained:
        weights = options.weights.get(layer.name)
        loss = family_loss(layer.family, weights, options.context) if weights and options.context else None
        if loss is not None and loss.requires_grad:
            loss.backward()
            bad += find_bad_gradients(layer, step, (), bad)
        total += 0.0 if loss is None else float(loss.detach())
    felt = {name: pull for name, pull in pulls.items() if pull is not None}
    return StepResult(total, quality, sightings, felt, bad, arena)


def _sightings(
    drawn: Sequence[tuple[Layer, list[Drawable]]], frame: Frame, view: TrainingView, batch: int, absolute: bool
) -> dict[str, Sighting]:
    """The frame's visibility, cut into layers and folded to primitives; gradients as if the view had been the only one
    of its step, None for families whose drawn rows are not their primitives.
    """
    result, start = {}, 0
    gradient = frame.visibility.screen_gradient.get("absolute" if absolute else "sum")
    for layer, parts in drawn:
        rows = slice(start, start + sum(len(part) for part in parts))
        start = rows.stop
        folded = layer.family.owners() is not None
        result[layer.name] = Sighting(
            visible=fold(frame.visibility.visible[rows].to(torch.uint8), layer.family).bool(),
            radii=fold(frame.visibility.radii[rows], layer.family),
            gradient=None if gradient is None or folded else torch.as_tensor(gradient[rows]).detach() * batch,
            width=view.camera.width,
            height=view.camera.height,
        )
    return result
