"""KRT camera files of the MVP / Ava / Goliath line: the text file `KRT` and the newer JSON (`camera_calibration.json`).

Text, per camera and separated by blank lines: name, K (3 lines), five OpenCV distortion terms k1 k2 p1 p2 k3, [R | t]
(3 lines), world-to-camera with OpenCV axes, millimetres. JSON: `KRT` is a list of records whose matrices are stored
column by column (K and T are transposed), with four terms k1 k2 p1 p2. Pixel centres are whole numbers: half a pixel
is added to cx and cy. Neither form says how large the pictures are: `read_cameras` asks for the size, `read` takes it
from the pictures, which lie in a folder per camera (`images/NAME`, `image/NAME`, `NAME`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.poses import make_camera
from smalti.datasets.rig import RigCamera, opencv_lens, rig_dataset
from smalti.datasets.text import numbers, read_json, read_text

LOOKS_FOR = "KRT or camera_calibration.json (MVP, Ava)"
NAMES = ("KRT", "KRT.txt", "krt.txt", "camera_calibration.json")
REMEDY = "Copy the file again"


@dataclass(frozen=True, eq=False)
class KrtRecord:
    """One camera as the file has it, matrices row by row."""

    name: str
    matrix: np.ndarray
    distortion: tuple[float, ...]
    rotation: np.ndarray
    translation: np.ndarray


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name in NAMES else None
    return next((path / name for name in NAMES if (path / name).is_file()), None)


def detect(path: Path) -> bool:
    """True for a folder with one of the usual file names, or such a file."""
    return _file(path) is not None


def read_records(path: Path) -> list[KrtRecord]:
    """The cameras of a text or JSON file, unchecked poses. Raises `DatasetError`."""
    records = _json(path) if path.suffix.lower() == ".json" else _text(path)
    if not records:
        raise DatasetError(path, "", "there is no camera in it", REMEDY)
    names = [record.name for record in records]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(path, f"camera {twice}", "it occurs twice", "Keep one record per camera")
    return records


def read_cameras(path: Path, width: int, height: int) -> list[Camera]:
    """All cameras of a file for pictures of the given size, without any picture. Raises `DatasetError`."""
    cameras = []
    for record in read_records(path):
        where = f"camera {record.name}"
        matrix = record.matrix
        intrinsics = (matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5)
        camera = make_camera((record.rotation, record.translation), intrinsics, (width, height), path, where)
        model, distortion = opencv_lens(record.distortion, path, where)
        cameras.append(replace(camera, model=model, distortion=distortion, name=record.name))
    return cameras


def read(path: Path) -> Dataset:
    """Reads a capture with pictures. Raises `DatasetError`; for cameras alone use `read_cameras`."""
    file = _file(path)
    if file is None:
        raise DatasetError(path, "", "there is no KRT file", f"Looked for {', '.join(NAMES)}")
    rig = [
        RigCamera(record.name, None, record.matrix, record.distortion, record.rotation, record.translation)
        for record in read_records(file)
    ]
    return replace(rig_dataset(file, rig), format="krt")


def _text(path: Path) -> list[KrtRecord]:
    lines = [(row, line.split()) for row, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    records = []
    for start in range(0, len(lines), 8):
        block = lines[start : start + 8]
        row, name = block[0]
        record = f"line {row} (camera {name[0]})"
        if len(block) < 8 or [len(words) for _, words in block] != [1, 3, 3, 3, 5, 4, 4, 4]:
            raise DatasetError(
                path, record, "expected a name, K (3 x 3), 5 distortion terms and [R | t] (3 x 4)", REMEDY
            )
        try:
            values = [np.array([float(word) for word in words]) for _, words in block[1:]]
        except ValueError as error:
            raise DatasetError(path, record, f"not a number ({error})", REMEDY) from error
        pose = np.stack(values[4:])
        records.append(KrtRecord(name[0], np.stack(values[:3]), tuple(values[3].tolist()), pose[:, :3], pose[:, 3]))
    return records


def _json(path: Path) -> list[KrtRecord]:
    table = read_json(path)
    listed = table.get("KRT") if isinstance(table, dict) else None
    if not isinstance(listed, list):
        raise DatasetError(path, "", "there is no list `KRT` in it", REMEDY)
    records = []
    for row, entry in enumerate(listed):
        if not isinstance(entry, dict) or not {"cameraId", "K", "T"} <= entry.keys():
            raise DatasetError(path, f"record {row}", "expected cameraId, K and T", REMEDY)
        record = f"camera {entry['cameraId']}"
        if entry.get("projectionModel", "Pinhole") != "Pinhole":
            raise DatasetError(path, record, f"the projection {entry['projectionModel']} is not supported", REMEDY)
        matrix = np.array(numbers(entry["K"], 9, path, record)).reshape(3, 3).T
        pose = np.array(numbers(entry["T"], 16, path, record)).reshape(4, 4).T
        terms = entry.get("distortion") or []
        count = len(terms) if isinstance(terms, list) else 4
        distortion = tuple(numbers(terms, count, path, record))
        records.append(KrtRecord(str(entry["cameraId"]), matrix, distortion, pose[:3, :3], pose[:3, 3]))
    return records
