"""COLMAP's text files, read strictly: a line with too few or too many words is an error that names file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
from smalti.datasets.text import read_text

SENSOR_TYPES = {"CAMERA": 0, "IMU": 1}


def _lines(file: Path, keep_empty: bool = False) -> Iterator[tuple[str, str]]:
    """(record name, line) without comments."""
    for row, line in enumerate(read_text(file).splitlines(), 1):
        text = line.strip()
        if text.startswith("#") or (not text and not keep_empty):
            continue
        yield f"line {row}", text


def _wrong(file: Path, record: str, problem: str, error: Exception | None = None) -> DatasetError:
    return DatasetError(file, record, f"{problem} ({error})" if error else problem, REMEDY)


def read_cameras(file: Path) -> dict[int, CameraRecord]:
    """cameras.txt: CAMERA_ID MODEL WIDTH HEIGHT PARAMS."""
    cameras: dict[int, CameraRecord] = {}
    for record, line in _lines(file):
        words = line.split()
        try:
            number, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            parameters = tuple(float(word) for word in words[4:])
        except (ValueError, IndexError, OverflowError) as error:
            raise _wrong(file, record, "this is no camera", error) from error
        _, count = lens(model, file, record)
        if len(parameters) != count:
            raise _wrong(file, record, f"{model} has {count} parameters, the line {len(parameters)}")
        insert(
            cameras,
            number,
            checked_camera(CameraRecord(number, model, width, height, parameters), file),
            file,
            "camera",
        )
    return cameras


def read_images(file: Path) -> dict[int, ImageRecord]:
    """images.txt: two lines per picture, the second (keypoints) possibly empty."""
    images: dict[int, ImageRecord] = {}
    lines = _lines(file, keep_empty=True)
    for record, line in lines:
        if not line:
            continue
        words = line.split(maxsplit=9)
        try:
            number, camera_id, name = int(words[0]), int(words[8]), words[9]
            pose = tuple(float(word) for word in words[1:8])
        except (ValueError, IndexError, OverflowError) as error:
            raise _wrong(file, record, "this is no picture's line", error) from error
        record, line = next(lines, (record, ""))
        words = line.split()
        if len(words) % 3:
            raise _wrong(file, record, f"keypoints of {name}: {len(words)} words are not triples of x, y, point")
        try:
            table = np.array([float(word) for word in words], np.float64).reshape(-1, 3)
            point_ids = np.array([int(word) for word in words[2::3]], np.int64)
        except (ValueError, OverflowError) as error:
            raise _wrong(file, record, f"keypoints of {name}", error) from error
        insert(
            images,
            number,
            ImageRecord(number, pose[:4], pose[4:], camera_id, name, table[:, :2], point_ids),
            file,
            "image",
        )
    return images


def read_points(file: Path) -> PointRecords:
    """points3D.txt: ID X Y Z R G B ERROR, then pairs of picture and keypoint."""
    rows, tracks = [], []
    for record, line in _lines(file):
        words = line.split()
        try:
            position, color = tuple(float(word) for word in words[1:4]), tuple(int(word) for word in words[4:7])
            rows.append((int(words[0]), position, color, float(words[7])))
            track = np.array([int(word) for word in words[8:]], np.int64)
        except (ValueError, IndexError, OverflowError) as error:
            raise _wrong(file, record, "this is no point", error) from error
        if len(track) % 2 or max(color) > 255 or min(color) < 0:
            raise _wrong(file, record, "the track is not pairs, or a colour is not 0..255")
        tracks.append(track.reshape(-1, 2))
    return point_records(rows, tracks, file)


def read_rigs(file: Path) -> dict[int, RigRecord]:
    """rigs.txt: RIG_ID NUM_SENSORS REF_TYPE REF_ID, then TYPE ID HAS_POSE [7 numbers] per further sensor."""
    rigs: dict[int, RigRecord] = {}
    for record, line in _lines(file):
        words = line.split()
        try:
            number, count, words = int(words[0]), int(words[1]), words[2:]
            sensors, poses = [], {}
            for index in range(count):
                key = (SENSOR_TYPES[words[0]], int(words[1]))
                words = words[2:]
                sensors.append(key)
                if index:
                    has_pose, words = int(words[0]), words[1:]
                    if has_pose:
                        poses[key], words = tuple(float(word) for word in words[:7]), words[7:]
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise _wrong(file, record, "this is no rig", error) from error
        if words or any(len(pose) != 7 for pose in poses.values()):
            raise _wrong(file, record, "the line does not end with the rig's last sensor")
        insert(rigs, number, RigRecord(number, tuple(sensors), poses), file, "rig")
    return rigs


def read_frames(file: Path) -> dict[int, FrameRecord]:
    """frames.txt: FRAME_ID RIG_ID POSE(7) NUM_DATA, then TYPE ID DATA_ID each."""
    frames: dict[int, FrameRecord] = {}
    for record, line in _lines(file):
        words = line.split()
        try:
            number, rig_id, count = int(words[0]), int(words[1]), int(words[9])
            pose, rest = tuple(float(word) for word in words[2:9]), words[10:]
            data = tuple((SENSOR_TYPES[rest[k]], int(rest[k + 1]), int(rest[k + 2])) for k in range(0, len(rest), 3))
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise _wrong(file, record, "this is no frame", error) from error
        if len(data) != count:
            raise _wrong(file, record, f"{count} data are announced, {len(data)} given")
        insert(frames, number, FrameRecord(number, rig_id, pose, data), file, "frame")
    return frames
