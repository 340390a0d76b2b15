"""The general compositor's CUDA source, composed for the kinds that a scene contains (see kernel_source.py)."""

from __future__ import annotations

import ctypes
import hashlib
from ctypes import c_double, c_int, c_longlong, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from smalti.renderers.drawables import Drawable, TriangleDrawable
from smalti.renderers.engine.kernel_source import ENGINE, INCLUDE, engine_digest
from smalti.renderers.engine.library import EngineError
from smalti.renderers.engine.parameters import structures
from smalti.renderers.outside import OutsideKind, drawn_kind, header_digest


@dataclass(frozen=True)
class ExactKindSource:
    """A kind's header and struct (include/kinds/kind.h says what it holds)."""

    name: str
    header: Path
    """Included as it is; may lie outside of the package."""
    struct: str
    """In namespace smalti."""
    width: int = 0
    """Numbers per primitive that Python hands to a kind from outside; 0 for built-in ones."""


PICTURES, FRAGMENTS = "PICTURES", "FRAGMENTS"


def _built_in(name: str, header: str, struct: str) -> ExactKindSource:
    return ExactKindSource(name, INCLUDE / "kinds" / header, struct)


BUILT_IN = {
    kind.name: kind
    for kind in (
        _built_in("gaussian", "gaussian_exact.h", "GaussianExact"),
        _built_in("gaussian_ray", "gaussian_ray.h", "GaussianRayKind"),
        _built_in("surfel", "surfel.h", "SurfelKind"),
        _built_in("neural", "neural.h", "NeuralKind"),
        _built_in("triangle", "triangle.h", "PlainTriangleKind"),
        _built_in("triangle with mipmaps", "triangle.h", "TriangleKind"),
        _built_in("box", "box.h", "BoxKind"),
    )
}


def kind_source(kind: str | OutsideKind) -> ExactKindSource:
    """The source of a built-in kind's name, or of a kind from outside. Raises EngineError where there is none."""
    if isinstance(kind, OutsideKind):
        return ExactKindSource(kind.name, kind.path, f"OutsideKind<::{kind.struct.removeprefix('::')}>", kind.width)
    if kind not in BUILT_IN:
        raise EngineError(f"the kind {kind!r} cannot be drawn on CUDA yet; move the scene to the CPU")
    return BUILT_IN[kind]


def drawn_source(drawable: Drawable) -> ExactKindSource:
    """The source of the kind that draws it."""
    kind = drawn_kind(drawable)
    mipmapped = isinstance(drawable, TriangleDrawable) and drawable.mipmaps is not None
    return kind_source("triangle with mipmaps" if mipmapped and kind == "triangle" else kind)


@dataclass(frozen=True)
class ExactSource:
    """One module of kernels; used as `KernelSource` is."""

    kinds: tuple[ExactKindSource, ...]
    dtype: torch.dtype
    draws: tuple[str, ...] = (PICTURES,)
    """PICTURES, FRAGMENTS or both: what is not asked for is not compiled."""
    variants: tuple[Any, ...] = ()

    def text(self) -> str:
        """The translation unit, to be compiled with `INCLUDE` among the include folders."""
        lines = ["#define SMALTI_DOUBLE 1"] if self.dtype == torch.float64 else []
        lines += ['#include "exact_fragments_cuda.h"', *[f'#include "{kind.header}"' for kind in self.kinds]]
        lines += [
            f"#define SMALTI_EXACT_KINDS {', '.join(kind.struct for kind in self.kinds)}",
            *[f"#define SMALTI_{what} 1" for what in self.draws],
            f'#include "{ENGINE / "cuda" / "exact_kernels.cu"}"',
        ]
        widths = {kind.struct: kind.width for kind in self.kinds if kind.width}
        lines += [f'static_assert(smalti::{n}::P == {w}, "kParameters differs");' for n, w in widths.items()]
        sizes = {n: ctypes.sizeof(c) for n, c in vars(exact_structures(self.dtype)).items() if n.startswith("Exact")}
        checks = {n: size for n, size in sizes.items() if n.endswith("Parameters") or n in ("ExactDevice", "ExactSums")}
        lines += [f'static_assert(sizeof(smalti::{n}) == {s}, "exact_source.py: {n}");' for n, s in checks.items()]
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """SHA-256 over this text and all the files that it may include; the same wherever the package lies."""
        own = self.text().replace(str(ENGINE), "")
        outside = [header_digest(kind.header).encode() for kind in self.kinds if not kind.header.is_relative_to(ENGINE)]
        return hashlib.sha256(b"\0".join([own.encode(), engine_digest(), *outside])).hexdigest()


