"""The error of the file's own points: where they are seen against where the cameras say they should be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smalti.cameras.models import project
from smalti.datasets.checking.geometry import REFERENCE_WIDTH
from smalti.datasets.checking.report import ErrorFigures
from smalti.datasets.dataset import DatasetError, Points, View


def check_points(points: Points, views: Sequence[View], root: str) -> None:
    """Raises `DatasetError` where sightings name views or points that are not there, or numbers are not finite."""
    remedy = "Export the model again: its files do not belong together"
    if not np.isfinite(points.positions).all():
        bad = int(np.flatnonzero(~np.isfinite(points.positions).all(1))[0])
        raise DatasetError(
            root, f"point {bad}", "its position is not finite", "Export the model again, or remove this point"
        )
    for rows, count, what in (
        (points.observation_point, len(points.positions), "point"),
        (points.observation_view, len(views), "view"),
    ):
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= count):
            raise DatasetError(root, "sightings", f"they name a {what} that is not there", remedy)
    finite = np.isfinite(points.observation_xy).all(1)
    if not finite.all():
        name = views[int(points.observation_view[np.flatnonzero(~finite)[0]])].camera.name
        raise DatasetError(root, name, "a sighting is not finite", remedy)


def behind_share(points: Points, views: Sequence[View]) -> tuple[float, dict[str, float]]:
    """Share of all sightings that lie behind their camera (z <= 0), and the views' own shares where not zero."""
    behind, shares = 0, {}
    for row, seen in _by_view(points, len(views)):
        camera = views[row].camera
        rotation, translation = camera.rotation.detach().double().numpy(), camera.translation.detach().double().numpy()
        count = int((points.positions[points.observation_point[seen]] @ rotation[2] + translation[2] <= 0).sum())
        behind += count
        if count:
            shares[camera.name] = count / len(seen)
    return behind / max(len(points.observation_point), 1), shares


def reprojection(points: Points, views: Sequence[View]) -> tuple[ErrorFigures, dict[int, float]]:
    """The figures, and each view's median in pixels of a 1000 pixels wide picture.

    A sighting that the camera cannot have (behind it, beyond the lens) counts as infinitely wrong in the medians.
    """
    errors, widths, per_view, scaled = [], [], {}, {}
    for row, seen in _by_view(points, len(views)):
        camera = views[row].camera
        pixels, valid = project(camera, points.positions[points.observation_point[seen]])
        error = np.where(valid, np.linalg.norm(pixels - points.observation_xy[seen], axis=1), np.inf)
        errors.append(error)
        widths.append(np.full(len(error), REFERENCE_WIDTH / camera.width))
        per_view[camera.name] = float(np.median(error))
        scaled[row] = per_view[camera.name] * REFERENCE_WIDTH / camera.width
    joined = np.concatenate(errors)
    figures = ErrorFigures(
        median=float(np.median(joined)),
        p95=_percentile(joined, 95.0),
        median_at_1000=float(np.median(joined * np.concatenate(widths))),
        sightings=len(joined),
        pairs=0,
        per_view=per_view,
    )
    return figures, scaled


def _percentile(values: np.ndarray, share: float) -> float:
    """Without interpolation, which would make NaN of infinities."""
    return float(np.percentile(values, share, method="lower"))


def _by_view(points: Points, count: int) -> list[tuple[int, np.ndarray]]:
    """Rows of the sightings of each view that has any."""
    order = np.argsort(points.observation_view, kind="stable")
    starts = np.searchsorted(points.observation_view[order], np.arange(count + 1))
    return [(row, order[starts[row] : starts[row + 1]]) for row in range(count) if starts[row + 1] > starts[row]]
