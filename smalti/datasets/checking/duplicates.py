"""Suspicious duplicates: two views with one and the same camera, two cameras with one and the same picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smalti.datasets.checking.geometry import Poses
from smalti.datasets.checking.scan import PictureFacts, read_small
from smalti.datasets.dataset import DatasetError, Notice, View
from smalti.datasets.decode import Videos
from smalti.datasets.pictures import shown

SAME = 1e-7
"""Poses that differ less (radians; share of the distance to the scene) are copies: no solver repeats a pose."""

SAME_VIEW = 0.97
"""Correlation of two pictures of the same view (a camera back in its place: above 0.99; one degree beside it: 0.9)."""
COMPARED_SIDE = 400
MOST_COMPARED = 4


def same_pose_groups(poses: Poses, reach: float) -> list[int]:
    """For every view the number of its group of equal poses, focal lengths aside."""
    values = np.concatenate([poses.rotation.reshape(-1, 9), poses.centre / reach], axis=1)
    groups: list[int] = []
    first: list[int] = []
    for row, value in enumerate(values):
        known = values[first] if first else np.zeros((0, values.shape[1]))
        equal = np.flatnonzero(np.abs(known - value).max(axis=1) < SAME) if len(known) else np.zeros(0, int)
        if len(equal):
            groups.append(int(equal[0]))
        else:
            groups.append(len(first))
            first.append(row)
    return groups


def identical_cameras(views: Sequence[View], groups: Sequence[int]) -> list[Notice]:
    """Views of one instant with the same pose: a record was copied, unless their pictures show the very same view.

    A fixed camera at several instants is one camera; a turntable or a robot arm may come back to where it was.
    """
    seen: dict[tuple[int, float], list[int]] = {}
    for row, (view, group) in enumerate(zip(views, groups, strict=True)):
        seen.setdefault((group, view.camera.time), []).append(row)
    listed, told = [], set()
    for (group, _), rows in seen.items():
        # One instant is enough to tell of fixed cameras.
        if len(rows) > 1 and group not in told and not _same_view([views[row] for row in rows[:MOST_COMPARED]]):
            told.add(group)
            listed.append(" = ".join(views[row].rig or views[row].camera.name for row in rows[:MOST_COMPARED]))
    if not listed:
        return []
    text = f"cameras with identical values: {shown(listed)}; at most one of each is right: calibrate again"
    return [Notice("identical-cameras", text)]


def _same_view(views: Sequence[View]) -> bool:
    """Whether the pictures agree pixel by pixel, but for brightness and contrast."""
    videos = Videos()
    try:
        pictures = [read_small(view, COMPARED_SIDE, videos).grey.astype(np.float64) for view in views]
    except DatasetError:
        return False  # broken pictures are reported elsewhere
    finally:
        videos.close()
    first = pictures[0] - pictures[0].mean()
    for picture in pictures[1:]:
        if picture.shape != first.shape:
            return False
        other = picture - picture.mean()
        correlation = (first * other).sum() / max(float(np.sqrt((first**2).sum() * (other**2).sum())), 1e-9)
        if correlation < SAME_VIEW:
            return False
    return True


def identical_pictures(
    views: Sequence[View], groups: Sequence[int], facts: Sequence[PictureFacts | None]
) -> list[Notice]:
    """Equal pictures under different cameras; a fixed camera may well see the same twice."""
    seen: dict[bytes, dict[int, str]] = {}
    for view, group, fact in zip(views, groups, facts, strict=True):
        if fact is not None and fact.foreground > 0.0:
            seen.setdefault(fact.digest, {}).setdefault(group, view.camera.name)
    listed = [" = ".join(list(names.values())[:4]) for names in seen.values() if len(names) > 1]
    if not listed:
        return []
    return [
        Notice("identical-pictures", f"different cameras show the same picture: {shown(listed)}; remove the copies")
    ]
