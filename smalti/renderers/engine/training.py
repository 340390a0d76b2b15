"""Training's two other hot loops on the CPU: the photometric loss with its gradient, and Adam."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.renderers.engine.library import check, load, pointer


class _ImageLoss(torch.autograd.Function):
    """The gradient is made along with the value (the window's sums are at hand); backward only scales it."""

    @staticmethod
    def forward(ctx: Any, rendered: Tensor, target: Tensor, mask: Tensor | None, dssim: float) -> Tensor:
        engine = load(rendered.dtype)
        height, width, _ = rendered.shape
        if target.shape != rendered.shape or (mask is not None and mask.shape != rendered.shape[:2]):
            shapes = tuple(rendered.shape), tuple(target.shape), None if mask is None else tuple(mask.shape)
            raise ValueError(f"image_loss: rendered, target and mask do not fit each other: {shapes}")
        if rendered.stride(2) != 1 or rendered.stride(0) != width * rendered.stride(1):
            rendered = rendered.contiguous()
        target = target.to(rendered.dtype).contiguous()
        mask = None if mask is None else mask.to(rendered.dtype).contiguous()
        gradient = torch.empty(height, width, 3, dtype=rendered.dtype) if ctx.needs_input_grad[0] else None
        described = engine.ImageLossInput(
            rendered.data_ptr(), target.data_ptr(), pointer(mask), width, height, rendered.stride(1), dssim
        )
        loss = ctypes.c_double()
        check(
            engine.lib.smalti_image_loss(
                ctypes.byref(described), ctypes.c_void_p(pointer(gradient)), ctypes.byref(loss)
            )
        )
        ctx.gradient = gradient
        return torch.tensor(loss.value, dtype=rendered.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, cotangent: Tensor
    ) -> tuple[Tensor | None, None, None, None]:
        return None if ctx.gradient is None else ctx.gradient * cotangent, None, None, None


def image_loss(
    rendered: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"], mask: Float[Tensor, "h w"] | None, dssim: float
) -> Float[Tensor, ""]:
    """(1 - dssim) L1 + dssim (1 - SSIM) of CPU pictures; see `smalti.trainers.losses.image_loss`, whose value this is.

    Differentiable with respect to `rendered`, once. Raises EngineError for other types than float32 and float64.
    """
    result = _ImageLoss.apply(rendered, target, mask, dssim)
    assert isinstance(result, Tensor)
    return result


def adam_update(
    parameter: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    rate: float,
    step: int,
    constants: tuple[float, float, float],
) -> None:
    """One step of Adam in place, contiguous CPU tensors; `constants`: beta_1, beta_2, epsilon; `step` counts from 1."""
    tensors = (parameter, gradient, *moments)
    if any(not t.is_contiguous() or t.numel() != parameter.numel() or t.dtype != parameter.dtype for t in tensors):
        raise ValueError("adam_update: parameter, gradient and moments must be contiguous, of one size and dtype")
    engine = load(parameter.dtype)
    described = engine.AdamStep(rate, *constants, step)
    addresses = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
    check(engine.lib.smalti_adam(*addresses, ctypes.c_longlong(parameter.numel()), ctypes.byref(described)))
