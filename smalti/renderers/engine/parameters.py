"""Parameter structs of the CUDA kernels as ctypes structures, field by field as in the headers."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_void_p
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.engine.library import c_structures


@cache
def structures(dtype: torch.dtype) -> SimpleNamespace:
    """One attribute per C structure, for float32 or float64."""
    real: Any = ctypes.c_double if dtype == torch.float64 else ctypes.c_float
    shared = SimpleNamespace(real=real, **c_structures(real))

    def structure(name: str, *fields: tuple[str, Any]) -> Any:
        return type(name, (ctypes.Structure,), {"_fields_": list(fields)})

    def pointers(names: str) -> list[tuple[str, Any]]:
        return [(name, c_void_p) for name in names.split()]

    def integers(names: str) -> list[tuple[str, Any]]:
        return [(name, c_int) for name in names.split()]

    primitives = structure("PrimitiveTable", *pointers("records kinds rects"))
    tile_list = structure("TileList", ("primitives", primitives), *pointers("start ids entries values"))
    shape = structure("PictureShape", *integers("width height tiles_x channels"), ("transmittance_min", real))
    gaussian = [("input", shared.GaussianInput), ("camera", shared.CameraValues)]
    own = {
        "PrimitiveTable": primitives,
        "TileList": tile_list,
        "PictureShape": shape,
        "EmitParameters": structure(
            "EmitParameters",
            ("primitives", primitives),
            *pointers("order counts ends tiles ids first_entry"),
            *integers("count tiles_x"),
        ),
        "RangeParameters": structure("RangeParameters", *pointers("tiles start"), *integers("entries tile_count")),
        "SumParameters": structure("SumParameters", *pointers("slots counts first_entry sums"), *integers("count")),
        "TileForwardParameters": structure(
            "TileForwardParameters",
            ("shape", shape),
            ("list", tile_list),
            *integers("first_channel background_per_pixel"),
            *pointers("background picture alpha transmittance stop first median dominant"),
            *pointers("contribution_sum contribution_max slots"),
        ),
        "TileBackwardParameters": structure(
            "TileBackwardParameters",
            ("shape", shape),
            ("list", tile_list),
            *integers("first_channel background_per_pixel"),
            *pointers("background transmittance stop picture alpha rows slots"),
            *integers("stride moments"),
        ),
        "GaussianProjectParameters": structure(
            "GaussianProjectParameters",
            *gaussian,
            *integers("first tiles_x tiles_y channels"),
            *pointers("records"),
            *integers("record_bytes"),
            *pointers("rects values depths radii counts skipped"),
        ),
        "GaussianBackwardParameters": structure(
            "GaussianBackwardParameters",
            *gaussian,
            *integers("first channels moments stride record_bytes"),
            *pointers("records counts first_entry rows slots"),
            ("output", shared.GaussianGradient),
            *pointers("absolute camera_blocks"),
        ),
    }
    return SimpleNamespace(**{**vars(shared), **own})


def size_checks(dtype: torch.dtype) -> str:
    """C++ assertions that the compiler lays these structs out as ctypes does."""
    sizes = {name: ctypes.sizeof(c) for name, c in vars(structures(dtype)).items() if name.endswith("Parameters")}
    return "\n".join(f'static_assert(sizeof(smalti::{n}) == {s}, "parameters.py: {n}");' for n, s in sizes.items())


def address(tensor: Tensor | None) -> int | None:
    """Address of a contiguous tensor's data, None for none."""
    return None if tensor is None or tensor.numel() == 0 else tensor.data_ptr()
