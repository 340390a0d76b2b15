"""Niantic's `.spz`: 20 bytes a Gaussian and one for every coefficient, packed; versions 2, 3, 4 are read, 4 is written.

| attribute | bytes | step |
| --- | --- | --- |
| position | 3 x 24 bits, signed | 2^-b, b the header's fractional bits; 12 or more for 1/32768 of the extent |
| opacity | 1, times 255 | 1/255 |
| colour (degree 0) | 3, byte = 255 (0.5 + 0.15 dc) | 0.026 in dc, which ends at +-3.33 |
| size | 3, byte = 16 (log size + 10) | 1/16 in the logarithm, -10..5.94 |
| rotation | version 2: x y z, w >= 0; later: the smallest three of x y z w, sign and 9 bits each | 1/127; 0.0014 |
| degree 1..3 | byte = 128 (1 + value), coefficient-major | 1/128 over +-1; written in 1/16 (degree 1), 1/8 |

The axes of the file are right, up, back; those of a 3DGS PLY right, down, forward: y and z change sign, in positions,
rotations and harmonics. A record of kind 0xADBE0003 may state others (1..8: left or right, down or up, back or
forward); it is heeded. Some tools leave the axes of a PLY as they are and say nothing: nobody can tell. Flag 1 of the
header is our `compensated`; nothing else of the metadata has a place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from jaxtyping import Float, UInt32

from smalti.files.bytewise import Cut, from_smallest_three, logits_of_bytes, opacity_bytes, smallest_three, unit
from smalti.files.checked import CHUNK_ROWS, BadRows, empty_splats, parts_of, whole_file, with_notices
from smalti.files.splat import unsaid
from smalti.files.splats import FileFormatError, SplatMetadata, Splats
from smalti.files.spz_container import COMPENSATED, REST_COUNTS, Attribute, Packer, SpzHeader, opened

DEGREE_1_STEP, REST_STEP = 8, 16
"""Of 256: the harmonics are rounded to these on writing, as the format's own library does; what is 0 packs well."""
_DC_SCALE = 0.15
_USUAL_BITS = 12
_AXES_RECORD = 0xADBE0003


def _rest_signs(x: int, y: int, z: int) -> Float[np.ndarray, "15"]:
    """Of the basis functions when the axes change theirs: y z x, xy yz zz xz xx-yy, and the seven of degree 3."""
    return np.array([y, z, x, x * y, y * z, 1, x * z, 1, y, x * y * z, y, z, x, z, x], np.float32)


_FLIP = np.array([1, -1, -1], np.float32)
_FLIP_REST = _rest_signs(1, -1, -1)


def read_spz(path: Path | str) -> Splats:
    """Read an `.spz` file. Memory: the result plus one chunk.

    Coefficients of degree 4 and vendors' records are left out, with a notice. Raises FileFormatError.
    """
    path = Path(path)
    with opened(path) as (header, attributes, records):
        held = min(REST_COUNTS[header.degree], 15)
        splats = empty_splats(header.rows, held, SplatMetadata(compensated=bool(header.flags & COMPENSATED)))
        decoders = (_means, _opacities, _colours, _sizes, _rotations, _harmonics)
        for attribute, decoder in zip(attributes, decoders, strict=False):
            for start in range(0, header.rows, CHUNK_ROWS):
                decoder(attribute, header, splats.rows(start, start + CHUNK_ROWS))
    axes = _stated_axes(records.pop(_AXES_RECORD, b""), path)
    if axes and axes <= 8:
        _turn(splats, axes)
    return with_notices(
        splats,
        "coefficients of degree 4 were left out" if header.degree > 3 else "",
        "records of a vendor were left out" if records else "",
        f"axes with z up (number {axes}) are stated, and were not turned" if axes > 8 else "",
    )


def _stated_axes(record: bytes, path: Path) -> int:
    """Number of the axes in a record, 0 for none. Raises FileFormatError."""
    if len(record) not in (0, 4):
        raise FileFormatError(path, f"its record about axes has {len(record)} bytes, not 4", "Export it again")
    number = int.from_bytes(record, "little")
    if number > 16:
        raise FileFormatError(path, f"states axes of number {number}; 0..16 exist", "Export it again")
    return number


def _turn(splats: Splats, axes: int) -> None:
    """What was read as right, up, back becomes what was stated, in place."""
    bits = axes - 1
    stated = (1 if bits & 1 else -1, -1 if bits & 2 else 1, 1 if bits & 4 else -1)
    x, y, z = (a * int(b) for a, b in zip(stated, _FLIP, strict=True))
    if (x, y, z) == (1, 1, 1):
        return
    for start in range(0, len(splats), CHUNK_ROWS):
        part = splats.rows(start, start + CHUNK_ROWS)
        part.means[:] *= np.array([x, y, z], np.float32)
        part.quaternions[:, 1:] *= np.array([y * z, x * z, x * y], np.float32)
        part.sh_rest[:] *= _rest_signs(x, y, z)[: part.sh_rest.shape[1], None]


