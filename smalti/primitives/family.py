"""What a primitive family is: named parameters and the operations that trainers, editors and files may ask of them.

Everything outside a family's own module works against this protocol. Every structural change (clone, split, prune,
relocate, multiply) returns a `Restructure`: which old primitive each new one comes from, and which old row each new row
of every parameter, so that statistics and optimiser moments can follow. In most families a parameter's rows are the
primitives; a mesh's primitives are its faces, while its vertices and its texture have rows of their own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.editing import Editable
from smalti.primitives.metadata import Ranges, checked_values
from smalti.primitives.registry import FamilyError, family_names, find_family
from smalti.primitives.rows import Restructure, RowMap
from smalti.primitives.surface import Surface
from smalti.renderers.drawables import Drawable

__all__ = ["Drawable", "Family", "FamilyError", "LossContext", "Restructure", "RowMap", "family_names", "find_family"]

MOST_COPIES = 51
"""Copies that one primitive may be shared into at once (float64 holds the Gaussians' alternating sum up to here)."""


@dataclass(frozen=True, eq=False)
class LossContext:
    """What a family's loss terms may lean on besides its own parameters."""

    extent: float
    """The scene's, world units: lengths are divided by it."""
    generator: torch.Generator
    """On the CPU; part of the training state."""
    anisotropy_limit: float = 8.0
    """Ratio of the longest axis to the second longest from which a primitive counts as a needle."""


class Family(Editable, ABC):
    """A set of primitives of one sort: parameter tensors (leaves), constant tensors and plain metadata.

    Subclasses register under the entry-point group `smalti.families`.
    """

    name: ClassVar[str]
    """The registered name."""
    default_order: ClassVar[Literal["centre", "ray"]] = "ray"
    """The compositing order of a new scene that is made of this family alone; of several families: `ray` unless all
    say `centre`. It is stored in the scene then, and adding a layer never changes it.
    """
    is_splats: ClassVar[bool] = False
    """Whether 3DGS splat files say exactly what the family draws."""
    grows: ClassVar[bool] = True
    """Whether `density.rule` is meant for it and primitives may be left out at random; False where they hang together,
    as the faces of a mesh do: then only a rule that a layer names itself changes their number.
    """
    part_noun: ClassVar[str] = ""
    """What one primitive is called where each is a solid of its own, bounded by a closed surface (`separate_parts`);
    empty where primitives are not such.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        metadata: Mapping[str, Any] | None = None,
        constants: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.metadata = self.checked_metadata(metadata or {})
        self._check_names("parameters", set(parameters), set(self.default_learning_rates()), self.optional_parameters())
        self._check_names("constants", set(constants or {}), set(self.constant_names()), self.constant_names())
        self.constants = {key: value.detach().clone().contiguous() for key, value in (constants or {}).items()}
        """Tensors that are never optimised (topology, texture coordinates), saved beside the parameters."""
        self.parameters: dict[str, Tensor] = {}
        self.replace({key: value.detach().clone() for key, value in parameters.items()})
        self.check_shapes()

    def _check_names(self, what: str, given: set[str], known: set[str], optional: Sequence[str]) -> None:
        if given <= known and known - given <= set(optional):
            return
        maybe = f" (optional: {', '.join(sorted(optional))})" if optional else ""
        raise FamilyError(f"family {self.name}: expected the {what} {sorted(known)}{maybe}, got {sorted(given)}")

    def check_shapes(self) -> None:
        """FamilyError where tensors do not fit together; by default all parameters have one row per primitive."""
        rows = {key: value.shape[0] for key, value in self.parameters.items()}
        if len(set(rows.values())) > 1:
            raise FamilyError(f"family {self.name}: parameters differ in their number of rows: {rows}")

    # -- what it is made of -------------------------------------------------------------------------------------------
    @classmethod
    @abstractmethod
    def default_metadata(cls) -> dict[str, Any]:
        """Plain values that belong to the model and are saved with it, with their defaults."""

    @classmethod
    def checked_metadata(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults with `given` on top. FamilyError for names that are unknown, values of another type, and those
        out of `metadata_ranges`.
        """
        return checked_values(cls.name, cls.default_metadata(), given, cls.metadata_ranges)

    @classmethod
    def metadata_ranges(cls, values: Mapping[str, Any]) -> Ranges:
        """Per name whether its value lies in its range, and the range in words."""
        return {}

    @classmethod
    @abstractmethod
    def default_learning_rates(cls) -> dict[str, float]:
        """Adam's rate per parameter name; rates of positions are per unit of scene extent."""

    @classmethod
    def optional_parameters(cls) -> tuple[str, ...]:
        """Those of the names in `default_learning_rates` that a family may be without."""
        return ()

    @classmethod
    def constant_names(cls) -> tuple[str, ...]:
        """Names that `constants` may have; `check_shapes` says which are needed."""
        return ()

    @classmethod
    def position_parameters(cls) -> tuple[str, ...]:
        """Names of parameters measured in world units, whose rates scale with the scene's extent and decay."""
        return ()

    @classmethod
    def opacity_parameters(cls) -> tuple[str, ...]:
        """Names of the parameters behind `opacities`, whose optimiser state is dropped when opacities are reset."""
        return ()

    @classmethod
    @abstractmethod
    def from_points(
        cls, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], metadata: Mapping[str, Any]
    ) -> Self:
        """Initial primitives on coloured points (colours 0..1)."""

    @classmethod
    def from_mesh(
        cls,
        vertices: Float[Tensor, "v 3"],
        faces: Int[Tensor, "f 3"],
        colors: Float[Tensor, "v 3"],
        metadata: Mapping[str, Any],
    ) -> Self:
        """Initial primitives on a mesh with coloured vertices (0..1); by default one from each face's middle."""
        return cls.from_points(vertices[faces].mean(dim=1), colors[faces].mean(dim=1), metadata)

    @classmethod
    def from_surface(
        cls, surface: Surface, count: int, generator: torch.Generator, metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """`count` initial primitives on a surface: on points spread evenly over it, unless a family knows better."""
        points = surface.sample(count, generator)
        return cls.from_points(points.positions, points.colors, metadata or {})

    @classmethod
    def at_random(
        cls,
        bounds: Float[Tensor, "2 3"],
        count: int,
        generator: torch.Generator,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """`count` initial primitives of random colours, uniform in the box (low, high)."""
        low, high = bounds.cpu().float().unbind(0)
        positions = low + torch.rand(count, 3, generator=generator) * (high - low)
        return cls.from_points(positions, torch.rand(count, 3, generator=generator), metadata or {})

    @classmethod
    def from_family(
        cls, other: Family, count: int, generator: torch.Generator, metadata: Mapping[str, Any] | None = None
    ) -> Self:
        """`count` initial primitives on what another family covers (`sample_points`)."""
        return cls.from_points(*other.sample_points(count, generator), metadata or {})

    @abstractmethod
    def drawables(self, camera: Camera, time: float = 0.0) -> Sequence[Drawable]:
        """What to composite for this camera and instant, rows in the order of the primitives. Differentiable."""

    def owners(self) -> Int[Tensor, "m"] | None:
        """The primitive that each drawn row belongs to, ascending; None: rows are primitives.

        Per-row results of a frame (visibility, contributions, gradients) are folded to primitives by it.
        """
        return None

    def advance(self, degree: int) -> None:
        """Use detail of colour up to `degree`; families without such degrees ignore it."""

    # -- training -----------------------------------------------------------------------------------------------------
    @classmethod
    def default_regularizers(cls) -> dict[str, float]:
        """Weights of the terms of `regularizers` that are on unless a configuration says otherwise."""
        return {}

    def regularizers(self, context: LossContext) -> Mapping[str, Callable[[], Float[Tensor, ""]]]:
        """Loss terms on the family's own parameters by name, unweighted and without a unit; a term is computed only
        where its weight is not zero. Differentiable.

        By default the mean opacity, the mean size over the extent (Kheradmand et al. 2024, equation 10), and the mean
        excess of the longest axis over the second longest beyond the limit (after Xie et al. 2024, PhysGaussian).
        Families to which these mean nothing give their own mapping.
        """

        def needles() -> Tensor:
            sizes = self.sizes()
            if sizes.shape[1] < 2:
                return sizes.new_zeros(())
            two = sizes.topk(2, dim=1).values
            return (two[:, 0] / two[:, 1] - context.anisotropy_limit).clamp_min(0).mean()

        return {
            "opacity": lambda: self.opacities().mean(),
            "scale": lambda: self.sizes().mean() / context.extent,
            "anisotropy": needles,
        }

    def begin_step(self, share: float, generator: torch.Generator) -> None:
        """Before a training step, when `share` (0..1) of the run is over: what is scheduled is set, what is random and
        for this step alone (noise on opacities) is drawn. A function of parameters, metadata, share and generator.
        """

    def end_step(self) -> None:
        """After a training step: what was for it alone is gone, renders are as they will be when saved and loaded."""

    # -- measures -----------------------------------------------------------------------------------------------------
    @abstractmethod
    def positions(self) -> Float[Tensor, "n 3"]:
        """Centres, world units. Differentiable."""

    @abstractmethod
    def opacities(self) -> Float[Tensor, "n"]:
        """0..1 per primitive. Differentiable."""

    @abstractmethod
    def sizes(self) -> Float[Tensor, "n d"]:
        """Lengths along the primitive's own axes, world units. Differentiable."""

    @abstractmethod
    def bounds(self) -> Float[Tensor, "n 2 3"]:
        """Axis-aligned boxes (low, high) that hold all of what is drawn. Not differentiable."""

    @abstractmethod
    def volumes(self) -> Float[Tensor, "n"]:
        """Volume of each primitive, cubic world units. Not differentiable."""

    @torch.no_grad()
    def areas(self) -> Float[Tensor, "n"]:
        """Surface of each primitive, square world units; by default of the ellipsoid with semi-axes `sizes` (three
        columns; Thomsen's formula, within 1.1 %). Not differentiable.
        """
        a, b, c = (self.sizes() ** 1.6075).unbind(1)
        return 4.0 * math.pi * ((a * b + a * c + b * c) / 3.0) ** (1.0 / 1.6075)

    @abstractmethod
    def sample_points(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "count 3"], Float[Tensor, "count 3"]]:
        """(positions, colours 0..1) spread over what the primitives cover, weighted by opacity and area. Not
        differentiable.
        """

    def sample_surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
        """The positions of `sample_points`."""
        return self.sample_points(count, generator)[0]

    def surface(self) -> Surface | None:
        """The triangles that the family draws, where that is what it draws. Not differentiable."""
        return None

    def texture(self) -> Float[Tensor, "h w 3"] | None:
        """The picture (0..1) that the coordinates of `surface` refer to, where it has one. Not differentiable."""
        return None

    def separate_parts(self) -> Int[Tensor, "k"] | None:
        """Rows of the primitives that are drawn, ascending, where each is a solid of its own; None in other families.
        Such a family draws the same picture in one layer and in a layer for each of these rows.
        """
        return None

    @abstractmethod
    def transform(self, similarity: Similarity) -> None:
        """Move all primitives, in place (orientation-dependent colour included)."""

    # -- density control ----------------------------------------------------------------------------------------------
    def growth_signal(self) -> Float[Tensor, "n"] | None:
        """How much the last backward pass pulls at each primitive, >= 0, in the family's own unit; None: use the
        renderer's gradient of projected centres.
        """
        return None

    def prune(self, doomed: Bool[Tensor, "n"]) -> Restructure:
        """Remove primitives."""
        return self._restructured(RowMap.keep(~doomed))

    def clone(self, rows: Int[Tensor, "k"]) -> Restructure:
        """An exact copy of each of `rows`, at the end, with zero moments."""
        return self._restructured(RowMap.append(len(self), rows))

    def split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> Restructure:
        """Replace each of `rows` by `copies` smaller ones inside it, at the end, with zero moments."""
        keep = torch.ones(len(self), dtype=torch.bool, device=rows.device)
        keep[rows] = False
        kept = torch.nonzero(keep).squeeze(1)
        source = torch.cat([kept, rows.repeat(copies)])
        change = self._restructured(RowMap(source, torch.arange(len(source), device=rows.device) >= len(kept)))
        self.shrink_split(torch.arange(len(kept), len(source), device=rows.device), copies, generator)
        return change

    def branch(self, rows: Int[Tensor, "k"], generator: torch.Generator) -> Restructure:
        """One primitive more in the place of each of `rows` (all different), where the picture asks for more of them:
        not twice the same, so that they learn apart. By default a split in two.
        """
        return self.split(rows, 2, generator)

    def relocate(self, dead: Int[Tensor, "k"], hosts: Int[Tensor, "k"]) -> Restructure:
        """Move `dead[j]` onto `hosts[j]`; host and newcomers share what the host drew, all with zero moments."""
        touched = self._share(hosts)
        return self._restructured(RowMap.overwrite(len(self), dead, hosts).with_fresh(touched))

    def multiply(self, hosts: Int[Tensor, "k"]) -> Restructure:
        """Append a copy on each of `hosts`; host and newcomers share what the host drew, all with zero moments."""
        touched = self._share(hosts)
        return self._restructured(RowMap.append(len(self), hosts).with_fresh(touched))

    def _share(self, hosts: Int[Tensor, "k"]) -> Int[Tensor, "u"]:
        touched, times = torch.unique(hosts, return_counts=True)
        self.share_opacity(touched, (times + 1).clamp_max(MOST_COPIES))
        return touched

    def _restructured(self, rows: RowMap) -> Restructure:
        return Restructure(rows, self.rearrange(rows))

    def shrink_split(self, rows: Int[Tensor, "k"], copies: int, generator: torch.Generator) -> None:
        """Turn `rows`, which came `copies` times from one parent each, into smaller ones spread inside their parent.

        What `split` leaves to the family; one that overrides `split` needs none.
        """
        raise NotImplementedError(f"family {self.name}: splitting is not defined")

    @abstractmethod
    def share_opacity(self, rows: Int[Tensor, "k"], copies: Int[Tensor, "k"]) -> None:
        """Make `copies[j]` coincident copies of row `rows[j]` draw together what the one drew (sets `rows` only)."""

    @abstractmethod
    def perturb(self, strength: float, generator: torch.Generator) -> None:
        """Exploration noise on positions, strong where opacity is low, shaped by each primitive's own extent."""

    @abstractmethod
    def cap_opacities(self, maximum: float) -> None:
        """Set opacities above `maximum` to it, in place."""

    # -- shared machinery ---------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return next(iter(self.parameters.values())).shape[0]

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(iter(self.parameters.values())).device

    @property
    def bytes_per_primitive(self) -> int:
        """Bytes of all parameters of one primitive (of those with rows of their own: the mean per primitive)."""
        return sum(value[:1].numel() * value.element_size() for value in self.parameters.values())

    @property
    def bytes(self) -> int:
        """Bytes of all parameters and constants."""
        tensors = [*self.parameters.values(), *self.constants.values()]
        return sum(value.numel() * value.element_size() for value in tensors)

    def replace(self, parameters: Mapping[str, Tensor]) -> None:
        """Take these tensors, without a copy, as the new leaves (gradients start anew)."""
        for key, value in parameters.items():
            self.parameters[key] = value.detach().contiguous().requires_grad_(True)

    def rearrange(self, rows: RowMap) -> dict[str, RowMap]:
        """Copy, drop or overwrite primitives as `rows` says; returns what became of every parameter's rows."""
        self.replace({key: value.detach()[rows.source] for key, value in self.parameters.items()})
        return dict.fromkeys(self.parameters, rows)

    def same_primitives(self, parameter: str, rows: Int[Tensor, "k"]) -> dict[str, Int[Tensor, "j"]]:
        """Rows of every parameter that belong to the primitives to which `rows` of `parameter` belong."""
        return dict.fromkeys(self.parameters, rows)

    def copy(self) -> Self:
        """The same primitives, with tensors and metadata of their own."""
        return type(self)(self.parameters, dict(self.metadata), self.constants)

    def borrowed(self) -> Self:
        """Another instance with the same tensors: what replaces tensors in one does not in the other."""
        result = copy(self)
        result.parameters, result.constants = dict(self.parameters), dict(self.constants)
        result.metadata = dict(self.metadata)
        return result

    def require_gradients(self, wanted: bool) -> None:
        """Freeze or thaw all parameters."""
        for value in self.parameters.values():
            value.requires_grad_(wanted)

    def to(self, device: torch.device | str) -> None:
        """Move parameters and constants, in place."""
        self.replace({key: value.detach().to(device) for key, value in self.parameters.items()})
        self.constants = {key: value.to(device) for key, value in self.constants.items()}
