"""What undistorting will leave of the pictures: training takes pinhole pictures, and some lenses lose most there."""

from __future__ import annotations

from smalti.cameras.undistort import plan
from smalti.datasets.dataset import Dataset, DatasetError, Notice
from smalti.datasets.pictures import shown

KEPT = 0.5
"""A lens that keeps less of its picture is worth a warning."""
MOST_LENSES = 50
"""So many different lenses are looked at: they are calibrations of one and the same glass then."""


def check_lenses(dataset: Dataset) -> list[Notice]:
    """Which views lose much of their picture. Raises `DatasetError` for a lens that pictures cannot be undistorted by.

    Views with one lens are one case.
    """
    lenses: dict[tuple[object, ...], list[int]] = {}
    for row, view in enumerate(dataset.views):
        camera = view.camera
        key = (camera.model, camera.distortion, camera.width, camera.height, *camera.intrinsics.tolist())
        lenses.setdefault(key, []).append(row)
    narrow: dict[str, float] = {}
    for rows in list(lenses.values())[:: -(-len(lenses) // MOST_LENSES)]:
        name = dataset.views[rows[0]].camera.name
        try:
            undistortion = plan(dataset.views[rows[0]].camera)
        except ValueError as error:
            terms = ", ".join(f"{term:g}" for term in dataset.views[rows[0]].camera.distortion)
            problem = f"its pictures cannot be undistorted (distortion {terms}): {error}"
            raise DatasetError(dataset.root, name, problem, "Check the order of the terms; calibrate again") from error
        source, target = undistortion.source, undistortion.target
        kept = min(undistortion.kept, target.width * target.height / (source.width * source.height))
        if kept < KEPT:
            narrow.update((dataset.views[row].camera.name, kept) for row in rows)
    if not narrow:
        return []
    text = f"{len(narrow)} pictures keep only {min(narrow.values()):.0%} of their pixels when they are undistorted: "
    text += f"{shown(narrow)}; check the lens, or cut wide pictures into several pinhole views first"
    return [Notice("narrow-crop", text, len(narrow))]
