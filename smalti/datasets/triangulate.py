"""Initial points triangulated from known poses with pycolmap (extra `sfm`): SIFT on the CPU, near views, tracks.

Pictures are undistorted and reduced first, so that every lens is a pinhole for COLMAP; poses and intrinsics stay as
given. COLMAP works in a process of its own (`smalti.datasets.triangulation`).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from smalti.datasets.dataset import Dataset, DatasetError, Points
from smalti.datasets.extent import camera_centres, camera_directions
from smalti.datasets.images import ImageCache

LONG_SIDE = 800
"""Pixels that pictures are reduced to."""
NEIGHBOURS = 10
"""Views that each view is matched with."""


def pycolmap_installed() -> bool:
    """Whether the extra `sfm` is there, without importing it."""
    return importlib.util.find_spec("pycolmap") is not None


def triangulated_points(dataset: Dataset, *, max_error: float = 2.0) -> Points:
    """Points whose mean reprojection error is at most `max_error` pixels of the reduced pictures, without sightings.

    Raises `DatasetError` where pycolmap is missing (with what to install), where it fails, or where fewer than ten
    points agree.
    """
    if not pycolmap_installed():
        remedy = "pip install 'smalti[sfm]', or use the strategy hull or frustum"
        raise DatasetError(dataset.root, "triangulation", "pycolmap is not installed", remedy)
    with tempfile.TemporaryDirectory(prefix="smalti-") as name:
        folder = Path(name)
        _write_pictures(dataset, folder)
        command = [sys.executable, "-m", "smalti.datasets.triangulation", name]
        found_here = {**os.environ, "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path)}
        done = subprocess.run(command, env=found_here, capture_output=True, text=True, errors="replace")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            problem = f"COLMAP failed with code {done.returncode}: {last}"
            raise DatasetError(dataset.root, "triangulation", problem, "Use the strategy hull or frustum")
        with np.load(folder / "points.npz") as found:
            good = found["errors"] <= max_error
            positions, colors = found["positions"][good], found["colors"][good]
    if len(positions) < 10:
        problem = f"only {len(positions)} points agree with the cameras"
        raise DatasetError(
            dataset.root, "triangulation", problem, "Check the poses with `smalti check`, or use frustum"
        )
    return Points(positions, colors, origin="triangulated")


def near_pairs(dataset: Dataset, neighbours: int = NEIGHBOURS) -> list[tuple[int, int]]:
    """Pairs of views (rows, ascending) that probably see the same: near in direction and in place."""
    cameras = [view.camera for view in dataset.views]
    centres, directions = camera_centres(cameras), camera_directions(cameras)
    apart: Float[np.ndarray, "n n"] = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    cost = apart / max(float(np.median(apart)), 1e-12) + 2 * (1 - directions @ directions.T)
    np.fill_diagonal(cost, np.inf)
    near = np.argsort(cost, axis=1, kind="stable")[:, : min(neighbours, len(cameras) - 1)]
    return sorted({(min(i, int(j)), max(i, int(j))) for i in range(len(cameras)) for j in near[i]})


def _write_pictures(dataset: Dataset, folder: Path) -> None:
    """What `smalti.datasets.triangulation` reads: reduced pictures, their cameras, and which pairs to match."""
    (folder / "images").mkdir()
    names = [f"{row:06d}.png" for row in range(len(dataset.views))]
    longest = max(max(view.camera.width, view.camera.height) for view in dataset.views)
    cameras = []
    with ImageCache(dataset, downscale=max(1, -(-longest // LONG_SIDE)), bytes=0) as cache:
        for row, name in enumerate(names):
            view = cache.get(row)
            Image.fromarray(view.image.numpy()).save(folder / "images" / name, compress_level=1)
            cameras.append(view.camera)
    np.savez(
        folder / "cameras.npz",
        intrinsics=np.stack([camera.intrinsics.double().numpy() for camera in cameras]),
        rotations=np.stack([camera.rotation.double().numpy() for camera in cameras]),
        translations=np.stack([camera.translation.double().numpy() for camera in cameras]),
    )
    pairs = "".join(f"{names[i]} {names[j]}\n" for i, j in near_pairs(dataset))
    (folder / "pairs.txt").write_text(pairs, encoding="utf-8")