def write_spz(path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None) -> tuple[str, ...]:
    """Write an `.spz` file of version 4, whole or not at all; returns sentences on what its ranges did not hold.

    Memory: a few chunks; the six attributes wait in temporary files. `transform` runs twice, first to find the extent.
    Raises FileFormatError for NaN and Inf, and for means beyond +-8.3 million.
    """
    path = Path(path)
    bad, cut, extent = BadRows(), Cut(), 0.0
    for start, part in parts_of(splats, transform):
        bad.inspect(part, start)
        extent = max(extent, float(np.abs(part.means).max()))
    bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers")
    flags = COMPENSATED if splats.metadata.compensated else 0
    header = SpzHeader(4, len(splats), splats.held_degree, _fractional_bits(extent, path), flags)
    with whole_file(path) as out, ExitStack() as stack:
        packer = Packer(header, [stack.enter_context(TemporaryFile(dir=path.parent)) for _ in header.widths])
        for _, part in parts_of(splats, transform):
            packer.add(_encoded(part, header, cut))
        packer.finish(out)
    return (*cut.notices(), *unsaid(replace(splats.metadata, compensated=False)))


def _fractional_bits(extent: float, path: Path) -> int:
    """The usual 12, more for small scenes (a step of at most 1/32768 of the extent), fewer where they do not fit."""
    if extent >= 2**23 - 1:
        raise FileFormatError(path, f"has means up to {extent:g}; SPZ ends at 8388607", "Scale the scene first")
    wanted = max(_USUAL_BITS, 15 - int(np.floor(np.log2(max(extent, 1e-3)))))
    while extent * 2.0**wanted >= 2**23 - 1:
        wanted -= 1
    return min(wanted, 24)


def _bytes(attribute: Attribute, part: Splats, width: int) -> np.ndarray:
    return np.frombuffer(attribute.read(len(part) * width), np.uint8).reshape(len(part), width)


def _means(attribute: Attribute, header: SpzHeader, part: Splats) -> None:
    raw = _bytes(attribute, part, 9).reshape(-1, 3, 3).astype(np.int32)
    fixed = (raw[..., 0] << 8 | raw[..., 1] << 16 | raw[..., 2] << 24) >> 8  # the sign comes with the shift back
    part.means[:] = _FLIP * (fixed / 2.0**header.fractional_bits)


def _opacities(attribute: Attribute, header: SpzHeader, part: Splats) -> None:
    del header
    part.logit_opacities[:] = logits_of_bytes(_bytes(attribute, part, 1)[:, 0])


def _colours(attribute: Attribute, header: SpzHeader, part: Splats) -> None:
    del header
    part.sh_dc[:] = (_bytes(attribute, part, 3) / 255.0 - 0.5) / _DC_SCALE


def _sizes(attribute: Attribute, header: SpzHeader, part: Splats) -> None:
    del header
    part.log_scales[:] = _bytes(attribute, part, 3) / 16.0 - 10


def _rotations(attribute: Attribute, header: SpzHeader, part: Splats) -> None:
    if header.version == 2:
        xyz = _bytes(attribute, part, 3) / 127.5 - 1
        xyzw = np.concatenate([xyz, np.sqrt(np.clip(1 - (xyz**2).sum(axis=1, keepdims=True), 0, None))], axis=1)
    else:
        word = np.frombuffer(attribute.read(4 * len(part)), "<u4")
        tens = np.stack([(word >> shift) & 1023 for shift in (20, 10, 0)], axis=1)
        magnitude = (tens & 511) / 511.0
        xyzw = from_smallest_three(word >> 30, np.where(tens >> 9, -magnitude, magnitude))
    part.quaternions[:, 0] = xyzw[:, 3]
    part.quaternions[:, 1:] = xyzw[:, :3] * _FLIP


def _harmonics(attribute: Attribute, header: SpzHeader, part: Splats) -> None:
    count, held = REST_COUNTS[header.degree], part.sh_rest.shape[1]
    if not count:
        return
    values = _bytes(attribute, part, 3 * count).reshape(-1, count, 3)[:, :held]
    part.sh_rest[:] = (values.astype(np.float32) - 128) / 128 * _FLIP_REST[:held, None]


def _encoded(part: Splats, header: SpzHeader, cut: Cut) -> list[bytes]:
    n, count = len(part), part.sh_rest.shape[1]
    fixed = np.rint(part.means.astype(np.float64) * _FLIP * 2.0**header.fractional_bits).astype("<i4")
    means = np.ascontiguousarray(fixed).view(np.uint8).reshape(n, 3, 4)[:, :, :3]
    colours = cut.bytes_of(255 * (0.5 + _DC_SCALE * part.sh_dc.astype(np.float64)), "colours (dc beyond +-3.33)")
    sizes = cut.bytes_of(16 * (part.log_scales.astype(np.float64) + 10), "sizes beyond 4.5e-5..380")
    step = np.where(np.arange(count) < 3, DEGREE_1_STEP, REST_STEP)[:, None]
    signed = part.sh_rest.astype(np.float64) * _FLIP_REST[:count, None] * 128 + 128
    harmonics = cut.bytes_of(np.rint(signed / step) * step, "spherical harmonics beyond +-1")
    blocks = (means, opacity_bytes(part.logit_opacities), colours, sizes, _packed_rotations(part), harmonics)
    return [np.ascontiguousarray(block).tobytes() for block in blocks]


def _packed_rotations(part: Splats) -> UInt32[np.ndarray, "n"]:
    wxyz = unit(part.quaternions)
    largest, others = smallest_three(np.concatenate([wxyz[:, 1:] * _FLIP, wxyz[:, :1]], axis=1))
    magnitude = np.rint(np.abs(others) * 511).clip(0, 511).astype(np.uint32)
    tens = magnitude | np.where(others < 0, 512, 0).astype(np.uint32)
    return (largest << 30 | tens[:, 0] << 20 | tens[:, 1] << 10 | tens[:, 2]).astype("<u4")
