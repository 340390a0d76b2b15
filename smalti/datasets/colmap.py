"""COLMAP models, binary or text, of any lens, with pictures of any size, sub-folders and the rigs of COLMAP 4.

The model is looked for in `sparse/0`, `sparse`, `colmap/sparse/0` and the folder itself; the pictures in `images`
(else the least reduced `images_N`) of the first folder above that has one. Poses are world-to-camera with OpenCV
axes; COLMAP's pixel centres are at +0.5: both are ours already. Keypoints are scaled to the picture's size where that
is not the camera's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from smalti.cameras.camera import Camera
from smalti.cameras.models import split_parameters
from smalti.datasets import colmap_binary, colmap_text
from smalti.datasets.colmap_model import REMEDY, ColmapModel, ImageRecord
from smalti.datasets.dataset import Dataset, DatasetError, Notice, Points, View
from smalti.datasets.pictures import Gathering, find_mask, find_picture, shown
from smalti.datasets.poses import make_camera, rotation_from_quaternion

LOOKS_FOR = "sparse/0/cameras.bin or cameras.txt (COLMAP)"
PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "0", ".")


def _is_model(folder: Path) -> bool:
    return any(
        (folder / f"{name}.bin").is_file() or (folder / f"{name}.txt").is_file() for name in ("cameras", "images")
    )


def find_model(path: Path) -> Path | None:
    """The model's folder for a capture's folder, a model's folder or one of its files; None if there is none."""
    if path.is_file():
        return (
            path.parent if path.stem in ("cameras", "images", "points3D") and path.suffix in (".bin", ".txt") else None
        )
    return next((path / place for place in PLACES if _is_model(path / place)), None)


def detect(path: Path) -> bool:
    """True where a model's cameras or images file lies in one of the usual places."""
    return find_model(path) is not None


def read_model(folder: Path) -> ColmapModel:
    """All records of a model folder, without its pictures; binary before text. Raises `DatasetError`."""
    module, suffix = (colmap_binary, "bin") if (folder / "cameras.bin").is_file() else (colmap_text, "txt")
    paths = {name: folder / f"{name}.{suffix}" for name in ("cameras", "images", "points3D", "rigs", "frames")}
    for name in ("cameras", "images"):
        if not paths[name].is_file():
            raise DatasetError(paths[name], "", "the file is missing", REMEDY)
    no_points = colmap_text.point_records([], [], paths["points3D"])
    return ColmapModel(
        folder,
        module.read_cameras(paths["cameras"]),
        module.read_images(paths["images"]),
        module.read_points(paths["points3D"]) if paths["points3D"].is_file() else no_points,
        module.read_rigs(paths["rigs"]) if paths["rigs"].is_file() else {},
        module.read_frames(paths["frames"]) if paths["frames"].is_file() else {},
    )


def read(path: Path) -> Dataset:
    """Reads a capture. Raises `DatasetError`."""
    folder = find_model(path)
    if folder is None:
        raise DatasetError(path, "", "there is no COLMAP model", f"Looked in {', '.join(PLACES)}")
    model = read_model(folder)
    images_file = folder / ("images.bin" if (folder / "images.bin").is_file() else "images.txt")
    images, root = _pictures(folder)
    gathering = Gathering(images_file)
    sensors = _sensors(model)
    row_of: dict[int, int] = {}
    for number, record in sorted(model.images.items(), key=lambda item: item[1].name):
        camera = camera_of(model, record, images_file)
        picture = find_picture(images, record.name)
        if picture is None:
            gathering.miss(record.name)
            continue
        mask = find_mask(root, picture, images)
        row_of[number] = gathering.add(View(camera, picture, mask, rig=sensors.get(number, "")))
    views, notices = gathering.finish()
    points = _points(model, views, row_of, folder)
    return Dataset(root, "colmap", views, points, gathering.background, notices=(*notices, *_other_models(folder)))


