"""Initial points triangulated from known poses with pycolmap (extra `sfm`): SIFT on the CPU, near views, tracks.

Pictures are undistorted and reduced first, so that every lens is a pinhole for COLMAP; poses and intrinsics stay as
given.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image  # before pycolmap: the wheels' compression libraries clash where pycolmap is loaded first

from smalti.datasets.dataset import Dataset, DatasetError, Points
from smalti.datasets.extent import camera_centres, camera_directions
from smalti.datasets.images import ImageCache

LONG_SIDE = 800
"""Pixels that pictures are reduced to."""
FEATURES = 2000
"""Keypoints per picture at most."""
NEIGHBOURS = 10
"""Views that each view is matched with."""


def pycolmap_installed() -> bool:
    """Whether the extra `sfm` is there, without importing it."""
    return importlib.util.find_spec("pycolmap") is not None


def triangulated_points(dataset: Dataset, *, max_error: float = 2.0) -> Points:
    """Points whose mean reprojection error is at most `max_error` pixels of the reduced pictures, without sightings.

    Raises `DatasetError` where pycolmap is missing (with what to install) or fewer than ten points agree.
    """
    try:
        pycolmap = importlib.import_module("pycolmap")
    except ImportError as error:
        remedy = "pip install 'smalti[sfm]', or use the strategy hull or frustum"
        raise DatasetError(dataset.root, "triangulation", "pycolmap is not installed", remedy) from error
    pycolmap.set_random_seed(0)
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    try:
        with tempfile.TemporaryDirectory(prefix="smalti-") as folder:
            model = _triangulate(pycolmap, dataset, Path(folder))
    finally:
        pycolmap.logging.minloglevel = before
    found = [point for point in model.points3D.values() if point.error <= max_error]
    if len(found) < 10:
        problem = f"only {len(found)} points agree with the cameras"
        raise DatasetError(
            dataset.root, "triangulation", problem, "Check the poses with `smalti check`, or use frustum"
        )
    return Points(np.array([point.xyz for point in found]), np.array([point.color for point in found], np.uint8))


def near_pairs(dataset: Dataset, neighbours: int = NEIGHBOURS) -> list[tuple[int, int]]:
    """Pairs of views (rows, ascending) that probably see the same: near in direction and in place."""
    cameras = [view.camera for view in dataset.views]
    centres, directions = camera_centres(cameras), camera_directions(cameras)
    apart: Float[np.ndarray, "n n"] = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    cost = apart / max(float(np.median(apart)), 1e-12) + 2 * (1 - directions @ directions.T)
    np.fill_diagonal(cost, np.inf)
    near = np.argsort(cost, axis=1, kind="stable")[:, : min(neighbours, len(cameras) - 1)]
    return sorted({(min(i, int(j)), max(i, int(j))) for i in range(len(cameras)) for j in near[i]})


def _triangulate(pycolmap: ModuleType, dataset: Dataset, folder: Path) -> Any:
    database, images, pairs = folder / "database.db", folder / "images", folder / "pairs.txt"
    images.mkdir()
    names = [f"{row:06d}.png" for row in range(len(dataset.views))]
    longest = max(max(view.camera.width, view.camera.height) for view in dataset.views)
    cameras = []
    with ImageCache(dataset, downscale=max(1, -(-longest // LONG_SIDE)), bytes=0) as cache:
        for row, name in enumerate(names):
            view = cache.get(row)
            Image.fromarray(view.image.numpy()).save(images / name, compress_level=1)
            cameras.append(view.camera)
    extraction = pycolmap.FeatureExtractionOptions(use_gpu=False)
    extraction.sift.max_num_features = FEATURES
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE")
    mode, device = pycolmap.CameraMode.PER_IMAGE, pycolmap.Device.cpu
    pycolmap.extract_features(database, images, names, mode, reader, extraction, device)
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as table:
        for name, camera in zip(names, cameras, strict=True):
            image = table.read_image_with_name(name)
            record = table.read_camera(image.camera_id)
            record.params = camera.intrinsics.double().numpy()
            record.has_prior_focal_length = True
            table.update_camera(record)
            model.add_camera_with_trivial_rig(record)
            rotation = pycolmap.Rotation3d(camera.rotation.double().numpy())
            pose = pycolmap.Rigid3d(rotation, camera.translation.double().numpy())
            known = pycolmap.Image(name=name, camera_id=image.camera_id, image_id=image.image_id)
            model.add_image_with_trivial_frame(known, pose)
    pairs.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in near_pairs(dataset)))
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False)
    pairing = pycolmap.ImportedPairingOptions(match_list_path=pairs)
    pycolmap.match_image_pairs(database, matching, pairing, device=device)
    (folder / "model").mkdir()
    return pycolmap.triangulate_points(model, database, images, folder / "model")
