"""COLMAP's camera models by name and number, and its parameter vectors to and from ours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from smalti.cameras.models.closed import DivisionModel, EquirectangularModel, EucmModel, FovModel
from smalti.cameras.models.lens import LensModel, PlanarModel
from smalti.cameras.models.planar import PlanarDistortion

_ONE_FOCAL = ("f", "cx", "cy")
_TWO_FOCALS = ("fx", "fy", "cx", "cy")


def _perspective(values: tuple[float, ...]) -> PlanarDistortion:
    return PlanarDistortion(radial=values)


def _fisheye(values: tuple[float, ...]) -> PlanarDistortion:
    return PlanarDistortion(radial=values, reach=math.pi)


def _opencv(values: tuple[float, ...]) -> PlanarDistortion:
    k1, k2, p1, p2 = values
    return PlanarDistortion(radial=(k1, k2), tangential=(p1, p2))


def _full_opencv(values: tuple[float, ...]) -> PlanarDistortion:
    k1, k2, p1, p2, k3, k4, k5, k6 = values
    return PlanarDistortion(radial=(k1, k2, k3), divisor=(k4, k5, k6), tangential=(p1, p2))


def _thin_prism_fisheye(values: tuple[float, ...]) -> PlanarDistortion:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = values
    return PlanarDistortion((k1, k2, k3, k4), (), (p1, p2), (sx1, 0.0, sy1, 0.0), reach=math.pi)


def _rad_tan_thin_prism_fisheye(values: tuple[float, ...]) -> PlanarDistortion:
    radial, (p0, p1), (s0, s1, s2, s3) = values[:6], values[6:8], values[8:]
    # Project Aria counts its tangential parameters the other way round.
    return PlanarDistortion(radial, (), (p1, p0), (s0, s1, s2, s3), cascaded=True, reach=math.pi)


_RAD_TAN_NAMES = ("k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3")
_THIN_PRISM_NAMES = ("k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1")
_FULL_OPENCV_NAMES = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")

_ALL: tuple[LensModel, ...] = (
    PlanarModel("SIMPLE_PINHOLE", 0, _ONE_FOCAL, False, _perspective),
    PlanarModel("PINHOLE", 1, _TWO_FOCALS, False, _perspective),
    PlanarModel("SIMPLE_RADIAL", 2, (*_ONE_FOCAL, "k"), False, _perspective),
    PlanarModel("RADIAL", 3, (*_ONE_FOCAL, "k1", "k2"), False, _perspective),
    PlanarModel("OPENCV", 4, (*_TWO_FOCALS, "k1", "k2", "p1", "p2"), False, _opencv),
    PlanarModel("OPENCV_FISHEYE", 5, (*_TWO_FOCALS, "k1", "k2", "k3", "k4"), True, _fisheye),
    PlanarModel("FULL_OPENCV", 6, (*_TWO_FOCALS, *_FULL_OPENCV_NAMES), False, _full_opencv),
    FovModel("FOV", 7, (*_TWO_FOCALS, "omega")),
    PlanarModel("SIMPLE_RADIAL_FISHEYE", 8, (*_ONE_FOCAL, "k"), True, _fisheye),
    PlanarModel("RADIAL_FISHEYE", 9, (*_ONE_FOCAL, "k1", "k2"), True, _fisheye),
    PlanarModel("THIN_PRISM_FISHEYE", 10, (*_TWO_FOCALS, *_THIN_PRISM_NAMES), True, _thin_prism_fisheye),
    PlanarModel("RAD_TAN_THIN_PRISM_FISHEYE", 11, (*_TWO_FOCALS, *_RAD_TAN_NAMES), True, _rad_tan_thin_prism_fisheye),
    DivisionModel("SIMPLE_DIVISION", 12, (*_ONE_FOCAL, "k")),
    DivisionModel("DIVISION", 13, (*_TWO_FOCALS, "k")),
    PlanarModel("SIMPLE_FISHEYE", 14, _ONE_FOCAL, True, _fisheye),
    PlanarModel("FISHEYE", 15, _TWO_FOCALS, True, _fisheye),
    EucmModel("EUCM", 16, (*_TWO_FOCALS, "alpha", "beta")),
    EquirectangularModel("EQUIRECTANGULAR", 17, ("w", "h")),
)

MODELS: dict[str, LensModel] = {model.name: model for model in _ALL}
"""Every model, by COLMAP's name."""
MODELS_BY_ID: dict[int, LensModel] = {model.model_id: model for model in _ALL}
"""Every model, by COLMAP's number."""


def lens_model(name_or_id: str | int) -> LensModel:
    """The model of that name or number; ValueError with the known ones where there is none."""
    found = MODELS.get(name_or_id) if isinstance(name_or_id, str) else MODELS_BY_ID.get(name_or_id)
    if found is None:
        raise ValueError(f"unknown camera model {name_or_id!r}; known (COLMAP 4): {', '.join(MODELS)}")
    return found


def parameter_count(name_or_id: str | int) -> int:
    """Number of values in COLMAP's parameter vector."""
    return len(lens_model(name_or_id).parameters)


def split_parameters(
    name_or_id: str | int, parameters: Sequence[float]
) -> tuple[tuple[float, float, float, float], tuple[float, ...]]:
    """COLMAP's parameter vector as ((fx, fy, cx, cy), distortion); ValueError where its length is not the model's."""
    model = lens_model(name_or_id)
    values = [float(value) for value in parameters]
    if len(values) != len(model.parameters):
        raise ValueError(
            f"camera model {model.name}: expected {len(model.parameters)} parameters "
            f"({', '.join(model.parameters)}), got {len(values)}"
        )
    if isinstance(model, EquirectangularModel):
        width, height = values
        return (width / (2.0 * math.pi), height / math.pi, 0.5 * width, 0.5 * height), ()
    focals = 1 if model.parameters[0] == "f" else 2
    return (values[0], values[focals - 1], values[focals], values[focals + 1]), tuple(values[focals + 2 :])


def join_parameters(
    name_or_id: str | int, intrinsics: Sequence[float], distortion: Sequence[float] = ()
) -> tuple[float, ...]:
    """The reverse of `split_parameters`: COLMAP's vector; ValueError where the model cannot say these values.

    A model with one focal length needs fx = fy to 1e-6 of their size (their mean is written).
    """
    model = lens_model(name_or_id)
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    model.check(tuple(distortion))
    if isinstance(model, EquirectangularModel):
        width, height = 2.0 * math.pi * fx, math.pi * fy
        if abs(cx - 0.5 * width) > 1e-3 or abs(cy - 0.5 * height) > 1e-3:
            raise ValueError(
                "camera model EQUIRECTANGULAR: a cropped panorama has no COLMAP parameters; write it whole"
            )
        return (width, height)
    if model.parameters[0] != "f":
        return (fx, fy, cx, cy, *distortion)
    if abs(fx - fy) > 1e-6 * max(abs(fx), abs(fy)):
        raise ValueError(f"camera model {model.name}: has one focal length, got fx={fx}, fy={fy}; use one with two")
    return (0.5 * (fx + fy), cx, cy, *distortion)
