"""NeRF-synthetic (Blender) sets: `transforms_train.json`, `transforms_test.json`, RGBA pictures, `camera_angle_x`.

The principal point is the picture's centre, W/2 and H/2 in our pixel convention (Blender's own). RGBA pictures have
straight alpha; the published figures composite them over white, so `background` is white. `transforms_val.json` is
read as the test split only where there is no test file (the published protocol leaves it out). Beside some test
pictures lie depth and normal pictures; they are no views. Depth there is the distance along the ray, 8 (1 - v / 255);
normals are world-space, clipped at zero and sRGB-encoded (measured on "chair"); `read_ray_depth` and
`read_clipped_normals` decode them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from smalti.datasets.dataset import Dataset, DatasetError
from smalti.datasets.pictures import Gathering
from smalti.datasets.transforms_file import TransformsFile, add_frames, looks_like_transforms, read_transforms

LOOKS_FOR = "transforms_train.json with camera_angle_x (Blender)"
SPLITS = {"transforms_train": "train", "transforms_test": "test", "transforms_val": "test"}


def split_files(path: Path) -> list[Path]:
    """The files to read for a folder (train, then test or else val) or for one of the files itself."""
    if path.is_file():
        return [path]
    train, test, validation = (path / f"transforms_{name}.json" for name in ("train", "test", "val"))
    held_out = test if test.is_file() else validation
    return [file for file in (train, held_out) if file.is_file()]


def first_parsed(path: Path) -> TransformsFile | None:
    """The first split file that parses, to see which format it is."""
    for file in split_files(path):
        parsed = looks_like_transforms(file)
        if parsed is not None and file.stem in SPLITS:
            return parsed
    return None


def detect(path: Path) -> bool:
    """True for a folder (or one file) of split transforms without focal lengths in pixels and without times."""
    parsed = first_parsed(path)
    return parsed is not None and not parsed.has_focal and not parsed.has_times


def read(path: Path) -> Dataset:
    """Reads the folder or one split file. Raises `DatasetError`."""
    return read_split_files(path, "blender")


def read_split_files(path: Path, name: str) -> Dataset:
    """Reads split transforms files under the format name `name`; times are kept where frames have them."""
    files = split_files(path)
    if not files:
        raise DatasetError(path, "", "there is no transforms_train.json", "Give the folder that holds it")
    gathering = Gathering(files[0])
    for file in files:
        add_frames(read_transforms(file), gathering, SPLITS.get(file.stem, ""))
    views, notices = gathering.finish()
    return Dataset(files[0].parent, name, views, None, gathering.background, notices=notices)


def read_ray_depth(path: Path) -> Float[np.ndarray, "height width"]:
    """Distance along the ray in world units from a NeRF-synthetic depth picture; 0 where there is no surface."""
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGBA"), np.float64)
    return np.where(pixels[..., 3] > 127, 8.0 * (1.0 - pixels[..., 0] / 255.0), 0.0)


def read_clipped_normals(path: Path) -> Float[np.ndarray, "height width 3"]:
    """World-space normals, negative components lost (clipped to 0), from a NeRF-synthetic normal picture."""
    from PIL import Image

    with Image.open(path) as picture:
        encoded = np.asarray(picture.convert("RGB"), np.float64) / 255.0
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
