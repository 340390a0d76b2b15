"""SOG of PlayCanvas: splats as a handful of lossless WebP images and a meta.json, in a folder or bundled as a zip.

A pixel is a Gaussian, in row order; what is left at the end is padding.

| image | channels |
| --- | --- |
| means_l, means_u | low and high bytes of 16 bits an axis, between `mins` and `maxs` of sign(x) ln(1 + abs x) |
| quats | the three smaller components in [-1, 1] / sqrt 2 as 8 bits; alpha 252 + the place of the largest (w x y z) |
| scales | three rows of a codebook of natural logarithms |
| sh0 | three rows of a codebook of degree-0 coefficients; alpha 255 times the opacity |
| shN_labels | 16 bits: row of the palette |
| shN_centroids | 64 palette rows a line, a pixel a coefficient, channels are rows of a codebook |

The old form (meta.json without `version`) has ranges `mins`, `maxs` where version 2 has codebooks, and its sh0 alpha is
the logit. Axes are those of the 3DGS PLY; nothing is turned. `antialias` is `SplatMetadata.compensated`; the rest of
our metadata stands under `smalti` in meta.json.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from smalti.files.bytewise import opacity_bytes, smallest_three, unit
from smalti.files.checked import CHUNK_ROWS, BadRows, parts_of, whole_file
from smalti.files.palettes import scalar_codebook, vector_palette
from smalti.files.sog_read import PALETTE_LIMIT, PALETTE_WIDTH, read_sog
from smalti.files.splats import PARAMETERS, FileFormatError, Splats
from smalti.files.strict_json import METADATA_KEY, degree_of, metadata_to_plain

_SIDE_LIMIT = 16380


def write_sog(
    path: Path | str,
    splats: Splats,
    transform: Callable[[Splats], Splats] | None = None,
    palette_size: int | None = None,
) -> tuple[str, ...]:
    """Write a bundled SOG of version 2; the file appears whole or not at all. Returns how well the palette does.

    Rows are written along a Morton curve (`morton_order`). What is lost: positions to half a step of 65535 in
    sign(x) ln(1 + abs x) of the range; opacities to 1/510; quaternion components to 1/(255 sqrt 2); scales and degree
    0 to the nearest of 256 numbers; higher degrees to the nearest palette row and its numbers to the nearest of 256.
    Memory beyond chunks: one image with what it is made from, about 100 bytes a Gaussian; what the palette of higher
    degrees needs (about 50 bytes a Gaussian); transformed columns wait in files beside `path`.

    Args:
        path: target, replaced if present.
        splats: what to write, with the metadata of the *written* frame.
        transform: applied to every chunk of rows before anything is measured.
        palette_size: rows of the palette of higher degrees, at most 65536; None: the largest power of two that is not
            above the number of Gaussians, and at least 1024.

    Raises FileFormatError where a number is NaN or Inf and beyond 268 million Gaussians; an existing file is then
    untouched.
    """
    path = Path(path)
    side = 4 * math.ceil(math.sqrt(len(splats)) / 4) or 4
    if side > _SIDE_LIMIT:
        raise FileFormatError(path, f"{len(splats)} Gaussians do not fit in one WebP image", "Split the scene")
    shape = (max(4, 4 * math.ceil(len(splats) / side / 4)), side)
    notices: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".sog-", dir=path.parent) as scratch:
        splats = _transformed(path, splats, transform, Path(scratch))
        with whole_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
            images = _Images(archive, shape)
            order = morton_order(splats.means)
            meta = _encode(splats, order, images)
            if splats.sh_rest.shape[1] and len(splats):
                meta["shN"], error = _encode_rest(splats.sh_rest, order, palette_size, images)
                notices.append(error)
            meta[METADATA_KEY] = metadata_to_plain(splats) | ({} if "shN" in meta else {"sh_degree": 0})
            archive.writestr(zipfile.ZipInfo("meta.json"), json.dumps(meta, separators=(",", ":")))
        del splats  # its columns lie in the scratch folder
    return tuple(notices)


@dataclass(frozen=True)
class _Images:
    """The archive, one image at a time."""

    archive: zipfile.ZipFile
    shape: tuple[int, int]
    """Height and width of those with a pixel for every Gaussian."""

    def add(self, name: str, pixels: UInt8[np.ndarray, "n c"]) -> None:
        """An image with these pixels, and black ones at the end."""
        grid = np.zeros((self.shape[0] * self.shape[1], pixels.shape[1]), np.uint8)
        grid[: len(pixels)] = pixels
        self.add_grid(name, grid.reshape(*self.shape, -1))

    def add_grid(self, name: str, grid: UInt8[np.ndarray, "h w c"]) -> None:
        """An image as it stands."""
        self.archive.writestr(zipfile.ZipInfo(name), _webp(grid))


def morton_order(means: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n"]:
    """Rows along a Z-order curve of 1024 steps an axis through the box of the means; equal cells keep their order."""
    if not len(means):
        return np.arange(0)
    low, high = means.min(axis=0).astype(np.float64), means.max(axis=0).astype(np.float64)
    codes = np.zeros(len(means), np.int32)
    for part in _chunks(len(means)):
        cells = ((means[part] - low) / np.maximum(high - low, 1e-30) * 1023).astype(np.int32)
        for bit in range(10):
            for axis in range(3):
                codes[part] |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(codes, kind="stable")


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, CHUNK_ROWS):
        yield slice(start, start + CHUNK_ROWS)


def _transformed(path: Path, splats: Splats, transform: Callable[[Splats], Splats] | None, scratch: Path) -> Splats:
    """All rows, finite; transformed ones lie in files below `scratch`."""
    bad = BadRows()
    if transform is None or not len(splats):
        for start, part in parts_of(splats, None):
            bad.inspect(part, start)
        bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers")
        return splats
    columns: dict[str, np.ndarray] = {}
    for name in PARAMETERS:
        shape = getattr(splats, name).shape
        held = math.prod(shape) > 0
        columns[name] = (
            np.memmap(scratch / name, np.float32, "w+", shape=shape) if held else np.empty(shape, np.float32)
        )
    for start, part in parts_of(splats, transform):
        bad.inspect(part, start)
        for name, column in columns.items():
            column[start : start + len(part)] = getattr(part, name)
    bad.raise_if_any(path, "Nothing was written; the scene itself holds these numbers")
    return replace(splats, **columns)


def _encode(splats: Splats, order: Int[np.ndarray, "n"], images: _Images) -> dict[str, Any]:
    """meta.json but for the higher degrees; adds their images, one after the other."""
    from smalti import __version__

    low, high = _ranges(splats.means)
    for name, shift in (("means_l.webp", 0), ("means_u.webp", 8)):
        pixels = np.empty((len(splats), 3), np.uint8)
        for part in _chunks(len(splats)):
            logs = _squeezed(splats.means[order[part]])
            steps = np.rint((logs - low) / np.where(high > low, high - low, 1.0) * 65535).astype(np.uint16)
            pixels[part] = steps >> shift & 255
        images.add(name, pixels)
    pixels = np.empty((len(splats), 4), np.uint8)
    for part in _chunks(len(splats)):
        pixels[part] = _packed_quaternions(splats.quaternions[order[part]])
    images.add("quats.webp", pixels)
    scales, rows = scalar_codebook(splats.log_scales)
    images.add("scales.webp", rows[order])
    colors, rows = scalar_codebook(splats.sh_dc)
    for part in _chunks(len(splats)):
        pixels[part, :3] = rows[order[part]]
        pixels[part, 3] = opacity_bytes(splats.logit_opacities[order[part]])
    images.add("sh0.webp", pixels)
    return {
        "version": 2,
        "asset": {"generator": f"smalti {__version__}"},
        "count": len(splats),
        "antialias": splats.metadata.compensated,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scales.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": colors.tolist(), "files": ["sh0.webp"]},
    }


def _squeezed(means: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """sign(x) ln(1 + abs x), in float64."""
    wide = means.astype(np.float64)
    return np.sign(wide) * np.log1p(np.abs(wide))


def _ranges(means: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Lowest and highest squeezed coordinates."""
    if not len(means):
        return np.zeros(3), np.zeros(3)
    both = _squeezed(np.stack([means.min(axis=0), means.max(axis=0)]))
    return both[0], both[1]


