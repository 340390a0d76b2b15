"""Small scenes of every kind and mode for `bench/gradients.py`: tensors by name, and what makes drawables of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smalti import Camera
from smalti.primitives.superquadrics import Superquadrics
from smalti.renderers.drawables import (
    BoxDrawable,
    Drawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)
from smalti.renderers.mipmaps import mipmaps

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """A few primitives of one kind around the origin."""

    kind: str
    mode: str
    tensors: Callable[[int], Tensors]
    """By seed; every tensor of the kind that takes a gradient."""
    build: Callable[[Tensors], Sequence[Drawable]]
    near: float = 0.01
    alone: bool = False
    """Not to be mixed."""
    distance: float = 3.0
    """Of the camera."""


class _Draws:
    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)


def _splats(count: int, seed: int, scales: int, scale: float) -> Tensors:
    """The last one is a backdrop: where nothing is drawn, the depth would be a quotient of nothings."""
    d = _Draws(seed)
    sizes = scale * torch.exp(0.3 * d.normal(count, scales))
    sizes[-1] = torch.tensor([2.0, 2.3, 1.9], dtype=torch.float64)[:scales]  # no tie for the largest
    means = 0.45 * d.normal(count, 3)
    means[-1] = torch.tensor([0.1, -0.1, 1.4 + 0.01 * seed], dtype=torch.float64)
    return {
        "means": means,
        "quaternions": d.normal(count, 4),
        "scales": sizes,
        "opacities": 0.3 + 0.5 * d.uniform(count),
        "sh_dc": d.normal(count, 3),
        "sh_rest": 0.2 * d.normal(count, 15, 3),
        "features": d.normal(count, 2),
    }


def _flat(seed: int) -> Tensors:
    """Disks that no ray sees edge-on."""
    tensors, d = _splats(4, seed, 2, 0.45), _Draws(seed + 50)
    tensors["quaternions"] = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64) + 0.25 * d.normal(4, 4)
    return tensors


def _neural(seed: int, width: int) -> Tensors:
    d = _Draws(seed + 100)
    tensors = _splats(3, seed, 3, 0.7)
    del tensors["opacities"]
    tensors["scales"][-1] *= 0.6
    network = {
        "frequencies": (2 * d.uniform(3, width, 3) - 1) / 15,
        "phases": (2 * d.uniform(3, width) - 1) / 15,
        "amplitudes": 0.2 * d.normal(3, width),
        "offsets": 0.7 + 0.2 * d.normal(3),
    }
    return {**tensors, **network}


def _triangles(seed: int, textured: bool = False, levels: int = 0) -> Tensors:
    d = _Draws(seed + 200)
    corners = 0.5 * d.normal(5, 1, 3) + 0.7 * d.normal(5, 3, 3)
    corners[-1] = torch.tensor([[-9.0, -8, 1.5], [9.0, -8, 1.7], [0.0, 16.0, 1.4]], dtype=torch.float64)
    corners[-1, :, 2] += 0.03 * seed
    tensors = {
        "corners": corners,
        "opacities": 0.3 + 0.5 * d.uniform(5),
        "colors": d.uniform(5, 3, 3),
        "features": d.normal(5, 3, 2),
        "normals": torch.tensor([0.0, 0, -1], dtype=torch.float64) + 0.4 * d.normal(5, 3, 3),
    }
    if textured:
        del tensors["colors"]
        size = (29, 34) if levels else (5, 6)
        tensors |= {"texture": 0.2 + 0.7 * d.uniform(*size, 4), "uvs": d.uniform(5, 3, 2)}
    if levels:
        tensors["mipmaps"] = mipmaps(tensors["texture"], levels)
    return tensors


def _mesh(seed: int) -> Tensors:
    """A closed and slightly bent tetrahedron and a backdrop, so that there are interior and silhouette edges."""
    d = _Draws(seed + 300)
    points = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    points = 0.6 * points + 0.1 * d.normal(4, 3)
    back = _triangles(seed)
    corners = torch.cat([points[torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])], back["corners"][-1:]])
    return {**back, "corners": corners}


MESH_NEIGHBOURS = torch.tensor([[1, 3, 2], [2, 3, 0], [0, 3, 1], [1, 2, 0], [-1, -1, -1]], dtype=torch.int32)
"""Across the edges 0-1, 1-2 and 2-0 of each face of `_mesh`."""


def _boxes(seed: int) -> Tensors:
    d = _Draws(seed + 400)
    return {
        "centres": 0.3 * d.normal(3, 3),
        "quaternions": d.normal(3, 4),
        "half_extents": 0.7 * torch.exp(0.2 * d.normal(3, 3)),
        "payload": torch.cat([d.uniform(3, 3, 4, 5, 3), 0.3 + d.uniform(3, 3, 4, 5, 1)], dim=-1),
        "warp": 0.5 * d.normal(3, 2, 3, 2, 3),
    }


def _blocks(seed: int) -> Tensors:
    d = _Draws(seed + 500)
    return {
        "translations": 0.4 * d.normal(2, 3),
        "rotations": d.normal(2, 6),
        "raw_scales": 0.2 * d.normal(2, 3),
        "raw_exponents": 0.5 * d.normal(2, 2),
        "logit_opacities": 0.4 + 0.5 * d.normal(2),
        "raw_textures": d.normal(2, 5, 6, 3),
    }


def _superquadrics(tensors: Tensors, edges: str) -> Sequence[Drawable]:
    values = {"level": 1, "edges": edges, "sigma": 2e-3, "ratio": 0.7, "detach_barycentrics": False}
    family = Superquadrics({name: value.detach() for name, value in tensors.items()}, values)
    family.parameters.update(tensors)
    return family.drawables(view())


def _drawable(of: Any, **options: Any) -> Callable[[Tensors], Sequence[Drawable]]:
    return lambda tensors: [of(**tensors, **options)]


def view(distance: float = 3.0, size: tuple[int, int] = (20, 14)) -> Camera:
    """A little to the side; focal lengths that differ and a principal point off the centre."""
    position = torch.tensor([0.13, -0.1, -1.0], dtype=torch.float64) * distance
    up = torch.tensor([0.1, -1.0, 0.0], dtype=torch.float64)
    camera = Camera.look_at(position, torch.zeros_like(position), up, 0.8, size)
    width, height = size
    intrinsics = torch.tensor([1.1 * width, 1.25 * width, 0.4625 * width, 0.53 * height], dtype=torch.float64)
    return Camera(camera.rotation, camera.translation, intrinsics, width, height)


_LOCAL = {"sh_degree": 3, "frame": "local", "cap": False, "omega": 20.0}
PARTS = (
    Part("gaussian", "plain", lambda s: _splats(4, s, 3, 0.4), _drawable(GaussianDrawable, sh_degree=3)),
    Part(
        "gaussian",
        "compensated",
        lambda s: _splats(4, s, 3, 0.2),
        _drawable(GaussianDrawable, sh_degree=3, compensated=True, filter_variance=0.1),
    ),
    Part("gaussian_ray", "maximum", lambda s: _splats(4, s, 3, 0.4), _drawable(RayGaussianDrawable, sh_degree=3)),
    Part(
        "gaussian_ray",
        "integral",
        lambda s: _splats(4, s, 3, 0.4),
        _drawable(RayGaussianDrawable, sh_degree=3, response="integral"),
    ),
    Part("surfel", "disk", _flat, _drawable(SurfelDrawable, sh_degree=3)),
    Part("neural", "world, capped, width 8", lambda s: _neural(s, 8), _drawable(NeuralDrawable, sh_degree=3)),
    Part("neural", "local, width 16", lambda s: _neural(s, 16), _drawable(NeuralDrawable, **_LOCAL)),
    Part(
        "neural",
        "camera inside",
        lambda s: _neural(s, 8),
        _drawable(NeuralDrawable, sh_degree=3, cap=False),
        near=0.0625,
        distance=0.2,
    ),
    Part("triangle", "hard", _triangles, _drawable(TriangleDrawable)),
    Part("triangle", "hard, texture", lambda s: _triangles(s, True), _drawable(TriangleDrawable, wrap=True)),
    Part("triangle", "hard, mipmaps", lambda s: _triangles(s, True, 4), _drawable(TriangleDrawable, wrap=True)),
    Part(
        "triangle",
        "antialiased",
        _mesh,
        _drawable(TriangleDrawable, edges="antialiased", neighbours=MESH_NEIGHBOURS),
    ),
    Part(
        "triangle",
        "antialiased, texture",
        lambda s: _triangles(s, True),
        _drawable(TriangleDrawable, edges="antialiased"),
    ),
    Part("triangle", "soft", _triangles, _drawable(TriangleDrawable, edges="soft", sigma=2e-3)),
    Part(
        "triangle",
        "soft, texture",
        lambda s: _triangles(s, True),
        _drawable(TriangleDrawable, edges="soft", sigma=2e-3, wrap=True),
    ),
    Part(
        "triangle",
        "soft, mipmaps",
        lambda s: _triangles(s, True, 2),
        _drawable(TriangleDrawable, edges="soft", sigma=2e-3),
    ),
    Part("box", "exponential", _boxes, _drawable(BoxDrawable, step=0.125)),
    Part("box", "no window", _boxes, _drawable(BoxDrawable, step=0.125, fade_scale=0.0)),
    Part("box", "additive", _boxes, _drawable(BoxDrawable, step=0.125, accumulation="additive"), alone=True),
    Part("superquadric", "soft", _blocks, lambda tensors: _superquadrics(tensors, "soft")),
    Part("superquadric", "antialiased", _blocks, lambda tensors: _superquadrics(tensors, "antialiased")),
    Part("superquadric", "hard", _blocks, lambda tensors: _superquadrics(tensors, "hard")),
)
"""The first of a kind is the one that is mixed with the others."""

NOT_DIFFERENTIABLE = (
    ("all", "-", "order of the events, visible set", "discrete; frozen in differences"),
    ("all", "-", "ids, contribution_sum, contribution_max", "discrete or declared so (Frame)"),
    ("all but EWA alone", "-", "depth_first, depth_median", "declared so (Frame, docs/kinds.md section 1)"),
    ("all", "-", "near, transmittance_min", "numbers of the settings; a clamped end of a segment has no gradient"),
    ("gaussian", "-", "filter_variance", "a number, not a tensor"),
    ("neural", "-", "omega, cap, leak", "numbers, not tensors"),
    ("neural", "leak > 0", "all", "approximate by intent: rays where nothing is drawn get a share of a gradient"),
    ("triangle", "-", "neighbours", "indices"),
    ("triangle", "-", "sigma", "a number, not a tensor"),
    ("triangle", "hard", "corners (coverage)", "coverage is a step; the row `corners` is colour and depth"),
    ("triangle", "mipmaps", "how many levels", "discrete; which of them are mixed, and how, has its gradient"),
    ("triangle", "detach_barycentrics", "corners (colour)", "cut on request, as Blocks World does"),
    ("box", "-", "step, fade_scale, fade_exponent", "numbers, not tensors"),
    ("box", "-", "where cells lie", "the arc lengths of samples are numbers (docs/kinds.md section 4)"),
    ("superquadric", "-", "ratio, level, texture_size", "metadata"),
    ("superquadric", "binary", "logit_opacities", "a step at one half"),
)
"""Kind, mode, what, and why there is no gradient."""
