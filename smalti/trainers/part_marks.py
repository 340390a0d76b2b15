"""What pictures of separate parts have in common: smooth edges, which part is where, numbers on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.scene.parts import Part, Parts
from smalti.scene.scene import Scene
from smalti.trainers.evaluation import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = (0.92, 0.92, 0.92)
"""Behind parts that stand alone: what is white shows on it, and what is dark."""
FINE = 2
"""Pictures are drawn this much larger and averaged down: hard edges come out smooth."""
LEAST_LABELLED = 0.004
"""Share of a picture from which a part's number is written on it."""


def smooth_picture(
    scene: Scene, camera: Camera, background: tuple[float, float, float] = PAPER, backend: str = "auto"
) -> Float[np.ndarray, "h w 3"]:
    """The picture (0..1), averaged from one of `FINE` times the size."""
    large = camera.to(torch.float32).scaled_to(FINE * camera.width, FINE * camera.height)
    color = draw(scene, large, torch.tensor(background), backend=backend).color
    return smaller(color).clamp(0, 1).cpu().numpy()


def smaller(values: Float[Tensor, "a b c"]) -> Float[Tensor, "h w c"]:
    """Averaged over squares of `FINE` pixels."""
    # Sums of strided views: ten times as fast as a mean over two of five dimensions.
    total = sum(values[row::FINE, column::FINE] for row in range(FINE) for column in range(FINE))
    assert isinstance(total, Tensor)
    return total / FINE**2


@torch.no_grad()
def part_numbers(parts: Parts, scene: Scene, camera: Camera, backend: str) -> Int[np.ndarray, "a b"]:
    """Which part has the largest share of each pixel, by its place in `parts.parts`; -1 for none."""
    large = camera.to(torch.float32).scaled_to(FINE * camera.width, FINE * camera.height)
    # Another package's back end draws colours; which primitive is seen is asked of ours.
    asked = "auto" if backend == "gsplat" else backend
    frame = scene.render(large, settings=scene.settings(statistics=True), backend=asked)
    places = {name: k for k, name in enumerate(parts.names)}
    held = scene.visible_layers()
    counts = torch.tensor([sum(len(each) for each in layer.drawables(large, large.time)) for layer in held])
    owner = torch.tensor([places.get(layer.name, -1) for layer in held]).repeat_interleave(counts)
    dominant = frame.ids["dominant"].cpu().long()
    seen = (dominant >= 0) & (frame.alpha.cpu() >= 0.5)
    return torch.where(seen, owner[dominant.clamp(min=0)], torch.full_like(dominant, -1)).numpy()


def shown(axis: Axes, picture: np.ndarray, title: str) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="antialiased")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def label(axis: Axes, parts: Sequence[Part], numbers: np.ndarray, shape: Sequence[int]) -> None:
    """Each part's number on the middle of its widest piece, where it is large enough to bear one."""
    scale = shape[0] / numbers.shape[0]
    for place, part in enumerate(parts):
        mask = numbers == place
        if mask.mean() < LEAST_LABELLED:
            continue
        row, column = innermost(mask)
        chip: dict[str, Any] = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": part.color}
        style: dict[str, Any] = {"fontsize": 7, "ha": "center", "va": "center", "color": "black"}
        axis.text(scale * column, scale * row, str(part.number), bbox={**chip, "linewidth": 1.4}, **style)


def innermost(mask: np.ndarray) -> tuple[float, float]:
    """(row, column) of the pixel of a mask that is farthest from its rim, as the last that is left when it shrinks."""
    reduction = -(-max(mask.shape) // 160)
    left = torch.from_numpy(mask.copy()).float()[None, None]
    left = torch.nn.functional.avg_pool2d(left, reduction, ceil_mode=True, count_include_pad=False)
    left = (left >= 0.5).float() if bool((left >= 0.5).any()) else (left >= left.max()).float()
    padded = torch.nn.functional.pad
    while True:
        shrunk = -torch.nn.functional.max_pool2d(-padded(left, (1, 1, 1, 1)), 3, stride=1)
        if not bool(shrunk.any()):
            break
        left = shrunk
    places = torch.nonzero(left[0, 0]).double()
    nearest = places[int((places - places.mean(dim=0)).norm(dim=1).argmin())]
    row, column = ((nearest + 0.5) * reduction).tolist()
    return row, column


def count_of(parts: Parts) -> str:
    count, clear = len(parts.parts), sum(not part.is_solid for part in parts.parts)
    also = f", {clear} of them more transparent than not" if clear else ""
    if parts.left_out:
        return f"{count} of {count + parts.left_out} parts {'are' if count > 1 else 'is'} drawn{also}"
    return parts.count + also
