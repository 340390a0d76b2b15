"""The scene that training starts from: points of the capture, or a scene file; and the scene's extent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import TrainConfig
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


def family_from_points(
    config: TrainConfig, positions: Float[Tensor, "n 3"], colors: Float[Tensor, "n 3"], generator: torch.Generator
) -> Family:
    """Initial primitives; points beyond `data.max_points` and `density.max_primitives` are thinned out at random."""
    most = min(config.data.max_points, config.density.max_primitives)
    if len(positions) > most:
        rows = torch.randperm(len(positions), generator=generator)[:most].sort().values
        positions, colors = positions[rows], colors[rows]
    return find_family(config.model.family).from_points(positions, colors, config.model.metadata)


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


def initial_scene(
    config: TrainConfig, points: tuple[Tensor, Tensor], extent: float, generator: torch.Generator
) -> Scene:
    """One layer, named as its family, from `init_from` or from (positions, colours 0..1)."""
    order = config.model.order
    if config.init_from:
        family, order = family_from_file(config, config.init_from)
    else:
        family = family_from_points(config, points[0], points[1], generator)
    scene = Scene(order=order, near=config.model.near * extent)  # type: ignore[arg-type]
    scene.add(family.name, family)
    return scene