def camera_of(model: ColmapModel, image: ImageRecord, file: Path) -> Camera:
    """The picture's camera at the size of its camera record."""
    if image.camera_id not in model.cameras:
        problem = f"it refers to camera {image.camera_id}, which the model has not"
        raise DatasetError(file, f"image {image.id} ({image.name})", problem, REMEDY)
    record = model.cameras[image.camera_id]
    intrinsics, distortion = split_parameters(record.model, record.parameters)
    name = f"image {image.id} ({image.name})"
    rotation = rotation_from_quaternion(image.quaternion, file, name)
    camera = make_camera((rotation, np.array(image.translation)), intrinsics, (record.width, record.height), file, name)
    lens = "PINHOLE" if record.model == "SIMPLE_PINHOLE" else record.model
    return replace(camera, model=lens, distortion=distortion, name=image.name)


def _pictures(folder: Path) -> tuple[Path, Path]:
    """(folder of the pictures, root of the capture): the nearest folder above the model that has pictures."""
    above = [folder.resolve(), *folder.resolve().parents][:4]
    for root in above:
        reduced = sorted(root.glob("images_*"), key=lambda path: (len(path.name), path.name))
        for candidate in (root / "images", *reduced):
            if candidate.is_dir():
                return candidate, root
    raise DatasetError(
        folder, "pictures", "there is no folder `images` beside or above the model", "Put the pictures there"
    )


def _sensors(model: ColmapModel) -> dict[int, str]:
    """Picture number -> name of the physical camera, for rigs of several cameras."""
    names = {}
    for frame in model.frames.values():
        rig = model.rigs.get(frame.rig_id)
        if rig is None:
            raise DatasetError(
                model.folder, f"frame {frame.id}", f"it refers to rig {frame.rig_id}, which is missing", REMEDY
            )
        for kind, sensor, datum in frame.data:
            if (kind, sensor) not in rig.sensors:
                raise DatasetError(model.folder, f"frame {frame.id}", f"sensor {sensor} is not in rig {rig.id}", REMEDY)
            if kind == 0 and len(rig.sensors) > 1:
                names[datum] = f"rig {rig.id} camera {sensor}"
    return names


def _points(model: ColmapModel, views: tuple[View, ...], row_of: dict[int, int], folder: Path) -> Points | None:
    records = model.points
    if not len(records.ids):
        return None
    xy = np.full((len(records.track_image), 2), np.nan)
    view = np.full(len(records.track_image), -1, np.int64)
    known = np.isin(records.track_image, list(model.images))
    if not known.all():
        point = records.ids[records.track_point[~known][0]]
        problem = f"its track names picture {records.track_image[~known][0]}, which the model has not"
        raise DatasetError(folder, f"point {point}", problem, REMEDY)
    order = np.argsort(records.track_image, kind="stable")
    numbers, starts = np.unique(records.track_image[order], return_index=True)
    for number, rows in zip(numbers.tolist(), np.split(order, starts)[1:], strict=True):
        image, keypoints = model.images[number], records.track_keypoint[rows]
        if keypoints.max(initial=-1) >= len(image.xy):
            problem = f"a track names keypoint {keypoints.max()} of its {len(image.xy)}"
            raise DatasetError(folder, f"image {number} ({image.name})", problem, REMEDY)
        if number in row_of:
            record, camera = model.cameras[image.camera_id], views[row_of[number]].camera
            xy[rows] = image.xy[keypoints] * (camera.width / record.width, camera.height / record.height)
            view[rows] = row_of[number]
    seen = view >= 0
    return Points(records.positions, records.colors, records.track_point[seen], view[seen], xy[seen])


def _other_models(folder: Path) -> list[Notice]:
    others = [
        path.name for path in sorted(folder.parent.iterdir()) if path != folder and path.is_dir() and _is_model(path)
    ]
    if not others or not folder.name.isdigit():
        return []
    return [Notice("several-models", f"the model {folder.name} is used; beside it there is {shown(others)}")]
