"""Random pictures of every kind at once, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from scenes import gaussians, single
from torch import Tensor

from smalti.renderers.drawables import (
    BoxDrawable,
    Drawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)
from smalti.renderers.mipmaps import mipmaps


class Draws:
    """Random numbers in a fixed order, exact in float32."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return single(torch.randn(*shape, generator=self.generator, dtype=torch.float64))

    def uniform(self, *shape: int) -> Tensor:
        return single(torch.rand(*shape, generator=self.generator, dtype=torch.float64))

    def splats(self, count: int, scales: int, scale: float = 0.25) -> dict[str, Any]:
        """What the kinds with a mean share."""
        return {
            "means": self.normal(count, 3),
            "quaternions": self.normal(count, 4),
            "scales": single(scale * torch.exp(0.4 * self.normal(count, scales))),
            "sh_dc": self.normal(count, 3),
            "sh_rest": single(0.2 * self.normal(count, 3, 3)),
            "sh_degree": 1,
        }


def ray_gaussians(count: int, seed: int = 1, **other: Any) -> RayGaussianDrawable:
    draws = Draws(seed)
    return RayGaussianDrawable(**{"opacities": draws.uniform(count), **draws.splats(count, 3), **other})


def surfels(count: int, seed: int = 2, **other: Any) -> SurfelDrawable:
    draws = Draws(seed)
    return SurfelDrawable(**{"opacities": draws.uniform(count), **draws.splats(count, 2), **other})


def neurals(count: int, seed: int = 3, width: int = 8, **other: Any) -> NeuralDrawable:
    draws = Draws(seed)
    values: dict[str, Any] = {
        "frequencies": single(draws.normal(count, width, 3) / 15),
        "phases": single(draws.normal(count, width) / 15),
        "amplitudes": single(0.3 * draws.normal(count, width)),
        "offsets": single(0.6 + 0.4 * draws.normal(count)),
        **draws.splats(count, 3, 0.4),
    }
    return NeuralDrawable(**{**values, **other})


def triangles(count: int, seed: int = 4, **other: Any) -> TriangleDrawable:
    draws = Draws(seed)
    values: dict[str, Any] = {
        "corners": single(draws.normal(count, 1, 3) + 0.5 * draws.normal(count, 3, 3)),
        "opacities": draws.uniform(count),
        "colors": draws.uniform(count, 3, 3),
    }
    return TriangleDrawable(**{**values, **other})


OF_ALL_FACES = ("texture", "mipmaps")
"""Tensors whose rows are no primitives."""


def textured(count: int, seed: int = 5, **other: Any) -> TriangleDrawable:
    draws = Draws(seed)
    values: dict[str, Any] = {"texture": draws.uniform(5, 7, 4), "uvs": draws.normal(count, 3, 2), "wrap": True}
    if "texture" not in other:
        values["mipmaps"] = single(mipmaps(values["texture"], 2))
    return triangles(count, seed, colors=None, **{**values, **other})


def boxes(count: int, seed: int = 6, **other: Any) -> BoxDrawable:
    draws = Draws(seed)
    payload = draws.uniform(count, 3, 4, 5, 4)
    values: dict[str, Any] = {"warp": single(0.6 * draws.normal(count, 2, 2, 2, 3)), "step": 0.0625}
    place = [draws.normal(count, 3), draws.normal(count, 4), single(0.4 * torch.exp(0.3 * draws.normal(count, 3)))]
    return BoxDrawable(*place, payload, **{**values, **other})


KINDS: dict[str, Callable[[int], Drawable]] = {
    "gaussian": lambda count: gaussians(count, feature_count=2),
    "gaussian_ray": ray_gaussians,
    "gaussian_ray_integral": lambda count: ray_gaussians(count, 11, response="integral"),
    "surfel": lambda count: surfels(count, features=Draws(12).normal(count, 1)),
    "neural": neurals,
    "neural_local": lambda count: neurals(count, 13, 16, frame="local", cap=False, omega=20.0),
    "triangle_hard": triangles,
    "triangle_antialiased": lambda count: triangles(
        count, 14, edges="antialiased", features=Draws(15).normal(count, 3, 2)
    ),
    "triangle_soft": lambda count: triangles(count, 16, edges="soft", sigma=1e-3),
    "triangle_textured": textured,
    "box": lambda count: boxes(max(count // 4, 1)),
}
"""Name of a kind and mode: `count` primitives of it around the origin."""


def every_kind(count: int) -> list[Drawable]:
    """`count` primitives of every kind and mode."""
    return [make(count) for make in KINDS.values()]


def mapped(drawable: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    """With `change(name, tensor)` in place of each floating-point tensor."""
    new: dict[str, Tensor] = {}
    for field in fields(drawable):
        value = getattr(drawable, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            new[field.name] = change(field.name, value)
    return replace(drawable, **new)
