"""The scene that training starts from, layer by layer, and its extent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.configs.config import LayerConfig, TrainConfig
from smalti.configs.resolve import ConfigError
from smalti.datasets.dataset import Dataset, Points
from smalti.datasets.initial import FEWEST, initial_points
from smalti.datasets.open import select_views
from smalti.primitives.family import Family, find_family
from smalti.scene.folder import is_scene
from smalti.scene.open_file import open_scene
from smalti.scene.scene import Scene
from smalti.trainers.initializers import Ground, holds_splats, initial_family, layer_from_file, splats_from_file
from smalti.trainers.views import stated_background


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
    """(positions, colours 0..1) of `found_points`."""
    return tensors_of(found_points(config, dataset, rows, generator))


def tensors_of(points: Points) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """(positions, colours 0..1) of points."""
    return torch.from_numpy(points.positions).float(), torch.from_numpy(points.colors).float() / 255.0


def found_points(config: TrainConfig, dataset: Dataset, rows: Sequence[int], generator: torch.Generator) -> Points:
    """Points as `data.points` asks, from the training views alone; they say how they came to be. None where a scene
    file is the start of every layer.
    """
    if config.init_from and not _unmentioned(config):
        return Points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
    training = select_views(dataset, rows)
    given = 0 if dataset.points is None else len(dataset.points.positions)
    sampled = config.data.points in ("hull", "frustum") or (config.data.points == "auto" and given < FEWEST)
    count = config.data.sampled_points if sampled else config.data.max_points
    count = min(count, config.density.max_primitives)
    return initial_points(training, count, generator, strategy=config.data.points)


def initial_scene(config: TrainConfig, ground: Ground, extent: float) -> Scene:
    """All layers, from `init_from` where it holds them, else as their initialisers say.

    Raises ConfigError where names do not belong together.
    """
    if not config.scene:
        raise ConfigError("scene: there is no layer to train; name a preset, or give a list of layers")
    families, stated = _given(config, ground.notices)
    ground = replace(
        ground,
        background=stated_background(ground.dataset, config.data.background) or ground.background,
        settings=replace(ground.settings, near=config.model.near * extent),
    )
    for row, layer in enumerate(config.scene):
        if layer.name not in families:
            before = [families[each.name] for each in config.scene[:row]]
            families[layer.name] = initial_family(layer, replace(ground, before=before))
    order = stated or config.model.order
    if order == "auto":
        order = "centre" if all(each.default_order == "centre" for each in families.values()) else "ray"
    scene = Scene(order=order, near=config.model.near * extent)
    for layer in config.scene:
        scene.add(layer.name, families[layer.name], locked=layer.frozen)
    return scene


def _unmentioned(config: TrainConfig) -> list[LayerConfig]:
    """Layers that `init_from` does not hold."""
    if _is_one_layer(config):
        return config.scene[1:]
    held = open_scene(config.init_from).scene.layers
    return [layer for layer in config.scene if layer.name not in held]


def _is_one_layer(config: TrainConfig) -> bool:
    """Whether `init_from` is the file of a layer, and not a scene whose layers have names."""
    return holds_splats(config.init_from) or (len(config.scene) == 1 and not is_scene(config.init_from))


def _given(config: TrainConfig, notices: list[str]) -> tuple[dict[str, Family], Literal["centre", "ray"] | None]:
    """What `init_from` holds by layer, and the compositing order that it states."""
    path = config.init_from
    if not path:
        return {}, None
    if _is_one_layer(config):
        if len(config.scene) != 1:
            raise ConfigError(
                f"init_from: {path} is the file of one layer, and the scene has {len(config.scene)}; give it to its "
                "layer (initializer: file), or start from a scene folder"
            )
        (layer,) = config.scene
        if not holds_splats(path):
            return {layer.name: layer_from_file(find_family(layer.family), path, "", notices)}, None
        family, order = splats_from_file(find_family(layer.family), path, notices)
        return {layer.name: family}, order
    opened = open_scene(path)
    notices += [f"{Path(path).name}: {text}" for text in opened.notices]
    held, known = opened.scene, {layer.name: layer.family for layer in config.scene}
    for layer in held:
        if known.get(layer.name) != layer.family.name:
            raise ConfigError(
                f"init_from: {path} holds a layer {layer.name!r} of family {layer.family.name!r}, which the "
                f"configuration does not name; its layers are {', '.join(known)}"
            )
    order = held.order if len(held.layers) == len(known) and config.model.order == "auto" else None
    return {layer.name: layer.family for layer in held.flattened()}, order
