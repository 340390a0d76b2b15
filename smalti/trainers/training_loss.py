"""How well a finished scene explains the pictures that it was trained on: what runs that differ in their seed are
compared by. Held-out views have no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from smalti.renderers.render import render
from smalti.trainers.losses import image_loss, psnr_of
from smalti.trainers.trainer import Trainer


@dataclass(frozen=True)
class TrainingLoss:
    """Means over all training views."""

    loss: float
    """Of the pictures alone, with the weights of the last step; the perceptual term on whole pictures."""
    psnr: float
    """dB."""


@torch.no_grad()
def training_loss(trainer: Trainer) -> TrainingLoss:
    """Draw all training views with the scene as it is, at full resolution, over the stated background, with refined
    poses and exposures. No random number is drawn.
    """
    options = trainer.options.at(max(trainer.step_number - 1, 0))
    scene, source = trainer.scene, trainer.source
    loss, quality = 0.0, 0.0
    for index in range(len(source)):
        view = source.plain(index, trainer.device)
        camera = trainer.refinement.camera(view.camera, index)
        frame = render(
            scene.drawables(camera), camera, background=view.background, settings=scene.settings(),
            backend=trainer.backend,
        )  # fmt: skip
        color = trainer.refinement.exposed(frame.color, index)
        value = float(image_loss(color, view.target, view.mask, options.image))
        if options.perceptual is not None and options.perceptual.weight > 0:
            seen = options.perceptual.measure(color, view.target, view.mask)
            value += options.perceptual.weight * float(seen)
        loss += value / len(source)
        quality += psnr_of(color, view.target, view.mask) / len(source)
    return TrainingLoss(loss, quality)
