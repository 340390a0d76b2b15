"""Scenes of blocks from boxes, and a small table for examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.primitives.posed import Posed, Poses
from smalti.primitives.registry import find_family
from smalti.scene.groups.boxes import Boxes
from smalti.scene.scene import Scene


def layer_of(
    scene: Scene, name: str, boxes: Boxes, colors: Float[Tensor, "n 3"] | None = None, texture_size: int = 8
) -> None:
    """A new layer of opaque blocks, one for each box, of one colour each (0..1; grey where none are given)."""
    least = 2.0 * float(boxes.halves.min())
    low, high = (torch.from_numpy(each(boxes.corners().reshape(-1, 3), axis=0)) for each in (np.min, np.max))
    metadata = {"ratio": least, "texture_size": texture_size, "level": 3, "edges": "antialiased"}
    family = find_family("superquadrics").at_random(
        torch.stack([low, high]).float(), len(boxes), torch.Generator(), metadata
    )
    assert isinstance(family, Posed)
    poses = Poses(*(torch.from_numpy(np.array(each, dtype=np.float64)) for each in vars(boxes).values()))
    family.set_poses(torch.arange(len(boxes)), poses)
    family.set_opacities(torch.full((len(boxes),), 0.99))
    family.metadata["binary"] = True
    chosen = torch.full((len(boxes), 3), 0.6) if colors is None else colors
    texels = torch.logit(chosen.float().clamp(0.02, 0.98))[:, None, None, :]
    family.replace({"raw_textures": texels.expand(-1, texture_size, texture_size, -1).clone()})
    scene.add(name, family)


def box(centre: Sequence[float], size: Sequence[float], exponent: float = 0.1) -> Boxes:
    """One, along the axes, by its full size."""
    half = 0.5 * np.array([size], dtype=np.float64)
    return Boxes(np.array([centre], dtype=np.float64), np.eye(3)[None], half, np.full((1, 2), exponent))


def demo_table() -> Scene:
    """A table: a top and four legs, y upwards.

    >>> demo_table().counts()
    {'table': 5}
    """
    from smalti.scene.groups.boxes import joined

    legs = [box([x, 0.35, z], [0.1, 0.7, 0.1]) for x in (-0.6, 0.6) for z in (-0.35, 0.35)]
    colors = torch.tensor([[0.75, 0.55, 0.35], *[[0.45, 0.3, 0.2]] * 4])
    scene = Scene(order="ray")
    layer_of(scene, "table", joined([box([0.0, 0.75, 0.0], [1.5, 0.1, 1.0]), *legs]), colors)
    return scene
