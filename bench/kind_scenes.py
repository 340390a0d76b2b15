"""Scenes of `bench/kinds.py`: every kind at a chosen count, picture size and size on the screen; meshes; boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from smalti import Camera
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import icosphere
from smalti.renderers.drawables import (
    BoxDrawable,
    Drawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)

Drawn = TypeVar("Drawn", bound=Drawable)

DISTANCE = 4.0
"""Of the camera from the origin."""


def camera_of(width: int, height: int | None = None, angle: float = 0.8, distance: float = DISTANCE) -> Camera:
    """Looks at the origin; `angle` is that of the picture's height, radians."""
    eye, up = torch.tensor([0.0, 0.0, -distance]), torch.tensor([0.0, -1.0, 0.0])
    return Camera.look_at(eye, torch.zeros(3), up, angle, (width, height or width))


class Cloud:
    """Places and sizes of `count` bodies spread evenly over `size` pixels a side, with a median of `radius` pixels."""

    def __init__(self, count: int, size: int, radius: float, seed: int = 0) -> None:
        self.count, self.generator = count, torch.Generator().manual_seed(seed)
        focal = 0.5 * size / math.tan(0.4)
        depth = 3 + 3 * self.uniform(count)
        pixels = size * (self.uniform(count, 2) - 0.5) / focal
        self.means = torch.cat([pixels * depth[:, None], depth[:, None] - DISTANCE], 1)
        self.scale = (radius / focal * depth * torch.exp(0.5 * self.normal(count)))[:, None]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def splats(self, scales: int, share: float = 1.0) -> dict[str, Any]:
        """What the kinds with a mean take; standard deviations are `share` of the cloud's sizes."""
        n = self.count
        spread = share * self.scale * torch.exp(0.3 * self.normal(n, scales))
        colour = {"sh_dc": self.normal(n, 3), "sh_rest": 0.2 * self.normal(n, 15, 3), "sh_degree": 3}
        return {"means": self.means, "quaternions": self.normal(n, 4), "scales": spread, **colour}

    def opacities(self, highest: float) -> Tensor:
        return 0.05 + (highest - 0.05) * self.uniform(self.count)


SIGMAS = 0.4
"""Of a Gaussian per unit of the cloud's radius: alpha falls to 1/255 at about 2.5 of them."""


def gaussian(cloud: Cloud, highest: float = 0.6) -> GaussianDrawable:
    return GaussianDrawable(opacities=cloud.opacities(highest), **cloud.splats(3, SIGMAS))


def gaussian_ray(cloud: Cloud, highest: float = 0.6) -> RayGaussianDrawable:
    return RayGaussianDrawable(opacities=cloud.opacities(highest), **cloud.splats(3, SIGMAS))


def surfel(cloud: Cloud, highest: float = 0.6) -> SurfelDrawable:
    return SurfelDrawable(opacities=cloud.opacities(highest), **cloud.splats(2, SIGMAS))


def neural(cloud: Cloud, width: int = 8) -> NeuralDrawable:
    n, values = cloud.count, cloud.splats(3)
    waves = {"frequencies": cloud.normal(n, width, 3) / 15, "phases": cloud.normal(n, width) / 15}
    return NeuralDrawable(**waves, amplitudes=0.05 * cloud.normal(n, width), offsets=0.3 * torch.ones(n), **values)


def triangle(cloud: Cloud, edges: Any = "hard", highest: float = 0.6) -> TriangleDrawable:
    n = cloud.count
    corners = cloud.means[:, None] + cloud.scale[:, :, None] * torch.nn.functional.normalize(
        cloud.normal(n, 3, 3), dim=2
    )
    return TriangleDrawable(corners, cloud.opacities(highest), cloud.uniform(n, 3, 3), edges=edges, sigma=1e-5)


def box(cloud: Cloud, voxels: int = 8) -> BoxDrawable:
    n = cloud.count
    payload = cloud.uniform(n, voxels, voxels, voxels, 4) * torch.tensor([1.0, 1.0, 1.0, 4.0])
    half = 0.6 * cloud.scale * torch.exp(0.2 * cloud.normal(n, 3))
    return BoxDrawable(cloud.means, cloud.normal(n, 4), half, payload, step=1 / 64)


KINDS: dict[str, Callable[[Cloud], Drawable]] = {
    "gaussian": gaussian,
    "gaussian_ray": gaussian_ray,
    "surfel": surfel,
    "neural": neural,
    "triangle_hard": triangle,
    "triangle_antialiased": lambda cloud: triangle(cloud, "antialiased"),
    "triangle_soft": lambda cloud: triangle(cloud, "soft"),
    "box": box,
}


def sphere(level: int, edges: Any, sigma: float = 1e-4) -> Callable[[], TriangleDrawable]:
    """An opaque icosphere with vertex colours: what makes its drawable of its leaves, vertices and colours."""
    surface = icosphere(level)
    generator, faces = torch.Generator().manual_seed(0), surface.faces
    leaves = {"vertices": surface.vertices.float(), "colors": torch.rand(len(surface.vertices), 3, generator=generator)}
    for leaf in leaves.values():
        leaf.requires_grad_()

    def drawable() -> TriangleDrawable:
        corners, colors = (leaves[name].index_select(0, faces.reshape(-1)) for name in ("vertices", "colors"))
        shapes = corners.reshape(-1, 3, 3), torch.ones(len(faces)), colors.reshape(-1, 3, 3)
        return TriangleDrawable(*shapes, edges=edges, sigma=sigma)

    return drawable


def blocks() -> TriangleDrawable:
    """Blocks World's own case: six textured superquadrics of 80 faces, one behind the other, soft."""
    generator = torch.Generator().manual_seed(3)
    bounds = torch.tensor([[-0.9, -0.7, -0.9], [0.9, 0.7, 0.9]])
    family = Superquadrics.at_random(bounds, 6, generator, {"level": 1, "edges": "soft", "sigma": 1e-4})
    with torch.no_grad():
        drawn = family.drawables(camera_of(400, 300))[0]
    return learnable(drawn)


def box_grid(step: float = 1 / 64, voxels: int = 32) -> BoxDrawable:
    """256 boxes that fill [-1, 1]^3, a little turned and overlapping: a ray through the middle takes 128 steps."""
    generator = torch.Generator().manual_seed(4)
    counts = (8, 8, 4)
    axes = [(torch.arange(n) + 0.5) * (2 / n) - 1 for n in counts]
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    quaternions = torch.tensor([1.0, 0, 0, 0]) + 0.05 * torch.randn(len(centres), 4, generator=generator)
    half = torch.tensor([1.1 / n for n in counts]).expand(len(centres), 3).clone()
    payload = torch.rand(len(centres), voxels, voxels, voxels, 4, generator=generator)
    return learnable(BoxDrawable(centres, quaternions, half, payload, step=step))


def learnable(drawable: Drawn) -> Drawn:
    """The same, with every floating-point tensor a leaf that wants a gradient."""
    values = {field.name: getattr(drawable, field.name) for field in fields(drawable)}  # pyright: ignore[reportArgumentType]
    leaves = {k: v.detach().clone() for k, v in values.items() if isinstance(v, Tensor) and v.is_floating_point()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    return replace(drawable, **leaves)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]
