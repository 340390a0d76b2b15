"""How the small formats write numbers as bytes, and what their ends mean: opacities, colours, rotations.

Opacities and colours that were read from bytes are written as the same bytes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8, UInt32

from smalti.primitives.spherical_harmonics import SH_0

_END = 0.25 / 255
"""Bytes 0 and 255 stand for opacities a quarter of a step inside 0 and 1: within the rounding, finite as logits."""
_HALF_DIAGONAL = float(np.sqrt(0.5))


class Cut:
    """Counts what a range did not hold while a file was written, for the sentences that `write_*` returns."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def bytes_of(self, values: Float[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "..."]:
        """Round to 0..255; values more than one step outside are counted under `name`."""
        outside = int(np.count_nonzero((values < -1) | (values > 256)))
        if outside:
            self.counts[name] = self.counts.get(name, 0) + outside
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    def notices(self) -> tuple[str, ...]:
        """One sentence for every name."""
        return tuple(
            f"{count:,} value(s) of {name} were cut to the format's range" for name, count in self.counts.items()
        )


def opacity_bytes(logits: Float[np.ndarray, "n"]) -> UInt8[np.ndarray, "n"]:
    """Opacity times 255, rounded."""
    wide = np.clip(logits.astype(np.float64), -30, 30)
    return np.rint(255 / (1 + np.exp(-wide))).astype(np.uint8)


def logits_of_bytes(values: UInt8[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The logits of opacities byte / 255; the ends are a quarter of a step inside 0 and 1."""
    alpha = np.clip(values / 255.0, _END, 1 - _END)
    return np.log(alpha / (1 - alpha)).astype(np.float32)


def colours_of_dc(dc: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """What coefficients of degree 0 show: 0.5 + SH_0 * dc, not clamped, float64."""
    return 0.5 + SH_0 * dc.astype(np.float64)


def dc_of_colours(colours: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The inverse of `colours_of_dc`."""
    return ((colours - 0.5) / SH_0).astype(np.float32)


def unit(quaternions: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Float64 of length 1; zeros become the identity."""
    wide = quaternions.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.where(length > 0, wide / np.where(length > 0, length, 1), [1.0, 0, 0, 0])


def smallest_three(values: Float[np.ndarray, "n 4"]) -> tuple[UInt32[np.ndarray, "n"], Float[np.ndarray, "n 3"]]:
    """Index of the component largest in magnitude, and the others in their order, divided by sqrt(1/2): -1..1.

    The sign of the quaternion is chosen so that the largest is positive.
    """
    largest = np.abs(values).argmax(axis=1)
    sign = np.where(np.take_along_axis(values, largest[:, None], axis=1) < 0, -1.0, 1.0)
    others = _others(largest)
    return largest.astype(np.uint32), np.take_along_axis(values * sign, others, axis=1) / _HALF_DIAGONAL


def from_smallest_three(largest: UInt32[np.ndarray, "n"], others: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    """The inverse of `smallest_three`, float32."""
    small = others * _HALF_DIAGONAL
    result = np.empty((len(small), 4))
    np.put_along_axis(result, _others(largest), small, axis=1)
    rest = np.sqrt(np.clip(1 - (small**2).sum(axis=1, keepdims=True), 0, None))
    np.put_along_axis(result, largest.astype(np.int64)[:, None], rest, axis=1)
    return result.astype(np.float32)


def _others(largest: np.ndarray) -> np.ndarray:
    return np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest.astype(np.int64)]
