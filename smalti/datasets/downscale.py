"""Exact area (box-filter) downscaling of uint8 pictures, in integers: the same bytes on every machine."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from jaxtyping import UInt8

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import DatasetError

LARGEST_BLOCK = 4096
"""Pixels per new pixel up to which twice the sum of colour times alpha fits 32 bits."""


def downscale_factor(value: int | float | Fraction) -> Fraction:
    """A factor of at least 1 as a fraction. Raises `ValueError`."""
    factor = Fraction(value).limit_denominator(1000)
    if factor < 1:
        raise ValueError(f"downscale: expected a factor of at least 1, got {value}")
    return factor


def downscaled_camera(camera: Camera, factor: Fraction) -> tuple[Camera, tuple[int, int]]:
    """The camera after downscaling, and the (width, height) of the top left part of the picture that is used.

    A whole factor crops the at most factor - 1 columns and rows that do not fill a pixel, so every pixel averages
    factor x factor pixels. Any other factor keeps the whole picture and rounds the size; pixels then average
    fractional areas. Raises `DatasetError` where no pixel is left.
    """
    if factor.denominator == 1:
        width, height = camera.width // factor.numerator, camera.height // factor.numerator
        used = (width * factor.numerator, height * factor.numerator)
    else:
        width, height = round(camera.width / factor), round(camera.height / factor)
        used = (camera.width, camera.height)
    if width < 1 or height < 1:
        problem = f"nothing is left of {camera.width} x {camera.height} pixels"
        raise DatasetError(camera.name or "picture", f"downscale {factor}", problem, "Reduce the pictures less")
    return camera.cropped(0, 0, *used).scaled_to(width, height), used


def area_resample(
    pixels: UInt8[np.ndarray, "height width *channels"], width: int, height: int
) -> UInt8[np.ndarray, "new_height new_width *channels"]:
    """Every new pixel is the mean over its exact area, rounded to nearest (halves up), of values as stored."""
    rows, columns = pixels.shape[:2]
    if (columns, rows) == (width, height):
        return pixels
    sums, weight = _area_sums(pixels, width, height)
    return ((2 * sums + weight) // (2 * weight)).astype(np.uint8)


def area_resample_alpha(
    pixels: UInt8[np.ndarray, "height width 4"], width: int, height: int
) -> UInt8[np.ndarray, "new_height new_width 4"]:
    """The same for straight RGBA: colours weighted by their alpha; (0, 0, 0, 0) where nothing is covered."""
    rows, columns = pixels.shape[:2]
    if (columns, rows) == (width, height):
        return pixels
    alpha = pixels[..., 3:].astype(np.uint32)
    sums, weight = _area_sums(np.concatenate([pixels[..., :3] * alpha, alpha], 2), width, height)
    coverage = sums[..., 3:]
    colors = np.where(coverage > 0, (2 * sums[..., :3] + coverage) // np.maximum(2 * coverage, 1), 0)
    return np.concatenate([colors, (2 * coverage + weight) // (2 * weight)], 2).astype(np.uint8)


def _area_sums(values: np.ndarray, width: int, height: int) -> tuple[np.ndarray, int]:
    """(weighted sums over the new pixels' areas, total weight of each), exact in integers."""
    rows, columns = values.shape[:2]
    down, across = rows // height, columns // width
    if (down * height, across * width) == (rows, columns) and down * across <= LARGEST_BLOCK:
        total = values[0::down].astype(np.uint32)
        for row in range(1, down):
            total += values[row::down]
        narrow = total[:, 0::across].copy()
        for column in range(1, across):
            narrow += total[:, column::across]
        return narrow, down * across
    return _interval_sums(_interval_sums(values.astype(np.int64), width, 1), height, 0), rows * columns


def _interval_sums(values: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Integrals of the step function over `size` equal intervals of an axis, times `size`, so that they are whole."""
    values = np.moveaxis(values, axis, 0)
    length = values.shape[0]
    edges = np.arange(size + 1, dtype=np.int64) * length
    whole, part = edges // size, edges % size
    prefix = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, 0)])
    last = np.minimum(whole, length - 1)
    integral = prefix[whole] * size + part.reshape(-1, *[1] * (values.ndim - 1)) * values[last]
    return np.moveaxis(np.diff(integral, axis=0), 0, axis)
