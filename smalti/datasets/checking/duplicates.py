"""Suspicious duplicates: two views with one and the same camera, two cameras with one and the same picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smalti.datasets.checking.geometry import Poses
from smalti.datasets.checking.scan import PictureFacts
from smalti.datasets.dataset import Notice, View
from smalti.datasets.pictures import shown

SAME = 1e-7
"""Poses that differ less (radians; share of the distance to the scene) are copies: no solver repeats a pose."""


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
    """Views of one instant with the same pose and intrinsics: a record was copied, one of them must be wrong."""
    seen: dict[tuple, list[str]] = {}
    for view, group in zip(views, groups, strict=True):
        seen.setdefault((group, view.camera.time, _lens(view)), []).append(view.camera.name)
    same = [names for names in seen.values() if len(names) > 1]
    # A fixed camera at several instants is one camera; two fixed cameras with one pose are told apart by their rigs.
    rigs: dict[int, set[str]] = {}
    for view, group in zip(views, groups, strict=True):
        if view.rig:
            rigs.setdefault(group, set()).add(view.rig)
    listed = [" = ".join(names[:4]) for names in same] or [
        " = ".join(sorted(rig)) for rig in rigs.values() if len(rig) > 1
    ]
    if not listed:
        return []
    text = f"cameras with identical values: {shown(listed)}; at most one of each is right: calibrate again"
    return [Notice("identical-cameras", text)]


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


def _lens(view: View) -> tuple:
    camera = view.camera
    return (
        camera.model,
        camera.distortion,
        camera.width,
        camera.height,
        *(float(value) for value in camera.intrinsics),
    )
