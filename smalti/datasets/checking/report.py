"""The result of a check: frozen values that print and turn into JSON. Decides names and units, measures nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smalti.datasets.dataset import DatasetError, Notice


@dataclass(frozen=True)
class Problem:
    """Something that makes the data unfit for training: which file, which record, what is wrong, what to do."""

    code: str
    """A stable kebab-case word."""
    file: str
    record: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> DatasetError:
        """The same as an exception."""
        return DatasetError(self.file, self.record, self.problem, self.remedy)


@dataclass(frozen=True)
class ErrorFigures:
    """How far the sightings lie from where the cameras say they should."""

    median: float
    """Pixels of the pictures for the file's own points; pixels of a 1000 pixels wide picture for matched features."""
    p95: float
    median_at_1000: float
    """The median in pixels of a 1000 pixels wide picture."""
    sightings: int
    """Observations, or matched feature pairs."""
    pairs: int
    """Pairs of views that gave enough matches; 0 for points."""
    per_view: dict[str, float]
    """Median of each measured view, in the unit of `median`."""


@dataclass(frozen=True)
class Outlier:
    """A camera that does not agree with the others."""

    name: str
    error: float
    """Pixels of a 1000 pixels wide picture."""
    typical: float
    """The median of all cameras, same unit."""
    explanation: str
    """The one change that would make it fit, or empty."""


@dataclass(frozen=True)
class Scale:
    """Sizes in the input's unit."""

    unit: str
    """`metres` where the format says so, else `arbitrary`."""
    centre: tuple[float, float, float]
    """Where the cameras look: the median of the points, or the point nearest to all optical axes."""
    camera_extent: float
    """Diagonal of the box around the camera positions."""
    scene_extent: float
    """Diagonal of the box around the middle 90 % of the points, or twice the reach of the pictures at the centre."""
    camera_distance: float
    """Median distance from a camera to the centre."""


@dataclass(frozen=True)
class Times:
    """The instants of the views."""

    count: int
    first: float
    last: float
    views_per_instant: float


@dataclass(frozen=True)
class Exposure:
    """Mean brightness of the pictures in stops (log2 of display-encoded values), against their median."""

    darkest: str
    darkest_stops: float
    brightest: str
    brightest_stops: float


@dataclass(frozen=True)
class CheckReport:
    """Everything that `smalti check` found out about a data set, before any training."""

    name: str
    root: str
    format: str
    images_found: int
    images_missing: int
    cameras: int
    """Different physical cameras: rigs where the set names them, else sets of intrinsics."""
    models: dict[str, int]
    """Lens model: number of views."""
    sizes: dict[str, int]
    """`width x height`: number of views."""
    focal: tuple[float, float]
    """Smallest and largest fx, pixels."""
    splits: dict[str, int]
    times: Times
    scale: Scale
    points: int | None
    """Number of 3D points in the file, None where it has none."""
    reprojection: ErrorFigures | None
    epipolar: ErrorFigures | None
    epipolar_note: str
    """Why there is no epipolar figure; empty where there is one."""
    behind: float | None
    """Share of the sightings that lie behind their camera."""
    masks: int
    """Views with a mask file."""
    alpha: int
    """Views whose picture has an alpha channel."""
    exposure: Exposure | None
    outliers: tuple[Outlier, ...]
    notes: tuple[Notice, ...]
    """Remarks of the reader that call for nothing."""
    warnings: tuple[Notice, ...]
    problems: tuple[Problem, ...]
    overview: str | None = None
    """The overview picture, where one was drawn."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time that each part took."""

    @property
    def exit_code(self) -> int:
        """0, with or without warnings; 2 for data unfit for training."""
        return 2 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`; what is not a finite number becomes null."""
        return _plain({**asdict(self), "exit_code": self.exit_code})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
