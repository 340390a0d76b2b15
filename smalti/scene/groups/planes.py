"""Mirror planes: every pair of boxes that are alike has one in between; those that several pairs share, or that pass
through much of the scene, are the scene's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes, Mask, Rows, compare
from smalti.scene.groups.levels import reflection

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
