"""Which primitives the training cameras do not support: too near to a camera, too faint in every view, seen by too
few views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Shaped
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
    views = {layer.name: torch.zeros(len(layer.family), dtype=torch.int64) for layer in layers}
    for camera in cameras:
        frame = draw(scene, camera)
        if frame.contribution_max is None:
            raise ValueError("the renderer gave no contributions; contribution pruning needs statistics=True")
        start = 0
        for layer in layers:
            rows = slice(start, start + drawn_count(layer.family))
            start = rows.stop
            largest = fold(frame.contribution_max[rows], layer.family)
            views[layer.name] += largest.cpu() >= config.minimum
    few = max(config.min_views, 1)
    return {layer.name: (views[layer.name] < few).to(layer.family.device) for layer in layers}


def drawn_count(family: Family) -> int:
    """How many rows a family's drawables have together."""
    owners = family.owners()
    return len(family) if owners is None else len(owners)


def fold(rows: Shaped[Tensor, "r"], family: Family) -> Shaped[Tensor, "n"]:
    """The largest of the drawn rows' values of each primitive, 0 where a primitive draws none."""
    owners = family.owners()
    if owners is None:
        return rows
    start = torch.zeros(len(family), dtype=rows.dtype, device=rows.device)
    return start.scatter_reduce(0, owners.to(rows.device).long(), rows, "amax", include_self=True)
