"""What nerfstudio's data parsers return (`DataparserOutputs`) as a data set of ours; nerfstudio itself is not needed.

A parser's poses are OpenGL camera-to-world in a frame of its own: positions are `scale * (transform @ p)` of the
input's. Both are stated in the outputs and undone here. Pixels are counted as ours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.datasets.dataset import Dataset, DatasetError, Notice, Points, View
from smalti.datasets.pictures import Gathering, picture_info, shown
from smalti.datasets.poses import make_camera, pose_from_world_from_camera

PERSPECTIVE, FISHEYE = 1, 2
"""Values of nerfstudio's `CameraType` that are lenses of ours."""


def dataset_from_outputs(root: Path, parts: Sequence[tuple[str, Any]], *, undo: bool = True) -> Dataset:
    """The pictures of several (split, outputs) of one parser, each once, under the first split that has it.

    `undo=False` leaves everything in the parser's own frame. Raises DatasetError for lenses that are none of ours, and
    where a stated transform is no similarity.
    """
    gathering, known = Gathering(root), set[str]()
    twice: list[str] = []
    for split, outputs in parts:
        input_from_parser = _input_from_parser(root, outputs) if undo else Similarity.identity()
        for row, image in enumerate(outputs.image_filenames):
            name = _name(Path(image), root)
            if name in known:
                twice.append(name)
                continue
            known.add(name)
            if not Path(image).is_file():
                gathering.miss(name)
                continue
            camera = input_from_parser.apply_camera(camera_from_nerfstudio(outputs.cameras, row, root, name))
            # Depths in the input's unit too; `apply_camera` scales them along.
            mask = None if outputs.mask_filenames is None else Path(outputs.mask_filenames[row])
            gathering.add_sized(View(camera, Path(image), mask, split), picture_info(Path(image)))
    views, notices = gathering.finish()
    if twice:
        text = f"{len(twice)} pictures are in more than one split and count for the first: {shown(twice)}"
        notices = (*notices, Notice("several-splits", text, len(twice)))
    first = parts[0][1]
    stated = getattr(first, "alpha_color", None)
    background = gathering.background if stated is None else tuple(float(value) for value in stated)
    points = _points(first, _input_from_parser(root, first) if undo else Similarity.identity())
    return Dataset(root, "nerfstudio", views, points, background, notices=notices)  # pyright: ignore[reportArgumentType]


def camera_from_nerfstudio(cameras: Any, row: int, file: Path, record: str) -> Camera:
    """Camera `row` of a one-dimensional nerfstudio `Cameras`, in its own frame, float64, distortion included."""
    matrix = cameras.camera_to_worlds[row].detach().cpu().double().numpy()
    pose = pose_from_world_from_camera(matrix, file, record)
    intrinsics = [float(getattr(cameras, name)[row]) for name in ("fx", "fy", "cx", "cy")]
    size = (int(cameras.width[row]), int(cameras.height[row]))
    model, distortion = _lens(cameras, row, file, record)
    time = 0.0 if cameras.times is None else float(cameras.times[row])
    return replace(make_camera(pose, intrinsics, size, file, record), model=model, distortion=distortion, time=time)


def input_from_parser(outputs: Any) -> Similarity:
    """The similarity that takes a parser's frame back to the input's. ValueError where the transform is none."""
    transform = torch.eye(4, dtype=torch.float64)
    transform[:3] = torch.as_tensor(outputs.dataparser_transform).detach().cpu().double()
    return (Similarity(float(outputs.dataparser_scale)) @ Similarity.from_matrix(transform)).inverse


def _input_from_parser(root: Path, outputs: Any) -> Similarity:
    try:
        return input_from_parser(outputs)
    except ValueError as error:
        raise DatasetError(root, "dataparser_transform", str(error), "Choose another of nerfstudio's parsers") from None


def _lens(cameras: Any, row: int, file: Path, record: str) -> tuple[str, tuple[float, ...]]:
    """nerfstudio's distortion is k1 k2 k3 k4 p1 p2, whatever the lens."""
    kind = int(cameras.camera_type[row])
    if kind not in (PERSPECTIVE, FISHEYE):
        problem = f"nerfstudio's camera type {kind} is no lens that can be undistorted here"
        raise DatasetError(file, record, problem, "Known are PERSPECTIVE (1) and FISHEYE (2)")
    given = cameras.distortion_params
    k1, k2, k3, k4, p1, p2 = [0.0] * 6 if given is None else [float(value) for value in given[row]]
    if kind == FISHEYE:
        return "OPENCV_FISHEYE", (k1, k2, k3, k4)
    if k4 != 0.0:
        raise DatasetError(file, record, "`k4` of a perspective lens is not supported", "Undistort the pictures first")
    if k3 != 0.0:
        return "FULL_OPENCV", (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
    return ("OPENCV", (k1, k2, p1, p2)) if any((k1, k2, p1, p2)) else ("PINHOLE", ())


def _points(outputs: Any, similarity: Similarity) -> Points | None:
    positions = outputs.metadata.get("points3D_xyz")
    if positions is None:
        return None
    colors = outputs.metadata.get("points3D_rgb")
    grey = np.full((len(positions), 3), 127, np.uint8)
    return Points(
        similarity.apply_array(positions.detach().cpu().numpy()),
        grey if colors is None or not len(colors) else colors.detach().cpu().numpy().astype(np.uint8),
    )


def _name(image: Path, root: Path) -> str:
    folder = root if root.is_dir() else root.parent
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else image.as_posix()
