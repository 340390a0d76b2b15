"""Small scenes of blocks, some of them dead, over a floor that is no part."""

from __future__ import annotations

import torch

from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.scene import Scene

BOUNDS = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def some_blocks(count: int = 5, seed: int = 0, binary: bool = True) -> Superquadrics:
    """With checked textures; block 1 is dead."""
    generator = torch.Generator().manual_seed(seed)
    options = {"texture_size": 16, "binary": binary, "edges": "antialiased"}
    blocks = Superquadrics.at_random(BOUNDS, count, generator, options)
    rows = torch.arange(16)
    checks = ((rows[:, None] // 4 + rows[None, :] // 4) % 2).float()[None, :, :, None]
    colors = torch.rand(count, 1, 1, 3, generator=generator) * (0.5 + 0.5 * checks)
    logits = torch.full((count,), 3.0)
    logits[1] = -6.0
    changed = {
        "raw_exponents": torch.randn(count, 2, generator=generator),
        "logit_opacities": logits,
        "raw_textures": torch.logit(colors.clamp(0.02, 0.98)),
    }
    blocks.replace({**{key: value.detach() for key, value in blocks.parameters.items()}, **changed})
    return blocks


def block_scene(count: int = 5, binary: bool = True) -> Scene:
    """Layers `floor` and `blocks`."""
    corners = torch.tensor([[-2.0, 1.2, -2.0], [2.0, 1.2, -2.0], [2.0, 1.2, 2.0], [-2.0, 1.2, 2.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    scene = Scene(order="ray", background=(1.0, 1.0, 1.0))
    scene.add("floor", Meshes.from_mesh(corners, faces, torch.full((4, 3), 0.4), {}))
    scene.add("blocks", some_blocks(count, binary=binary))
    return scene
