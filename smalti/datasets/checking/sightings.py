"""What one camera saw, in a form that tells how badly any pose of it would fit: the file's points, or partners' rays.

Both kinds answer in pixels of a 1000 pixels wide picture, so that the search for outliers and for what is wrong with
them (`outliers`, `diagnosis`) need not know where the evidence came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from smalti.datasets.checking.features import PairMatches
from smalti.datasets.checking.geometry import Poses, angle_to_points, epipolar_angles, rays_of
from smalti.datasets.dataset import Points, View


class Sightings(Protocol):
    """The evidence about one camera."""

    def errors(
        self, rotation: Float[np.ndarray, "3 3"], centre: Float[np.ndarray, "3"], stretch: float = 1.0
    ) -> Float[np.ndarray, "n"]:
        """Error of each sighting if the camera had this pose and a focal length `stretch` times the file's."""
        ...


def stretched(rays: Float[np.ndarray, "n 3"], stretch: float) -> Float[np.ndarray, "n 3"]:
    """Unit rays of the same pixels under a focal length `stretch` times as long."""
    if stretch == 1.0:
        return rays
    longer = rays * [1.0, 1.0, stretch]
    return longer / np.linalg.norm(longer, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class PointSightings:
    """Points of known position."""

    rays: Float[np.ndarray, "n 3"]
    points: Float[np.ndarray, "n 3"]
    focal: float

    def offsets(self, rotation: np.ndarray, centre: np.ndarray) -> Float[np.ndarray, "n 3"]:
        """The points in the camera's axes."""
        return (self.points - centre) @ rotation.T

    def errors(self, rotation: np.ndarray, centre: np.ndarray, stretch: float = 1.0) -> Float[np.ndarray, "n"]:
        """See `Sightings.errors`."""
        angles, _ = angle_to_points(stretched(self.rays, stretch), self.offsets(rotation, centre))
        return angles * self.focal * stretch


@dataclass(frozen=True, eq=False)
class RaySightings:
    """Rays of the same points from other cameras, in world axes."""

    rays: Float[np.ndarray, "n 3"]
    partner_rays: Float[np.ndarray, "n 3"]
    partner_centres: Float[np.ndarray, "n 3"]
    partner: Int[np.ndarray, "n"]
    """Row of the partner's view."""
    focal: float
    reach: float
    """Distance from the cameras to the scene, world units."""

    def errors(self, rotation: np.ndarray, centre: np.ndarray, stretch: float = 1.0) -> Float[np.ndarray, "n"]:
        """See `Sightings.errors`."""
        world = stretched(self.rays, stretch) @ rotation
        baselines = (self.partner_centres - centre) / self.reach
        return epipolar_angles(world, self.partner_rays, baselines) * self.focal * stretch


def point_sightings(views: Sequence[View], poses: Poses, points: Points) -> list[PointSightings | None]:
    """For each view its sightings of the file's points; None where it has none."""
    order = np.argsort(points.observation_view, kind="stable")
    starts = np.searchsorted(points.observation_view[order], np.arange(len(views) + 1))
    result: list[PointSightings | None] = []
    for row, view in enumerate(views):
        rows = order[starts[row] : starts[row + 1]]
        if len(rows) == 0:
            result.append(None)
            continue
        rays = rays_of(view.camera, points.observation_xy[rows])
        usable = np.isfinite(rays).all(1)
        seen = points.positions[points.observation_point[rows]]
        result.append(PointSightings(rays[usable], seen[usable], float(poses.focal[row])) if usable.any() else None)
    return result


def ray_sightings(poses: Poses, matches: Sequence[PairMatches], row: int, reach: float) -> RaySightings | None:
    """Everything that matched features say about view `row`; None where no pair has it."""
    rays, partner_rays, centres, partners = [], [], [], []
    for pair in matches:
        if row not in (pair.first, pair.second):
            continue
        mine, theirs = (pair.first_rays, pair.second_rays) if row == pair.first else (pair.second_rays, pair.first_rays)
        other = pair.second if row == pair.first else pair.first
        rays.append(mine)
        partner_rays.append(theirs @ poses.rotation[other])
        centres.append(np.broadcast_to(poses.centre[other], theirs.shape))
        partners.append(np.full(len(theirs), other))
    if not rays:
        return None
    joined = [np.concatenate(part) for part in (rays, partner_rays, centres, partners)]
    return RaySightings(joined[0], joined[1], joined[2], joined[3], float(poses.focal[row]), reach)


def pair_errors(poses: Poses, pair: PairMatches, reach: float, stretch: float = 1.0) -> Float[np.ndarray, "n"]:
    """Epipolar errors of one pair, pixels of a 1000 pixels wide picture."""
    first = stretched(pair.first_rays, stretch) @ poses.rotation[pair.first]
    second = stretched(pair.second_rays, stretch) @ poses.rotation[pair.second]
    baseline = (poses.centre[pair.second] - poses.centre[pair.first]) / reach
    angles = epipolar_angles(first, second, np.broadcast_to(baseline, first.shape))
    return angles * 0.5 * (poses.focal[pair.first] + poses.focal[pair.second]) * stretch
