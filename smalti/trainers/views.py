"""Training views: a loaded picture made ready for a step (floats, background, masks, resolution)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import Dataset
from smalti.datasets.images import ImageCache, LoadedView


@dataclass(frozen=True, eq=False)
class TrainingView:
    """One picture of a step."""

    index: int
    """Position among the training views (tables of poses and exposures have one row each)."""
    camera: Camera
    target: Float[Tensor, "h w 3"]
    """0..1, the background already behind it."""
    mask: Float[Tensor, "h w"] | None
    """Weights of the pixels, 0..1."""
    background: Float[Tensor, "3"]


def stated_background(dataset: Dataset, wanted: str) -> tuple[float, float, float] | None:
    """The colour behind the scene: as configured, or what the data set states; None for opaque pictures (drawn as
    black).
    """
    if wanted == "white":
        return (1.0, 1.0, 1.0)
    return (0.0, 0.0, 0.0) if wanted == "black" else dataset.background


class ViewSource:
    """Training views by number, decoded through the bounded cache."""

    def __init__(self, dataset: Dataset, rows: Sequence[int], cache: ImageCache, background: str) -> None:
        self.dataset, self.rows, self.cache = dataset, list(rows), cache
        self.random: Literal[True, False] = background == "random"
        self.color = torch.tensor(stated_background(dataset, background) or (0.0, 0.0, 0.0))

    def __len__(self) -> int:
        return len(self.rows)

    def cameras(self) -> list[Camera]:
        """Cameras of all training views at the loaded size."""
        return [self.cache.camera(row) for row in self.rows]

    def get(self, index: int, factor: int, generator: torch.Generator, device: torch.device) -> TrainingView:
        """View `index`, reduced by `factor`. Draws three numbers from the generator only where backgrounds are
        random.
        """
        loaded = self.cache.get(self.rows[index])
        background = self.color
        if self.random and loaded.alpha is not None:
            background = torch.rand(3, generator=generator)
        return prepared(loaded, index, factor, background.to(device))

    def plain(self, index: int, device: torch.device) -> TrainingView:
        """View `index` at full resolution over the stated background: what scenes are judged by. Draws no number."""
        return prepared(self.cache.get(self.rows[index]), index, 1, self.color.to(device))

    def prefetch(self, index: int | None) -> None:
        """Decode view `index` in the background."""
        if index is not None:
            self.cache.prefetch([self.rows[index]])


def prepared(loaded: LoadedView, index: int, factor: int, background: Float[Tensor, "3"]) -> TrainingView:
    """Floats on the background's device; a whole `factor` averages blocks of pixels and drops what is left at right
    and bottom.
    """
    device = background.device
    target = loaded.image.to(device).float() / 255.0
    if loaded.alpha is not None:
        alpha = loaded.alpha.to(device).float()[:, :, None] / 255.0
        target = target * alpha + background * (1.0 - alpha)
    mask = None
    for plane in (loaded.mask, loaded.valid):
        if plane is not None:
            weight = plane.to(device).float() / 255.0
            mask = weight if mask is None else mask * weight
    camera = loaded.camera
    factor = min(factor, max(1, min(camera.width, camera.height) // 16))
    if factor > 1:
        width, height = camera.width // factor, camera.height // factor
        camera = camera.cropped(0, 0, width * factor, height * factor).scaled_to(width, height)
        target = avg_pool2d(target.permute(2, 0, 1), factor).permute(1, 2, 0)
        mask = None if mask is None else avg_pool2d(mask[None], factor)[0]
    return TrainingView(index, camera, target.contiguous(), mask, background)
