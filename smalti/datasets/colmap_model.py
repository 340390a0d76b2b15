"""The records of a COLMAP model, as they stand in its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int, UInt8

from smalti.cameras.models import lens_model
from smalti.datasets.dataset import DatasetError

Record = TypeVar("Record")
REMEDY = "Copy the model again or export it again from COLMAP"


@dataclass(frozen=True)
class CameraRecord:
    """One line of cameras.txt."""

    id: int
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One picture: world-to-camera quaternion (w, x, y, z) and translation, and its keypoints."""

    id: int
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera_id: int
    name: str
    xy: Float[np.ndarray, "k 2"]
    """Keypoints; COLMAP's pixel convention is ours (centre of the first pixel at 0.5, 0.5)."""
    point_ids: Int[np.ndarray, "k"]
    """-1 where a keypoint belongs to no point."""


@dataclass(frozen=True, eq=False)
class PointRecords:
    """All points, with their tracks laid end to end."""

    ids: Int[np.ndarray, "n"]
    positions: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    errors: Float[np.ndarray, "n"]
    track_point: Int[np.ndarray, "m"]
    """Row of the point."""
    track_image: Int[np.ndarray, "m"]
    """Number of the picture."""
    track_keypoint: Int[np.ndarray, "m"]
    """Row among the picture's keypoints."""


@dataclass(frozen=True)
class RigRecord:
    """A rig of COLMAP 4: its sensors as (type, id); type 0 is a camera, the first sensor is the reference."""

    id: int
    sensors: tuple[tuple[int, int], ...]
    poses: dict[tuple[int, int], tuple[float, ...]] = field(default_factory=dict)
    """sensor_from_rig as quaternion and translation, seven numbers, for sensors that have one."""


@dataclass(frozen=True)
class FrameRecord:
    """One exposure of a rig: rig_from_world as seven numbers and its data as (sensor type, sensor id, data id)."""

    id: int
    rig_id: int
    pose: tuple[float, ...]
    data: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """A whole model folder."""

    folder: Path
    cameras: dict[int, CameraRecord]
    images: dict[int, ImageRecord]
    points: PointRecords
    rigs: dict[int, RigRecord] = field(default_factory=dict)
    frames: dict[int, FrameRecord] = field(default_factory=dict)


def checked_camera(record: CameraRecord, file: Path) -> CameraRecord:
    """The record if its numbers make sense. Raises `DatasetError`."""
    if not np.isfinite(record.parameters).all():
        raise DatasetError(file, f"camera {record.id}", "a parameter is NaN or Inf", REMEDY)
    if not (0 < record.width < 1 << 20 and 0 < record.height < 1 << 20):
        raise DatasetError(
            file, f"camera {record.id}", f"the size {record.width} x {record.height} is no picture's", REMEDY
        )
    return record


def lens(name_or_number: str | int, file: Path, record: str) -> tuple[str, int]:
    """(name, parameter count) of a lens model. Raises `DatasetError` for one that is not known."""
    try:
        model = lens_model(name_or_number)
    except ValueError as error:
        raise DatasetError(file, record, str(error), REMEDY) from error
    return model.name, len(model.parameters)


def insert(table: dict[int, Record], key: int, value: Record, file: Path, what: str) -> None:
    """Adds a record, refusing a second one of the same number."""
    if key in table:
        raise DatasetError(file, f"{what} {key}", "this number occurs twice", REMEDY)
    table[key] = value


def point_records(
    rows: list[tuple[int, tuple[float, ...], tuple[int, ...], float]], tracks: list[np.ndarray], file: Path
) -> PointRecords:
    """Assembles points read one at a time: (id, xyz, rgb, error) and tracks as [t, 2] arrays of picture, keypoint."""
    outside = next((row[0] for row in rows if not 0 <= row[0] < 1 << 63), None)
    if outside is not None:
        raise DatasetError(file, f"point {outside}", "this number is none of a point", REMEDY)
    ids = np.array([row[0] for row in rows], np.int64)
    if len(np.unique(ids)) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        raise DatasetError(file, f"point {values[counts > 1][0]}", "this number occurs twice", REMEDY)
    positions = np.array([row[1] for row in rows], np.float64).reshape(-1, 3)
    bad = ~np.isfinite(positions).all(1)
    if bad.any():
        raise DatasetError(file, f"point {ids[bad][0]}", "the position is NaN or Inf", REMEDY)
    lengths = np.array([len(track) for track in tracks], np.int64)
    joined = np.concatenate(tracks) if tracks else np.zeros((0, 2), np.int64)
    return PointRecords(
        ids,
        positions,
        np.array([row[2] for row in rows], np.uint8).reshape(-1, 3),
        np.array([row[3] for row in rows], np.float64),
        np.repeat(np.arange(len(rows)), lengths),
        joined[:, 0].astype(np.int64),
        joined[:, 1].astype(np.int64),
    )
