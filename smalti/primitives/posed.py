"""Parts that have a pose: what an editor of regularities may ask of a family whose primitives are solids of their own
(`Family.separate_parts`), whatever its parameters are called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.primitives.registry import FamilyError


@dataclass(frozen=True, eq=False)
class Poses:
    """Oriented boxes, rounded by two exponents; float64, on the CPU."""

    centres: Float[Tensor, "n 3"]
    rotations: Float[Tensor, "n 3 3"]
    """Columns are the part's own axes."""
    half_extents: Float[Tensor, "n 3"]
    exponents: Float[Tensor, "n 2"]
    """Of a superquadric (Barr 1981), from pole to pole of the part's own y axis and around it: 0 a box, 1 round."""

    def __len__(self) -> int:
        return len(self.centres)


class Posed(ABC):
    """The part of a family that holds poses; see the module. None of it is differentiable."""

    pose_parameters: ClassVar[tuple[str, ...]]
    """Names of the parameters that `set_poses` writes to, a row for each primitive."""

    @abstractmethod
    def poses(self) -> Poses:
        """Of all primitives, in the family's own axes."""

    @abstractmethod
    def set_poses(self, rows: Int[Tensor, "k"], poses: Poses) -> None:
        """Give these primitives other poses, with new tensors. FamilyError for what the family cannot hold."""


class PosedBlocks(Posed):
    """`Posed` for blocks (superquadrics): half extents above a floor, exponents between 0.1 and 1.9."""

    pose_parameters: ClassVar[tuple[str, ...]] = ("translations", "rotations", "raw_scales", "raw_exponents")
    name: ClassVar[str]
    least_scale: ClassVar[float]
    """Half extents are at least this many `ratio`."""
    parameters: dict[str, Tensor]
    metadata: dict[str, Any]

    @torch.no_grad()
    def poses(self) -> Poses:
        from smalti.primitives.superquadric_shape import rotation_from_six

        raw = {key: self.parameters[key].detach().double().cpu() for key in self.pose_parameters}
        sizes = float(self.metadata["ratio"]) * (raw["raw_scales"].exp() + self.least_scale)
        exponents = 0.1 + 1.8 * raw["raw_exponents"].sigmoid()
        return Poses(raw["translations"], rotation_from_six(raw["rotations"]), sizes, exponents)

    @torch.no_grad()
    def set_poses(self, rows: Int[Tensor, "k"], poses: Poses) -> None:
        ratio, now = float(self.metadata["ratio"]), self.poses()
        relative = poses.half_extents.double() / ratio - self.least_scale
        if len(rows) and not float(relative.min()) > 0:
            raise FamilyError(
                f"family {self.name}: blocks cannot be below {self.least_scale} ratio "
                f"({self.least_scale * ratio:.4g} in half extents here); scale their whole layer"
            )
        wanted = {
            "translations": (poses.centres, now.centres),
            "rotations": (poses.rotations[:, :, :2].mT.reshape(-1, 6), now.rotations[:, :, :2].mT.reshape(-1, 6)),
            "raw_scales": (relative.log(), None),
            "raw_exponents": (torch.logit((poses.exponents.double() - 0.1) / 1.8, eps=1e-4), None),
        }
        sizes_same = (poses.half_extents - now.half_extents[rows]).abs().amax(dim=1) < 1e-9 * ratio
        shape_same = (poses.exponents - now.exponents[rows]).abs().amax(dim=1) < 1e-9
        for key, (new, before) in wanted.items():
            held = self.parameters[key].detach().clone()
            # What does not change keeps its very bytes: raw numbers have several values for one pose.
            if before is not None:
                same = (new - before[rows]).abs().amax(dim=1) < 1e-12
            else:
                same = sizes_same if key == "raw_scales" else shape_same
            changed = ~same
            held[rows[changed].to(held.device)] = new[changed].to(held)
            self.replace({key: held})

    def replace(self, parameters: dict[str, Tensor]) -> None:
        """`Family.replace`."""
        raise NotImplementedError
