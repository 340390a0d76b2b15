"""How far a converted picture is from the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from smalti.cameras.camera import Camera
from smalti.scene.conversions.sources import Picture, Source, pictures

COVERED = 1.0 / 255.0
"""A pixel belongs to the object where either picture's alpha exceeds this."""


@dataclass(frozen=True)
class ImageError:
    """Original against converted, both drawn on black from the same cameras, before any rounding."""

    psnr: float
    """dB, of the mean squared error over all pixels and channels of all views; inf where nothing differs."""
    psnr_covered: float
    """dB, of the pixels alone in which either draws something: empty background does not flatter it."""
    worst: float
    """dB, `psnr` of the worst view."""
    alpha: float
    """Mean absolute difference of alpha over all pixels, 0..1."""
    alpha_covered: float
    """The same over the pixels in which either draws something."""
    views: int
    """Pictures compared."""
    held_out: bool
    """Whether the conversion saw none of them."""

    def __str__(self) -> str:
        seen = "held-out views" if self.held_out else "views"
        return (
            f"PSNR {self.psnr:.2f} dB ({self.psnr_covered:.2f} dB on the object, worst view {self.worst:.2f} dB), "
            f"alpha differs by {self.alpha:.4f}, over {self.views} {seen}"
        )

    def to_plain(self) -> dict[str, Any]:
        """Numbers for JSON; infinite ones as None."""
        return {key: None if value == math.inf else value for key, value in asdict(self).items()}


def image_error(
    original: Source, converted: Source, cameras: Sequence[Camera], *, held_out: bool = False
) -> ImageError:
    """Draw both from the cameras and compare. Not differentiable. ValueError where no camera sees anything of either.

    >>> from smalti.scene import demo_camera, demo_scene
    >>> from smalti.scene.conversions import image_error
    >>> image_error(demo_scene(), demo_scene(), [demo_camera()]).psnr
    inf
    """
    truth, shown = pictures(original, cameras), pictures(converted, cameras)
    if truth and not any(bool((view.alpha > COVERED).any()) for view in (*truth, *shown)):
        raise ValueError("image_error: none of the cameras sees anything; give cameras that look at what is compared")
    return compared(truth, shown, held_out)


def compared(truth: Sequence[Picture], shown: Sequence[Picture], held_out: bool) -> ImageError:
    """The error between pictures of the same cameras."""
    if not truth:
        raise ValueError("image_error: expected at least one camera")
    squares, alphas, covered = [], [], []
    for one, two in zip(truth, shown, strict=True):
        squares.append((one.color.double() - two.color.double()).square().mean(dim=2).flatten())
        alphas.append((one.alpha.double() - two.alpha.double()).abs().flatten())
        covered.append(torch.maximum(one.alpha, two.alpha).flatten() > COVERED)
    square, alpha, inside = torch.cat(squares), torch.cat(alphas), torch.cat(covered)
    some = bool(inside.any())
    return ImageError(
        psnr=decibels(float(square.mean())),
        psnr_covered=decibels(float(square[inside].mean())) if some else math.inf,
        worst=min(decibels(float(each.mean())) for each in squares),
        alpha=float(alpha.mean()),
        alpha_covered=float(alpha[inside].mean()) if some else 0.0,
        views=len(truth),
        held_out=held_out,
    )


def decibels(mean_square: float) -> float:
    """-10 log10; inf for 0."""
    return -10.0 * math.log10(mean_square) if mean_square > 0 else math.inf
