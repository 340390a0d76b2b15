"""One transforms file (the JSON that Blender sets, nerfstudio, instant-ngp and D-NeRF share): frames to views.

Poses are OpenGL camera-to-world. Intrinsics come from the frame, else from the file, else from `camera_angle_x`; a
missing principal point is the picture's centre. Pixel convention: `cx`, `cy` count from the corner of the first
pixel, as COLMAP writes them and both programs use them, which is ours; nothing is added. Unknown keys are ignored;
lens parameters that would be needed and cannot be used are errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import DatasetError, View
from smalti.datasets.pictures import Gathering, find_mask, find_picture, picture_info
from smalti.datasets.poses import make_camera, pose_from_world_from_camera
from smalti.datasets.text import number_field, numbers, read_json

DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4")
REPAIR = "Export the file again"


@dataclass(frozen=True)
class TransformsFile:
    """A parsed file with its frames, before pictures are looked for."""

    path: Path
    table: dict[str, Any]
    frames: list[dict[str, Any]]

    @property
    def has_times(self) -> bool:
        """Whether frames carry `time` (D-NeRF)."""
        return any("time" in frame for frame in self.frames)

    @property
    def has_focal(self) -> bool:
        """Whether intrinsics are given in pixels rather than as a field of view."""
        return "fl_x" in self.table or any("fl_x" in frame for frame in self.frames)


def read_transforms(path: Path) -> TransformsFile:
    """Parses the JSON and checks its outline. Raises `DatasetError`."""
    table = read_json(path)
    if not isinstance(table, dict) or not isinstance(table.get("frames"), list):
        raise DatasetError(path, "", "there is no list `frames` in it", "Give a transforms file")
    for row, frame in enumerate(table["frames"]):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise DatasetError(path, f"frame {row}", "it has no `file_path`", REPAIR)
        if "transform_matrix" not in frame:
            raise DatasetError(path, f"frame {row} ({frame['file_path']})", "it has no `transform_matrix`", REPAIR)
    return TransformsFile(path, table, table["frames"])


def looks_like_transforms(path: Path) -> TransformsFile | None:
    """The parsed file if it is one, None otherwise (broken JSON counts as one, so that reading reports it)."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        return read_transforms(path)
    except DatasetError:
        return TransformsFile(path, {}, []) if path.name.startswith("transforms") else None


def add_frames(
    file: TransformsFile, gathering: Gathering, split: str = "", splits: dict[str, str] | None = None
) -> None:
    """Adds the file's frames to `gathering`; `splits` maps a frame's `file_path` to its split."""
    root = file.path.parent
    for row, frame in enumerate(file.frames):
        name = frame["file_path"]
        record = f"frame {row} ({name})"
        image = find_picture(root, name)
        if image is None:
            gathering.miss(name)
            continue
        info = picture_info(image)
        camera = _camera(file, frame, (info.width, info.height), record)
        gathering.add_sized(
            View(camera, image, _mask(file, frame, image, record), (splits or {}).get(name, split)), info
        )


def _camera(file: TransformsFile, frame: dict[str, Any], picture: tuple[int, int], record: str) -> Camera:
    def value(*keys: str) -> float | None:
        for table in (frame, file.table):
            for key in keys:
                found = number_field(table, key, file.path, record)
                if found is not None:
                    return found
        return None

    wide, high = value("w"), value("h")
    if not all(math.isfinite(side) and 0 <= side < 1 << 20 for side in (wide or 0.0, high or 0.0)):
        raise DatasetError(file.path, record, f"the size {wide} x {high} is no picture's", REPAIR)
    width, height = round(wide if wide else picture[0]), round(high if high else picture[1])
    fx, fy = value("fl_x"), value("fl_y")
    angle_x, angle_y = value("camera_angle_x"), value("camera_angle_y")
    if fx is None and angle_x is not None and 0 < angle_x < math.pi:
        fx = 0.5 * width / math.tan(0.5 * angle_x)
        if fy is None and angle_y is not None and 0 < angle_y < math.pi:
            fy = 0.5 * height / math.tan(0.5 * angle_y)
    if fx is None:
        raise DatasetError(file.path, record, "there is neither `fl_x` nor `camera_angle_x`", "Add the focal length")
    cx, cy = value("cx"), value("cy")
    intrinsics = (fx, fx if fy is None else fy, width / 2 if cx is None else cx, height / 2 if cy is None else cy)
    rows = frame["transform_matrix"]
    count = 12 if isinstance(rows, list) and len(rows) == 3 else 16
    matrix = np.array(numbers(rows, count, file.path, record))
    pose = pose_from_world_from_camera(matrix.reshape(-1, 4), file.path, record)
    camera = make_camera(pose, intrinsics, (width, height), file.path, record)
    model, distortion = _lens(file, frame, {key: value(key) or 0.0 for key in (*DISTORTION, "k5", "k6")}, record)
    time = value("time") or 0.0
    if not math.isfinite(time):
        raise DatasetError(file.path, record, "`time` is not finite", REPAIR)
    return replace(camera, model=model, distortion=distortion, time=time, name=_tidy(frame["file_path"]))


def _tidy(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _lens(
    file: TransformsFile, frame: dict[str, Any], terms: dict[str, float], record: str
) -> tuple[str, tuple[float, ...]]:
    """Our (model, distortion) for the file's; `camera_model` is nerfstudio's word, `is_fisheye` instant-ngp's."""
    for key, value in terms.items():
        if not math.isfinite(value):
            raise DatasetError(file.path, record, f"`{key}` is not finite", "Calibrate again")
    said = str(frame.get("camera_model", file.table.get("camera_model", ""))).upper()
    fisheye = said in ("OPENCV_FISHEYE", "FISHEYE") or bool(
        frame.get("is_fisheye", file.table.get("is_fisheye", False))
    )
    if fisheye:
        return "OPENCV_FISHEYE", (terms["k1"], terms["k2"], terms["k3"], terms["k4"])
    if said not in ("", "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE", "FULL_OPENCV"):
        problem = f"the camera model {said} is not known"
        raise DatasetError(
            file.path, record, problem, "Known: PINHOLE, OPENCV, OPENCV_FISHEYE; undistort the pictures first"
        )
    if said == "FULL_OPENCV":
        return "FULL_OPENCV", tuple(terms[key] for key in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"))
    if terms["k4"] != 0.0:
        raise DatasetError(
            file.path, record, "`k4` of a perspective lens is not supported", "Undistort the pictures first"
        )
    if terms["k3"] != 0.0:
        return "FULL_OPENCV", (terms["k1"], terms["k2"], terms["p1"], terms["p2"], terms["k3"], 0.0, 0.0, 0.0)
    if any(terms[key] != 0.0 for key in ("k1", "k2", "p1", "p2")):
        return "OPENCV", tuple(terms[key] for key in ("k1", "k2", "p1", "p2"))
    return "PINHOLE", ()


def _mask(file: TransformsFile, frame: dict[str, Any], image: Path, record: str) -> Path | None:
    for key in ("mask_path", "alpha_mask_path"):
        if isinstance(frame.get(key), str):
            mask = find_picture(file.path.parent, frame[key])
            if mask is None:
                raise DatasetError(
                    file.path, record, f"the mask {frame[key]} is missing", "Restore it or remove the entry"
                )
            return mask
    return find_mask(file.path.parent, image, image.parent)
