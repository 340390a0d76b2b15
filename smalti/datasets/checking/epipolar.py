"""Epipolar errors of a whole set: which views to look at, which pairs to match, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from smalti.datasets.checking.features import Features, PairMatches, match_pairs
from smalti.datasets.checking.geometry import Poses, neighbours
from smalti.datasets.checking.outliers import camera_errors
from smalti.datasets.checking.report import ErrorFigures
from smalti.datasets.checking.sightings import pair_errors
from smalti.datasets.dataset import View

NEIGHBOURS = 4
"""Pairs per view by the poses; the next two in the order of the files are added, in case the poses are wrong."""
SECOND_CHANCE = 10
"""Further partners for views that found fewer than two."""
INSTANTS = 3
"""How many instants of a moving scene are looked at."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The matched pairs of a set and their errors. Fixed cameras of a moving scene are one camera for all instants."""

    matches: tuple[PairMatches, ...]
    errors: dict[tuple[int, int], float] = field(default_factory=dict)
    """Median error of each pair of cameras, pixels at 1000 pixels width; rows of their first views."""
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """All errors."""


def chosen_instants(views: Sequence[View], groups: Sequence[int]) -> tuple[list[list[int]], str]:
    """Rows of the views to be matched with each other, by instant; or none, and why."""
    instants: dict[float, list[int]] = {}
    for row, view in enumerate(views):
        instants.setdefault(view.camera.time, []).append(row)
    if len(instants) == 1:
        return [list(range(len(views)))], ""
    useful = [rows for rows in instants.values() if len({groups[row] for row in rows}) > 1]
    if not useful:
        return [], "every instant has one view only, so that no two pictures show the same scene"
    at = np.unique(np.linspace(0, len(useful) - 1, INSTANTS).round().astype(int))
    return [useful[number] for number in at], ""


def thinned(rows: Sequence[int], most: int) -> list[int]:
    """At most `most` of the rows, evenly spread; 0 means all."""
    if most <= 0 or len(rows) <= most:
        return list(rows)
    return [rows[at] for at in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def match_instant(
    rows: Sequence[int], features: dict[int, Features], poses: Poses, target: np.ndarray, pycolmap: ModuleType
) -> list[PairMatches]:
    """Matches between neighbours among the given views."""
    rows = [row for row in rows if row in features]
    if len(rows) < 2:
        return []
    own = Poses(poses.rotation[rows], poses.centre[rows], poses.focal[rows])
    near = neighbours(own, target, NEIGHBOURS + SECOND_CHANCE)
    count = len(rows)
    wanted = {_pair(i, int(j)) for i in range(count) for j in near[i, :NEIGHBOURS]}
    wanted |= {_pair(i, (i + step) % count) for i in range(count) for step in (1, 2) if count > step}
    wanted = {pair for pair in wanted if pair[0] != pair[1]}
    found = match_pairs([features[row] for row in rows], sorted(wanted), own.focal, pycolmap)
    partners = np.bincount([row for pair in found for row in (pair.first, pair.second)], minlength=count)
    spread = max(1, count // 5)
    more = {
        _pair(i, int(j))
        for i in np.flatnonzero(partners < 2).tolist()
        for j in [*near[i, NEIGHBOURS:], *((i + step) % count for step in range(spread, count, spread))]
        if i != j
    }
    found += match_pairs([features[row] for row in rows], sorted(more - wanted), own.focal, pycolmap)
    return [PairMatches(rows[pair.first], rows[pair.second], pair.first_rays, pair.second_rays) for pair in found]


def _pair(i: int, j: int) -> tuple[int, int]:
    return (int(min(i, j)), int(max(i, j)))


def weigh(matches: Sequence[PairMatches], poses: Poses, reach: float, key: Sequence[int]) -> Evidence:
    """Errors of all pairs; `key[row]` is the row that stands for the camera of view `row`."""
    collected: dict[tuple[int, int], list[np.ndarray]] = {}
    for pair in matches:
        name = _pair(key[pair.first], key[pair.second])
        collected.setdefault(name, []).append(pair_errors(poses, pair, reach))
    joined = {name: np.concatenate(errors) for name, errors in collected.items()}
    medians = {name: float(np.median(errors)) for name, errors in joined.items()}
    values = np.concatenate(list(joined.values())) if joined else np.zeros(0)
    return Evidence(tuple(matches), medians, values)


def figures(evidence: Evidence, names: Sequence[str]) -> ErrorFigures:
    """The figures for the report, in pixels of a 1000 pixels wide picture."""
    cameras = camera_errors(evidence.errors, set())
    median = float(np.median(list(evidence.errors.values())))
    return ErrorFigures(
        median=median,
        p95=float(np.percentile(evidence.values, 95.0)),
        median_at_1000=median,
        sightings=len(evidence.values),
        pairs=len(evidence.errors),
        per_view={names[row]: error for row, error in sorted(cameras.items())},
    )


def meeting_points(evidence: Evidence, poses: Poses, most_error: float = 2.0) -> np.ndarray:
    """Where matched rays meet (middle of their shortest connection): a rough cloud for looking at, world units, n x 3.

    Rays that meet behind a camera, at less than two degrees, or with an error above `most_error` pixels are left out.
    """
    clouds = []
    for pair in evidence.matches:
        first, second = pair.first_rays @ poses.rotation[pair.first], pair.second_rays @ poses.rotation[pair.second]
        step = poses.centre[pair.second] - poses.centre[pair.first]
        cosine = (first * second).sum(1)
        sine_squared = 1.0 - cosine**2
        wide = sine_squared > np.sin(np.radians(2.0)) ** 2
        divisor = np.where(wide, sine_squared, 1.0)
        along_first = (first @ step - cosine * (second @ step)) / divisor
        along_second = (cosine * (first @ step) - second @ step) / divisor
        a = poses.centre[pair.first] + along_first[:, None] * first
        b = poses.centre[pair.second] + along_second[:, None] * second
        apart = np.linalg.norm(a - b, axis=1) / np.maximum(along_first, 1e-12) * poses.focal[pair.first]
        clouds.append((0.5 * (a + b))[wide & (along_first > 0) & (along_second > 0) & (apart < most_error)])
    return np.concatenate(clouds) if clouds else np.zeros((0, 3))
