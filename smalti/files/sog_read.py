"""Reading a SOG; `smalti.files.sog` says what is in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from smalti.files.bytewise import from_smallest_three, logits_of_bytes
from smalti.files.checked import empty_splats, require_ratio
from smalti.files.sog_container import META_LIMIT, SogParts, plain_name
from smalti.files.splats import FileFormatError, SplatMetadata, Splats
from smalti.files.strict_json import (
    METADATA_KEY,
    degree_of,
    entry,
    metadata_from_plain,
    numbers,
    rest_count_of,
    strict_json,
)

LEVELS = 256
"""Numbers of a codebook: a byte names one."""
PALETTE_LIMIT = 65536
"""Labels have 16 bits."""
PALETTE_WIDTH = 64
"""Palette rows in a line of the image."""
LOG_RANGE = 88.7
"""Positions beyond e^88.7 do not fit in float32."""
SPARE_PIXELS = 1 << 16
"""An image may have this many pixels more than twice what is needed: writers round its sides up."""
_DAMAGED = "Export it again"


@dataclass(frozen=True)
class _Source:
    """A SOG that is being read: its parts, meta.json and number of Gaussians."""

    parts: SogParts
    plain: dict[str, Any]
    count: int
    notices: list[str]

    @property
    def old(self) -> bool:
        """The form before versions."""
        return "version" not in self.plain

    def group(self, key: str) -> dict[str, Any]:
        """An object of meta.json."""
        return entry(self.parts.path, self.plain, key, dict)

    def files(self, key: str, count: int = 1) -> list[str]:
        """The names of its images."""
        names = entry(self.parts.path, self.group(key), "files", list)
        if len(names) != count:
            raise FileFormatError(self.parts.path, f"`{key}.files` has {len(names)} names, expected {count}", _DAMAGED)
        return [plain_name(self.parts.path, name) for name in names]

    def pixels(self, name: str) -> UInt8[np.ndarray, "n 4"]:
        """One pixel for each Gaussian."""
        return self.parts.image(name, self.count, 2 * self.count + SPARE_PIXELS).reshape(-1, 4)[: self.count]

    def levels(self, key: str, channels: int) -> Float[np.ndarray, "channels 256"]:
        """What the 256 values of each channel mean: a codebook for all of them, or ranges (the old form)."""
        group, path = self.group(key), self.parts.path
        if not self.old:
            return np.tile(_codebook(self, key, group), (channels, 1))
        ends = [group.get("mins"), group.get("maxs")]
        if key == "shN":
            ends = [[end] * channels for end in ends]
        low, high = (numbers(path, end, f"{key} range", channels) for end in ends)
        return low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, LEVELS)


def read_sog(path: Path | str) -> Splats:
    """Read a SOG: a bundle (`.sog`), a folder, or the `meta.json` of a folder; version 2 and the form before it.

    Opacities of 0 and 1 become ones a quarter of a step of 255 inside. Memory: the result and two images.
    Raises FileFormatError for damaged or hostile files, before memory is taken for what they announce.
    """
    with SogParts(Path(path)) as parts:
        source = _open(parts)
        log_scales, colors = source.levels("scales", 3), source.levels("sh0", 4 if source.old else 3)
        rest = _rest(source)
        splats = replace(empty_splats(source.count, 0, SplatMetadata()), sh_rest=rest)
        _fill_means(source, splats.means)
        _fill_quaternions(source, splats.quaternions)
        pixels = source.pixels(source.files("scales")[0])
        for channel in range(3):
            splats.log_scales[:, channel] = log_scales[channel][pixels[:, channel]]
        pixels = source.pixels(source.files("sh0")[0])
        for channel in range(3):
            splats.sh_dc[:, channel] = colors[channel][pixels[:, channel]]
        opacity = colors[3] if source.old else logits_of_bytes(np.arange(LEVELS, dtype=np.uint8))
        splats.logit_opacities[:] = opacity[pixels[:, 3]]
        default = SplatMetadata(compensated=source.plain.get("antialias") is True)
        metadata = metadata_from_plain(path, source.plain.get(METADATA_KEY), default, rest.shape[1])
        return replace(splats, metadata=metadata, notices=tuple(source.notices))


def _open(parts: SogParts) -> _Source:
    plain = strict_json(parts.path, parts.read("meta.json", META_LIMIT), "meta.json")
    version = plain.get("version", 2)
    if version != 2:
        raise FileFormatError(parts.path, f"has the version {str(version)[:40]}, read are 2 and none", _DAMAGED)
    if "version" in plain:
        count = entry(parts.path, plain, "count", int)
    else:
        shape = entry(parts.path, entry(parts.path, plain, "means", dict), "shape", list)
        count = entry(parts.path, {"shape[0]": shape[0] if shape else None}, "shape[0]", int)
    source = _Source(parts, plain, count, [])
    if count < 0:
        raise FileFormatError(parts.path, f"announces {count} Gaussians", _DAMAGED)
    keys = {"means": 2, "quats": 1, "scales": 1, "sh0": 1} | ({"shN": 2} if "shN" in plain else {})
    size = parts.byte_count([name for key, number in keys.items() for name in source.files(key, number)])
    require_ratio(parts.path, size, 4 * count * (14 + 3 * (rest_count_of(3) if "shN" in plain else 0)))
    return source


def _codebook(source: _Source, key: str, group: dict[str, Any]) -> Float[np.ndarray, "256"]:
    """Padded by its last number where it is short; a first `null`, as some writers leave it, is extrapolated."""
    values = entry(source.parts.path, group, "codebook", list)
    if not 1 <= len(values) <= LEVELS:
        problem = f"`{key}.codebook` has {len(values)} numbers, expected {LEVELS}"
        raise FileFormatError(source.parts.path, problem, _DAMAGED)
    missing = values[0] is None and len(values) > 1
    book = numbers(source.parts.path, values[1:] if missing else values, f"{key}.codebook", len(values) - missing)
    if missing:
        book = np.concatenate([[book[0] + (book[0] - book[-1]) / 255], book])
        source.notices.append(f"the first number of {key}.codebook was missing and was extrapolated")
    return np.pad(book, (0, LEVELS - len(book)), mode="edge")


def _fill_means(source: _Source, result: Float[np.ndarray, "n 3"]) -> None:
    path, group = source.parts.path, source.group("means")
    low, high = (numbers(path, group.get(key), f"means.{key}", 3) for key in ("mins", "maxs"))
    if max(np.abs(low).max(), np.abs(high).max()) > LOG_RANGE:
        raise FileFormatError(path, f"`means` reach beyond e^{LOG_RANGE:g}", _DAMAGED)
    names = source.files("means", 2)
    lower, upper = (source.pixels(name) for name in names)
    for axis in range(3):
        steps = lower[:, axis] + 256.0 * upper[:, axis]
        logs = low[axis] + (high[axis] - low[axis]) * (steps / 65535)
        result[:, axis] = np.sign(logs) * np.expm1(np.abs(logs))


def _fill_quaternions(source: _Source, result: Float[np.ndarray, "n 4"]) -> None:
    encoding = source.group("quats").get("encoding", "quaternion_packed")
    if encoding != "quaternion_packed":
        raise FileFormatError(source.parts.path, f"`quats.encoding` is {str(encoding)[:40]!r}", _DAMAGED)
    pixels = source.pixels(source.files("quats")[0])
    if len(pixels) and pixels[:, 3].min() < 252:
        row = int(np.argmax(pixels[:, 3] < 252))
        raise FileFormatError(source.parts.path, f"the quaternion of row {row} has an unknown mode", _DAMAGED)
    result[:] = from_smallest_three(pixels[:, 3].astype(np.uint32) - 252, pixels[:, :3] / 255 * 2 - 1)


def _rest(source: _Source) -> Float[np.ndarray, "n k 3"]:
    """Higher degrees by palette. The two files are told apart by name; unnamed, the palette comes first."""
    if "shN" not in source.plain:
        return np.empty((source.count, 0, 3), np.float32)
    path, group = source.parts.path, source.group("shN")
    centroids, labels = source.files("shN", 2)
    if "label" in centroids and "label" not in labels:
        centroids, labels = labels, centroids
    levels = source.levels("shN", 1)[0].astype(np.float32)
    if source.old:  # the degree follows from the image's width, the size from its height
        widths = tuple(PALETTE_WIDTH * rest_count_of(degree) for degree in (1, 2, 3))
        image = source.parts.image(centroids, widths[0], PALETTE_LIMIT * rest_count_of(3), widths)
        degree = degree_of(image.shape[1] // PALETTE_WIDTH)
        size = image.shape[0] * PALETTE_WIDTH
    else:
        degree, size = entry(path, group, "bands", int), entry(path, group, "count", int)
        if degree not in (1, 2, 3) or not 1 <= size <= PALETTE_LIMIT:
            raise FileFormatError(path, f"`shN` has {degree} bands and {size} rows", _DAMAGED)
        least = size * rest_count_of(degree)
        image = source.parts.image(centroids, least, 2 * least + SPARE_PIXELS, (PALETTE_WIDTH * rest_count_of(degree),))
    pixels = image.reshape(-1, 4)
    number = rest_count_of(degree)
    palette = levels[pixels[: size * number, :3]].reshape(size, number, 3)
    places = source.pixels(labels).astype(np.int64)
    places = places[:, 0] + 256 * places[:, 1]
    if len(places) and places.max() >= size:
        row = int(np.argmax(places >= size))
        raise FileFormatError(path, f"row {row} names line {places[row]} of a palette of {size}", _DAMAGED)
    return palette[places]
