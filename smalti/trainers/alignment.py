"""The canonical frame that a run measures by: found or stated as `data` says, told and drawn before the first step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from smalti.configs.config import DataConfig, TrainConfig
from smalti.configs.resolve import ConfigError
from smalti.datasets.dataset import Dataset, Points
from smalti.datasets.open import select_views, times
from smalti.datasets.world import Wishes, World, axis_vector, find_world
from smalti.trainers.initial import found_points


@dataclass(frozen=True, eq=False)
class Alignment:
    """A world, and what it was found from."""

    world: World
    training: Dataset
    """The training views."""
    points: Points | None

    def lines(self) -> list[str]:
        """What to say before training: the parts of the frame, and what is doubtful about them."""
        return [*self.world.lines(), *(f"note: {text}" for text in self.world.notices)]

    def draw(self, path: Path, title: str = "") -> None:
        """The picture."""
        from smalti.datasets.world_picture import draw_world

        draw_world(path, self.world, self.training.views, self.points, title)

    def record(self, folder: Path) -> list[str]:
        """`world.json` and `world.png` in a run folder; returns lines to show. A picture that cannot be drawn is said
        and stops nothing.
        """
        plain = json.dumps(self.world.to_plain(), indent=1, allow_nan=False)
        (folder / "world.json").write_text(plain, encoding="utf-8")
        lines = ["the canonical frame (+y up, the subject in the cube from -1 to 1):"]
        lines += [f"  {line}" for line in self.lines()]
        try:
            self.draw(folder / "world.png", folder.name)
        except (ImportError, OSError, ValueError) as error:
            return [*lines, f"  its picture was not made: {error}"]
        where = "if it is wrong, stop and state --up, --centre, --radius or --ground"
        return [*lines, f"  look at it: {folder / 'world.png'} ({where})"]


def wishes_of(data: DataConfig) -> Wishes:
    """What the configuration states of the frame. ConfigError for an `up` that is no direction, and for parts that are
    stated where `data.align` asks for no frame.
    """
    stated = {"up": data.up != "", "centre": data.centre is not None, "radius": data.radius > 0}
    stated["ground"] = data.ground != "auto"
    if data.align == "none" and any(stated.values()):
        name = next(name for name, is_stated in stated.items() if is_stated)
        raise ConfigError(f"data.{name}: it is stated, but nothing is aligned; add --align auto")
    try:
        up = None if data.up == "" else axis_vector(data.up)
    except ValueError as error:
        raise ConfigError(f"data.up: {error}") from None
    centre = None if data.centre is None else np.array(data.centre)
    ground = None if data.ground == "auto" else data.ground
    return Wishes(up, centre, data.radius or None, ground)


def alignment_of(data: DataConfig, training: Dataset, points: Points) -> Alignment | None:
    """The frame of the training views, by the points that the run starts from (or the capture's own, where it starts
    from a file, or from points at random, which say nothing); None where `data.align` does not ask for one.
    """
    wishes = wishes_of(data)
    if data.align == "none":
        return None
    known = points if len(points.positions) and points.origin != "random" else training.points or points
    if known.origin != "file" and len(times(training)) > 1:
        known = None  # they are of one instant, and what moves is elsewhere in the others
    cameras = [view.camera for view in training.views]
    return Alignment(find_world(cameras, known, wishes), training, known)


def found_alignment(config: TrainConfig, dataset: Dataset) -> Alignment:
    """The frame that a run with this configuration would find, without a run."""
    wishes_of(config.data)  # what is wrong with them is said before any work
    rows, _ = dataset.split(config.data.split)
    points = found_points(config, dataset, rows, torch.Generator().manual_seed(config.run.seed))
    found = alignment_of(config.data, select_views(dataset, rows), points)
    if found is None:
        raise ConfigError("data.align is none: there is no frame to find")
    return found
