"""Calibrated rigs of several fixed cameras: K, distortion, R, t in JSON or TOML, frames or one video per camera.

The calibration is `cameras.json`, `calibration.json`, `cameras.toml`, `calibration.toml`, or the only other JSON or
TOML file in the folder that has cameras. A camera is a table with a K (`K`, `matrix`, `camera_matrix`), a rotation
(`R`, `rotation`, `R_world_to_camera`; 3 x 3 or Rodrigues' vector), a translation (`t`, `translation`,
`t_world_to_camera`), and where given a distortion (`distortion...`, OpenCV's order k1 k2 p1 p2 k3 k4 k5 k6, or four
fisheye terms with `fisheye: true`) and a size (`width` and `height`, `size`). World-to-camera, OpenCV axes. OpenCV's
pixel centres are whole numbers: half a pixel is added to cx and cy, then K is scaled exactly to the pictures' size.
`unit: metre` (or metres, m) is noted.

Pictures: a folder named like the camera, directly or below one folder (`frames/cam_0`, `images/cam_0`,
`frames_2/cam_0`); with several such places the least reduced; where there is none, a video `cam_0.mp4`. Frames with
one name (or one number in the videos) are one instant; times run from 0 to 1 over the sequence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smalti.datasets.dataset import Dataset, DatasetError, Notice, View
from smalti.datasets.decode import video_info
from smalti.datasets.pictures import Gathering, PictureInfo, find_mask, list_pictures, picture_info, shown
from smalti.datasets.poses import make_camera, rotation_from_vector
from smalti.datasets.text import numbers, read_json, read_toml

LOOKS_FOR = "cameras.json / calibration.toml with K, R, t per camera (calibrated rig)"
NAMES = ("cameras.json", "calibration.json", "cameras.toml", "calibration.toml")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
KEYS = {
    "matrix": ("K", "matrix", "camera_matrix", "intrinsic_matrix"),
    "rotation": ("R", "rotation", "R_world_to_camera", "rvec"),
    "translation": ("t", "T", "translation", "t_world_to_camera", "tvec"),
}
REMEDY = "Export the calibration again"


@dataclass(frozen=True, eq=False)
class RigCamera:
    """One physical camera with OpenCV's numbers; `size` is (width, height) that K is for, None: the pictures' own."""

    name: str
    size: tuple[int, int] | None
    matrix: np.ndarray
    distortion: tuple[float, ...]
    rotation: np.ndarray
    translation: np.ndarray
    fisheye: bool = False


def _tables(table: Any) -> dict[str, Mapping[str, Any]]:
    """Name -> table of everything in a parsed file that looks like a camera."""
    listed = table.get("cameras", table) if isinstance(table, dict) else table
    if isinstance(listed, dict):
        named = {str(value.get("name", key)): value for key, value in listed.items() if isinstance(value, dict)}
    elif isinstance(listed, list):
        rows = [value for value in listed if isinstance(value, dict)]
        named = {str(value.get("name", value.get("id", row))): value for row, value in enumerate(rows)}
    else:
        return {}
    return {name: value for name, value in named.items() if any(key in value for key in KEYS["matrix"])}


def _parse(file: Path) -> Any:
    return read_toml(file) if file.suffix == ".toml" else read_json(file)


def _file(path: Path) -> Path | None:
    if path.is_file():
        candidates = [path] if path.suffix in (".json", ".toml") else []
    else:
        others = [
            file for file in sorted(path.iterdir()) if file.suffix in (".json", ".toml") and file.name not in NAMES
        ]
        others = [file for file in others if file.stat().st_size < 1 << 20 and not file.name.startswith("transforms")]
        candidates = [path / name for name in NAMES if (path / name).is_file()] + others
    for file in candidates:
        try:
            if _tables(_parse(file)):
                return file
        except DatasetError:
            if file.name in NAMES or path.is_file():  # broken, but clearly meant: reading says what is wrong
                return file
    return None


def detect(path: Path) -> bool:
    """True where a calibration file with at least one K is found."""
    return _file(path) is not None


def read(path: Path) -> Dataset:
    """Reads the rig. Raises `DatasetError`."""
    file = _file(path)
    if file is None:
        raise DatasetError(path, "", "there is no calibration", f"Looked for {', '.join(NAMES)}")
    table = _parse(file)
    unit = str(table.get("unit", "")).lower() if isinstance(table, dict) else ""
    rig = [_camera(name, entry, file) for name, entry in _tables(table).items()]
    return replace(rig_dataset(file, rig), metres=unit in ("m", "metre", "metres", "meter", "meters"))


def rig_dataset(file: Path, rig: list[RigCamera]) -> Dataset:
    """The data set of calibrated cameras whose pictures lie below the calibration's folder. Raises `DatasetError`."""
    gathering = Gathering(file)
    sources = {camera.name: _source(file.parent, camera) for camera in rig}
    frames = {name: _frames(source) for name, source in sources.items() if source is not None}
    missing = [name for name, source in sources.items() if source is None]
    if not frames:
        raise DatasetError(
            file, "pictures", f"no camera has pictures ({shown(missing)})", "Put them into a folder per camera"
        )
    instants = sorted({key for listed in frames.values() for key in listed}, key=lambda key: (len(key), key))
    time = {key: row / max(len(instants) - 1, 1) for row, key in enumerate(instants)}
    for camera in rig:
        for key, (picture, number, info) in frames.get(camera.name, {}).items():
            record = f"camera {camera.name}"
            matrix = camera.matrix
            intrinsics = (matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5)
            size = camera.size or (info.width, info.height)
            ours = make_camera((camera.rotation, camera.translation), intrinsics, size, file, record)
            model, distortion = opencv_lens(camera.distortion, file, record, camera.fisheye)
            name = f"{camera.name}/{picture.name if number is None else f'{number:06d}'}"
            ours = replace(ours, model=model, distortion=distortion, time=time[key], name=name)
            mask = find_mask(file.parent, picture, picture.parent.parent) if number is None else None
            gathering.add_sized(View(ours, picture, mask, frame=number, rig=camera.name), info)
    views, notices = gathering.finish()
    if missing:
        text = f"{len(missing)} of {len(rig)} cameras have no pictures and are left out: {shown(missing)}"
        notices = (*notices, Notice("missing-images", text, len(missing)))
    return Dataset(file.parent, "rig", views, None, gathering.background, notices=notices)


