"""Groups that there might be: every regularity among boxes that are alike, or among groups that are; and boxes of one
size that no regularity holds together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from smalti.scene.groups.boxes import Boxes, Mask, assign, compare, compare_sizes
from smalti.scene.groups.fit import Fit, fitted
from smalti.scene.groups.levels import SameSize
from smalti.scene.groups.mirrors import Plane, find_planes, mirrors, nested_mirrors, scene_axes
from smalti.scene.groups.repeated import repeated
from smalti.scene.groups.search import Search, grouped, single


def candidates(search: Search) -> tuple[list[Fit], list[Plane]]:
    """All that is found among single boxes, and the scene's mirror planes."""
    boxes = search.boxes
    alike, parallel = _classes(boxes, search.tolerance)
    bodies = [single(boxes, row) for row in range(len(boxes))]
    planes: list[Plane] = []
    if len(boxes) and {"mirror", "double_mirror"} & set(search.kinds):
        planes = find_planes(boxes, alike, search.tolerance, scene_axes(boxes))
    found = list(mirrors(search, planes))
    found += repeated(search, bodies, alike, parallel)
    return found, planes


def nested(search: Search, fits: Sequence[Fit], planes: Sequence[Plane]) -> list[Fit]:
    """Regularities among groups: those of one kind whose parts are alike."""
    bodies = [grouped(search.boxes, fit) for fit in fits]
    count = len(bodies)
    alike, parallel = np.zeros((count, count), dtype=np.bool_), np.zeros((count, count), dtype=np.bool_)
    for i, j in combinations(range(count), 2):
        if _same_sort(fits[i], fits[j], search.tolerance):
            alike[i, j] = alike[j, i] = True
            shift = bodies[j].centre - bodies[i].centre
            image = search.boxes.take(list(bodies[i].rows)).mapped(np.eye(3), shift)
            other = search.boxes.take(list(bodies[j].rows))
            parallel[i, j] = parallel[j, i] = assign(image, other, 3.0 * search.tolerance) is not None
    found = list(nested_mirrors(search, bodies, alike, planes)) if "mirror" in search.kinds else []
    return found + repeated(search, bodies, alike, parallel)


def same_sizes(search: Search, free: Sequence[int]) -> list[Fit]:
    """Boxes of one size that are in no other group, the largest sets first."""
    left, found = list(free), list[Fit]()
    boxes = search.boxes
    while len(left) >= 2:
        pairs = [(i, j) for i in range(len(left)) for j in range(len(left))]
        one, two = (boxes.take([left[pair[side]] for pair in pairs]) for side in (0, 1))
        match = compare_sizes(one, two, search.tolerance)
        close = (match.distances <= search.tolerance).reshape(len(left), len(left))
        spread = np.where(close, match.distances.reshape(close.shape), 0.0).sum(axis=1)
        best = min(range(len(left)), key=lambda row: (-int(close[row].sum()), float(spread[row]), row))
        rows = [left[each] for each in np.flatnonzero(close[best])]
        if len(rows) < 2:
            break
        rows.sort(key=lambda row: row != left[best])
        fit = _same_size(search, rows)
        if fit.worst <= search.tolerance and fit.gain > 0:
            found.append(fit)
        left = [row for row in left if row not in rows]
    return found


def _classes(boxes: Boxes, tolerance: float) -> tuple[Mask, Mask]:
    """Which boxes are of one size and shape, and which of these are turned alike too, within twice the tolerance."""
    count = len(boxes)
    sizes, turned = np.zeros((count, count), dtype=np.bool_), np.zeros((count, count), dtype=np.bool_)
    origin = Boxes(np.zeros((count, 3)), boxes.rotations, boxes.halves, boxes.exponents)
    for row in range(count):
        each = [row] * count
        sizes[row] = compare_sizes(boxes.take(each), boxes, 2.0 * tolerance).distances <= 2.0 * tolerance
        turned[row] = compare(origin.take(each), origin, 2.0 * tolerance).distances <= 2.0 * tolerance
    np.fill_diagonal(sizes, False)
    np.fill_diagonal(turned, False)
    return sizes & sizes.T, turned & turned.T


def _same_sort(one: Fit, two: Fit, tolerance: float) -> bool:
    kinds = [[level.kind for level in fit.model.levels] for fit in (one, two)]
    counts = [[level.count for level in fit.model.levels] for fit in (one, two)]
    if kinds[0] != kinds[1] or counts[0] != counts[1] or any(level.kind == "same_size" for level in one.model.levels):
        return False
    sizes = compare_sizes(one.model.base, two.model.base, 2.0 * tolerance)
    return float(sizes.distances[0]) <= 2.0 * tolerance


def _same_size(search: Search, rows: list[int]) -> Fit:
    """Copies lie where the members lie, turned as these are: only the size is shared."""
    members = search.boxes.take(rows)
    match = compare_sizes(members.take([0] * len(rows)), members, search.tolerance)
    # The first member's frame, seen from each member's own.
    frames = members.rotations @ match.frames.transpose(0, 2, 1)
    level = SameSize.of(members.rotations[0], members.centres[0], frames, members.centres)
    return fitted((level,), rows, [((number,),) for number in range(len(rows))], search.boxes, search.limits)
