"""The visual hull (Laurentini 1994) as a function on a coarse grid, from which a closed surface can be drawn.

The function is the least share of foreground that a cell's box shows in any view: one half is the hull's surface, met
between nodes, so that a coarse surface is not a staircase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from smalti.datasets.dataset import Dataset
from smalti.datasets.hull import TOLERATED, Silhouette, carve, checked_silhouettes, seen_colors
from smalti.datasets.images import pinhole_camera

FEWEST_FACES = 20
LEVEL = 0.5
"""Value on the surface."""


@dataclass(frozen=True, eq=False)
class HullField:
    """Samples on a grid; node (i, j, k) is at `origin + edge * (i, j, k)`, world units of the data set."""

    values: Float[np.ndarray, "x y z"]
    """0..1, 0 along the border; inside is above `LEVEL`."""
    origin: Float[np.ndarray, "3"]
    edge: float
    silhouettes: list[Silhouette]

    def colors(
        self, positions: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
    ) -> Float[np.ndarray, "n 3"]:
        """What the views show of points on the surface, 0..1; hidden ones (tested among the points) grey."""
        return seen_colors(positions, normals, self.silhouettes, self.edge) / 255.0


def hull_field(dataset: Dataset, faces: int) -> HullField:
    """As fine as gives a surface of about so many triangles. Of a dynamic set, pass one instant (`at_time`).

    Raises `DatasetError` without silhouettes, or where they have no common part.
    """
    faces = max(faces, FEWEST_FACES)
    silhouettes = checked_silhouettes(dataset)
    cameras = [pinhole_camera(view.camera) for view in dataset.views]
    voxels, size = carve(dataset, cameras, silhouettes, faces)
    edge, origin = float(size[0]), size[1:]
    cell = edge * float(np.sqrt(2 * _exposed_faces(voxels) / faces))
    low, high = origin + voxels.min(0) * edge, origin + (voxels.max(0) + 1) * edge
    counts = np.ceil((high - low) / cell).astype(np.int64) + 5
    start = 0.5 * (low + high) - 0.5 * (counts - 1) * cell
    nodes = np.stack(np.meshgrid(*[np.arange(count) for count in counts], indexing="ij"), -1)
    values = _least_share(start + nodes.reshape(-1, 3) * cell, silhouettes, 0.5 * cell).reshape(counts)
    inner = np.zeros(counts, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return HullField(np.where(inner, values, 0.0), start, cell, silhouettes)


def _exposed_faces(voxels: Int[np.ndarray, "n 3"]) -> int:
    """Sides of voxels with nothing beyond them."""
    low = voxels.min(0) - 1
    occupied = np.zeros(voxels.max(0) - low + 2, bool)
    occupied[tuple((voxels - low).T)] = True
    return int(sum(np.count_nonzero(np.diff(occupied.astype(np.int8), axis=axis)) for axis in range(3)))


def _least_share(
    positions: Float[np.ndarray, "n 3"], silhouettes: list[Silhouette], reach: float
) -> Float[np.ndarray, "n"]:
    """The least share of foreground over the views that see a point (but for the tolerated few); 0 where less than half
    of the views see it.
    """
    shares = np.ones((len(silhouettes), len(positions)), np.float32)
    sightings = np.zeros(len(positions), np.int64)
    for row, silhouette in enumerate(silhouettes):
        seen, share = silhouette.share(positions, reach)
        shares[row] = np.where(seen, share, 1.0)
        sightings += seen
    rank = int(TOLERATED * len(silhouettes))
    least = np.partition(shares, rank, axis=0)[rank]
    return np.where(2 * sightings >= len(silhouettes), least, 0.0)
