"""The canonical frame that a run measures by: found or stated as `data` says, told and drawn before the first step."""

from __future__ import annotations

import numpy as np

from smalti.configs.config import DataConfig
from smalti.configs.resolve import ConfigError
from smalti.datasets.dataset import Dataset, Points
from smalti.datasets.world import Wishes, World, axis_vector, find_world


def wishes_of(data: DataConfig) -> Wishes:
    """What the configuration states of the frame. ConfigError for an `up` that is no direction."""
    try:
        up = None if data.up == "" else axis_vector(data.up)
    except ValueError as error:
        raise ConfigError(f"data.up: {error}") from None
    centre = None if data.centre is None else np.array(data.centre)
    ground = None if data.ground == "auto" else data.ground
    return Wishes(up, centre, data.radius or None, ground)


def aligned_world(data: DataConfig, training: Dataset, points: Points) -> World | None:
    """The frame of the training views, by the points that the run starts from (or the capture's own, where it starts
    from a file); None where `data.align` does not ask for one.
    """
    wishes = wishes_of(data)
    if data.align == "none":
        return None
    known = points if len(points.positions) else training.points
    return find_world([view.camera for view in training.views], known, wishes)
