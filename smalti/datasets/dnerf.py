"""D-NeRF sets: Blender's transforms with a `time` (0..1) in every frame. Everything else is as in `blender`."""

from __future__ import annotations

from pathlib import Path

from smalti.datasets.blender import first_parsed, read_split_files
from smalti.datasets.dataset import Dataset

LOOKS_FOR = "transforms_train.json with times (D-NeRF)"


def detect(path: Path) -> bool:
    """True for split transforms whose frames carry a time."""
    parsed = first_parsed(path)
    return parsed is not None and parsed.has_times


def read(path: Path) -> Dataset:
    """Reads the folder or one split file. Raises `DatasetError`."""
    return read_split_files(path, "dnerf")
