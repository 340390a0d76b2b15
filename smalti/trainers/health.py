"""Whether a training went well enough to be called finished: numbers that are numbers, a scene that draws something."""

from __future__ import annotations

import math

import torch

from smalti.trainers.trainer import Trainer

VIEWS = 8
"""Training views that are drawn, evenly spread."""
SEEN = 1 / 255
"""A scene none of whose pixels is more opaque than this, in any of the views, is gone."""


@torch.no_grad()
def ailments(trainer: Trainer) -> list[str]:
    """What is wrong with the trained scene, a phrase each; nothing where all is well.

    The loss of the last step or a parameter is NaN or Inf, all primitives are gone, or pictures of training views are
    NaN or empty.
    """
    found: list[str] = []
    losses = [each for each in trainer.run.metrics() if each["kind"] == "train"]
    if losses and losses[-1]["loss"] is None:
        found.append(f"the loss of step {losses[-1]['step']} is NaN or Inf")
    for layer in trainer.scene:
        bad = [name for name, value in layer.family.parameters.items() if not bool(torch.isfinite(value).all())]
        if bad:
            found.append(f"layer {layer.name!r} has NaN or Inf in {', '.join(bad)}")
    if not trainer.scene.visible_layers():
        return [*found, "no primitive is left"]
    most = 0.0
    for row in range(0, len(trainer.cameras), math.ceil(len(trainer.cameras) / VIEWS)):
        camera = trainer.cameras[row]
        small = camera.scaled_to(max(camera.width // 4, 1), max(camera.height // 4, 1))
        frame = trainer.scene.render(small.to(torch.float32), backend=trainer.backend)
        if not bool(torch.isfinite(frame.color).all()):
            return [*found, f"the picture of view {camera.name} is NaN or Inf"]
        most = max(most, float(frame.alpha.max()))
    if most < SEEN:
        found.append("the pictures of the training views are empty: what is left of the scene is not seen")
    return found
