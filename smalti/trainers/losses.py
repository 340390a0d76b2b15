"""Losses on pictures and on primitives: plain torch, device-agnostic, gradients equal for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from smalti.cameras.camera import Camera
from smalti.primitives.family import Family, LossContext
from smalti.renderers.frame import Frame

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2

DepthLoss = Callable[[Frame, Camera, int], Tensor]
"""(frame with depth, camera, row of the view) -> scalar added to the loss."""


@dataclass(frozen=True)
class ImageLossWeights:
    """(1 - dssim) * pixel + dssim * (1 - SSIM)."""

    dssim: float = 0.2
    pixel: Literal["l1", "mse"] = "l1"
    """Mean absolute or mean squared difference of the values."""


def image_loss(
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w"] | None,
    weights: ImageLossWeights,
) -> Float[Tensor, ""]:
    """The photometric loss of Kerbl et al. 2023, equation 7, or the same with squares for absolute differences.
    Differentiable with respect to `rendered` only.

    With a mask both pictures are multiplied by it, and both terms are means over the pixels weighted by it: pixels
    outside count nothing (an all-zero mask gives 0).
    """
    if rendered.device.type == "cpu":
        from smalti.renderers.engine.training import image_loss as native_image_loss

        if weights.pixel == "l1":
            return native_image_loss(rendered, target, mask, weights.dssim)
        loss = (1.0 - weights.dssim) * squared_error(rendered, target, mask)
        return loss + weights.dssim * native_image_loss(rendered, target, mask, 1.0) if weights.dssim > 0 else loss
    return image_loss_torch(rendered, target, mask, weights)


def squared_error(
    rendered: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"], mask: Float[Tensor, "h w"] | None
) -> Float[Tensor, ""]:
    """Mean square over values; with a mask both pictures are multiplied by it and it weights the mean, as in
    `image_loss`. Differentiable with respect to `rendered`.
    """
    difference = rendered - target
    if mask is None:
        # Row by row, so that the sum is the same for any number of threads.
        return difference.square().sum(dim=(1, 2)).sum() / difference.numel()
    squares = (difference * mask[:, :, None]).square().sum(dim=2) * mask
    return squares.sum(dim=1).sum() / (3.0 * mask.sum(dim=1).sum().clamp_min(1e-6))


def image_loss_torch(
    rendered: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    mask: Float[Tensor, "h w"] | None,
    weights: ImageLossWeights,
) -> Float[Tensor, ""]:
    """`image_loss` in plain torch: on devices, and as the judge of the engine's own (a hundred times faster on a
    CPU).
    """
    pixel = squared_error(rendered, target, mask) if weights.pixel == "mse" else None
    share = torch.tensor(1.0 / rendered.numel(), dtype=rendered.dtype, device=rendered.device)
    if mask is not None:
        share = mask[:, :, None] / (3.0 * mask.sum().clamp_min(1e-6))
        rendered, target = rendered * mask[:, :, None], target * mask[:, :, None]
    if pixel is None:
        pixel = ((rendered - target).abs() * share).sum()
    loss = (1.0 - weights.dssim) * pixel
    if weights.dssim > 0:
        loss = loss + weights.dssim * ((1.0 - ssim_map(rendered, target)) * share).sum()
    return loss


def ssim_map(first: Float[Tensor, "h w c"], second: Float[Tensor, "h w c"]) -> Float[Tensor, "h w c"]:
    """Structural similarity of every pixel and channel, values 0..1 (Wang et al. 2004).

    Gaussian window of 11 x 11 pixels, sigma 1.5; beyond the border both pictures are zero (as 3DGS does), so that the
    map has the pictures' size. Differentiable with respect to both.
    """
    a, b = first.permute(2, 0, 1)[:, None], second.permute(2, 0, 1)[:, None]
    channels = a.shape[0]
    window = _window(a)
    blurred = conv2d(torch.cat([a, b, a * a, b * b, a * b]), window[None, None, None, :], padding=(0, SSIM_WINDOW // 2))
    blurred = conv2d(blurred, window[None, None, :, None], padding=(SSIM_WINDOW // 2, 0))
    mean_a, mean_b, square_a, square_b, product = blurred.split(channels)
    variance_a, variance_b = square_a - mean_a * mean_a, square_b - mean_b * mean_b
    covariance = product - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)
    denominator = (mean_a * mean_a + mean_b * mean_b + SSIM_C1) * (variance_a + variance_b + SSIM_C2)
    return (numerator / denominator)[:, 0].permute(1, 2, 0)


def _window(like: Tensor) -> Float[Tensor, "11"]:
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weight = torch.exp(-offset * offset / (2 * SSIM_SIGMA**2))
    return (weight / weight.sum()).to(like)


def family_loss(family: Family, weights: Mapping[str, float], context: LossContext) -> Float[Tensor, ""] | None:
    """The family's own terms (`Family.regularizers`), weighted and summed; None where there is none to compute.
    Differentiable.
    """
    wanted = {name: weight for name, weight in weights.items() if weight > 0}
    if not wanted or len(family) == 0:
        return None
    terms = family.regularizers(context)
    return torch.stack([weight * terms[name]() for name, weight in wanted.items()]).sum()


def psnr_of(
    rendered: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"], mask: Float[Tensor, "h w"] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB of values clamped to 0..1, pixels weighted by `mask`; for the display (the
    protocol lives in `metrics`).
    """
    squares = (rendered.detach().clamp(0, 1) - target).double().square().mean(dim=2)
    error = squares.mean() if mask is None else (squares * mask).sum() / mask.double().sum().clamp_min(1e-6)
    return float(-10.0 * torch.log10(error.clamp_min(1e-12)))
