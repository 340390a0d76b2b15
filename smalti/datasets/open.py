"""The door to data: opens a folder or a file of any known format, and selects one instant of a dynamic set."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from smalti.datasets.dataset import Dataset, DatasetError, Notice
from smalti.datasets.formats import Format, format_names, load_format
from smalti.datasets.pictures import SUFFIXES, list_pictures, shown

DEMO = Path(__file__).parent / "demo"
MOST_CHILDREN = 20
"""Subfolders that are looked into for a better guess."""
ALIASES = {
    "instant-ngp": "transforms",
    "ngp": "transforms",
    "nerf": "blender",
    "dtu": "idr",
}


def open_dataset(path: str | Path, *, format: str = "auto") -> Dataset:
    """Reads the capture at `path` (a folder, or a file such as a transforms file).

    The word "demo" is always the built-in one; a folder of that name is "./demo", or a `Path`.
    Raises `DatasetError` where no format, or more than one, is recognised, and for whatever is wrong with the data.
    """
    if path == "":
        raise DatasetError("data", "", "the path is empty", "Give a folder or a file (`.` is the current folder)")
    folder = DEMO if path == "demo" else Path(path)
    if not folder.exists():
        raise DatasetError(folder, "", "there is no such file or folder", "Check the path")
    if format != "auto":
        return _named(format, folder).read(folder)
    names = [name for name in format_names() if load_format(name).detect(folder)]
    if len(names) == 1:
        return load_format(names[0]).read(folder)
    if names:
        problem = f"several formats are recognised: {', '.join(names)}"
        raise DatasetError(folder, "", problem, f"Choose one with format=, for example format={names[0]!r}")
    raise _unrecognised(folder)


def _unrecognised(folder: Path) -> DatasetError:
    """What is there instead, and the remedy for the two usual mistakes: a folder too high, pictures without cameras."""
    looked = "; ".join(text for name in format_names() if (text := load_format(name).LOOKS_FOR))
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    found = f" (it holds {shown([child.name for child in children], 8)})" if children else ""
    remedy = f"Looked for: {looked}"
    for child in [child for child in children if child.is_dir()][:MOST_CHILDREN]:
        inside = [name for name in format_names() if load_format(name).detect(child)]
        if inside:
            remedy = f"Did you mean {child}, which is {inside[0]}? {remedy}"
            break
    else:
        where = next((part for part in (folder, folder / "images") if list_pictures(part)), None)
        if where is not None or folder.suffix.lower() in SUFFIXES:
            found += ": there are pictures, but no cameras"
            remedy = f"Smalti does not estimate cameras: run COLMAP on the pictures first. {remedy}"
    return DatasetError(folder, "", f"no known format is recognised{found}", remedy)


def _named(name: str, path: Path) -> Format:
    name, colon, variant = name.partition(":")
    name = ALIASES.get(name, name)
    if name not in format_names():
        near = difflib.get_close_matches(name, [*format_names(), *ALIASES], 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DatasetError(path, "", f"the format {name!r} is not known", f"{hint}Known: {', '.join(format_names())}")
    try:
        return load_format(f"{name}{colon}{variant}")
    except KeyError:
        problem = f"the format {name!r} has no variants"
        raise DatasetError(path, "", problem, f"Leave {':' + variant!r} out") from None


def select_views(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    """The data set with these views only, in this order; sightings of its points are kept where their view is."""
    views = tuple(dataset.views[row] for row in rows)
    points = dataset.points
    if points is not None:
        new_row = np.full(len(dataset.views), -1, np.int64)
        new_row[np.asarray(rows, np.int64)] = np.arange(len(views))
        view = new_row[points.observation_view]
        seen = view >= 0
        points = replace(
            points,
            observation_point=points.observation_point[seen],
            observation_view=view[seen],
            observation_xy=points.observation_xy[seen],
        )
    return replace(dataset, views=views, points=points)


def times(dataset: Dataset) -> list[float]:
    """The distinct instants of the views, ascending."""
    return sorted({view.camera.time for view in dataset.views})


def with_masks(dataset: Dataset, purpose: Literal["loss", "alpha", "none"]) -> Dataset:
    """The same with its masks for another purpose (`Dataset.masks`), or without them."""
    if purpose != "none":
        return replace(dataset, masks=purpose)
    return replace(dataset, views=tuple(replace(view, mask=None) for view in dataset.views))


def at_time(dataset: Dataset, time: float) -> Dataset:
    """The views of the instant nearest to `time` (the earlier of two equally near); a notice says which one it is."""
    instants = times(dataset)
    nearest = min(instants, key=lambda instant: (abs(instant - time), instant))
    rows = [row for row, view in enumerate(dataset.views) if view.camera.time == nearest]
    span = f"{instants[0]:g}..{instants[-1]:g}"
    text = f"{len(rows)} views at time {nearest:g} (asked for {time:g}; {len(instants)} instants in {span})"
    return select_views(dataset, rows).with_notices(Notice("one-instant", text))
