"""What is optimised besides the scene: camera poses and the exposure of each picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import RefineConfig
from smalti.trainers.adam import AdamSettings, RowAdam


def twisted(camera: Camera, twist: Float[Tensor, "6"], extent: float) -> Camera:
    """The camera moved by exp(twist) in its own frame: three angles in radians, then a shift in scene extents.
    Differentiable.
    """
    a, b, c = twist[:3].unbind()
    zero = torch.zeros_like(a)
    top = torch.stack([zero, -c, b, extent * twist[3], c, zero, -a, extent * twist[4], -b, a, zero, extent * twist[5]])
    motion = torch.linalg.matrix_exp(torch.cat([top.reshape(3, 4), top.new_zeros(1, 4)]))
    turn, shift = motion[:3, :3].to(camera.rotation), motion[:3, 3].to(camera.rotation)
    return replace(camera, rotation=turn @ camera.rotation, translation=turn @ camera.translation + shift)


class _Expose(torch.autograd.Function):
    """colour -> A colour + b, with the gradient of (A, b) summed in an order that no thread count changes."""

    @staticmethod
    def forward(ctx: Any, color: Tensor, transform: Tensor) -> Tensor:
        ctx.save_for_backward(color, transform)
        return color @ transform[:, :3].T + transform[:, 3]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        color, transform = ctx.saved_tensors
        extended = torch.cat([color, torch.ones_like(color[..., :1])], dim=-1)
        # Rows first, then the column of row sums: each output is summed by one thread.
        table = torch.stack([(gradient[..., k : k + 1] * extended).sum(dim=1).sum(dim=0) for k in range(3)])
        return gradient @ transform[:, :3], table


def expose(color: Float[Tensor, "h w 3"], transform: Float[Tensor, "3 4"]) -> Float[Tensor, "h w 3"]:
    """The picture under a colour transform. Differentiable in both."""
    return _Expose.apply(color, transform)  # type: ignore[no-any-return]


class Refinement:
    """Tables of corrections by training view, their optimisers and their state."""

    def __init__(self, config: RefineConfig, views: int, extent: float) -> None:
        self.config, self.extent = config, extent
        self.tables: dict[str, Tensor] = {}
        self.optimizers: dict[str, RowAdam] = {}
        settings = AdamSettings(epsilon=1e-12)
        if config.poses > 0:
            self.tables["poses"] = torch.zeros(views, 6).requires_grad_(True)
        if config.exposure > 0:
            self.tables["exposure"] = torch.eye(3, 4).repeat(views, 1, 1).requires_grad_(True)
        for name, table in self.tables.items():
            self.optimizers[name] = RowAdam(tuple(table.shape), settings)

    def camera(self, camera: Camera, row: int) -> Camera:
        """The camera of training view `row` as now believed."""
        return twisted(camera, self.tables["poses"][row], self.extent) if "poses" in self.tables else camera

    def exposed(self, color: Float[Tensor, "h w 3"], row: int) -> Float[Tensor, "h w 3"]:
        """The picture as view `row` was exposed."""
        return expose(color, self.tables["exposure"][row].to(color)) if "exposure" in self.tables else color

    def loss(self, row: int) -> Tensor | None:
        """Distance of the exposure from the identity, weighted."""
        if "exposure" not in self.tables or self.config.exposure_regularizer == 0:
            return None
        return self.config.exposure_regularizer * (self.tables["exposure"][row] - torch.eye(3, 4)).square().mean()

    def step(self, rows: list[int], step: int, share: float) -> list[tuple[str, int]]:
        """Move the visited views; `share` is the present decay of the rates. Returns (table, view) of NaN or Inf."""
        bad = []
        for name, table in self.tables.items():
            rate = (self.config.poses if name == "poses" else self.config.exposure) * share
            stayed = self.optimizers[name].step(table, rows, rate if step >= self.config.start else 0.0)
            bad += [(name, row) for row in stayed]
        return bad

    def state(self) -> dict[str, Tensor]:
        """Tensors by name."""
        tensors = {f"{name}/table": table.detach() for name, table in self.tables.items()}
        for name, optimizer in self.optimizers.items():
            tensors.update({f"{name}/{key}": value for key, value in optimizer.state().items()})
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name in self.tables:
            self.tables[name] = tensors[f"{name}/table"].clone().requires_grad_(True)
            self.optimizers[name].load({key: tensors[f"{name}/{key}"] for key in ("first", "second", "counts")})
