"""Middlebury multi-view stereo sets: `*_par.txt` with one line per picture: name, K (9), R (9), t (3), P = K [R t].

World-to-camera with OpenCV axes, in metres. The description says only that the origin is at the top left; the
calibration software of its time counts pixel centres as whole numbers, so half a pixel is added to cx and cy.
(Measured on templeSparseRing by triangulating with fixed cameras, some of which stand on their head: 0.293 px so,
0.357 px without.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from smalti.datasets.dataset import Dataset, DatasetError, View
from smalti.datasets.pictures import Gathering, find_mask, find_picture, picture_info
from smalti.datasets.poses import make_camera
from smalti.datasets.text import read_text

LOOKS_FOR = "NAME_par.txt (Middlebury)"
REMEDY = "Copy the file again: each line is name, K (9), R (9), t (3)"


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name.endswith("_par.txt") else None
    found = sorted(path.glob("*_par.txt"))
    return found[0] if found else None


def detect(path: Path) -> bool:
    """True for a folder with a file `*_par.txt`, or that file."""
    return _file(path) is not None


def read(path: Path) -> Dataset:
    """Reads the set. Raises `DatasetError`."""
    file = _file(path)
    if file is None:
        raise DatasetError(path, "", "there is no *_par.txt", "Give the folder that holds it")
    lines = [(row, line.split()) for row, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    if not lines or len(lines[0][1]) != 1 or not lines[0][1][0].isdigit():
        raise DatasetError(file, "line 1", "expected the number of pictures", REMEDY)
    count = int(lines[0][1][0])
    if len(lines) - 1 != count:
        raise DatasetError(file, "line 1", f"{count} pictures are announced, {len(lines) - 1} lines follow", REMEDY)
    gathering = Gathering(file)
    for row, words in lines[1:]:
        record = f"line {row} ({words[0]})"
        try:
            values = np.array([float(word) for word in words[1:]])
        except ValueError as error:
            raise DatasetError(file, record, f"a number cannot be read ({error})", REMEDY) from error
        if len(values) != 21:
            raise DatasetError(file, record, f"expected 21 numbers, found {len(values)}", REMEDY)
        picture = find_picture(file.parent, words[0])
        if picture is None:
            gathering.miss(words[0])
            continue
        matrix, rotation, translation = values[:9].reshape(3, 3), values[9:18].reshape(3, 3), values[18:]
        if matrix[0, 1] != 0 or matrix[1, 0] != 0 or not np.array_equal(matrix[2], (0, 0, 1)):
            raise DatasetError(file, record, "K is not of the form fx 0 cx, 0 fy cy, 0 0 1", "Skew is not supported")
        info = picture_info(picture)
        intrinsics = (matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5)
        camera = make_camera((rotation, translation), intrinsics, (info.width, info.height), file, record)
        mask = find_mask(file.parent, picture, file.parent)
        gathering.add_sized(View(replace(camera, name=words[0]), picture, mask), info)
    views, notices = gathering.finish()
    return Dataset(file.parent, "middlebury", views, None, gathering.background, metres=True, notices=notices)
