"""Selections through a camera: rectangles, lassos, and by what primitives contribute to pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.scene.selection import Masks, Selection, positions

if TYPE_CHECKING:
    from smalti.scene.scene import Scene

LEAST = 0.05
"""Share of some pixel's light (T a) that a primitive must make up to count as seen."""


@torch.no_grad()
def contributions(scene: Scene, camera: Camera) -> dict[str, Float[Tensor, "n"]]:
    """The largest share (T a) of any pixel of the picture that each primitive makes up, by visible layer.

    >>> from smalti.scene import demo_camera, demo_scene
    >>> from smalti.scene.screen import contributions
    >>> shares = contributions(demo_scene(), demo_camera())
    >>> bool((shares["chair"] <= 1).all()), bool(shares["chair"].max() > 0.5)
    (True, True)
    """
    return {name: most for name, (_, most) in total_contributions(scene, [camera]).items()}


@torch.no_grad()
def total_contributions(
    scene: Scene, cameras: Sequence[Camera]
) -> dict[str, tuple[Float[Tensor, "n"], Float[Tensor, "n"]]]:
    """(sum over the pixels of all views, largest) of the shares (T a) that each primitive makes up, by visible layer.

    >>> from smalti.scene import demo_camera, demo_scene
    >>> from smalti.scene.screen import total_contributions
    >>> total, most = total_contributions(demo_scene(), [demo_camera()])["chair"]
    >>> bool((total >= most).all())
    True
    """
    placed = scene if all(held.similarity.is_identity for held in scene) else scene.flattened()
    layers = placed.visible_layers()
    result: dict[str, tuple[Tensor, Tensor]] = {}
    for camera in cameras if layers else ():
        frame = placed.render(camera, settings=placed.settings(statistics=True))
        assert frame.contribution_sum is not None
        assert frame.contribution_max is not None
        drawn = [sum(len(each) for each in held.drawables(camera, camera.time)) for held in layers]
        parts = zip(layers, frame.contribution_sum.split(drawn), frame.contribution_max.split(drawn), strict=True)
        for held, total, most in parts:
            owners = held.family.owners()
            if owners is not None:
                empty = total.new_zeros(len(held.family))
                total = empty.scatter_add(0, owners.long(), total)
                most = empty.scatter_reduce(0, owners.long(), most, "amax")
            before = result.get(held.name)
            result[held.name] = (total, most) if before is None else (before[0] + total, torch.maximum(before[1], most))
    return result


def contributing(cameras: Camera | Sequence[Camera], least: float = LEAST) -> Selection:
    """Primitives that make up at least the share `least` of a pixel in one of the views; `~` gives what is never seen.

    >>> from smalti.scene import contributing, demo_camera, demo_scene
    >>> contributing(demo_camera()).counts(demo_scene())["chair"] > 0
    True
    """
    views = [cameras] if isinstance(cameras, Camera) else list(cameras)

    def recipe(scene: Scene) -> Masks:
        found: Masks = {}
        for camera in views:
            for name, share in contributions(scene, camera).items():
                found[name] = found.get(name, torch.zeros_like(share, dtype=torch.bool)) | (share >= least)
        return found

    return Selection(recipe, f"contributing({len(views)} views, {least})")


def in_rectangle(camera: Camera, x0: float, y0: float, x1: float, y1: float, occluded: bool = True) -> Selection:
    """Centres that fall in a rectangle of the picture (two opposite corners, pixels), among visible layers. With
    `occluded=False` those alone that are seen there (5 % of some pixel of the rectangle).

    >>> from smalti.scene import demo_camera, demo_scene, in_rectangle
    >>> scene, camera = demo_scene(), demo_camera()
    >>> in_rectangle(camera, 0, 0, camera.width, camera.height).counts(scene)
    {'chair': 8, 'cloud': 12}
    """
    low, high = (min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))

    def inside(pixels: Tensor) -> Tensor:
        return ((pixels >= pixels.new_tensor(low)) & (pixels <= pixels.new_tensor(high))).all(dim=1)

    seen = None if occluded else _seen_in(camera, low, high)
    return _on_screen(camera, inside, seen, f"in_rectangle({low}, {high})")


