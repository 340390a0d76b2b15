"""What a kind tells the compositor: the thin events and segments of its primitives along the rays of some pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.settings import RenderSettings


@dataclass(frozen=True, eq=False)
class View:
    """The rays of some pixels: z times `directions`, in camera axes, z the camera's."""

    camera: Camera
    """Tensors in the dtype and on the device of the scene."""
    settings: RenderSettings
    pixels: Float[Tensor, "p 2"]
    """Centres x, y."""
    directions: Float[Tensor, "p 3"]
    """(u, v, 1)."""

    @staticmethod
    def of(camera: Camera, settings: RenderSettings, pixels: Float[Tensor, "p 2"]) -> View:
        """The view of `pixels`, differentiable with respect to the intrinsics."""
        fx, fy, cx, cy = camera.intrinsics.unbind()
        u, v = (pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy
        return View(camera, settings, pixels, torch.stack([u, v, torch.ones_like(u)], dim=-1))

    def pairs(self, count: int) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
        """Every pixel with each of `count` primitives: indices of pixels and of primitives."""
        pixel = torch.arange(len(self.pixels), device=self.pixels.device)
        row = torch.arange(count, device=self.pixels.device)
        pixel, row = torch.meshgrid(pixel, row, indexing="ij")
        return pixel.reshape(-1), row.reshape(-1)


@dataclass(frozen=True, eq=False)
class Events:
    """One row per event: thin (`z1` is None) or a segment; all of one kind."""

    pixel: Int[Tensor, "k"]
    primitive: Int[Tensor, "k"]
    """Rows of the drawable."""
    z0: Float[Tensor, "k"]
    """Camera z of a thin event, or of a segment's begin."""
    z1: Float[Tensor, "k"] | None
    """Camera z of a segment's end."""
    value: Float[Tensor, "k"]
    """alpha of a thin event, optical depth of a segment."""
    color: Float[Tensor, "k 3"]
    features: Float[Tensor, "k f"] | None = None
    normal: Float[Tensor, "k 3"] | None = None
    """World axes; None: zero."""


class Kind(Protocol):
    """One drawable as seen by one camera."""

    keys: Float[Tensor, "n"]
    """Camera z of every primitive's centre: the key of `order="centre"`."""
    skipped: int
    """Primitives that are not usable."""

    def events(self, view: View) -> Events:
        """Everything that its primitives do to the rays of `view`, in any order (a box's segments: along the ray)."""
        ...


def usable_rows(count: int, finite: list[Tensor | None], positive: list[Tensor]) -> Bool[Tensor, "n"]:
    """False where a primitive's row has NaN or Inf in a tensor of `finite`, or something <= 0 in one of `positive`."""
    like = next(tensor for tensor in finite if tensor is not None)
    usable = torch.ones(count, dtype=torch.bool, device=like.device)
    for tensor in finite:
        if tensor is not None:
            usable &= tensor.detach()[..., None].flatten(1).isfinite().all(-1)
    for tensor in positive:
        usable &= (tensor.detach()[..., None].flatten(1) > 0).all(-1)
    return usable


def usable_quaternions(quaternions: Float[Tensor, "n 4"]) -> Bool[Tensor, "n"]:
    """True where there is a direction to normalise."""
    length = quaternions.detach().square().sum(-1)
    return (length >= 1e-24) & length.isfinite()


def faded(value: Tensor, share: Tensor, smooth: bool) -> Tensor:
    """`value`, in the smooth test mode times a ramp: 0 to 1 while `share` (in units of its threshold) goes 1 to 2."""
    if not smooth:
        return value
    step = (share - 1).clamp(0, 1)
    return value * step * step * (3 - 2 * step)
