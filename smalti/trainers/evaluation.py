"""Evaluation on held-out views: one function for the trainer and for `smalti eval`, so the figures are the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import DataConfig
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.images import ImageCache, LoadedView
from smalti.renderers.frame import Frame, Visibility
from smalti.scene.scene import Scene
from smalti.trainers.metrics import Protocol, measure


@dataclass(frozen=True, eq=False)
class Comparison:
    """One view, ready to be measured or shown: both pictures in 0..1 under the protocol, on the scene's device."""

    name: str
    image: Float[Tensor, "h w 3"]
    truth: Float[Tensor, "h w 3"]
    mask: Bool[Tensor, "h w"] | None
    """Pixels that count; None: all."""


@dataclass(frozen=True)
class ViewScore:
    """The figures of one view, by metric."""

    name: str
    values: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Figures per view and their means, with the protocol under which they hold."""

    protocol: Protocol
    views: tuple[ViewScore, ...]

    @property
    def mean(self) -> dict[str, float]:
        """The mean over views of every metric."""
        return {
            key: math.fsum(view.values[key] for view in self.views) / len(self.views) for key in self.protocol.metrics
        }

    def worst(self, count: int = 3) -> tuple[ViewScore, ...]:
        """The views with the lowest first metric of the protocol (the highest, for LPIPS), worst first."""
        key = self.protocol.metrics[0]
        sign = -1.0 if key.startswith("lpips") else 1.0
        return tuple(sorted(self.views, key=lambda view: sign * view.values[key])[:count])

    def to_json(self) -> dict[str, Any]:
        """Plain values. An infinite PSNR (equal pictures) becomes null, because JSON has no infinity."""
        return {
            "mean": _plain(self.mean),
            "views": [{"name": view.name, **_plain(view.values)} for view in self.views],
            "worst": [view.name for view in self.worst()],
            "protocol": self.protocol.to_json(),
        }

    def lines(self, per_view: bool = True) -> list[str]:
        """The same as text: views, mean, worst, protocol."""
        keys = self.protocol.metrics
        width = max(len(view.name) for view in self.views)
        rows = [f"{view.name:<{width}}  {format_scores(view.values)}" for view in self.views] if per_view else []
        rows.append(f"{'mean':<{width}}  {format_scores(self.mean)}  ({len(self.views)} views)")
        rows.append(f"worst by {_title(keys[0])}: {', '.join(view.name for view in self.worst())}")
        return [*rows, f"protocol: {self.protocol}"]


def format_scores(values: dict[str, float]) -> str:
    """`PSNR 28.41 dB  SSIM 0.9312`."""
    texts = {key: f"{value:.2f} dB" if key == "psnr" else f"{value:.4f}" for key, value in values.items()}
    return "  ".join(f"{_title(key)} {text}" for key, text in texts.items())


def protocol_for(data: DataConfig, dataset: Dataset, **options: Any) -> Protocol:
    """The protocol that a run's configuration implies; `options` (metrics, rounding, exposure) on top.

    Background: the configured black or white; for `auto` and `random` what the data set states, else black.
    """
    named = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}
    background = named.get(data.background) or dataset.background or named["black"]
    return Protocol(background=background, downscale=data.downscale, **options)


@torch.no_grad()
def evaluate(
    scene: Scene,
    images: ImageCache,
    rows: Sequence[int],
    protocol: Protocol,
    *,
    backend: str = "auto",
    on_view: Callable[[ViewScore], None] | None = None,
) -> Evaluation:
    """Render and measure the views `rows` of the cache's data set.

    `on_view` is called after each view (for a progress display). Per-picture exposures learnt in training are not
    applied: held-out views have none; `protocol.exposure` says what is done instead.
    Raises ValueError without views, or where the cache's downscale is not the protocol's; DatasetError for a view that
    cannot be measured.
    """
    if not rows:
        raise ValueError("evaluate: there are no views to evaluate; choose a split that holds some out (data.split)")
    scores = []
    for row in rows:
        pair = compare(scene, images, row, protocol, backend=backend)
        try:
            values = {key: measure(key, pair.image, pair.truth, pair.mask) for key in protocol.metrics}
        except ValueError as error:  # no pixel under the mask, or fewer than a window
            raise DatasetError(pair.name, "evaluation", str(error), "Hold other views out (data.split)") from error
        scores.append(ViewScore(pair.name, values))
        if on_view is not None:
            on_view(scores[-1])
    return Evaluation(protocol, tuple(scores))


@torch.no_grad()
def compare(scene: Scene, images: ImageCache, row: int, protocol: Protocol, *, backend: str = "auto") -> Comparison:
    """The render and the truth of one view under `protocol`; not differentiable."""
    if float(images.factor) != float(protocol.downscale):
        raise ValueError(
            f"compare: pictures at downscale {images.factor}, but the protocol says {protocol.downscale:g}"
        )
    view = images.get(row)
    background = torch.tensor(protocol.background, dtype=torch.float32)
    color = draw(scene, view.camera, background, backend=backend).color
    truth, mask = target_of(view, background)
    truth, mask = truth.to(color.device), None if mask is None else mask.to(color.device)
    return Comparison(view.camera.name, protocol.prepare(color, truth, mask), truth, mask)


@torch.no_grad()
def draw(
    scene: Scene, camera: Camera, background: Float[Tensor, "3"], *, depth: bool = False, backend: str = "auto"
) -> Frame:
    """One frame of the scene over a colour; where nothing is visible, the background itself. Not differentiable."""
    layers = scene.visible_layers()
    if not layers:
        color = background.expand(camera.height, camera.width, 3).clone()
        none = Visibility(torch.zeros(0, dtype=torch.bool), torch.zeros(0), torch.zeros(0), 0, 0)
        return Frame(color, torch.zeros_like(color[..., 0]), none, depth=torch.zeros_like(color[..., 0]))
    background = background.to(layers[0].family.device)
    return scene.render(camera, background=background, settings=scene.settings(depth=depth), backend=backend)


def target_of(
    view: LoadedView, background: Float[Tensor, "3"]
) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"] | None]:
    """(picture in 0..1 over `background` where it has alpha, pixels that count or None for all).

    A pixel counts where the mask is above one half and undistortion had something to show.
    """
    truth = view.image.float() / 255.0
    if view.alpha is not None:
        alpha = (view.alpha.float() / 255.0)[..., None]
        truth = truth * alpha + background * (1.0 - alpha)
    masks = [plane > level for plane, level in ((view.mask, 127), (view.valid, 254)) if plane is not None]
    if not masks:
        return truth, None
    return truth, masks[0] if len(masks) == 1 else masks[0] & masks[1]


def _title(metric: str) -> str:
    return metric.upper().replace("_", " ")


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