def in_polygon(camera: Camera, points: Sequence[Sequence[float]] | Tensor, occluded: bool = True) -> Selection:
    """Centres that fall inside a lasso (corners [k, 2] in pixels; it closes itself; even-odd rule), among visible
    layers. With `occluded=False` those alone that are seen in the lasso's bounding rectangle (5 % of some pixel).

    >>> from smalti.scene import demo_camera, demo_scene, in_polygon
    >>> in_polygon(demo_camera(), [(0, 0), (64, 0), (64, 48), (0, 48)]).counts(demo_scene())
    {'chair': 8, 'cloud': 12}
    """
    corners = torch.as_tensor(points, dtype=torch.float64)
    if corners.dim() != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"in_polygon: expected three corners or more [k, 2], got {tuple(corners.shape)}")
    low, high = corners.amin(0).tolist(), corners.amax(0).tolist()
    seen = None if occluded else _seen_in(camera, (low[0], low[1]), (high[0], high[1]))
    return _on_screen(camera, lambda pixels: in_outline(pixels, corners), seen, f"in_polygon({len(corners)} corners)")


def in_outline(pixels: Float[Tensor, "n 2"], corners: Float[Tensor, "k 2"]) -> Bool[Tensor, "n"]:
    """Even-odd rule: whether a ray to the right crosses the outline an odd number of times.

    >>> import torch
    >>> from smalti.scene.screen import in_outline
    >>> in_outline(torch.tensor([[0.5, 0.2], [2.0, 0.2]]), torch.tensor([[0.0, 0], [1, 0], [0.5, 1]])).tolist()
    [True, False]
    """
    inside = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
    corners = corners.to(pixels)
    x, y = pixels.unbind(1)
    for start, end in zip(corners, corners.roll(-1, dims=0), strict=True):
        crosses = (start[1] > y) != (end[1] > y)
        inside ^= crosses & (x < start[0] + (y - start[1]) / (end[1] - start[1]) * (end[0] - start[0]))
    return inside


Shares = Callable[["Scene"], dict[str, Tensor]]
"""What primitives contribute, by layer."""


def _seen_in(camera: Camera, low: tuple[float, float], high: tuple[float, float]) -> Shares:
    """Contributions to the pixels that the rectangle touches; none where it lies outside of the picture."""
    left, top = max(math.floor(low[0]), 0), max(math.floor(low[1]), 0)
    right, bottom = min(math.ceil(high[0]), camera.width), min(math.ceil(high[1]), camera.height)
    if right <= left or bottom <= top:
        return lambda scene: {}
    view = camera.cropped(left, top, right - left, bottom - top)
    return lambda scene: contributions(scene, view)


def _on_screen(camera: Camera, inside: Callable[[Tensor], Tensor], seen: Shares | None, words: str) -> Selection:
    """`seen`: what the chosen contribute, where that matters."""
    if camera.model != "PINHOLE" or any(camera.distortion):
        raise ValueError(f"{words}: expected a pinhole camera, got {camera.model}; see smalti.cameras.undistort")

    def recipe(scene: Scene) -> Masks:
        found: Masks = {}
        shares = None if seen is None else seen(scene)
        view = camera.to(torch.float64)
        fx, fy, cx, cy = view.intrinsics.detach().tolist()
        for held in scene.visible_layers():
            points = positions(held)
            local = points @ view.rotation.detach().T.to(points) + view.translation.detach().to(points)
            depth = local[:, 2]
            pixels = torch.stack([fx * local[:, 0] / depth + cx, fy * local[:, 1] / depth + cy], dim=1)
            mask = (depth >= scene.near) & inside(pixels)
            if shares is not None:
                share = shares.get(held.name)
                mask &= torch.zeros_like(mask) if share is None else share >= LEAST
            found[held.name] = mask
        return found

    return Selection(recipe, words)
