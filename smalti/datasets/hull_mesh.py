"""The visual hull (Laurentini 1994) as a coarse closed mesh with coloured vertices, to start meshes from.

The silhouettes' blurred foreground is sampled on a grid; the surface where its least value over the views is one half
is drawn by naive surface nets (Gibson 1998): a vertex per mixed cell, a quad per grid edge that changes sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.hull import TOLERATED, Silhouette, carve, checked_silhouettes, seen_colors
from smalti.datasets.images import pinhole_camera

FEWEST_FACES = 20
CORNERS = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(8, 3)
"""Of a cell, in nodes."""


@dataclass(frozen=True, eq=False)
class HullMesh:
    """Triangles, counter-clockwise seen from outside; world units of the data set."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colors: Float[np.ndarray, "v 3"]
    """0..1, as the views see the vertices."""


def hull_mesh(dataset: Dataset, faces: int) -> HullMesh:
    """About `faces` triangles round what all silhouettes allow. Of a dynamic set, pass one instant (`at_time`).

    Raises `DatasetError` without silhouettes, or where they have no common part.
    """
    silhouettes = checked_silhouettes(dataset)
    cameras = [pinhole_camera(view.camera) for view in dataset.views]
    voxels, size = carve(dataset, cameras, silhouettes, max(faces, FEWEST_FACES))
    edge, origin = float(size[0]), size[1:]
    cell = edge * float(np.sqrt(2 * _exposed_faces(voxels) / max(faces, FEWEST_FACES)))
    low, high = origin + voxels.min(0) * edge, origin + (voxels.max(0) + 1) * edge
    counts = np.ceil((high - low) / cell).astype(np.int64) + 5
    start = 0.5 * (low + high) - 0.5 * (counts - 1) * cell
    nodes = np.stack(np.meshgrid(*[np.arange(count) for count in counts], indexing="ij"), -1)
    inside = _least_share(start + nodes.reshape(-1, 3) * cell, silhouettes, 0.5 * cell).reshape(counts)
    vertices, triangles = surface_nets(inside - 0.5)
    if not len(triangles):
        remedy = "Ask for more faces, or start from something else (spheres, points)"
        raise DatasetError(dataset.root, "visual hull", f"it is too thin for a mesh of {faces} faces", remedy)
    positions = start + vertices * cell
    colors = seen_colors(positions, vertex_normals(positions, triangles), silhouettes, cell)
    return HullMesh(positions, triangles, colors / 255.0)


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


def surface_nets(field: Float[np.ndarray, "x y z"]) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """(vertices in node units, triangles) of the surface where `field` changes sign; positive is inside.

    Counter-clockwise seen from outside; closed where the field is negative at the border.
    """
    shape = np.array(field.shape)
    cells = shape - 1
    values = np.stack([field[tuple(slice(c, c + n) for c, n in zip(corner, cells, strict=True))] for corner in CORNERS])
    mixed = (values > 0).any(0) & (values <= 0).any(0)
    places = np.argwhere(mixed)
    number = np.full(cells, -1, np.int64)
    number[mixed] = np.arange(len(places))
    at = values[:, mixed]
    sums, crossings = np.zeros((len(places), 3)), np.zeros(len(places))
    for a in range(8):
        for b in range(a + 1, 8):
            if np.abs(CORNERS[a] - CORNERS[b]).sum() != 1:
                continue
            cut = (at[a] > 0) != (at[b] > 0)
            share = np.where(cut, at[a] / np.where(cut, at[a] - at[b], 1.0), 0.0)
            sums += cut[:, None] * (CORNERS[a] + share[:, None] * (CORNERS[b] - CORNERS[a]))
            crossings += cut
    vertices = places + sums / np.maximum(crossings, 1)[:, None]
    quads = [_quads(field, number, axis) for axis in range(3)]
    quad = np.concatenate(quads)
    return vertices, np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


def _quads(field: np.ndarray, number: np.ndarray, axis: int) -> Int[np.ndarray, "q 4"]:
    """The four cells round every grid edge along `axis` that changes sides, turned outward."""
    u, v = (axis + 1) % 3, (axis + 2) % 3
    here = [slice(1, -1)] * 3
    here[axis] = slice(0, -1)
    there = list(here)
    there[axis] = slice(1, None)
    first, second = field[tuple(here)] > 0, field[tuple(there)] > 0
    place = np.argwhere(first != second)
    place[:, u] += 1
    place[:, v] += 1
    outward = (first & ~second)[first != second]  # the surface faces along the axis
    ring = []
    for a, b in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
        offset = np.zeros(3, np.int64)
        offset[u], offset[v] = a, b
        ring.append(number[tuple((place + offset).T)])
    quads = np.stack(ring, 1)
    return np.where(outward[:, None], quads, quads[:, ::-1])


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Sums of the normals of the adjoining faces, weighted by area; not of unit length."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(sums, faces[:, k], normals)
    return sums
