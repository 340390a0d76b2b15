"""Fragments of the general compositor as one autograd function, over the CPU's engine or CUDA's."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from smalti.renderers.engine.request import Gradients, Request, Tensors
from smalti.renderers.fragments import Fragments

DIFFERENTIABLE = ("z0", "z1", "value", "channels", "local")


class FragmentEngine(Protocol):
    """What one backend does of fragments; a new object per call, kept until its backward pass is done."""

    def fragments(self, request: Request, tensors: Tensors, most: int) -> dict[str, Tensor]:
        """The nearest events of every pixel, by the names of FragmentValues."""
        ...

    def fragments_backward(
        self, request: Request, tensors: Tensors, most: int, cotangents: dict[str, Tensor | None], camera_wanted: bool
    ) -> Gradients:
        """Take back cotangents of those in DIFFERENTIABLE."""
        ...


def draw_fragments(engine: FragmentEngine, request: Request, most: int) -> Fragments:
    """See `smalti.renderers.fragments.fragments`."""
    found: dict[str, Tensor] = {}
    z0, z1, value, channels, local = _Fragments.apply(  # pyright: ignore[reportGeneralTypeIssues]
        engine, request, most, found, *request.tensors(None)
    )
    primitives = found["primitive"].long()
    ends = torch.tensor([len(d) for d in request.drawables]).cumsum(0).to(request.device)
    owner = torch.where(primitives >= 0, torch.searchsorted(ends, primitives.clamp_min(0), right=True), -1)
    rest = found["normal"], found["count"].long(), found["left"]
    events = primitives, owner, found["thick"], z0, z1, value, channels, local
    return Fragments(*events, *rest, request.camera, request.settings.transmittance_min, request.additive)


def new_values(request: Request, most: int) -> dict[str, Tensor]:
    """Zeros for an engine to fill, by the names of FragmentValues; `primitive` is -1."""
    size, device = (request.camera.height, request.camera.width), request.device
    new = lambda *shape, dtype=request.dtype: torch.zeros((*size, *shape), dtype=dtype, device=device)  # noqa: E731
    values = {name: new(most) for name in ("z0", "z1", "value")}
    values |= {"local": new(most, 3), "normal": new(most, 3), "channels": new(most, request.channels), "left": new()}
    values |= {"primitive": new(most, dtype=torch.int32) - 1, "count": new(dtype=torch.int32)}
    values["thick"] = new(most, dtype=torch.bool)
    return values


class _Fragments(torch.autograd.Function):
    """z0, z1, value, channels, local; what is not differentiable goes into `found`."""

    @staticmethod
    def forward(
        ctx: Any, engine: FragmentEngine, request: Request, most: int, found: dict[str, Tensor], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        found |= engine.fragments(request, tensors, most)
        ctx.engine, ctx.request, ctx.most = engine, request, most
        ctx.save_for_backward(*[t for t in tensors if t is not None])
        ctx.present = [t is not None for t in tensors]
        ctx.set_materialize_grads(False)
        return tuple(found.pop(name) for name in DIFFERENTIABLE)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *cotangents: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        tensors = [next(saved) if there else None for there in ctx.present]
        ready = {
            name: None if c is None else c.contiguous() for name, c in zip(DIFFERENTIABLE, cotangents, strict=True)
        }
        camera = any(ctx.needs_input_grad[-4:-1])
        found = ctx.engine.fragments_backward(ctx.request, tensors, ctx.most, ready, camera)
        return (None,) * 4 + (*found.parameters, *found.pose(tensors), None)
