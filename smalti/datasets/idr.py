"""IDR / NeuS / MonoSDF sets (DTU, BlendedMVS): `cameras.npz` and pictures in `image`, masks in `mask`.

`world_mat_i` is the 4 x 4 projection from the world (DTU: millimetres) to pixels; it is split into K, R and t.
`scale_mat_i` maps the unit sphere to the object in the world. It is stated in a notice and not applied: lengths stay
in the file's unit. Only `cameras.npz` is opened for a folder; others such as `cameras_original_1600x1200.npz` belong
to other pictures. A camera whose principal point lies outside its picture was made before the picture was cropped: an
error.

Pixel convention: DTU's calibration is older than the programs that read it, and crops and reductions are folded into
the matrices as if pixels were counted from the picture's corner, as ours are: nothing is added. (Measured on the 384
x 384 scan 24 by triangulating with fixed cameras: 0.461 px so, 0.469 px with half a pixel more.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from smalti.datasets.dataset import Dataset, DatasetError, Notice, View
from smalti.datasets.pictures import Gathering, find_mask, list_pictures, picture_info, shown
from smalti.datasets.poses import make_camera

LOOKS_FOR = "cameras.npz with world_mat_0 (IDR, DTU)"
REMEDY = "Copy the file again"
FOLDERS = ("image", "images", "rgb")


def _file(path: Path) -> Path:
    return path if path.is_file() else path / "cameras.npz"


def detect(path: Path) -> bool:
    """True for a folder with `cameras.npz`, or for any such file."""
    file = _file(path)
    return file.is_file() and file.suffix == ".npz" and (path.is_dir() or file.name.startswith("cameras"))


def read(path: Path) -> Dataset:
    """Reads the set. Raises `DatasetError`."""
    file = _file(path)
    matrices, scales = _matrices(file)
    root = file.parent
    folder = next((root / name for name in FOLDERS if list_pictures(root / name)), None)
    if folder is None:
        raise DatasetError(root, "pictures", f"there is no picture in {', '.join(FOLDERS)}", "Put the pictures there")
    gathering = Gathering(file)
    for number, picture in _numbered(file, folder, len(matrices), gathering).items():
        record = f"world_mat_{number} ({picture.name})"
        info = picture_info(picture)
        pose, intrinsics = decompose_projection(matrices[number][:3], file, record)
        if not (0 < intrinsics[2] < info.width and 0 < intrinsics[3] < info.height):
            where = f"({intrinsics[2]:.1f}, {intrinsics[3]:.1f})"
            problem = f"the principal point {where} lies outside the {info.width} x {info.height} picture"
            raise DatasetError(file, record, problem, "The cameras are for the pictures before they were cropped")
        camera = make_camera(pose, intrinsics, (info.width, info.height), file, record)
        mask = find_mask(root, picture, folder)
        gathering.add_sized(View(replace(camera, name=picture.name), picture, mask), info)
    views, notices = gathering.finish()
    return Dataset(root, "idr", views, None, gathering.background, notices=(*notices, *_remarks(file, scales)))


def decompose_projection(
    projection: np.ndarray, file: Path, record: str
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[float, float, float, float]]:
    """((R, t), (fx, fy, cx, cy)) of a 3 x 4 projection of any scale and sign.

    RQ decomposition with a positive diagonal (Hartley and Zisserman, Multiple View Geometry, A4.1.1).
    Raises `DatasetError` for singular projections and for skewed pixels.
    """
    if not np.isfinite(projection).all():
        raise DatasetError(file, record, "the projection holds NaN or Inf", REMEDY)
    left = projection[:, :3] * np.sign(np.linalg.det(projection[:, :3]) or 1.0)
    if abs(np.linalg.det(left)) < 1e-12 * max(float(np.abs(left).max()), 1e-30) ** 3:
        raise DatasetError(file, record, "the projection is singular", REMEDY)
    flip = np.eye(3)[::-1]
    q, r = np.linalg.qr((flip @ left).T)
    matrix, rotation = flip @ r.T @ flip, flip @ q.T
    signs = np.diag(np.sign(np.diag(matrix)))
    matrix, rotation = matrix @ signs, signs @ rotation
    sign = np.sign(np.linalg.det(projection[:, :3]))
    translation = np.linalg.solve(matrix, sign * projection[:, 3])
    matrix = matrix / matrix[2, 2]
    if abs(matrix[0, 1]) > 1e-2 * matrix[0, 0]:
        problem = f"the pixels are skewed ({matrix[0, 1]:.3g} of {matrix[0, 0]:.4g})"
        raise DatasetError(file, record, problem, "Skew is not supported: rectify the pictures")
    return (rotation, translation), (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])


def _matrices(file: Path) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            table = {name: archive[name] for name in archive.files if name.startswith(("world_mat_", "scale_mat_"))}
    except Exception as error:  # a damaged header raises whatever Python's own parser raises
        raise DatasetError(file, "", f"this is no complete npz archive ({error})", REMEDY) from error
    found: tuple[dict[int, np.ndarray], dict[int, np.ndarray]] = ({}, {})
    for name, value in table.items():
        number = name.rsplit("_", 1)[1]
        if not number.isdigit():
            continue  # world_mat_inv_3 repeats world_mat_3
        if name.count("_") != 2:
            continue
        if value.shape not in ((3, 4), (4, 4)):
            raise DatasetError(file, name, f"its shape is {value.shape}, expected 4 x 4", REMEDY)
        if value.dtype.kind not in "fiu":
            raise DatasetError(file, name, f"it holds {value.dtype}, no numbers", REMEDY)
        found[name.startswith("scale")][int(number)] = value.astype(np.float64)
    if not found[0]:
        raise DatasetError(file, "", "there is no world_mat_0 in it", "Give the cameras.npz of an IDR or NeuS set")
    return found


def _numbered(file: Path, folder: Path, count: int, gathering: Gathering) -> dict[int, Path]:
    """Number of the matrix -> picture: by order if the counts agree, else by the numbers in the names."""
    pictures = list_pictures(folder)
    if len(pictures) == count:
        return dict(enumerate(pictures))
    by_number = {int(picture.stem): picture for picture in pictures if picture.stem.isdigit()}
    if len(by_number) != len(pictures) or len(pictures) > count or max(by_number) >= count:
        problem = f"{count} cameras, {len(pictures)} pictures in {folder.name}: which belong together is unknown"
        raise DatasetError(file, folder.name, problem, "Restore the missing pictures, or remove the surplus ones")
    for number in sorted(set(range(count)) - set(by_number)):
        gathering.miss(f"{folder.name}/{number:0{len(pictures[0].stem)}d}")
    return dict(sorted(by_number.items()))


def _remarks(file: Path, scales: dict[int, np.ndarray]) -> list[Notice]:
    remarks = []
    if 0 in scales:
        radius, centre = scales[0][0, 0], scales[0][:3, 3]
        where = ", ".join(f"{value:.6g}" for value in centre)
        text = f"scale_mat (not applied): a sphere of radius {radius:.6g} around ({where})"
        remarks.append(Notice("scale-mat", text))
    others = sorted(path.name for path in file.parent.glob("*.npz") if path != file)
    if others and file.name == "cameras.npz":
        remarks.append(Notice("other-cameras", f"cameras.npz is used; beside it there is {shown(others)}"))
    return remarks
