"""Primitives on the optical axis of a camera with one pixel: what they do to its ray is known without a renderer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import (
    BoxDrawable,
    Drawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

DC = 0.5 / math.sqrt(math.pi)
"""Y_0: a coefficient c shows as 0.5 + c Y_0."""
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
BACK = (0.25, 0.5, 0.125)
RAY = RenderSettings(order="ray", depth=True, statistics=True)


def numbers(values: Any) -> Tensor:
    """As float64; tensors stay what they are, with their graph."""
    return values if isinstance(values, Tensor) else torch.tensor(values, dtype=torch.float64)


def one_pixel(width: int = 1, height: int = 1, focal: float = 8.0) -> Camera:
    """At the origin, looking along z; the axis meets the middle of the picture."""
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return Camera(eye, zero, numbers([focal, focal, width / 2, height / 2]), width, height)


def shade(color: Any) -> Tensor:
    """Spherical harmonics that show `color` [3] from everywhere, one row."""
    return ((numbers(color) - 0.5) / DC)[None]


def at(z: Any) -> Tensor:
    """A point on the axis, one row."""
    z = numbers(z)
    return torch.stack([torch.zeros_like(z), torch.zeros_like(z), z])[None]


UPRIGHT = numbers([[1.0, 0.0, 0.0, 0.0]])


def wall(z: Any, alpha: Any, color: Any, **other: Any) -> TriangleDrawable:
    """A triangle across the axis."""
    z = numbers(z)
    corners = numbers([[-9.0, -8.0, 0.0], [9.0, -8.0, 0.0], [0.0, 16.0, 0.0]]) + at(z)
    return TriangleDrawable(corners[None], numbers(alpha)[None], numbers(color).expand(3, 3)[None], **other)


def gaussian(z: Any, alpha: Any, color: Any, **other: Any) -> GaussianDrawable:
    """EWA: shows its opacity in the middle of its projection."""
    scales = numbers([[0.2, 0.2, 0.2]])
    return GaussianDrawable(at(z), UPRIGHT, scales, numbers(alpha)[None], shade(color), **other)


def gaussian_ray(z: Any, alpha: Any, color: Any, **other: Any) -> RayGaussianDrawable:
    """The largest response on the axis is the opacity."""
    scales = numbers([[0.2, 0.3, 0.25]])
    return RayGaussianDrawable(at(z), UPRIGHT, scales, numbers(alpha)[None], shade(color), **other)


def surfel(z: Any, alpha: Any, color: Any, **other: Any) -> SurfelDrawable:
    """A disk across the axis."""
    return SurfelDrawable(at(z), UPRIGHT, numbers([[0.2, 0.3]]), numbers(alpha)[None], shade(color), **other)


THIN = {"gaussian": gaussian, "gaussian_ray": gaussian_ray, "surfel": surfel, "triangle": wall}


def ball(z0: Any, z1: Any, tau: Any, color: Any, **other: Any) -> NeuralDrawable:
    """A sphere of constant density from z0 to z1: along its diameter, in units of its radius, tau is 2 x the offset."""
    z0, z1, tau = numbers(z0), numbers(z1), numbers(tau)
    none = torch.zeros(1, 8, 3, dtype=torch.float64)
    values: dict[str, Any] = {
        "means": at((z0 + z1) / 2),
        "quaternions": UPRIGHT,
        "scales": ((z1 - z0) / 2).expand(1, 3),
        "frequencies": none,
        "phases": none[..., 0],
        "amplitudes": none[..., 0],
        "offsets": tau[None] / 2,
        "sh_dc": shade(color),
        "cap": False,
    }
    return NeuralDrawable(**{**values, **other})


def block(z0: float, z1: float, density: Any, color: Any, step: float, **other: Any) -> BoxDrawable:
    """A cube of constant density from z0 to z1 (multiples of the step, so that its cells fill it); no window."""
    density, color = numbers(density), numbers(color)
    payload = torch.cat([color, density[None]]).expand(1, 2, 2, 2, 4)
    half = numbers([[(z1 - z0) / 2] * 3])
    values = {"step": step, "fade_scale": 0.0, **other}
    return BoxDrawable(at((z0 + z1) / 2), UPRIGHT, half, payload, **values)


def draw(
    *drawables: Drawable, camera: Camera | None = None, background: Any = None, settings: RenderSettings = RAY
) -> Frame:
    """By the oracle."""
    given = None if background is None else numbers(background)
    return render(drawables, camera or one_pixel(), background=given, settings=settings, backend="oracle")


def seen(*drawables: Drawable, **other: Any) -> Tensor:
    """Colour of the one pixel."""
    return draw(*drawables, **other).color[0, 0]


def leaf(value: Any) -> Tensor:
    """A float64 leaf that takes its gradient."""
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)
