"""Neural splats for the tests of kind `neural`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from backends import Backend, found_backends
from scenes import Scene, simple_camera, single
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import NeuralDrawable
from smalti.renderers.settings import RenderSettings

RAY = RenderSettings(order="ray", transmittance_min=0.0)
ENGINE = [backend for backend in found_backends() if backend.backend == "cpu"]
NETWORK = ("frequencies", "phases", "amplitudes", "offsets")
(DOUBLE,) = (backend for backend in ENGINE if backend.dtype == torch.float64)


def neural(count: int, seed: int = 0, width: int = 8, **other: Any) -> NeuralDrawable:
    """Around the origin, about 0.5 in size; rays find both signs of the integral."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    values: dict[str, Any] = {
        "means": 0.7 * normal(count, 3),
        "quaternions": normal(count, 4),
        "scales": 0.5 * torch.exp(0.4 * normal(count, 3)),
        "frequencies": uniform(count, width, 3) / 3,
        "phases": uniform(count, width) / 3,
        "amplitudes": 0.5 * uniform(count, width),
        "offsets": 0.4 + uniform(count),
        "sh_dc": 0.8 * normal(count, 3),
        "sh_rest": 0.2 * normal(count, 3, 3),
        "features": normal(count, 2),
    }
    values = {name: single(value) for name, value in values.items()}
    return NeuralDrawable(**{**values, "sh_degree": 1, **other})


def looking(width: int, height: int, distance: float = 3.0) -> Camera:
    """At the origin; its rotation is one to the last digit, as the mathematics of world axes asks."""
    camera = simple_camera(width, height, distance)
    u, _, v = torch.linalg.svd(camera.rotation)
    return replace(camera, rotation=u @ v)


def draw(engine: Backend, *drawables: NeuralDrawable, camera: Camera, settings: RenderSettings = RAY) -> Any:
    """A frame in the engine's own precision."""
    _, scene = Scene(drawables, camera, settings=settings).leaves(engine.dtype)
    return engine.render(scene)
