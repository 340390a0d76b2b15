"""Groups that there might be: every regularity among boxes that are alike, or among groups that are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from smalti.scene.groups.boxes import Boxes, Mask, assign, compare, compare_sizes
from smalti.scene.groups.fit import Fit
from smalti.scene.groups.mirrors import mirrors, nested_mirrors
from smalti.scene.groups.planes import Plane, find_planes, scene_axes
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
