"""nerfstudio and instant-ngp captures: a folder with `transforms.json` (or the JSON file itself).

Conventions: see `transforms_file`. Pictures that the file names and the disk has not are left out with a notice.
Splits: nerfstudio's `train_filenames`, `val_filenames`, `test_filenames` where present (validation counts as test).
Points: `ply_file_path` where present, in the frame of the poses. Pictures with alpha are taken over white, as
nerfstudio does.
"""

from __future__ import annotations

from pathlib import Path

from smalti.datasets.dataset import Dataset, DatasetError, Points
from smalti.datasets.pictures import Gathering
from smalti.datasets.point_ply import read_point_ply
from smalti.datasets.transforms_file import TransformsFile, add_frames, looks_like_transforms, read_transforms

LOOKS_FOR = "transforms.json (nerfstudio, instant-ngp)"


def detect(path: Path) -> bool:
    """True for a folder with `transforms.json`, a folder of split files with focal lengths, or such a file."""
    if path.is_file():
        parsed = looks_like_transforms(path)
        return parsed is not None and not _blender(parsed)
    if (path / "transforms.json").is_file():
        return True
    parsed = looks_like_transforms(path / "transforms_train.json")
    return parsed is not None and parsed.has_focal and not parsed.has_times


def _blender(file: TransformsFile) -> bool:
    """Split files without focal lengths are Blender's or D-NeRF's."""
    split_file = file.path.stem in ("transforms_train", "transforms_test", "transforms_val")
    return split_file and (file.has_times or not file.has_focal)


def read(path: Path) -> Dataset:
    """Reads the folder or file. Raises `DatasetError`."""
    files: list[tuple[Path, str]] = [(path, "")]
    if path.is_dir():
        files = [(path / "transforms.json", "")]
        if not files[0][0].is_file():
            names = (("transforms_train.json", "train"), ("transforms_test.json", "test"))
            files = [(path / name, split) for name, split in names if (path / name).is_file()]
    gathering = Gathering(files[0][0])
    points = None
    for file, split in files:
        parsed = read_transforms(file)
        add_frames(parsed, gathering, split, _splits(parsed))
        points = points or _points(parsed)
    views, notices = gathering.finish()
    return Dataset(files[0][0].parent, "transforms", views, points, gathering.background, notices=notices)


def _splits(file: TransformsFile) -> dict[str, str]:
    splits: dict[str, str] = {}
    for key, split in (("train_filenames", "train"), ("val_filenames", "test"), ("test_filenames", "test")):
        names = file.table.get(key) or []
        if not isinstance(names, list):
            raise DatasetError(file.path, key, "it is no list of names", "Export the file again")
        splits.update({str(name): split for name in names})
    return splits


def _points(file: TransformsFile) -> Points | None:
    name = file.table.get("ply_file_path")
    if not isinstance(name, str):
        return None
    ply = file.path.parent / name
    if not ply.is_file():
        raise DatasetError(file.path, "ply_file_path", f"{name} is missing", "Restore it or remove the entry")
    return read_point_ply(ply)
