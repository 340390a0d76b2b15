"""Is this data set fit for training? Measures what can be measured before, and says what is odd and what is wrong.

What is odd becomes a warning, what is wrong a problem (exit code 2 of `smalti check`); the measures are in `checking`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from smalti.datasets.checking import duplicates, epipolar, features, overview, reprojection, scan
from smalti.datasets.checking.colors import ColorTest
from smalti.datasets.checking.geometry import Poses, looking_at, poses_of
from smalti.datasets.checking.lenses import check_lenses
from smalti.datasets.checking.report import CheckReport, Outlier, Scale, Times
from smalti.datasets.checking.verdicts import Verdict, judge_features, judge_points
from smalti.datasets.dataset import Dataset, DatasetError, Notice
from smalti.datasets.pictures import shown

__all__ = ["CheckOptions", "CheckReport", "check_dataset"]

NOTES = frozenset({"scale-mat", "one-instant"})
"""What readers remark without anything being odd."""
BEHIND_SHARE = 0.005
"""More sightings than this behind their cameras are worth a warning."""


@dataclass(frozen=True)
class CheckOptions:
    """What to look at."""

    features: Literal["auto", "always", "never"] = "auto"
    """Match features between neighbours: `auto` where the file has no points with sightings."""
    feature_views: int = 400
    """At most so many views (per instant) are searched for features; 0 means all."""
    overview: Path | None = None
    """Where to write the overview picture; None: nowhere."""


def check_dataset(
    dataset: Dataset, options: CheckOptions | None = None, progress: Callable[[str], None] = lambda text: None
) -> CheckReport:
    """Examines a data set. Raises `DatasetError` only for records that forbid any measure (poses not finite)."""
    options = options or CheckOptions()
    clock = _Clock(progress)
    _check_cameras(dataset)
    views, poses = dataset.views, poses_of(dataset.views)
    scale = _scale(dataset, poses)
    reach = max(scale.camera_distance, 1e-12)
    groups = duplicates.same_pose_groups(poses, reach)
    names = [view.camera.name for view in views]

    by_points: Verdict | None = None
    behind: float | None = None
    notes = [notice for notice in dataset.notices if notice.code in NOTES]
    warnings = [*(notice for notice in dataset.notices if notice.code not in NOTES), *check_lenses(dataset)]
    colors: ColorTest | None = None
    if dataset.points is not None and len(dataset.points.observation_point):
        clock.start("reprojecting the points")
        reprojection.check_points(dataset.points, views, str(dataset.root))
        by_points = judge_points(dataset, poses)
        colors = ColorTest(dataset.points, views)
        behind, shares = reprojection.behind_share(dataset.points, views)
        if behind > BEHIND_SHARE:
            worst = sorted(shares, key=lambda name: -shares[name])
            text = f"{behind:.1%} of the sightings lie behind their camera, most in {shown(worst)}; "
            text += "those poses cannot be right"
            warnings.append(Notice("points-behind-cameras", text))

    wanted = options.features == "always" or (options.features == "auto" and by_points is None)
    instants, note = epipolar.chosen_instants(views, groups) if wanted else ([], "the file's own points tell more")
    if options.features == "never":
        note = "not asked for"
    pycolmap = features.load_pycolmap() if instants else None
    if instants and pycolmap is None:
        note = f"matching features needs pycolmap, which is not installed: {features.INSTALL}"
        warnings.append(Notice("no-feature-matching", f"the poses were not tested: {note}"))
    rows = [epipolar.thinned(instant, options.feature_views) for instant in instants] if pycolmap is not None else []

    clock.start("looking at the pictures")
    found: dict[int, features.Features] = {}
    searched = {row for instant in rows for row in instant}
    detector = features.Detector(pycolmap) if pycolmap is not None else None

    def look(row: int, picture: scan.SmallPicture) -> None:
        if colors is not None:
            colors.look(row, picture)
        if detector is not None and row in searched:
            found[row] = detector(views[row].camera, picture.grey, picture.mask)

    with features.quiet(pycolmap) if pycolmap is not None else nullcontext():
        seen = scan.scan(views, features.LONG_SIDE, look)
        by_features: Verdict | None = None
        matched = None
        if pycolmap is not None:
            clock.start("matching neighbours")
            target = np.array(scale.centre)
            matches = [pair for part in rows for pair in epipolar.match_instant(part, found, poses, target, pycolmap)]
            fixed = len(instants) > 1
            key = [groups.index(group) if fixed else row for row, group in enumerate(groups)]
            evidence = epipolar.weigh(matches, poses, reach, key)
            if evidence.errors:
                by_features = judge_features(dataset, poses, reach, evidence, key)
                matched = epipolar.meeting_points(evidence, poses)
                missed = sorted(searched - {row for pair in matches for row in (pair.first, pair.second)})
                note = f"no matches in {len(missed)} views: {shown([names[row] for row in missed])}" if missed else ""
            else:
                note = "no two views have enough matching features"

    exposure, odd = scan.exposure_of(names, seen.facts)
    warnings += odd + scan.blank_pictures(names, seen.facts) + (colors.notices() if colors is not None else [])
    warnings += duplicates.identical_cameras(views, groups) + duplicates.identical_pictures(views, groups, seen.facts)
    judged = [verdict for verdict in (by_points, by_features) if verdict is not None]
    warnings += [notice for verdict in judged for notice in verdict.warnings]
    problems = [*seen.problems, *(problem for verdict in judged for problem in verdict.problems)]
    report = replace(
        _facts(dataset, scale),
        reprojection=by_points.figures if by_points else None,
        epipolar=by_features.figures if by_features else None,
        epipolar_note=note,
        behind=behind,
        alpha=sum(fact.alpha for fact in seen.facts if fact is not None),
        exposure=exposure,
        outliers=_merged(judged),
        notes=tuple(notes),
        warnings=tuple(warnings),
        problems=tuple(problems),
    )
    if options.overview is not None:
        clock.start("drawing the overview")
        try:
            overview.draw_overview(dataset, poses, report, options.overview, matched)
            report = replace(report, overview=str(options.overview))
        except OSError as error:  # no reason to lose what was found out
            text = f"{options.overview} cannot be written ({error.strerror or error}); choose another place for it"
            report = replace(report, warnings=(*report.warnings, Notice("no-overview", text)))
    return replace(report, seconds=clock.stop())


class _Clock:
    """Names the part that runs, and remembers how long each took."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress, self._seconds, self._part, self._since = progress, {}, "", time.perf_counter()

    def start(self, part: str) -> None:
        self.stop()
        self._part, self._since = part, time.perf_counter()
        self._progress(part)

    def stop(self) -> dict[str, float]:
        if self._part:
            self._seconds[self._part] = round(time.perf_counter() - self._since, 3)
        return self._seconds


