"""COLMAP's part of triangulation, a process of its own: `python -m smalti.datasets.triangulation FOLDER`.

COLMAP keeps one to two gigabytes of a process that it worked in; here they go back to the system when it ends. It
reads `images/000000.png ...`, `cameras.npz` (intrinsics fx fy cx cy, rotations, translations) and `pairs.txt` (names
of the pictures to match), and leaves `points.npz` (positions, colors, errors in pixels).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FEATURES = 2000
"""Keypoints per picture at most."""


def triangulate(folder: Path) -> None:
    """Features, matches, tracks and points of the pictures in `folder`; poses and intrinsics stay as given."""
    pycolmap = importlib.import_module("pycolmap")
    pycolmap.set_random_seed(0)
    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    database, images = folder / "database.db", folder / "images"
    names = sorted(path.name for path in images.iterdir())
    extraction = pycolmap.FeatureExtractionOptions(use_gpu=False)
    extraction.sift.max_num_features = FEATURES
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE")
    mode, device = pycolmap.CameraMode.PER_IMAGE, pycolmap.Device.cpu
    # Extraction alone would number the pictures as its threads finish them: a little different points every time.
    pycolmap.Database.open(database).close()
    pycolmap.import_images(database, images, mode, names, reader)
    pycolmap.extract_features(database, images, names, mode, reader, extraction, device)
    model = _posed(pycolmap, database, names, folder / "cameras.npz")
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False)
    pairing = pycolmap.ImportedPairingOptions(match_list_path=folder / "pairs.txt")
    # Without its own seed each verification takes what the thread that it lands on has left: other points every time.
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    pycolmap.match_image_pairs(database, matching, pairing, verification, device)
    (folder / "model").mkdir()
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=1)
    options.triangulation.random_seed = 0
    model = pycolmap.triangulate_points(model, database, images, folder / "model", options=options)
    found = list(model.points3D.values())
    np.savez(
        folder / "points.npz",
        positions=np.array([point.xyz for point in found], np.float64).reshape(-1, 3),
        colors=np.array([point.color for point in found], np.uint8).reshape(-1, 3),
        errors=np.array([point.error for point in found], np.float64),
    )


def _posed(pycolmap: ModuleType, database: Path, names: list[str], cameras: Path) -> Any:
    """A model of the pictures at their known poses, and the database's cameras set to their known intrinsics."""
    known = np.load(cameras)
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as table:
        for row, name in enumerate(names):
            image = table.read_image_with_name(name)
            record = table.read_camera(image.camera_id)
            record.params = known["intrinsics"][row]
            record.has_prior_focal_length = True
            table.update_camera(record)
            model.add_camera_with_trivial_rig(record)
            pose = pycolmap.Rigid3d(pycolmap.Rotation3d(known["rotations"][row]), known["translations"][row])
            posed = pycolmap.Image(name=name, camera_id=image.camera_id, image_id=image.image_id)
            model.add_image_with_trivial_frame(posed, pose)
    return model


if __name__ == "__main__":
    triangulate(Path(sys.argv[1]))
