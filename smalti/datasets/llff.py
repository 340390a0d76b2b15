"""LLFF captures: `poses_bounds.npy` and the pictures in `images` or, reduced N times, in `images_N`.

A row holds a 3 x 5 matrix (pose | H W f) and the near and far bound. The pose's columns are the camera's down, right
and backward axes and its centre in the world. H, W and f are those of the full-size picture, whatever `images_N`
holds: the camera is scaled to the pictures found. The principal point is the centre, W/2 and H/2 in our pixel
convention. Rows and pictures correspond in order of name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from smalti.datasets.dataset import Dataset, DatasetError, View
from smalti.datasets.pictures import Gathering, find_mask, list_pictures
from smalti.datasets.poses import checked_rotation, make_camera

LOOKS_FOR = "poses_bounds.npy (LLFF)"
REMEDY = "Run LLFF's imgs2poses again"


def _file(path: Path) -> Path:
    return path if path.is_file() else path / "poses_bounds.npy"


def detect(path: Path) -> bool:
    """True for a folder with `poses_bounds.npy`, or that file."""
    return _file(path).is_file() and _file(path).name == "poses_bounds.npy"


def picture_folder(root: Path) -> Path:
    """`images` if it holds pictures, else the least reduced `images_N`. Raises `DatasetError`."""
    reduced = sorted(
        (path for path in root.glob("images_*") if path.name.removeprefix("images_").isdigit()),
        key=lambda path: int(path.name.removeprefix("images_")),
    )
    for folder in (root / "images", *reduced):
        if list_pictures(folder):
            return folder
    raise DatasetError(root, "pictures", "there is no picture in `images` or `images_N`", "Put the pictures there")


def read(path: Path) -> Dataset:
    """Reads the capture. Raises `DatasetError`."""
    file = _file(path)
    rows = _rows(file)
    root = file.parent
    folder = picture_folder(root)
    pictures = list_pictures(folder)
    if len(pictures) != len(rows):
        problem = f"{len(rows)} poses, {len(pictures)} pictures in {folder.name}: which belong together is unknown"
        raise DatasetError(file, folder.name, problem, "Restore the missing pictures, or remove the surplus ones")
    gathering = Gathering(file)
    for row, (values, picture) in enumerate(zip(rows, pictures, strict=True)):
        record = f"row {row} ({picture.name})"
        matrix = values[:15].reshape(3, 5)
        height, width, focal = matrix[:, 4]
        if not (np.isfinite(values).all() and height >= 1 and width >= 1):
            raise DatasetError(file, record, "it holds NaN, Inf or an empty size", REMEDY)
        down, right, backward = matrix[:, 0], matrix[:, 1], matrix[:, 2]
        rotation = checked_rotation(np.stack([right, down, -backward]), file, record)
        size = (round(float(width)), round(float(height)))
        intrinsics = (focal, focal, width / 2, height / 2)
        camera = make_camera((rotation, -rotation @ matrix[:, 3]), intrinsics, size, file, record)
        gathering.add(View(replace(camera, name=picture.name), picture, find_mask(root, picture, folder)))
    views, notices = gathering.finish()
    return Dataset(root, "llff", views, None, gathering.background, notices=notices)


def _rows(file: Path) -> np.ndarray:
    try:
        rows = np.load(file, allow_pickle=False)
    except Exception as error:  # a damaged header raises whatever Python's own parser raises
        raise DatasetError(file, "", f"this is no complete numpy file ({error})", REMEDY) from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind != "f":
        raise DatasetError(file, "", f"expected n x 17 numbers, found {getattr(rows, 'shape', type(rows))}", REMEDY)
    return rows.astype(np.float64)