@cache
def exact_structures(dtype: torch.dtype) -> SimpleNamespace:
    """The C structures of exact_*cuda.h beside those that `parameters.structures` has."""
    shared = structures(dtype)

    def structure(name: str, *fields: tuple[str, Any]) -> Any:
        return type(name, (ctypes.Structure,), {"_fields_": list(fields)})

    pointers = lambda names: [(name, c_void_p) for name in names.split()]  # noqa: E731
    integers = lambda names: [(name, c_int) for name in names.split()]  # noqa: E731
    view = structure("ViewOptions", *integers("channels features normals centre smooth absolute"))
    scene = structure(
        "ExactScene",
        *pointers("drawables drawable_of records values"),
        ("camera", shared.CameraValues),
        ("view", view),
        ("transmittance_min", shared.real),
        *integers("count tiles_x tiles_y additive depth"),
    )
    tiles = structure(
        "ExactTiles",
        *pointers("start ids entries keys offsets memory"),
        ("event_bytes", c_longlong),
        ("fixed_bytes", c_longlong),
        ("first_tile", c_int),
    )
    both = [("scene", scene), ("tiles", tiles)]
    fixed = structure("FixedSums", *pointers("plain words"), ("unit", c_double), ("rest_unit", c_double))
    tables = structure(
        "ExactTables", *pointers("words places units most"), ("rest_unit", c_double), *integers("pass_number")
    )
    sums = structure("ExactSums", *pointers("rows slots"), ("tables", tables), *integers("stride"))
    own = {
        "ViewOptions": view,
        "ExactScene": scene,
        "ExactTiles": tiles,
        "FixedSums": fixed,
        "ExactTables": tables,
        "ExactSums": sums,
        "ExactDevice": structure(
            "ExactDevice",
            *[("input", shared.KindInput), ("gradient", shared.KindGradient), ("records", c_longlong)],
            *integers("kind first"),
        ),
        "ExactSizesParameters": structure(
            "ExactSizesParameters", ("scene", scene), *integers("drawables locals"), *pointers("sizes")
        ),
        "ExactProjectParameters": structure(
            "ExactProjectParameters",
            *[("scene", scene), *integers("drawable"), *pointers("depths keys radii rects counts skipped")],
        ),
        "ExactEmitParameters": structure(
            "ExactEmitParameters", ("scene", scene), *pointers("rects order counts ends tiles ids first_entry")
        ),
        "ExactCountParameters": structure("ExactCountParameters", *both, *pointers("counts")),
        "ExactForwardParameters": structure(
            "ExactForwardParameters",
            *[*both, *pointers("background"), *integers("background_per_pixel")],
            *pointers("picture alpha transmittance first median dominant depth_first depth_median"),
            *[("contributions", fixed), *pointers("contribution_max overflown")],
        ),
        "ExactBackwardParameters": structure(
            "ExactBackwardParameters",
            *[*both, *pointers("background"), *integers("background_per_pixel")],
            *[*pointers("picture alpha"), ("sums", sums), *pointers("overflown")],
        ),
        "ExactFragmentsParameters": structure(
            "ExactFragmentsParameters",
            *[*both, ("out", shared.FragmentValues), *integers("most"), *pointers("overflown")],
        ),
        "ExactFragmentsBackParameters": structure(
            "ExactFragmentsBackParameters",
            *[*both, ("input", shared.FragmentValues), ("sums", sums), *integers("most"), *pointers("overflown")],
        ),
        "ExactFinishParameters": structure(
            "ExactFinishParameters",
            *[("scene", scene), *integers("drawable stride")],
            *pointers("counts first_entry rows slots camera_blocks"),
        ),
    }
    return SimpleNamespace(**{**vars(shared), **own})
