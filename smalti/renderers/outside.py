"""Kinds from outside: what a package says of the kind that it brings, and what a family draws with it.

A package registers an `OutsideKind` under the entry-point group `smalti.kinds`; its C++ header gives the event alone
(`engine/include/kinds/outside.h`), and the engine compiles it when it is first drawn (`engine/outside.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.renderers.drawables import Drawable, Inputs
from smalti.renderers.shapes import check_shapes

MOST_PARAMETERS = 16
HEADERS = (".h", ".hh", ".hpp", ".hxx", ".inl", ".inc", ".cuh")
"""Files of these names beside a kind's header count as its sources."""

Reference = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""(parameters [k, P], origin [k, 3], direction [k, 3]) -> thin: z, alpha, hit; thick: z0, z1, tau, hit; all [k].

The centre is the origin, as for the header's event; differentiable."""


class OutsideError(ValueError):
    """A kind that is not known or not described well; the message says what to write instead."""


@dataclass(frozen=True, eq=False)
class OutsideKind:
    """A kind whose event is a C++ struct in a header of the package that brings it."""

    name: str
    """As registered under `smalti.kinds`."""
    header: str | Path
    """File that defines the struct; files beside it may be included."""
    struct: str
    """Its name in C++."""
    parameters: Mapping[str, int]
    """Names and widths of a primitive's numbers, in the event's order; the first is the centre, of width 3."""
    thick: bool = False
    """Gives segments (z0, z1, tau) instead of thin events (z, alpha)."""
    reference: Reference | None = None
    """The same event in torch, slow and plain: the oracle and `smalti.testing` judge the header by it."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise OutsideError(f"OutsideKind.name: expected lower-case letters, digits and _, got {self.name!r}")
        if not re.fullmatch(r"(::)?[A-Za-z_]\w*(::[A-Za-z_]\w*)*", self.struct):
            raise OutsideError(f"OutsideKind.struct: expected the name of a C++ struct, got {self.struct!r}")
        widths = list(self.parameters.values())
        if not widths or widths[0] != 3 or min(widths) < 1 or sum(widths) > MOST_PARAMETERS:
            raise OutsideError(
                f"OutsideKind.parameters: expected widths of at least 1, at most {MOST_PARAMETERS} together, the first "
                f"(the centre's) 3, got {dict(self.parameters)}"
            )

    @property
    def width(self) -> int:
        """Numbers per primitive."""
        return sum(self.parameters.values())

    @property
    def path(self) -> Path:
        """The header, absolute."""
        return Path(self.header).resolve()

    def columns(self) -> dict[str, slice]:
        """Where each parameter stands in a row."""
        found: dict[str, slice] = {}
        at = 0
        for name, width in self.parameters.items():
            found[name] = slice(at, at + width)
            at += width
        return found

    def draw(
        self, values: Mapping[str, Tensor], colors: Float[Tensor, "n 3"], features: Float[Tensor, "n f"] | None = None
    ) -> OutsideDrawable:
        """A drawable of parameters by name ([n, width], or [n] where the width is 1). OutsideError for missing ones."""
        if set(values) != set(self.parameters):
            raise OutsideError(f"kind {self.name}: it has {sorted(self.parameters)}, got {sorted(values)}")
        rows = [values[name].reshape(len(colors), width) for name, width in self.parameters.items()]
        return OutsideDrawable(self, torch.cat(rows, dim=1), colors, features)


@dataclass(frozen=True, eq=False)
class OutsideDrawable:
    """Primitives of a kind from outside. Rows with NaN or Inf, or with a radius <= 0, are skipped and counted.

    Differentiable with respect to all tensors and the camera.
    """

    kind: ClassVar[str] = "outside"

    outside: OutsideKind
    """Which."""
    parameters: Float[Tensor, "n p"]
    """As the kind's event reads them; world units."""
    colors: Float[Tensor, "n 3"]
    """Composited as they are; where colour depends on the direction, evaluate it in torch for the camera at hand."""
    features: Float[Tensor, "n f"] | None = None
    """Further channels."""
    bound_scale: float = 1.0
    """Factor on the kind's radius: a right kind draws the same with a larger one (tests)."""
    origin_shift: float = 0.0
    """Radii by which the origins that the event is given move along their rays: a right kind draws the same (tests)."""

    def __post_init__(self) -> None:
        n = len(self)
        shapes: dict[str, tuple[int, ...]] = {"parameters": (n, self.outside.width), "colors": (n, 3)}
        if self.features is not None:
            shapes["features"] = (n, *self.features.shape[1:2])
        check_shapes(self, self.parameters, shapes)
        if not self.bound_scale > 0:
            raise ValueError(f"OutsideDrawable.bound_scale: expected a positive number, got {self.bound_scale}")

    def __len__(self) -> int:
        return self.parameters.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.parameters.dtype

    @property
    def device(self) -> torch.device:
        return self.parameters.device

    @property
    def feature_count(self) -> int:
        return 0 if self.features is None else self.features.shape[-1]

    def inputs(self) -> Inputs:
        tensors = [self.parameters, self.colors, self.features]
        return Inputs(tensors, (), [self.feature_count], [self.bound_scale, self.origin_shift])


def drawn_kind(drawable: Drawable) -> str | OutsideKind:
    """What draws it: a built-in kind's name (or one that is registered), or the kind from outside itself."""
    return drawable.outside if isinstance(drawable, OutsideDrawable) else drawable.kind


def header_digest(header: Path) -> str:
    """SHA-256 over a header and those that lie beside it."""
    found = sorted({header, *(path for path in header.parent.iterdir() if path.suffix in HEADERS and path.is_file())})
    total = hashlib.sha256()
    for file in found:
        total.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def outside_names() -> list[str]:
    """Names of the kinds that installed packages bring."""
    return sorted({point.name for point in entry_points(group="smalti.kinds")})


@cache
def find_outside(name: str) -> OutsideKind:
    """The kind registered under `name`. OutsideError for unknown ones and for registrations that are no OutsideKind."""
    for point in entry_points(group="smalti.kinds", name=name):
        kind = point.load()
        if not isinstance(kind, OutsideKind) or kind.name != name:
            raise OutsideError(
                f"the entry point {point.value!r} of smalti.kinds is no OutsideKind called {name!r}, but {kind!r}"
            )
        return kind
    near = get_close_matches(name, outside_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else "is the package that brings it installed?"
    raise OutsideError(f"there is no kind {name!r}; {hint}")
