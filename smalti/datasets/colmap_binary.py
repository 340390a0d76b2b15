"""COLMAP's binary files, read strictly: a missing or a surplus byte is an error that names file and record."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from smalti.datasets.colmap_model import (
    REMEDY,
    CameraRecord,
    FrameRecord,
    ImageRecord,
    PointRecords,
    RigRecord,
    checked_camera,
    insert,
    lens,
    point_records,
)
from smalti.datasets.dataset import DatasetError

COUNT = struct.Struct("<Q")
KEYPOINT = np.dtype([("xy", "<f8", 2), ("point", "<i8")])


class Cursor:
    """A little-endian file walked record by record."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self.data = file.read_bytes()
        except OSError as error:
            raise DatasetError(
                file, "", f"cannot be read ({error.strerror})", "Check the path and its permissions"
            ) from error
        self.offset = 0

    def take(self, layout: struct.Struct, record: str) -> tuple[Any, ...]:
        """The next values of a fixed layout."""
        self._need(layout.size, record)
        values = layout.unpack_from(self.data, self.offset)
        self.offset += layout.size
        return values

    def count(self, record: str) -> int:
        """A 64-bit count."""
        return self.take(COUNT, record)[0]

    def array(self, dtype: np.dtype, count: int, record: str) -> np.ndarray:
        """`count` items of a layout, as a view of the file's bytes."""
        self._need(count * dtype.itemsize, record)
        values = np.frombuffer(self.data, dtype, count, self.offset)
        self.offset += count * dtype.itemsize
        return values

    def name(self, record: str) -> str:
        """A zero-terminated UTF-8 string."""
        end = self.data.find(b"\0", self.offset)
        if end < 0:
            raise DatasetError(self.file, record, "the file ends inside a name", REMEDY)
        raw, self.offset = self.data[self.offset : end], end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            shown = raw.decode("utf-8", "backslashreplace")
            raise DatasetError(
                self.file, record, f"the name {shown} is not valid UTF-8", "Rename the picture, run COLMAP again"
            ) from error

    def finish(self) -> None:
        """Raises if bytes are left."""
        left = len(self.data) - self.offset
        if left:
            problem = f"{left} bytes follow the last record (at byte {self.offset})"
            raise DatasetError(self.file, "end of file", problem, REMEDY)

    def _need(self, size: int, record: str) -> None:
        if self.offset + size > len(self.data):
            left = len(self.data) - self.offset
            problem = f"the file is truncated: {size} bytes expected at byte {self.offset}, {left} left"
            raise DatasetError(self.file, record, problem, REMEDY)


def read_cameras(file: Path) -> dict[int, CameraRecord]:
    """cameras.bin."""
    cursor, cameras = Cursor(file), {}
    head = struct.Struct("<IiQQ")
    total = cursor.count("header")
    for row in range(total):
        record = f"camera record {row} of {total}"
        number, model, width, height = cursor.take(head, record)
        name, count = lens(model, file, f"camera {number}")
        parameters = cursor.take(struct.Struct(f"<{count}d"), f"camera {number}")
        insert(
            cameras, number, checked_camera(CameraRecord(number, name, width, height, parameters), file), file, "camera"
        )
    cursor.finish()
    return cameras


def read_images(file: Path) -> dict[int, ImageRecord]:
    """images.bin."""
    cursor, images = Cursor(file), {}
    head = struct.Struct("<I7dI")
    total = cursor.count("header")
    for row in range(total):
        record = f"image record {row} of {total}"
        values = cursor.take(head, record)
        name = cursor.name(record)
        record = f"{record} ({name})"
        keypoints = cursor.array(KEYPOINT, cursor.count(record), record)
        image = ImageRecord(values[0], values[1:5], values[5:8], values[8], name, keypoints["xy"], keypoints["point"])
        insert(images, values[0], image, file, "image")
    cursor.finish()
    return images


def read_points(file: Path) -> PointRecords:
    """points3D.bin."""
    cursor, rows, tracks = Cursor(file), [], []
    head, element = struct.Struct("<Q3d3BdQ"), np.dtype("<u4")
    total = cursor.count("header")
    for row in range(total):
        record = f"point record {row} of {total}"
        number, x, y, z, red, green, blue, error, length = cursor.take(head, record)
        rows.append((number, (x, y, z), (red, green, blue), error))
        tracks.append(cursor.array(element, 2 * length, record).reshape(-1, 2))
    cursor.finish()
    return point_records(rows, tracks, file)


def read_rigs(file: Path) -> dict[int, RigRecord]:
    """rigs.bin of COLMAP 3.12 and later."""
    cursor, rigs = Cursor(file), {}
    head, sensor, pose = struct.Struct("<II"), struct.Struct("<iI"), struct.Struct("<7d")
    for row in range(cursor.count("header")):
        number, count = cursor.take(head, f"rig record {row}")
        sensors, poses = [], {}
        for index in range(count):
            record = f"rig {number}, sensor {index}"
            key = cursor.take(sensor, record)
            sensors.append(key)
            if index and cursor.take(struct.Struct("<B"), record)[0]:
                poses[key] = cursor.take(pose, record)
        insert(rigs, number, RigRecord(number, tuple(sensors), poses), file, "rig")
    cursor.finish()
    return rigs


def read_frames(file: Path) -> dict[int, FrameRecord]:
    """frames.bin of COLMAP 3.12 and later."""
    cursor, frames = Cursor(file), {}
    head, datum = struct.Struct("<II7dI"), struct.Struct("<iIQ")
    for row in range(cursor.count("header")):
        record = f"frame record {row}"
        values = cursor.take(head, record)
        data = tuple(cursor.take(datum, record) for _ in range(values[9]))
        insert(frames, values[0], FrameRecord(values[0], values[1], values[2:9], data), file, "frame")
    cursor.finish()
    return frames
