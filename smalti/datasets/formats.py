"""The table of formats. A format is a module (or any object) with `LOOKS_FOR`, `detect(path)` and `read(path)`.

One that has variants also has `variant(text)`, which gives the format that is asked for as `name:text`.

Third parties add theirs through the entry-point group `smalti.datasets`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from smalti.datasets.dataset import Dataset

BUILT_IN = {
    "colmap": "smalti.datasets.colmap",
    "blender": "smalti.datasets.blender",
    "dnerf": "smalti.datasets.dnerf",
    "transforms": "smalti.datasets.transforms",
    "llff": "smalti.datasets.llff",
    "idr": "smalti.datasets.idr",
    "middlebury": "smalti.datasets.middlebury",
    "bundler": "smalti.datasets.bundler",
    "rig": "smalti.datasets.rig",
    "krt": "smalti.datasets.krt",
    "nerfstudio": "smalti.datasets.nerfstudio",
}


class Format(Protocol):
    """What a format offers."""

    LOOKS_FOR: str
    """The files it recognises, for messages; empty where it is only asked for by name."""

    def detect(self, path: Path) -> bool:
        """Whether `path` (a folder or a file) is of this format; cheap, and never raises."""
        ...

    def read(self, path: Path) -> Dataset:
        """The data set, converted to our conventions. Raises `DatasetError`."""
        ...


def format_names() -> list[str]:
    """All formats, built-in first."""
    return [
        *BUILT_IN,
        *sorted(entry.name for entry in entry_points(group="smalti.datasets") if entry.name not in BUILT_IN),
    ]


def load_format(name: str) -> Format:
    """The format of that name, or of `name:variant`. Raises `KeyError`, also where it has no variants."""
    name, colon, text = name.partition(":")
    if colon:
        variant = getattr(load_format(name), "variant", None)
        if variant is None:
            raise KeyError(f"{name}:{text}")
        return cast(Format, variant(text))
    if name in BUILT_IN:
        return cast(Format, importlib.import_module(BUILT_IN[name]))
    for entry in entry_points(group="smalti.datasets"):
        if entry.name == name:
            return cast(Format, entry.load())
    raise KeyError(name)