def _packed_quaternions(quaternions: Float[np.ndarray, "n 4"]) -> UInt8[np.ndarray, "n 4"]:
    largest, others = smallest_three(unit(quaternions))
    packed = np.rint(np.clip(others * 0.5 + 0.5, 0, 1) * 255)
    return np.concatenate([packed, 252 + largest[:, None]], axis=1).astype(np.uint8)


def _encode_rest(
    rest: Float[np.ndarray, "n k 3"], order: Int[np.ndarray, "n"], palette_size: int | None, images: _Images
) -> tuple[dict[str, Any], str]:
    """The entry `shN` and a sentence on its error; adds its images."""
    n, number, _ = rest.shape
    size = min(palette_size or max(1024, 1 << (n.bit_length() - 1)), PALETTE_LIMIT)
    palette, labels = vector_palette(torch.from_numpy(rest.reshape(n, -1)), size)
    book, rows = scalar_codebook(palette.numpy())
    count, places = len(palette), labels.numpy()
    lines = math.ceil(count / PALETTE_WIDTH)
    grid = np.zeros((lines * PALETTE_WIDTH, number, 3), np.uint8)
    grid[:count] = rows.reshape(count, number, 3)
    images.add_grid("shN_centroids.webp", grid.reshape(lines, PALETTE_WIDTH * number, 3))
    pixels = np.zeros((n, 3), np.uint8)
    for part in _chunks(n):
        label = places[order[part]]
        pixels[part, 0], pixels[part, 1] = label & 255, label >> 8
    images.add("shN_labels.webp", pixels)
    meta = {
        "count": count,
        "bands": degree_of(number),
        "codebook": book.tolist(),
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }
    lost = whole = 0.0
    for part in _chunks(n):
        lost += float(np.square(book[grid[places[part]]] - rest[part]).sum(dtype=np.float64))
        whole += float(np.square(rest[part]).sum(dtype=np.float64))
    error, spread = math.sqrt(lost / rest.size), math.sqrt(whole / rest.size)
    return (
        meta,
        f"spherical harmonics became {count:,} sets for {n:,} splats: error {error:.2g}, values {spread:.2g} (rms)",
    )


def _webp(pixels: UInt8[np.ndarray, "h w c"]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return stream.getvalue()


__all__ = ["morton_order", "read_sog", "write_sog"]
