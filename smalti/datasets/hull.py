"""Initial points on the visual hull (Laurentini 1994): what all silhouettes allow, carved coarse to fine in numpy.

Voxels are kept as a list, not as a grid, so the cost follows the object. Coarse levels are conservative: a voxel goes
only when its whole projection misses a silhouette (a box sum over an integral image); at last its middle is tested.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import Dataset, DatasetError, Points
from smalti.datasets.frustum import viewed_ball
from smalti.datasets.images import ImageCache, pinhole_camera
from smalti.datasets.pictures import picture_info

COARSE = 32
"""Voxels along an edge of the first level."""
LONG_SIDE = 400
"""Pixels that pictures are reduced to."""
TOLERATED = 0.03
"""Share of the views that may disagree: silhouettes of photographs have holes."""
MOST_VIEWS = 60
LARGEST_SHARE = 0.75
"""Masks that leave more than this of the pictures only blot something out."""


@dataclass(frozen=True, eq=False)
class Silhouette:
    """One view: float64 camera parts, the picture, and the integral image of its foreground."""

    rotation: np.ndarray
    translation: np.ndarray
    intrinsics: np.ndarray
    image: UInt8[np.ndarray, "height width 3"]
    integral: Int[np.ndarray, "height+1 width+1"]

    def project(self, positions: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
        """(pixels, z) of points."""
        points = positions @ self.rotation.T + self.translation
        z = points[:, 2]
        safe = np.where(z > 1e-9, z, 1.0)
        return points[:, :2] / safe[:, None] * self.intrinsics[:2] + self.intrinsics[2:], np.where(z > 1e-9, z, -1.0)

    def share(self, positions: Float[np.ndarray, "n 3"], reach: float) -> tuple[np.ndarray, np.ndarray]:
        """(seen, share of foreground 0..1) of the same boxes, at least one pixel wide."""
        pixels, z = self.project(positions)
        height, width = self.image.shape[:2]
        radius = np.maximum(reach * self.intrinsics[:2].max() / np.where(z > 0, z, 1.0), 0.5)[:, None]
        inside = ((pixels >= 0) & (pixels < (width, height))).all(1) & (z > 0)
        low = np.clip(np.rint(pixels - radius), 0, (width - 1, height - 1)).astype(np.int64)
        high = np.maximum(np.clip(np.rint(pixels + radius), 0, (width, height)).astype(np.int64), low + 1)
        (x0, y0), (x1, y1) = low.T, high.T
        total = self.integral
        foreground = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
        return inside, foreground / ((x1 - x0) * (y1 - y0))

    def test(self, positions: Float[np.ndarray, "n 3"], reach: float) -> tuple[np.ndarray, np.ndarray]:
        """(seen, foreground) of the boxes that project to `reach` world units around the points."""
        pixels, z = self.project(positions)
        height, width = self.image.shape[:2]
        radius = (reach * self.intrinsics[:2].max() / np.where(z > 0, z, 1.0))[:, None]
        low = np.floor(np.clip(pixels - radius, -1, (width, height))).astype(np.int64)
        high = np.floor(np.clip(pixels + radius, -1, (width, height))).astype(np.int64) + 1
        seen = (z > 0) & (high > 0).all(1) & (low < (width, height)).all(1)
        x0, y0 = np.clip(low, 0, (width, height)).T
        x1, y1 = np.clip(high, 0, (width, height)).T
        total = self.integral
        return seen, seen & (total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] > 0)


def has_silhouettes(dataset: Dataset) -> bool:
    """Whether there are at least three views and every one has a mask or a picture with alpha."""
    views = [view for view in dataset.views if view.frame is None]
    return len(views) == len(dataset.views) >= 3 and all(
        view.mask is not None or picture_info(view.image).alpha for view in views
    )


def hull_points(dataset: Dataset, count: int, generator: torch.Generator) -> Points:
    """`count` coloured points on the hull's surface. Raises `DatasetError` without silhouettes, or if they disagree.

    Of a dynamic set, pass one instant (`at_time`).
    """
    silhouettes = checked_silhouettes(dataset)
    cameras = [pinhole_camera(view.camera) for view in dataset.views]
    voxels, size = carve(dataset, cameras, silhouettes, count)
    surface, normals = surface_voxels(voxels)
    centres = (surface + 0.5) * size[0] + size[1:]
    colors = seen_colors(centres, normals, silhouettes, size[0])
    pick = torch.randint(0, len(surface), (count,), generator=generator).numpy()
    if count <= len(surface):
        pick = torch.randperm(len(surface), generator=generator)[:count].numpy()
    jitter = torch.rand(count, 3, generator=generator, dtype=torch.float64).numpy() - 0.5
    return Points(centres[pick] + jitter * size[0], colors[pick], origin="hull")


def checked_silhouettes(dataset: Dataset) -> list[Silhouette]:
    """Those of at most `MOST_VIEWS` views. Raises `DatasetError` where there are none, or where they hold no object."""
    if not has_silhouettes(dataset):
        remedy = "Use another strategy (file, triangulate, frustum)"
        raise DatasetError(dataset.root, "visual hull", "not every view has a mask or alpha", remedy)
    silhouettes = silhouettes_of(dataset)
    share = float(np.mean([silhouette.integral[-1, -1] / silhouette.image[..., 0].size for silhouette in silhouettes]))
    if share > LARGEST_SHARE:
        problem = f"the masks cover {share:.0%} of the pictures: they are no silhouettes of an object"
        remedy = "Use another strategy (file, triangulate, frustum)"
        raise DatasetError(dataset.root, "visual hull", problem, remedy)
    return silhouettes


def silhouettes_of(dataset: Dataset) -> list[Silhouette]:
    """Foreground of the views, reduced and in an order in which neighbours differ."""
    rows = range(0, len(dataset.views), max(1, -(-len(dataset.views) // MOST_VIEWS)))
    longest = max(max(view.camera.width, view.camera.height) for view in dataset.views)
    found = []
    with ImageCache(dataset, downscale=max(1, round(longest / LONG_SIDE)), bytes=0) as cache:
        for row in rows:
            view = cache.get(row)
            foreground = np.ones(view.image.shape[:2], bool)
            for plane in (view.alpha, view.mask):
                if plane is not None:
                    foreground &= plane.numpy() > 127
            integral = np.zeros((foreground.shape[0] + 1, foreground.shape[1] + 1), np.int64)
            integral[1:, 1:] = foreground.cumsum(0).cumsum(1)
            camera = view.camera.to(torch.float64)
            parts = (camera.rotation.numpy(), camera.translation.numpy(), camera.intrinsics.numpy())
            found.append(Silhouette(*parts, view.image.numpy(), integral))
    order = np.random.default_rng(0).permutation(len(found))  # neighbours say the same: spread the views out
    return [found[row] for row in order]


def carve(
    dataset: Dataset, cameras: list[Camera], silhouettes: list[Silhouette], count: int
) -> tuple[Int[np.ndarray, "n 3"], Float[np.ndarray, "4"]]:
    """(occupied voxels as whole numbers, [edge length, origin]), fine enough for `count` points on their surface."""
    middle, radius = viewed_ball(cameras)
    origin, edge = middle - radius, 2 * radius / COARSE
    voxels = np.stack(np.meshgrid(*[np.arange(COARSE)] * 3, indexing="ij"), -1).reshape(-1, 3)
    while True:
        reach = 0.5 * np.sqrt(3) * edge
        carved = voxels[kept(origin + (voxels + 0.5) * edge, silhouettes, reach)]
        if not len(carved):
            problem = "the silhouettes have no common part: cameras and masks do not belong together"
            raise DatasetError(dataset.root, "visual hull", problem, "Check the poses with `smalti check`")
        shell = len(surface_voxels(carved)[0])
        if shell >= 0.5 * count or edge * COARSE * 8 <= 2 * radius * 1.01:
            exact = carved[kept(origin + (carved + 0.5) * edge, silhouettes, 0.0)]
            return (exact if len(exact) else carved), np.array([edge, *origin])
        children = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(1, 8, 3)
        voxels, edge = (2 * carved[:, None] + children).reshape(-1, 3), 0.5 * edge


def kept(centres: Float[np.ndarray, "n 3"], silhouettes: list[Silhouette], reach: float) -> np.ndarray:
    """Which voxels all views but the tolerated few allow, and at least half of them see."""
    tolerated = int(TOLERATED * len(silhouettes))
    alive = np.arange(len(centres))
    misses, sightings = np.zeros(len(centres), np.int64), np.zeros(len(centres), np.int64)
    for silhouette in silhouettes:
        seen, foreground = silhouette.test(centres[alive], reach)
        sightings[alive] += seen
        misses[alive] += seen & ~foreground
        alive = alive[misses[alive] <= tolerated]
    return alive[2 * sightings[alive] >= len(silhouettes)]


def surface_voxels(voxels: Int[np.ndarray, "n 3"]) -> tuple[Int[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]:
    """Voxels with an empty neighbour, and the direction away from the full ones."""
    low = voxels.min(0) - 1
    shape = voxels.max(0) - low + 2
    codes = np.ravel_multi_index((voxels - low).T, shape)
    occupied = np.zeros(int(np.prod(shape)), bool)
    occupied[codes] = True
    outward = np.zeros(voxels.shape)
    exposed = np.zeros(len(voxels), bool)
    strides = (shape[1] * shape[2], shape[2], 1)
    for axis in range(3):
        for sign in (-1, 1):
            empty = ~occupied[codes + sign * strides[axis]]
            outward[:, axis] += sign * empty
            exposed |= empty
    return voxels[exposed], outward[exposed]


def seen_colors(
    centres: np.ndarray, normals: np.ndarray, silhouettes: list[Silhouette], edge: float
) -> UInt8[np.ndarray, "n 3"]:
    """The mean colour over the views that see a point (depth test among points), weighted by how frontal they are."""
    sums, weights = np.zeros((len(centres), 3)), np.full(len(centres), 1e-12)
    lengths = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    for silhouette in silhouettes:
        pixels, z = silhouette.project(centres)
        height, width = silhouette.image.shape[:2]
        column, row = np.floor(np.clip(pixels, -1, (width, height))).astype(np.int64).T
        inside = (z > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
        block = max(1, int(np.ceil(edge * silhouette.intrinsics.max() / max(float(np.median(z)), 1e-9))))
        across = width // block + 1
        code = np.where(inside, row // block * across + column // block, 0)
        nearest = np.full((height // block + 1) * across, np.inf)
        np.minimum.at(nearest, code[inside], z[inside])
        eye = -silhouette.rotation.T @ silhouette.translation - centres
        facing = (eye * normals).sum(1) / (np.linalg.norm(eye, axis=1) * lengths[:, 0])
        visible = inside & (z <= nearest[code] + 2 * edge)
        weight = np.where(visible, np.maximum(facing, 0.05), 0.0)
        values = silhouette.image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        sums += weight[:, None] * values
        weights += weight
    return np.clip(np.where(weights[:, None] > 1e-6, sums / weights[:, None], 128) + 0.5, 0, 255).astype(np.uint8)
