"""The scene that training starts from: points of the capture, or a scene file; and the scene's extent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import TrainConfig
from smalti.datasets.dataset import Dataset
from smalti.datasets.initial import FEWEST, initial_points
from smalti.datasets.open import select_views
from smalti.primitives.family import Family, find_family
from smalti.scene.scene import Scene


def scene_extent(cameras: Sequence[Camera], points: Float[Tensor, "n 3"]) -> float:
    """A length that stands for the scene, world units.

    1.1 times the largest distance of a camera from the cameras' mean (as 3DGS), but at least half the median distance
    from that mean to the points: cameras close together still look at something.
    """
    centres = torch.stack([camera.centre.detach().double() for camera in cameras])
    middle = centres.mean(0)
    extent = 1.1 * float((centres - middle).norm(dim=1).max())
    if len(points):
        extent = max(extent, 0.5 * float((points.double().cpu() - middle).norm(dim=1).median()))
    return extent if extent > 0 else 1.0


def starting_points(
    config: TrainConfig, dataset: Dataset, rows: Sequence[int], generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """(positions, colours 0..1) as `data.points` asks, from the training views alone; none where a scene file is the
    start.
    """
    if config.init_from:
        return torch.zeros(0, 3), torch.zeros(0, 3)
    training = select_views(dataset, rows)
    given = 0 if dataset.points is None else len(dataset.points.positions)
    sampled = config.data.points in ("hull", "frustum") or (config.data.points == "auto" and given < FEWEST)
    count = config.data.sampled_points if sampled else config.data.max_points
    count = min(count, config.density.max_primitives)
    points = initial_points(training, count, generator, strategy=config.data.points)
    return torch.from_numpy(points.positions).float(), torch.from_numpy(points.colors).float() / 255.0


def family_from_file(config: TrainConfig, path: str | Path) -> tuple[Family, str]:
    """Primitives of a scene file, and the compositing order that it states."""
    from smalti.files import read_scene_file

    splats = read_scene_file(path)
    kind = find_family(config.model.family)
    stated = {
        "filter_variance": splats.metadata.filter_variance,
        "compensated": splats.metadata.compensated,
        "sh_degree": splats.held_degree,
        "active_sh_degree": splats.sh_degree,
    }
    known = kind.default_metadata()
    return kind(splats.to_parameters(), {k: v for k, v in stated.items() if k in known}), splats.metadata.order


def initial_scene(config: TrainConfig, points: tuple[Tensor, Tensor], extent: float) -> Scene:
    """One layer, named as its family, from `init_from` or from (positions, colours 0..1)."""
    order = config.model.order
    if config.init_from:
        family, order = family_from_file(config, config.init_from)
    else:
        family = find_family(config.model.family).from_points(points[0], points[1], config.model.metadata)
    scene = Scene(order=order, near=config.model.near * extent)  # type: ignore[arg-type]
    scene.add(family.name, family)
    return scene
