"""The ground under a scene: a plane through many of its points, below all else and below the cameras (RANSAC, Fischler
and Bolles 1981, then least squares on the inliers).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from smalti.datasets.world_evidence import Evidence
from smalti.datasets.world_up import Level

TRIALS = 6000
NEIGHBOURHOOD = 0.08
"""Two in three trials draw their points from those of similar height (within this share of all, ranked by the cameras'
up): a ground that shows few points is still found."""
CHUNK = 256
THICKNESS = 0.015
"""Distance from the plane up to which a point lies on it, in radii of the viewed ball."""
SHARES = ((0.12, 0.12), (0.04, 0.015))
"""(least share of the points that lie on a ground, largest share that lies under it): a plane with few points is a
ground where hardly anything is below."""
FEWEST_ON = 50
CAMERAS_ABOVE = 0.9
AGREEMENT = 30.0
"""Degrees by which a plane's normal may differ from an up direction that the cameras really say; twice that from a
guess."""
SPREAD = 0.15
"""Least standard deviation of its points along the plane's shorter side, in radii of the viewed ball."""
DEPTHS = (-0.3, 2.0)
"""How far what the cameras look at may be above it, in radii of the viewed ball."""


@dataclass(frozen=True, eq=False)
class Plane:
    """`normal . p = offset`, the normal upwards."""

    normal: Float[np.ndarray, "3"]
    offset: float
    share: float
    """Of the points where the cameras look, on the plane."""
    thickness: float
    """Root mean square distance of those from it."""
    count: int
    angle: float
    """Degrees from the cameras' up."""


def ground_plane(
    evidence: Evidence, level: Level, agreement: float = AGREEMENT, fewest: int = FEWEST_ON
) -> Plane | None:
    """The plane with most points that passes for a ground; None where none does. A function of its input.

    `agreement` in degrees, for a trusted direction; `fewest` points on it.
    """
    points, size = evidence.positions, evidence.viewed
    limit = float(np.cos(np.radians(agreement if level.trusted else 2.0 * AGREEMENT)))
    normals, offsets = _candidates(points, level.up, 1e-3 * size**2)
    fit = normals @ level.up >= limit
    normals, offsets = normals[fit], offsets[fit]
    counts = np.zeros(len(normals), np.int64)
    for start in range(0, len(normals), CHUNK):
        rows = slice(start, start + CHUNK)
        counts[rows] = _support(evidence, normals[rows], offsets[rows], fewest)
    for row in np.argsort(-counts, kind="stable")[:5]:
        if counts[row] == 0:
            break
        normal, offset = _refined(points, normals[row], float(offsets[row]), size)
        passes = normal @ level.up >= limit and _support(evidence, normal[None], np.array([offset]), fewest)[0]
        plane = _judged(evidence, level, normal, offset) if passes else None
        if plane is not None:
            return plane
    return None


def _candidates(
    points: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"], least: float
) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k"]]:
    """Planes through three points each, normals upwards; triples whose triangle is less than `least` are left out."""
    generator = np.random.default_rng(0)
    ranked = points[np.argsort(points @ up, kind="stable")]
    first = generator.integers(0, len(points), (TRIALS, 1))
    reach = np.where(np.arange(TRIALS) % 3 == 0, 1.0, NEIGHBOURHOOD)[:, None] * len(points)
    others = np.clip(np.rint(first + reach * generator.uniform(-1.0, 1.0, (TRIALS, 2))), 0, len(points) - 1)
    one, two, three = (ranked[column] for column in np.concatenate([first, others.astype(np.int64)], axis=1).T)
    normals = np.cross(two - one, three - one)
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > least
    normals = normals[usable] / lengths[usable, None]
    normals *= np.where(normals @ up < 0, -1.0, 1.0)[:, None]
    return normals, (normals * one[usable]).sum(1)


def _judged(evidence: Evidence, level: Level, normal: Float[np.ndarray, "3"], offset: float) -> Plane | None:
    """The plane with its figures, where its points fill an area."""
    points, size = evidence.positions, evidence.viewed
    inliers = _on(points, normal, offset, size)
    if not _wide(points[inliers], size):
        return None
    distances = points[inliers] @ normal - offset
    angle = float(np.degrees(np.arccos(np.clip(normal @ level.up, -1.0, 1.0))))
    thickness = float(np.sqrt((distances**2).mean()))
    return Plane(normal, offset, float(inliers.mean()), thickness, int(inliers.sum()), angle)


def _on(points: Float[np.ndarray, "n 3"], normal: np.ndarray, offset: float, size: float) -> Bool[np.ndarray, "n"]:
    return np.abs(points @ normal - offset) <= THICKNESS * size


def _support(
    evidence: Evidence, normals: Float[np.ndarray, "k 3"], offsets: Float[np.ndarray, "k"], fewest: int
) -> Int[np.ndarray, "k"]:
    """How many points lie on each plane; 0 where it cannot be a ground."""
    size = evidence.viewed
    heights = evidence.positions @ normals.T - offsets
    on = (np.abs(heights) <= THICKNESS * size).mean(0)
    under = (heights < -2.0 * THICKNESS * size).mean(0)
    passes = np.zeros(len(normals), bool)
    for least, most in SHARES:
        passes |= (on >= max(least, fewest / len(heights))) & (under <= most)
    passes &= (evidence.centres @ normals.T > offsets).mean(0) >= CAMERAS_ABOVE
    depth = (normals @ evidence.focus - offsets) / size
    passes &= (depth >= DEPTHS[0]) & (depth <= DEPTHS[1])
    return np.where(passes, np.rint(on * len(heights)), 0).astype(np.int64)


def _refined(
    points: Float[np.ndarray, "n 3"], normal: np.ndarray, offset: float, size: float
) -> tuple[Float[np.ndarray, "3"], float]:
    """Least squares on the inliers, a few times over."""
    for _ in range(5):
        inliers = points[_on(points, normal, offset, size)]
        if len(inliers) < 3:
            break
        middle = inliers.mean(0)
        axis = np.linalg.svd(inliers - middle, full_matrices=False)[2][2]
        normal = axis if axis @ normal >= 0 else -axis
        offset = float(normal @ middle)
    return normal, offset


def _wide(inliers: Float[np.ndarray, "n 3"], size: float) -> bool:
    """A plane's points fill an area; those of an edge, or of one spot, do not determine it."""
    deviations = np.linalg.svd(inliers - inliers.mean(0), compute_uv=False) / np.sqrt(len(inliers))
    return bool(deviations[1] >= SPREAD * size)