def _check_cameras(dataset: Dataset) -> None:
    """Raises `DatasetError` for cameras that nothing can be computed with; readers should have, others may not."""
    if not dataset.views:
        raise DatasetError(dataset.root, "", "it has no view", "Check that the pictures belong to the cameras")
    again = "Calibrate or export again, or remove this view"
    for view in dataset.views:
        camera = view.camera
        rotation = camera.rotation.detach().double().numpy()
        intrinsics = camera.intrinsics.detach().double().numpy()
        if not (np.isfinite(rotation).all() and bool(camera.translation.detach().isfinite().all())):
            raise DatasetError(dataset.root, camera.name, "the pose holds NaN or Inf", again)
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.01 or np.linalg.det(rotation) < 0:
            raise DatasetError(dataset.root, camera.name, "the rotation matrix is no rotation", again)
        if not np.isfinite(intrinsics).all() or intrinsics[:2].min() <= 0:
            raise DatasetError(
                dataset.root, camera.name, f"the intrinsics {intrinsics.round(3).tolist()} are no camera's", again
            )


def _scale(dataset: Dataset, poses: Poses) -> Scale:
    points = dataset.points.positions if dataset.points is not None else np.zeros((0, 3))
    points = points[np.isfinite(points).all(1)]
    centre = np.median(points, axis=0) if len(points) else looking_at(poses)
    distance = float(np.median(np.linalg.norm(poses.centre - centre, axis=1)))
    if len(points):
        low, high = np.percentile(points, [5.0, 95.0], axis=0)
        extent = float(np.linalg.norm(high - low))
    else:
        extent = distance * float(np.median(1000.0 / poses.focal))
    return Scale(
        unit="metres" if dataset.metres else "arbitrary",
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        camera_extent=float(np.linalg.norm(np.ptp(poses.centre, axis=0))),
        scene_extent=extent,
        camera_distance=distance,
    )


def _facts(dataset: Dataset, scale: Scale) -> CheckReport:
    """What can be counted without opening a picture."""
    views = dataset.views
    instants = sorted({view.camera.time for view in views})
    rigs = {view.rig for view in views if view.rig}
    lenses = {(v.camera.model, v.camera.distortion, v.camera.width, *v.camera.intrinsics.tolist()) for v in views}
    focal = [float(view.camera.intrinsics[0]) for view in views]
    root = Path(dataset.root)
    return CheckReport(
        name=root.stem if root.is_file() else root.resolve().name,
        root=str(root),
        format=dataset.format,
        images_found=len(views),
        images_missing=sum(notice.count for notice in dataset.notices if notice.code == "missing-images"),
        cameras=len(rigs) or len(lenses),
        models=dict(Counter(view.camera.model for view in views)),
        sizes=dict(Counter(f"{view.camera.width} x {view.camera.height}" for view in views)),
        focal=(min(focal), max(focal)),
        splits=dict(Counter(view.split for view in views if view.split)),
        times=Times(len(instants), instants[0], instants[-1], len(views) / len(instants)),
        scale=scale,
        points=len(dataset.points.positions) if dataset.points is not None else None,
        reprojection=None,
        epipolar=None,
        epipolar_note="",
        behind=None,
        masks=sum(view.mask is not None for view in views),
        alpha=0,
        exposure=None,
        outliers=(),
        notes=(),
        warnings=(),
        problems=(),
    )


def _merged(verdicts: Sequence[Verdict]) -> tuple[Outlier, ...]:
    """All outliers, each once: what the points say comes first."""
    by_name: dict[str, Outlier] = {}
    for verdict in verdicts:
        for outlier in verdict.outliers:
            by_name.setdefault(outlier.name, outlier)
    return tuple(by_name.values())
