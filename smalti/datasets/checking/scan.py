"""Decodes every picture once, small: finds broken and blank ones and the brightness, and shows them to the features."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from smalti.datasets.checking.report import Exposure, Problem
from smalti.datasets.dataset import DatasetError, Notice, View
from smalti.datasets.decode import Videos, decode_view, eight_bit
from smalti.datasets.pictures import check_name, shown

if TYPE_CHECKING:
    from PIL.Image import Image

BLANK_DEVIATION = 1.5
"""Pictures whose grey values vary less than this (of 255) show nothing."""
EXPOSURE_STOPS = 2.0
"""Pictures this far from the median brightness are odd."""


@dataclass(frozen=True, eq=False)
class SmallPicture:
    """A picture for looking at, not for training: grey, at most so many pixels, with its foreground."""

    grey: UInt8[np.ndarray, "h w"]
    mask: UInt8[np.ndarray, "h w"] | None
    """Foreground above 127, from the mask file or the alpha channel."""
    alpha: bool


@dataclass(frozen=True)
class PictureFacts:
    """What is remembered of a picture."""

    digest: bytes
    mean: float
    """Mean grey value of the foreground, 0..255; NaN without foreground."""
    deviation: float
    foreground: float
    """Share of the picture."""
    alpha: bool


@dataclass(frozen=True)
class Scan:
    """The facts of every view in order, None where its picture is broken, and the problems of those."""

    facts: tuple[PictureFacts | None, ...]
    problems: tuple[Problem, ...]


def read_small(view: View, long_side: int, videos: Videos) -> SmallPicture:
    """Decodes a view's picture completely, reduced to `long_side`. Raises `DatasetError` for broken files."""
    if view.frame is not None:
        return _read_frame(view, long_side, videos)
    check_name(view.image)
    picture, alpha = _open(view.image, view.camera.name, (view.camera.width, view.camera.height), long_side)
    grey = np.asarray(picture.convert("L"))
    if view.mask is not None:
        mask, _ = _open(view.mask, f"mask of {view.camera.name}", (view.camera.width, view.camera.height), long_side)
        return SmallPicture(grey, np.asarray(mask.convert("L").resize(picture.size)), alpha)
    return SmallPicture(grey, np.asarray(picture.getchannel("A")) if alpha else None, alpha)


def _open(path: Path, record: str, size: tuple[int, int], long_side: int) -> tuple[Image, bool]:
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            raise DatasetError(
                path, record, "the file is empty (0 bytes)", "Copy the picture again or remove this view"
            )
        with Image.open(path) as opened:
            actual = opened.size
            opened.draft("L", (long_side, long_side))
            opened.load()
            alpha = "A" in opened.getbands() or "transparency" in opened.info
            picture = eight_bit(opened).convert("RGBA" if alpha else "L")
    except FileNotFoundError as error:
        raise DatasetError(path, record, "the file does not exist", "Put it there or remove this view") from error
    except DatasetError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(
            path, record, f"cannot be decoded ({error})", "Copy the picture again or remove this view"
        ) from error
    if actual != size:
        problem = f"the picture is {actual[0]} x {actual[1]}, its camera {size[0]} x {size[1]}"
        raise DatasetError(path, record, problem, "Use the pictures that were calibrated, at their own size")
    if alpha:  # on grey, so that the hidden color of transparent pixels makes no features
        below = Image.new("RGBA", picture.size, (127, 127, 127, 255))
        below.alpha_composite(picture)
        below.putalpha(picture.getchannel("A"))
        picture = below
    picture.thumbnail((long_side, long_side), Image.Resampling.BOX)
    return picture, alpha


def _read_frame(view: View, long_side: int, videos: Videos) -> SmallPicture:
    from PIL import Image

    picture = Image.fromarray(decode_view(view, videos)).convert("L")
    picture.thumbnail((long_side, long_side), Image.Resampling.BOX)
    return SmallPicture(np.asarray(picture), None, False)


def facts_of(picture: SmallPicture) -> PictureFacts:
    """Brightness, contrast and fingerprint."""
    inside = picture.grey if picture.mask is None else picture.grey[picture.mask > 127]
    digest = hashlib.blake2b(picture.grey.tobytes() + repr(picture.grey.shape).encode(), digest_size=16).digest()
    share = inside.size / picture.grey.size
    if inside.size == 0:
        return PictureFacts(digest, float("nan"), float(picture.grey.std()), 0.0, picture.alpha)
    return PictureFacts(digest, float(inside.mean()), float(picture.grey.std()), share, picture.alpha)


def scan(views: Sequence[View], long_side: int, look: Callable[[int, SmallPicture], None]) -> Scan:
    """Decodes all pictures, calls `look(row, picture)` for each (from several threads), collects facts and problems."""
    videos = Videos()

    def one(row: int) -> tuple[PictureFacts | None, Problem | None]:
        try:
            picture = read_small(views[row], long_side, videos)
        except DatasetError as error:
            return None, Problem("broken-picture", error.file, error.record, error.problem, error.remedy)
        look(row, picture)
        return facts_of(picture), None

    files = [row for row, view in enumerate(views) if view.frame is None]
    # One after the other: going back in a video means to decode it again from its start.
    frames = sorted(set(range(len(views))) - set(files), key=lambda row: (str(views[row].image), views[row].frame))
    found: dict[int, tuple[PictureFacts | None, Problem | None]] = {}
    with ThreadPoolExecutor(_threads()) as pool:
        found.update(zip(files, pool.map(one, files), strict=True))
    found.update((row, one(row)) for row in frames)
    videos.close()
    results = [found[row] for row in range(len(views))]
    return Scan(tuple(fact for fact, _ in results), tuple(problem for _, problem in results if problem is not None))


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores))


def exposure_of(names: Sequence[str], facts: Sequence[PictureFacts | None]) -> tuple[Exposure | None, list[Notice]]:
    """The brightness of the pictures against their median, and those far from it."""
    rows = [row for row, fact in enumerate(facts) if fact is not None and fact.mean > 0]
    if not rows:
        return None, []
    stops = np.log2([facts[row].mean for row in rows])  # type: ignore[union-attr]
    stops = stops - np.median(stops)
    deviation = 1.4826 * float(np.median(np.abs(stops)))
    limit = max(EXPOSURE_STOPS, 6.0 * deviation)
    low, high = int(stops.argmin()), int(stops.argmax())
    exposure = Exposure(names[rows[low]], float(stops[low]), names[rows[high]], float(stops[high]))
    odd = [f"{names[rows[at]]} ({stops[at]:+.1f} stops)" for at in np.flatnonzero(np.abs(stops) > limit)]
    if not odd:
        return exposure, []
    text = f"{len(odd)} pictures are much darker or brighter than the others: {shown(odd)}; "
    text += "remove them or train with exposure"
    return exposure, [Notice("odd-exposure", text)]


def blank_pictures(names: Sequence[str], facts: Sequence[PictureFacts | None]) -> list[Notice]:
    """Pictures that show nothing, and masks without any foreground."""
    notices = []
    blank = [
        name for name, fact in zip(names, facts, strict=True) if fact is not None and fact.deviation < BLANK_DEVIATION
    ]
    empty = [name for name, fact in zip(names, facts, strict=True) if fact is not None and fact.foreground == 0.0]
    if blank:
        notices.append(
            Notice("blank-pictures", f"{len(blank)} pictures show one plain color: {shown(blank)}; remove them")
        )
    if empty:
        notices.append(
            Notice("empty-masks", f"{len(empty)} pictures have no foreground at all: {shown(empty)}; correct the masks")
        )
    return notices
