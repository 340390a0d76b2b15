"""From errors to words: which cameras stand out and why, and whether the calibration as a whole can be right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smalti.datasets.checking.diagnosis import explain, explain_all, focal_doubt
from smalti.datasets.checking.epipolar import Evidence, figures
from smalti.datasets.checking.features import thinned_matches
from smalti.datasets.checking.geometry import Poses
from smalti.datasets.checking.outliers import DOUBTFUL, NONSENSE, camera_errors, outliers_of_pairs, outliers_of_views
from smalti.datasets.checking.report import ErrorFigures, Outlier, Problem
from smalti.datasets.checking.reprojection import reprojection
from smalti.datasets.checking.sightings import Sightings, pair_errors, point_sightings, ray_sightings
from smalti.datasets.dataset import Dataset, Notice

MOST_NAMED = 8
"""More outliers than this are not a few bad cameras; the rest is counted."""
MOST_MATCHES, MOST_PAIRS = 60, 200
"""Enough of them to try changes of all cameras at once."""
LEAST_PAIRS = 3
"""Fewer pairs of views do not speak for a whole set."""
REMEDY = "Calibrate again, or train without it"


@dataclass(frozen=True)
class Verdict:
    """What one kind of evidence says."""

    figures: ErrorFigures
    outliers: tuple[Outlier, ...]
    warnings: tuple[Notice, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """One kind of evidence, before the verdict."""

    kind: str
    """`reprojection` or `epipolar`."""
    figures: ErrorFigures
    errors: Mapping[int, float]
    """Each camera's error, pixels at 1000 pixels width."""
    suspects: Sequence[tuple[int, float]]
    """Rows and errors of the cameras that stand out."""
    names: Sequence[str]
    sightings: Callable[[int], Sightings | None]
    """The evidence about one camera, from those above suspicion."""
    everywhere: Callable[[Poses, float], float]
    """The typical error if all cameras had these poses, and focal lengths this many times the file's."""


def judge_points(dataset: Dataset, poses: Poses) -> Verdict:
    """By the sightings of the file's own points."""
    points, views = dataset.points, dataset.views
    if points is None:
        raise ValueError("judge_points: the data set has no points")
    measured, errors = reprojection(points, views)
    sightings = point_sightings(views, poses, points)

    def everywhere(changed: Poses, stretch: float) -> float:
        parts = [
            seen.errors(changed.rotation[row], changed.centre[row], stretch)
            for row, seen in enumerate(sightings)
            if seen
        ]
        return float(np.median(np.concatenate(parts)))

    names = [view.camera.name for view in views]
    case = Case("reprojection", measured, errors, outliers_of_views(errors), names, sightings.__getitem__, everywhere)
    return _judge(case, dataset, poses)


def judge_features(dataset: Dataset, poses: Poses, reach: float, evidence: Evidence, key: Sequence[int]) -> Verdict:
    """By matched features; `key[row]` is the row that stands for the camera of view `row`."""
    names = [view.rig or view.camera.name for view in dataset.views]
    suspects = outliers_of_pairs(evidence.errors)
    bad = {row for row, _ in suspects}

    few = [thinned_matches(pair, MOST_MATCHES) for pair in evidence.matches[:: len(evidence.matches) // MOST_PAIRS + 1]]

    def everywhere(changed: Poses, stretch: float) -> float:
        return float(np.median([np.median(pair_errors(changed, pair, reach, stretch)) for pair in few]))

    def sightings(row: int) -> Sightings | None:
        good = [pair for pair in evidence.matches if not {key[pair.first], key[pair.second]} & (bad - {row})]
        return ray_sightings(poses, good, row, reach)

    errors = camera_errors(evidence.errors, set())
    case = Case("epipolar", figures(evidence, names), errors, suspects, names, sightings, everywhere)
    return _judge(case, dataset, poses)


def _doubts(case: Case, poses: Poses) -> list[Notice]:
    """What small errors may still hide."""
    stretch = focal_doubt(case.everywhere, poses)
    if stretch is None:
        return []
    text = f"all focal lengths fit clearly better when multiplied by {stretch:.3f}. Calibrate again, or correct K"
    return [Notice("doubtful-focal-length", text)]


def pixels(error: float) -> str:
    """An error in words; it is infinite where most points lie behind the camera."""
    return f"{error:.1f} px" if np.isfinite(error) else "infinite (points behind the camera)"


def _judge(case: Case, dataset: Dataset, poses: Poses) -> Verdict:
    typical = float(np.median(list(case.errors.values())))
    overall = case.figures.median_at_1000
    enough = case.figures.pairs >= LEAST_PAIRS or case.kind == "reprojection"
    if overall > DOUBTFUL and enough:
        why = explain_all(case.everywhere, poses, DOUBTFUL)
        problem = f"the median {case.kind} error is {pixels(overall)} at 1000 px width (below 1 in a good set)"
        if why:
            problem += f"; {why}"
        remedy = "Correct poses, intrinsics or lens model; check that these are the pictures that were calibrated"
        if overall > NONSENSE or why:
            wrong = Problem(f"wrong-{case.kind}", str(dataset.root), "cameras", problem, remedy)
            return Verdict(case.figures, (), (), (wrong,))
        warnings = [Notice(f"large-{case.kind}-error", f"{problem}. {remedy}")]
    else:
        warnings = _doubts(case, poses) if enough else []
    outliers = []
    for row, error in case.suspects:
        seen = case.sightings(row)
        why = explain(seen, poses.rotation[row], poses.centre[row], max(typical, 0.1)) if seen is not None else ""
        outliers.append(Outlier(case.names[row], error, typical, why))
    for outlier in outliers[:MOST_NAMED]:
        text = f"{outlier.name}: {case.kind} error {pixels(outlier.error)} at 1000 px width, "
        text += f"the others have {outlier.typical:.2f}"
        text += f"; {outlier.explanation}" if outlier.explanation else ""
        warnings.append(Notice("outlier-camera", f"{text}. {REMEDY}"))
    if len(outliers) > MOST_NAMED:
        warnings.append(Notice("outlier-camera", f"{len(outliers) - MOST_NAMED} more cameras do not fit. {REMEDY}"))
    return Verdict(case.figures, tuple(outliers), tuple(warnings), ())
