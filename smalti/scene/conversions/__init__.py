"""Conversions between families with a stated image error (`docs/converting-families.md`)."""

from smalti.scene.conversions.convert import ROUTES, Conversion, Route, convert, convert_layer, route_for
from smalti.scene.conversions.errors import ImageError, image_error
from smalti.scene.conversions.fusion import Fusion
from smalti.scene.conversions.sources import cameras_around
from smalti.scene.conversions.splats import AxisChange, SurfaceSampling
from smalti.scene.conversions.voxels import Voxelization

__all__ = [
    "ROUTES",
    "AxisChange",
    "Conversion",
    "Fusion",
    "ImageError",
    "Route",
    "SurfaceSampling",
    "Voxelization",
    "cameras_around",
    "convert",
    "convert_layer",
    "image_error",
    "route_for",
]
