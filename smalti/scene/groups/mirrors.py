"""Mirrored pairs, fours by two planes, and groups that are each other's image.

Every pair of boxes that are alike has a plane in between; those that several pairs share, or that pass through much of
the scene, are the scene's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes, Mask, Rows, compare
from smalti.scene.groups.fit import Fit, fitted
from smalti.scene.groups.levels import DoubleMirror, Mirror, reflection, triple
from smalti.scene.groups.search import Body, Search, compound

MOST_PLANES = 80


@dataclass(frozen=True, eq=False)
class Plane:
    """A mirror plane and the pairs of boxes that it maps to each other."""

    normal: Array
    offset: float
    pairs: tuple[tuple[int, int], ...]


def find_planes(boxes: Boxes, alike: Mask, tolerance: float, axes: Array) -> list[Plane]:
    """Planes that two pairs share, that carry 30 % of the volume, or that stand across one of the scene's `axes`
    (columns); those with most pairs first.
    """
    one, two = np.nonzero(np.triu(alike, 1))
    between = boxes.centres[two] - boxes.centres[one]
    apart = np.linalg.norm(between, axis=1)
    far = apart > 1.5 * tolerance
    one, two, between, apart = one[far], two[far], between[far], apart[far]
    if not len(one):
        return []
    normals = between / apart[:, None]
    offsets = (normals * 0.5 * (boxes.centres[one] + boxes.centres[two])).sum(axis=1)
    matrices = np.eye(3) - 2.0 * normals[:, :, None] * normals[:, None, :]
    images = boxes.take(one).mapped(matrices, 2.0 * offsets[:, None] * normals)
    fits = compare(images, boxes.take(two), 2.0 * tolerance).distances <= 2.0 * tolerance
    one, two, normals, offsets = one[fits], two[fits], normals[fits], offsets[fits]
    found: dict[frozenset[int], Plane] = {}
    for row in range(len(one)):
        normal, offset, held = normals[row], float(offsets[row]), np.zeros(0, dtype=np.int64)
        for _ in range(3):  # the mean of what lies near it, then what lies near that
            held = _supporting(boxes, (one, two), normal, offset, 1.5 * tolerance)
            if not len(held):
                break
            normal, offset = plane_of(boxes.centres[one[held]], boxes.centres[two[held]], normal)
        key = frozenset(held.tolist())
        if len(held) and key not in found:
            pairs = tuple((int(one[each]), int(two[each])) for each in held)
            plane = Plane(normal, offset, pairs)
            if len(pairs) >= 2 or _stands(plane, axes) or _share(boxes, plane, tolerance) >= 0.3:
                found[key] = plane
    return sorted(found.values(), key=lambda plane: -len(plane.pairs))[:MOST_PLANES]


def plane_of(first: Array, second: Array, toward: Array) -> tuple[Array, float]:
    """The plane that maps points [m, 3] to their partners with the least squares. n minimises n' S n, with S the
    symmetric part of the sum of p q' about the middle of all.
    """
    if len(first) == 1:
        normal = second[0] - first[0]
        normal = normal / np.linalg.norm(normal)
    else:
        middle = 0.5 * (first.mean(axis=0) + second.mean(axis=0))
        product = (first - middle).T @ (second - middle)
        values, vectors = np.linalg.eigh(product + product.T)
        normal = vectors[:, 0]
        if values[0] >= 0 or abs(normal @ toward) < 0.9:
            normal = ((second - first) * np.sign((second - first) @ toward)[:, None]).sum(axis=0)
            normal = normal / np.linalg.norm(normal)
    normal = normal * (1.0 if normal @ toward >= 0 else -1.0)
    return normal, float(normal @ (0.5 * (first.mean(axis=0) + second.mean(axis=0))))


def _supporting(boxes: Boxes, pairs: tuple[Rows, Rows], normal: Array, offset: float, reach: float) -> Rows:
    first, second = boxes.centres[pairs[0]], boxes.centres[pairs[1]]
    image = first - 2.0 * (first @ normal - offset)[:, None] * normal
    return np.flatnonzero(np.linalg.norm(image - second, axis=1) <= reach)


def _stands(plane: Plane, axes: Array) -> bool:
    return bool((np.abs(plane.normal @ axes) > np.cos(np.radians(5.0))).any())


def _share(boxes: Boxes, plane: Plane, tolerance: float) -> float:
    """Of the boxes' volume, that of what the plane maps to each other or to itself."""
    volumes = boxes.volumes()
    touched = {row for pair in plane.pairs for row in pair}
    near = np.flatnonzero(np.abs(boxes.centres @ plane.normal - plane.offset) <= tolerance)
    if len(near):
        matrix, shift = reflection(plane.normal, plane.offset)
        own = boxes.take(near)
        touched |= set(near[compare(own.mapped(matrix, shift), own, tolerance).distances <= 2.0 * tolerance].tolist())
    return float(volumes[sorted(touched)].sum() / volumes.sum())


def scene_axes(boxes: Boxes) -> Array:
    """The directions [3, 3] (columns) along which most of the boxes' surface lies; they turn with the scene."""
    areas = 8.0 * (boxes.halves * np.roll(boxes.halves, 1, axis=1)).sum(axis=1)
    # How far each box's axes are those of another, up to exchange and sign.
    dots = np.abs(np.einsum("nia,mib->nmab", boxes.rotations, boxes.rotations)).max(axis=3)
    agree = (dots > np.cos(np.radians(5.0))).all(axis=2)
    weights = agree @ areas
    best = int(np.flatnonzero(weights >= weights.max() * (1.0 - 1e-9))[0])
    base, total = boxes.rotations[best], np.zeros((3, 3))
    for row in np.flatnonzero(agree[best]):
        dot = boxes.rotations[row].T @ base
        order = np.abs(dot).argmax(axis=0)
        if len(set(order.tolist())) == 3:
            signs = np.sign(dot[order, np.arange(3)])
            total += areas[row] * boxes.rotations[row][:, order] * signs
    left, _, right = np.linalg.svd(total)
    return left @ right


def mirrors(search: Search, planes: Sequence[Plane]) -> Iterator[Fit]:
    """Pairs and fours of single boxes."""
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
    """Groups that are each other's mirror image, at one of the planes or halfway between them."""
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