def opencv_lens(
    terms: tuple[float, ...], file: Path, record: str, fisheye: bool = False
) -> tuple[str, tuple[float, ...]]:
    """Our lens model for OpenCV's distortion vector. Raises `DatasetError` for terms that no model here has."""
    if not np.isfinite(terms).all():
        raise DatasetError(file, record, "a distortion term is not finite", "Calibrate again")
    if fisheye:
        if len(terms) != 4:
            raise DatasetError(file, record, f"a fisheye lens has 4 terms, found {len(terms)}", REMEDY)
        return "OPENCV_FISHEYE", terms
    if any(terms[8:]):
        raise DatasetError(
            file, record, "thin-prism and tilt terms (beyond k6) are not supported", "Calibrate without them"
        )
    k1, k2, p1, p2, k3, k4, k5, k6 = (*terms[:8], *([0.0] * 8))[:8]
    if any((k3, k4, k5, k6)):
        return "FULL_OPENCV", (k1, k2, p1, p2, k3, k4, k5, k6)
    return ("OPENCV", (k1, k2, p1, p2)) if any((k1, k2, p1, p2)) else ("PINHOLE", ())


def _camera(name: str, entry: Mapping[str, Any], file: Path) -> RigCamera:
    record = f"camera {name}"

    def array(what: str, counts: tuple[int, ...]) -> np.ndarray:
        key = next((key for key in KEYS[what] if key in entry), None)
        if key is None:
            raise DatasetError(file, record, f"there is no {what} ({', '.join(KEYS[what])})", REMEDY)
        flat = np.ravel(np.array(entry[key], object))
        count = len(flat) if len(flat) in counts else counts[0]
        return np.array(numbers(entry[key], count, file, f"{record}: {key}"))

    matrix = array("matrix", (9,)).reshape(3, 3)
    if abs(matrix[0, 1]) > 1e-6 * abs(matrix[0, 0]) or not np.allclose(matrix[2], (0, 0, 1)):
        raise DatasetError(file, record, "K is not of the form fx 0 cx, 0 fy cy, 0 0 1", "Skew is not supported")
    rotation = array("rotation", (9, 3))
    rotation = rotation_from_vector(rotation) if len(rotation) == 3 else rotation.reshape(3, 3)
    terms = next((value for key, value in entry.items() if key.startswith("dist")), None) or []
    size = entry.get("size") or [entry.get(key) for key in ("width", "height")]
    if size == [None, None]:
        whole = None
    else:
        wide, high = numbers(size, 2, file, f"{record}: size")
        if not (0 < wide < 1 << 20 and 0 < high < 1 << 20):
            raise DatasetError(file, record, f"the size {wide:g} x {high:g} is no picture's", REMEDY)
        whole = (round(wide), round(high))
    count = int(np.ravel(np.array(terms, object)).size)
    distortion = tuple(numbers(terms, count, file, f"{record}: distortion"))
    return RigCamera(
        name, whole, matrix, distortion, rotation, array("translation", (3,)), bool(entry.get("fisheye", False))
    )


def _source(root: Path, camera: RigCamera) -> Path | None:
    """The folder with the largest pictures of a camera, else its video, else None."""
    below = sorted(path for path in root.iterdir() if path.is_dir())
    folders = [folder / camera.name for folder in (root, *below) if list_pictures(folder / camera.name)]
    if folders:
        return min(folders, key=lambda folder: (-_area(folder), len(folder.parent.name), str(folder)))
    for folder in (root, *below):
        for suffix in VIDEOS:
            if (folder / f"{camera.name}{suffix}").is_file():
                return folder / f"{camera.name}{suffix}"
    return None


def _area(folder: Path) -> int:
    info = picture_info(list_pictures(folder)[0])
    return info.width * info.height


def _frames(source: Path) -> dict[str, tuple[Path, int | None, PictureInfo]]:
    """Instant -> (file, number of the frame in a video, size) of one camera."""
    if source.is_dir():
        pictures = {picture.stem: picture for picture in list_pictures(source)}
        return {_instant(stem): (picture, None, picture_info(picture)) for stem, picture in pictures.items()}
    width, height, count = video_info(source)
    return {str(row): (source, row, PictureInfo(width, height, False)) for row in range(count)}


def _instant(stem: str) -> str:
    """The last number of a name without leading zeros (`frame_0012` and `12` are one instant), else the name."""
    found = re.findall(r"\d+", stem)
    return str(int(found[-1])) if found else stem
