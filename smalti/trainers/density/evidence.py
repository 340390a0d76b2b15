"""Which primitives the training cameras do not support: too near to a camera, too faint in every view, seen by too
few views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import ContributionConfig
from smalti.primitives.family import Family
from smalti.renderers.frame import Frame
from smalti.scene.scene import Scene


@torch.no_grad()
def near_cameras(family: Family, centres: Float[Tensor, "v 3"], distance: float, rows: int = 8192) -> Bool[Tensor, "n"]:
    """Primitives whose centre is nearer than `distance` (world units) to any camera centre: floaters on the lens."""
    positions = family.positions().detach()
    near = torch.zeros(len(family), dtype=torch.bool, device=family.device)
    if distance <= 0:
        return near
    centres = centres.to(positions)
    for start in range(0, len(positions), rows):
        part = positions[start : start + rows]
        near[start : start + rows] = (part[:, None] - centres[None]).square().sum(2).amin(1) < distance * distance
    return near


@torch.no_grad()
def unsupported(
    scene: Scene, cameras: Iterable[Camera], config: ContributionConfig, draw: Callable[[Scene, Camera], Frame]
) -> dict[str, Bool[Tensor, "n"]]:
    """By layer, the primitives that contribute too little: `draw` renders with statistics, one picture per camera.

    Too little is a largest weight T a below `minimum` in every view, or at least `minimum` in fewer than `min_views`
    views.
    """
    layers = scene.visible_layers()
    counts: Sequence[int] = [len(layer.family) for layer in layers]
    views = torch.zeros(sum(counts), dtype=torch.int64, device=layers[0].family.device)
    for camera in cameras:
        frame = draw(scene, camera)
        if frame.contribution_max is None:
            raise ValueError("the renderer gave no contributions; contribution pruning needs statistics=True")
        views += frame.contribution_max.to(views.device) >= config.minimum
    parts = (views < max(config.min_views, 1)).split(list(counts))
    return {layer.name: part for layer, part in zip(layers, parts, strict=True)}
