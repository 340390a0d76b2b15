"""A scene of twenty primitives and a camera, for examples and for trying things out."""

from __future__ import annotations

import torch

from smalti.cameras.camera import Camera
from smalti.primitives.family import find_family
from smalti.scene.scene import Scene


def demo_scene() -> Scene:
    """Layer `chair`: eight Gaussians on the corners of a cube of edge 1 around the origin; layer `cloud`: twelve
    surfels that lean about it.

    >>> from smalti.scene import demo_scene
    >>> demo_scene().counts()
    {'chair': 8, 'cloud': 12}
    """
    generator = torch.Generator().manual_seed(0)
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    around = 1.6 * torch.nn.functional.normalize(torch.randn(12, 3, generator=generator), dim=1)
    scene = Scene(order="ray")
    for name, family, points in (("chair", "gaussians", corners), ("cloud", "surfels", around)):
        options = {"sh_degree": 1, "active_sh_degree": 1, "initial_opacity": 0.8, "initial_scale": 0.4}
        made = find_family(family).from_points(points, torch.rand(len(points), 3, generator=generator), options)
        made.replace({"sh_rest": 0.1 * torch.randn(len(points), 3, 3, generator=generator)})
        scene.add(name, made)
    return scene


def demo_camera(width: int = 64, height: int = 48) -> Camera:
    """Sees all of `demo_scene`.

    >>> from smalti.scene import demo_camera, demo_scene
    >>> tuple(demo_scene().render(demo_camera()).color.shape)
    (48, 64, 3)
    """
    position = torch.tensor([1.0, -1.5, -4.5])
    return Camera.look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 1.0, (width, height))
