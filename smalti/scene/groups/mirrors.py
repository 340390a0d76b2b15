"""Mirrored pairs, fours by two planes, and groups that are each other's image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np

from smalti.scene.groups.boxes import Array, Mask
from smalti.scene.groups.fit import Fit, fitted
from smalti.scene.groups.levels import DoubleMirror, Mirror, triple
from smalti.scene.groups.planes import Plane, plane_of
from smalti.scene.groups.search import Body, Search, compound


def mirrors(search: Search, planes: Sequence[Plane]) -> Iterator[Fit]:
    boxes = search.boxes
    if "mirror" in search.kinds:
        done = set[tuple[int, int]]()
        for plane in planes:
            shared = Mirror(triple(plane.normal), plane.offset)
            for first, second in plane.pairs:
                if (first, second) in done:
                    continue
                own = plane_of(boxes.centres[[first]], boxes.centres[[second]], plane.normal)
                for level in (shared, Mirror(triple(own[0]), own[1])):
                    fit = fitted((level,), (first, second), (((0,),), ((1,),)), boxes, search.limits)
                    if fit.worst <= search.tolerance:
                        done.add((first, second))
                        yield fit
                        break
    if "double_mirror" in search.kinds:
        seen = set[frozenset[int]]()
        square = [pair for pair in combinations(planes, 2) if abs(float(pair[0].normal @ pair[1].normal)) <= 0.1]
        for one, two in square:
            for rows in _quadruples(one, two):
                if frozenset(rows) not in seen:
                    fit = _double(search, (one, two), rows)
                    if fit.worst <= search.tolerance:
                        seen.add(frozenset(rows))
                        yield fit
        yield from _threes(search, square, seen)


def _quadruples(one: Plane, two: Plane) -> list[tuple[int, int, int, int]]:
    """(part, image at the first plane, at the second, at both)."""
    first, second = _partners(one), _partners(two)
    found: dict[frozenset[int], tuple[int, int, int, int]] = {}
    for row in sorted(first):
        for a in first[row]:
            for b in second.get(row, ()):
                for c in second.get(a, ()):
                    if c in first.get(b, ()) and len({row, a, b, c}) == 4:
                        found.setdefault(frozenset((row, a, b, c)), (row, a, b, c))
    return list(found.values())


def _threes(search: Search, square: Sequence[tuple[Plane, Plane]], seen: set[frozenset[int]]) -> Iterator[Fit]:
    """A part and its images at two planes, where the fourth is missing."""
    fours, threes = set(seen), set[frozenset[int]]()
    for one, two in square:
        first, second = _partners(one), _partners(two)
        for row in sorted(first):
            for a, b in product(first[row], second.get(row, ())):
                rows = frozenset((row, a, b))
                if a == b or rows in threes or any(rows < four for four in fours):
                    continue
                threes.add(rows)
                points = search.boxes.centres
                normals = [_across(points[[row, a]], one.normal), _across(points[[row, b]], two.normal)]
                middles = [0.5 * (points[row] + points[each]) for each in (a, b)]
                level = _at_right_angles(normals, middles)
                slots = (((0, 0),), ((1, 0),), ((0, 1),))
                fit = fitted((level,), (row, a, b), slots, search.boxes, search.limits)
                if fit.worst <= search.tolerance:
                    yield fit


def _across(points: Array, toward: Array) -> Array:
    return plane_of(points[[0]], points[[1]], toward)[0]


def _at_right_angles(normals: list[Array], points: list[Array]) -> DoubleMirror:
    """The two planes turned least, through a point each."""
    left, _, right = np.linalg.svd(np.stack(normals, axis=1), full_matrices=False)
    square = (left @ right).T
    offsets = (float(square[0] @ points[0]), float(square[1] @ points[1]))
    return DoubleMirror((triple(square[0]), triple(square[1])), offsets)


def _partners(plane: Plane) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for one, two in plane.pairs:
        found.setdefault(one, []).append(two)
        found.setdefault(two, []).append(one)
    return found


def _double(search: Search, planes: tuple[Plane, Plane], rows: tuple[int, int, int, int]) -> Fit:
    """Planes through these four, at right angles to each other."""
    points = search.boxes.centres[list(rows)]
    normals = [
        plane_of(points[[0, 2]], points[[1, 3]], planes[0].normal)[0],
        plane_of(points[[0, 1]], points[[2, 3]], planes[1].normal)[0],
    ]
    level = _at_right_angles(normals, [points.mean(axis=0)] * 2)
    return fitted((level,), rows, [(slot,) for slot in level.slots()], search.boxes, search.limits)


def nested_mirrors(search: Search, bodies: list[Body], alike: Mask, planes: Sequence[Plane]) -> Iterator[Fit]:
    for i, j in combinations(range(len(bodies)), 2):
        if not alike[i, j]:
            continue
        one, two = sorted((bodies[i], bodies[j]), key=lambda body: -len(body.rows))
        between = two.centre - one.centre
        tried = [(plane.normal, plane.offset) for plane in planes]
        if np.linalg.norm(between) > 1.5 * search.tolerance:
            normal = between / np.linalg.norm(between)
            tried = [(normal, float(normal @ (0.5 * (one.centre + two.centre)))), *tried]
        for normal, offset in tried:
            if any(isinstance(level, Mirror) and _parallel_planes(level, normal) for level in one.levels):
                continue  # copies in a row are an array's
            image = one.centre - 2.0 * (float(one.centre @ normal) - offset) * normal
            if np.linalg.norm(image - two.centre) <= 2.0 * search.tolerance or len(two.rows) < len(one.rows):
                level = Mirror(triple(normal), offset)
                fit = compound(search, level, [(one, (0,)), (two, (1,))])
                if fit is not None:
                    yield fit
                    break


def _parallel_planes(level: Mirror, normal: Array) -> bool:
    return abs(float(np.array(level.normal) @ normal)) > 0.9
