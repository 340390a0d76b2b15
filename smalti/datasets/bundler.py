"""Bundler v0.3: `bundle.out` and the list of pictures in `list.txt`.

Bundler's camera looks along -z with y up, so its axes are turned to ours (y and z change sign). Its pixel origin is
the picture's centre with y up; it measures from (W - 1) / 2 in whole-numbered pixels, which is W / 2 in our
convention. The radial factor 1 + k1 r^2 + k2 r^4 over normalised coordinates is COLMAP's RADIAL. Cameras with focal
length 0 were not solved: they are left out, with a notice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from smalti.datasets.dataset import Dataset, DatasetError, Notice, Points, View
from smalti.datasets.pictures import Gathering, find_mask, find_picture, picture_info, shown
from smalti.datasets.poses import FLIP_YZ, make_camera
from smalti.datasets.text import read_text

LOOKS_FOR = "bundle.out and list.txt (Bundler)"
PLACES = ("bundle.out", "bundle/bundle.out")
REMEDY = "Copy the file again or run Bundler again"


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".out" else None
    return next((path / place for place in PLACES if (path / place).is_file()), None)


def detect(path: Path) -> bool:
    """True for a folder with `bundle.out`, or such a file."""
    return _file(path) is not None


class _Numbers:
    """The file's numbers, line by line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines = read_text(file).splitlines()
        self.row = 0

    def line(self, count: int | None, record: str) -> np.ndarray:
        """The next line's numbers, `count` of them unless None."""
        if self.row >= len(self.lines):
            raise DatasetError(self.file, record, "the file is truncated: it ends here", REMEDY)
        self.row += 1
        try:
            values = np.array([float(word) for word in self.lines[self.row - 1].split()])
        except ValueError as error:
            raise DatasetError(self.file, f"line {self.row}, {record}", f"not a number ({error})", REMEDY) from error
        if count is not None and len(values) != count:
            problem = f"expected {count} numbers, found {len(values)}"
            raise DatasetError(self.file, f"line {self.row}, {record}", problem, REMEDY)
        return values


def read(path: Path) -> Dataset:
    """Reads the capture. Raises `DatasetError`."""
    file = _file(path)
    if file is None:
        raise DatasetError(path, "", "there is no bundle.out", "Give the folder that holds it")
    numbers = _Numbers(file)
    if not numbers.lines or "v0.3" not in numbers.lines[0]:
        raise DatasetError(file, "line 1", "this is no Bundler file of version 0.3", REMEDY)
    numbers.row = 1
    cameras, points = (_count(numbers, value, "header") for value in numbers.line(2, "header"))
    root, names = _names(file, cameras)
    gathering = Gathering(file)
    row_of: dict[int, int] = {}
    unsolved: list[str] = []
    for number, name in enumerate(names):
        record = f"camera {number} ({name})"
        focal, k1, k2 = numbers.line(3, record)
        rotation = np.stack([numbers.line(3, record) for _ in range(3)])
        translation = numbers.line(3, record)
        if focal == 0:
            unsolved.append(name)
            continue
        picture = find_picture(root, name)
        if picture is None:
            gathering.miss(name)
            continue
        info = picture_info(picture)
        size = (info.width, info.height)
        intrinsics = (focal, focal, info.width / 2, info.height / 2)
        camera = make_camera((FLIP_YZ @ rotation, FLIP_YZ @ translation), intrinsics, size, file, record)
        if not np.isfinite((k1, k2)).all():
            raise DatasetError(file, record, "k1 or k2 is not finite", REMEDY)
        camera = replace(camera, model="RADIAL", distortion=(float(k1), float(k2)), name=name)
        row_of[number] = gathering.add_sized(View(camera, picture, find_mask(root, picture, picture.parent)), info)
    if len(unsolved) == cameras:
        raise DatasetError(file, "cameras", "none was solved (every focal length is 0)", "Run Bundler again")
    views, notices = gathering.finish()
    cloud = _points(numbers, points, row_of, views)
    if unsolved:
        text = f"{len(unsolved)} of {cameras} cameras were not solved and are left out: {shown(unsolved)}"
        notices = (*notices, Notice("unsolved-cameras", text))
    return Dataset(root, "bundler", views, cloud, gathering.background, notices=notices)


def _names(file: Path, count: int) -> tuple[Path, list[str]]:
    """(folder that the names are relative to, names), from the list beside or above `bundle.out`."""
    for folder in (file.parent, file.parent.parent):
        for name in ("list.txt", "image_list.txt"):
            if (folder / name).is_file():
                lines = [line.split()[0] for line in read_text(folder / name).splitlines() if line.strip()]
                if len(lines) != count:
                    problem = f"it names {len(lines)} pictures, {file.name} has {count} cameras"
                    raise DatasetError(folder / name, "", problem, "Use the list that Bundler was run with")
                return folder, lines
    raise DatasetError(
        file, "", "there is no list.txt beside it", "Write the pictures' names, one per line, in Bundler's order"
    )


def _count(numbers: _Numbers, value: float, record: str) -> int:
    """A count that the file can hold."""
    if not 0 <= value < 1e6 + len(numbers.lines) or value != int(value):
        raise DatasetError(numbers.file, f"line {numbers.row}, {record}", f"{value:g} is no count", REMEDY)
    return int(value)


def _points(numbers: _Numbers, count: int, row_of: dict[int, int], views: tuple[View, ...]) -> Points:
    if count > len(numbers.lines):
        raise DatasetError(numbers.file, "line 2", f"the file is truncated: {count} points are announced", REMEDY)
    positions, colors = np.zeros((count, 3)), np.zeros((count, 3), np.uint8)
    sightings: list[tuple[int, int, float, float]] = []
    for row in range(count):
        record = f"point {row} of {count}"
        positions[row] = numbers.line(3, record)
        colors[row] = np.clip(np.nan_to_num(numbers.line(3, record)), 0, 255)
        listed = numbers.line(None, record)
        if not len(listed) or len(listed) != 1 + 4 * _count(numbers, listed[0], record):
            raise DatasetError(
                numbers.file, f"line {numbers.row}, {record}", "the list of views has a wrong length", REMEDY
            )
        if not np.isfinite(listed).all():
            raise DatasetError(numbers.file, f"line {numbers.row}, {record}", "a sighting holds NaN or Inf", REMEDY)
        for camera, _, x, y in listed[1:].reshape(-1, 4):
            if int(camera) in row_of:
                view = row_of[int(camera)]
                size = views[view].camera
                sightings.append((row, view, x + size.width / 2, size.height / 2 - y))
    if any(line.strip() for line in numbers.lines[numbers.row :]):
        raise DatasetError(numbers.file, f"line {numbers.row + 1}", "lines follow the last point", REMEDY)
    if not np.isfinite(positions).all():
        bad = int(np.flatnonzero(~np.isfinite(positions).all(1))[0])
        raise DatasetError(numbers.file, f"point {bad}", "the position is NaN or Inf", REMEDY)
    table = np.array(sightings, np.float64).reshape(-1, 4)
    return Points(positions, colors, table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:])
