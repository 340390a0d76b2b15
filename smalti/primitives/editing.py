"""What an editor may ask of a family besides `transform` and `rearrange`: colours, opacities, mirrors, other metadata.

All of it makes new tensors and leaves the old ones alone, so that an edit can be tried on a shallow copy. A family that
cannot do one of these things says so with a FamilyError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.primitives.registry import FamilyError
from smalti.primitives.rows import RowMap
from smalti.primitives.texture import logit

ColorFunction = Callable[[Tensor], Tensor]
"""Colours [m, 3], 0..1, to colours [m, 3]."""


class Editable:
    """The part of `Family` that editors use; see the module. None of it is differentiable."""

    name: ClassVar[str]
    parameters: dict[str, Tensor]
    metadata: dict[str, Any]
    color_logits: ClassVar[tuple[str, ...]] = ()
    """Parameters [..., 3 or more] whose first three numbers are colours before a sigmoid."""

    @classmethod
    def references(cls) -> dict[str, str]:
        """Constants that hold row numbers, and of which parameter."""
        return {}

    @classmethod
    def common_metadata(cls) -> tuple[str, ...]:
        """Names of values in which all layers of a picture have to agree."""
        return ()

    def adopt(self, metadata: Mapping[str, Any]) -> None:
        """Take another instance's metadata; the primitives stay what they are. FamilyError where they could not."""
        for key, value in metadata.items():
            if value != self.metadata[key] and key != "count" and not key.startswith("initial_"):
                raise FamilyError(
                    f"family {self.name}: primitives with {key} {self.metadata[key]!r} cannot join those with "
                    f"{value!r}; keep them in layers of their own"
                )
        self.metadata = dict(metadata)

    def mirror(self, plane: Float[Tensor, "4"]) -> None:
        """Reflect all primitives at the plane `normal . x = offset` (unit normal, offset), float64."""
        raise FamilyError(f"family {self.name}: it cannot be mirrored; move or rotate a copy instead")

    @torch.no_grad()
    def base_colors(self) -> Float[Tensor, "n 3"]:
        """One colour per primitive: its mean, seen from everywhere."""
        for name in self.color_logits:
            if name in self.parameters:
                value = self.parameters[name][..., :3].sigmoid()
                return value[:, None].flatten(1, -2).mean(dim=1)
        raise FamilyError(f"family {self.name}: its primitives have no colours of their own")

    @torch.no_grad()
    def recolor(self, function: ColorFunction, linear: bool) -> None:
        """Map all colours by `function`; where it is `linear`, what depends on the viewing direction too. Colours that
        are held before a sigmoid end at 0 and 1.
        """
        changed: dict[str, Tensor] = {}
        for name in self.color_logits:
            if name in self.parameters:
                held = self.parameters[name].detach()
                colors = mapped(function, held[..., :3].sigmoid())
                changed[name] = torch.cat([logit(colors), held[..., 3:]], dim=-1)
        if not changed:
            raise FamilyError(f"family {self.name}: its primitives have no colours of their own")
        self.replace(changed)

    @torch.no_grad()
    def set_texture(self, picture: Float[Tensor, "h w c"]) -> None:
        """Give every texture (of all primitives together, or one each) these colours, resampled to its size."""
        changed: dict[str, Tensor] = {}
        for name in self.color_logits:
            held = self.parameters.get(name)
            if held is not None and held.dim() >= 3:
                channels = min(held.shape[-1], picture.shape[2])
                planes = picture[..., :channels].movedim(2, 0)[None].to(held)
                scaled = torch.nn.functional.interpolate(
                    planes, held.shape[-3:-1], mode="bilinear", antialias=True, align_corners=False
                )
                texels = logit(scaled[0].movedim(0, 2)).expand(*held.shape[:-1], channels)
                changed[name] = torch.cat([texels, held.detach()[..., channels:]], dim=-1)
        if not changed:
            raise FamilyError(f"family {self.name}: these primitives have no texture to replace")
        self.replace(changed)

    @torch.no_grad()
    def set_opacities(self, wanted: Float[Tensor, "n"]) -> None:
        """Make `opacities` these (0..1; exactly 0 and 1 only as nearly as the family can hold them)."""
        held = self.parameters.get("logit_opacities")
        if held is None:
            raise FamilyError(f"family {self.name}: its primitives have no opacity to set; they are opaque")
        self.replace({"logit_opacities": torch.logit(wanted.double().clamp(1e-6, 1 - 1e-6)).to(held)})

    @torch.no_grad()
    def importance(self) -> Float[Tensor, "n"]:
        """How much each primitive shows, by its own measures; by default opacity times area."""
        return (self.opacities() * self.areas()).detach()

    @torch.no_grad()
    def simplify(
        self, chosen: Bool[Tensor, "n"], count: int, weights: Float[Tensor, "n"]
    ) -> tuple[RowMap, dict[str, RowMap]]:
        """Leave at most `count` of the chosen primitives, fewer than there are, such that the picture stays as it is as
        nearly as may be; `weights` (0 or more) say how much each counts. Returns what became of the primitives and of
        each parameter's rows. By default the weightiest stay.
        """
        weighty = torch.where(chosen, weights, -torch.inf).argsort(descending=True, stable=True)[:count]
        rows = RowMap.keep((~chosen).index_fill(0, weighty, True))
        return rows, self.rearrange(rows)

    def replace(self, parameters: Mapping[str, Tensor]) -> None:
        """`Family.replace`."""
        raise NotImplementedError

    def rearrange(self, rows: RowMap) -> dict[str, RowMap]:
        """`Family.rearrange`."""
        raise NotImplementedError

    def opacities(self) -> Float[Tensor, "n"]:
        """`Family.opacities`."""
        raise NotImplementedError

    def areas(self) -> Float[Tensor, "n"]:
        """`Family.areas`."""
        raise NotImplementedError


def mapped(function: ColorFunction, colors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """`function` on colours of any shape; ValueError where it gives another shape or numbers that are not finite."""
    flat = colors.reshape(-1, 3)
    result = function(flat.clone())
    if result.shape != flat.shape or not bool(torch.isfinite(result).all()):
        raise ValueError(
            f"recolor: the function should give finite colours {tuple(flat.shape)}, got {tuple(result.shape)}"
        )
    return result.to(flat).reshape(colors.shape)


def reflection(plane: Float[Tensor, "4"]) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """(matrix, shift) of p' = matrix p + shift, float64."""
    normal, offset = plane[:3].double(), plane[3].double()
    eye = torch.eye(3, dtype=torch.float64, device=plane.device)
    return eye - 2.0 * torch.outer(normal, normal), 2.0 * offset * normal


def reflected(plane: Float[Tensor, "4"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Points on the other side of the plane."""
    matrix, shift = reflection(plane)
    return (points.double() @ matrix.T.to(points.device) + shift.to(points.device)).to(points)


def mirrored_frames(plane: Float[Tensor, "4"], frames: Float[Tensor, "n 3 3"], axis: int) -> Float[Tensor, "n 3 3"]:
    """Proper rotations whose columns are the reflected axes, with the one numbered `axis` reversed; float64."""
    sign = torch.ones(3, dtype=torch.float64, device=frames.device)
    sign[axis] = -1.0
    return reflection(plane)[0].to(frames.device) @ frames.double() * sign
