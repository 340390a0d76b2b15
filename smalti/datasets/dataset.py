"""A calibrated capture in memory: views, points, what was odd. Formats make it; pictures are decoded on demand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from smalti.cameras.camera import Camera


class DatasetError(ValueError):
    """Bad data: says which file, which record, and what to do about it. The command line exits with code 2."""

    def __init__(self, file: Path | str, record: str, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {record}: {problem}. {remedy}" if record else f"{file}: {problem}. {remedy}")
        self.file, self.record, self.problem, self.remedy = str(file), record, problem, remedy


@dataclass(frozen=True)
class Notice:
    """A warning that does not stop anything: `code` is a stable kebab-case word, `text` a sentence."""

    code: str
    text: str
    count: int = 0
    """How many pictures, cameras ... it is about, where somebody counts; 0: not said."""


@dataclass(frozen=True, eq=False)
class View:
    """One picture and its camera: the file's own (distortion included), for the picture's own size in pixels."""

    camera: Camera
    image: Path
    """File; for a video, the file itself, and `frame` the number of the picture in it."""
    mask: Path | None = None
    """Grey picture, foreground above 127, same size as the image."""
    split: str = ""
    """`train` or `test` where the data set itself says so, else empty."""
    frame: int | None = None
    """Index in a video file."""
    rig: str = ""
    """Name of the physical camera, where several instants share one."""


@dataclass(frozen=True, eq=False)
class Points:
    """Sparse points, input's frame, with their sightings where the format has them."""

    positions: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    observation_point: Int[np.ndarray, "m"] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Row in `positions` of each sighting."""
    observation_view: Int[np.ndarray, "m"] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Row in `Dataset.views` of each sighting."""
    observation_xy: Float[np.ndarray, "m 2"] = field(default_factory=lambda: np.zeros((0, 2)))
    """Where it was seen: pixels of the view's own (distorted) picture; the centre of the first pixel is (0.5, 0.5)."""
    origin: Literal["file", "hull", "triangulated", "random"] = "file"
    """How the points came to be: what may be concluded from where they lie (from random ones, nothing)."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a format's reader returns. Lengths are in the input's frame and unit."""

    root: Path
    format: str
    views: tuple[View, ...]
    points: Points | None = None
    background: tuple[float, float, float] | None = None
    """Stated for pictures with alpha (Blender sets: white); None where pictures are opaque."""
    masks: Literal["loss", "alpha"] = "loss"
    """What masks are for: pixels outside count nothing, or are transparent (the mask is the picture's alpha)."""
    metres: bool = False
    """True where the format says that its unit is the metre."""
    notices: tuple[Notice, ...] = ()

    def split(self, rule: str = "auto") -> tuple[list[int], list[int]]:
        """(train, test) rows of `views`. See `smalti.datasets.splits.split_views` for the rules."""
        from smalti.datasets.splits import split_views

        return split_views(self.views, rule)

    def with_notices(self, *notices: Notice) -> Dataset:
        """The same data set with more to say."""
        return replace(self, notices=(*self.notices, *notices))
