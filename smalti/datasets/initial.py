"""Initial points for training: one function per strategy, chosen by name or automatically."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from smalti.datasets.dataset import Dataset, DatasetError, Points
from smalti.datasets.frustum import frustum_points
from smalti.datasets.hull import has_silhouettes, hull_points
from smalti.datasets.open import at_time, times
from smalti.datasets.triangulate import pycolmap_installed, triangulated_points

Strategy = Literal["auto", "file", "triangulate", "hull", "frustum"]
LOG = logging.getLogger(__name__)
FEWEST = 100
"""A file with fewer points than this starts nothing."""


def initial_points(dataset: Dataset, count: int, generator: torch.Generator, *, strategy: Strategy = "auto") -> Points:
    """At most `count` coloured points (exactly as many for `hull` and `frustum`), without sightings.

    - `file`: the format's own points, a random choice of them where there are more.
    - `hull`: on the visual hull, where all views have a mask or alpha.
    - `triangulate`: from matched features and the known poses; needs pycolmap (extra `sfm`).
    - `frustum`: random, where many cameras look.
    - `auto`: the first of these that the data allows, in this order; what failed is logged as a warning.

    Pass the training views only (`select_views`), so that held-out pictures stay unseen. Of a dynamic set the first
    instant is used. `generator` lives on the CPU. Raises `DatasetError` where a named strategy cannot be used.
    """
    if strategy not in ("auto", "file", "triangulate", "hull", "frustum"):
        known = "auto, file, triangulate, hull, frustum"
        raise DatasetError(dataset.root, "initial points", f"the strategy {strategy!r} is not known", f"Known: {known}")
    if strategy == "auto":
        return _automatic(dataset, count, generator)
    if strategy == "file":
        return file_points(dataset, count, generator)
    still = one_instant(dataset)
    if strategy == "hull":
        return hull_points(still, count, generator)
    if strategy == "triangulate":
        return chosen(triangulated_points(still), count, generator)
    return frustum_points(still, count, generator)


def file_points(dataset: Dataset, count: int, generator: torch.Generator) -> Points:
    """The format's own points, at most `count`. Raises `DatasetError` where there are none."""
    if dataset.points is None or not len(dataset.points.positions):
        remedy = "Use another strategy (triangulate, hull, frustum)"
        raise DatasetError(dataset.root, "initial points", "the data set has no points of its own", remedy)
    return chosen(dataset.points, count, generator)


def chosen(points: Points, count: int, generator: torch.Generator) -> Points:
    """At most `count` of the points, by chance but in their order; without sightings."""
    rows = np.arange(len(points.positions))
    if len(rows) > count:
        rows = np.sort(torch.randperm(len(rows), generator=generator)[:count].numpy())
    return Points(points.positions[rows], points.colors[rows], origin=points.origin)


def one_instant(dataset: Dataset) -> Dataset:
    """The first instant of a dynamic set, the set itself otherwise."""
    instants = times(dataset)
    return dataset if len(instants) == 1 else at_time(dataset, instants[0])


def _automatic(dataset: Dataset, count: int, generator: torch.Generator) -> Points:
    if dataset.points is not None and len(dataset.points.positions) >= FEWEST:
        return file_points(dataset, count, generator)
    still = one_instant(dataset)
    if has_silhouettes(still):
        try:
            return hull_points(still, count, generator)
        except DatasetError as error:  # masks of another kind; the other strategies do not need them
            LOG.warning("no initial points from the visual hull: %s", error.problem)
    if pycolmap_installed() and len(still.views) >= 2:
        try:
            return chosen(triangulated_points(replace(still, points=None)), count, generator)
        except DatasetError as error:  # too little texture: random points still train
            LOG.warning("no initial points by triangulation: %s", error.problem)
    elif len(still.views) >= 2:
        LOG.warning(
            "the capture has no points of its own and starts from random ones, which ends worse: triangulating them "
            "needs pycolmap (pip install 'smalti[sfm]')"
        )
    return frustum_points(still, count, generator)
