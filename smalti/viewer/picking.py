"""What is seen at a pixel, and how far apart primitives usually are."""

from __future__ import annotations

import torch

from smalti.cameras.camera import Camera
from smalti.scene.scene import Scene
from smalti.scene.selection import positions

REACH = 3
"""Pixels around the one that was clicked in which something is looked for, where there is nothing at it."""
FAINTEST = 1 / 255
"""Alpha from which something is at a pixel."""
SAMPLES, BLOCK, MOST = 200, 20_000, 200_000
"""Primitives whose nearest neighbours are looked for, with how many they are compared at once, and in all."""


@torch.no_grad()
def pick(scene: Scene, camera: Camera, x: float, y: float, backend: str = "auto") -> tuple[str, int] | None:
    """(layer, primitive) that makes up most of what is seen at a place of the picture (pixels); where nothing is, at
    the nearest pixel up to `REACH` away; else None.
    """
    layers = scene.visible_layers()
    spot = _nearest_hit(scene, camera, int(x), int(y), backend) if layers else None
    if spot is None:
        return None
    view = camera.cropped(*spot, 1, 1)
    # Sums, not the largest event: what is marched through makes up its share in many small steps.
    counting = "auto" if backend == "gsplat" else backend  # it has no statistics
    shares = scene.render(view, settings=scene.settings(statistics=True), backend=counting).contribution_sum
    assert shares is not None
    drawn = int(shares.argmax())
    for held in layers:
        count = sum(len(each) for each in held.drawables(view, view.time))
        if drawn < count:
            owners = held.family.owners()
            return held.name, drawn if owners is None else int(owners[drawn])
        drawn -= count
    return None


def _nearest_hit(scene: Scene, camera: Camera, column: int, row: int, backend: str) -> tuple[int, int] | None:
    """(column, row) of the nearest pixel at which something is."""
    left, top = max(column - REACH, 0), max(row - REACH, 0)
    right, bottom = min(column + REACH + 1, camera.width), min(row + REACH + 1, camera.height)
    if left >= right or top >= bottom:
        return None
    view = camera.cropped(left, top, right - left, bottom - top)
    alpha = scene.render(view, backend=backend).alpha.cpu()
    hits = torch.nonzero(alpha >= FAINTEST)
    if not len(hits):
        return None
    away = (hits - torch.tensor([row - top, column - left])).square().sum(dim=1)
    y, x = hits[int(away.argmin())].tolist()
    return left + x, top + y


@torch.no_grad()
def usual_distance(scene: Scene) -> float:
    """From a primitive to its nearest neighbour: the median of some. 1 where there are not two."""
    parts = [positions(held).cpu() for held in scene]
    points = torch.cat(parts).float() if parts else torch.zeros(0, 3)
    points = points[torch.isfinite(points).all(dim=1)]
    if len(points) < 2:
        return 1.0
    thinned = max(len(points) // MOST, 1)
    points = points[::thinned]
    some = points[:: max(len(points) // SAMPLES, 1)][:SAMPLES]
    nearest = torch.full((len(some),), torch.inf)
    for block in points.split(BLOCK):
        distance = torch.cdist(some, block)
        nearest = torch.minimum(nearest, torch.where(distance > 0, distance, torch.inf).amin(dim=1))
    usable = nearest[torch.isfinite(nearest)]
    return float(usable.median()) * thinned ** (-1 / 3) if len(usable) else 1.0
