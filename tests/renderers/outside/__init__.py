"""Kinds from outside that only tests know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.engine.outside import find_compiler
from smalti.renderers.frame import Frame
from smalti.renderers.outside import OutsideDrawable, OutsideKind
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

SETTINGS = RenderSettings(order="ray", depth=True)

BETA_HEADER = Path(__file__).resolve().parents[3] / "examples" / "outside_family" / "smalti_beta" / "beta_kernel.h"
BETA_NAMES = {"centre": 3, "quaternion": 4, "semi_axes": 3, "opacity": 1, "shape": 1}


def beta_rows(count: int, generator: torch.Generator) -> Tensor:
    """Parameters of Beta kernels that overlap one another in [-1, 1]^3."""
    draw = lambda width: torch.rand(count, width, generator=generator, dtype=torch.float64)  # noqa: E731
    return torch.cat(
        [1.4 * draw(3) - 0.7, draw(4) - 0.5, 0.2 + 0.4 * draw(3), 0.1 + 0.85 * draw(1), 2.5 + 4 * draw(1)], 1
    )


def fog_rows(count: int, generator: torch.Generator) -> Tensor:
    """Parameters of balls of fog."""
    draw = lambda width: torch.rand(count, width, generator=generator, dtype=torch.float64)  # noqa: E731
    return torch.cat([1.2 * draw(3) - 0.6, 0.3 + 0.4 * draw(1), 1 + 2 * draw(1), 2 * draw(3) - 0.5], 1)


def fog_event(p: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What fog.h says."""
    radius, density, x, y, z = p[:, 3:].unbind(1)
    a = direction.square().sum(1)
    b = (origin * direction).sum(1) / a
    square = radius**2 - origin.square().sum(1) + a * b**2
    half = (square.clamp_min(1e-12) / a).sqrt()
    value = density * torch.exp(0.3 * torch.sin(7 * x)) + torch.log(2 + y.abs()) * torch.cos(z).square() ** density
    value = value + torch.where((x < y) | ~(z > 0.2), torch.minimum(x, 3 - y) / 4, 0.5 * z)
    tau = (value - 0.1) * 0.5 / (1 + z) * (square / radius**2) ** 3
    return -b - half, half - b, tau, (square > 0) & (tau > 0)


FOG = OutsideKind(
    "fog",
    Path(__file__).with_name("fog.h"),
    "trial::Fog",
    {"centre": 3, "radius": 1, "density": 1, "x": 1, "y": 1, "z": 1},
    thick=True,
    reference=fog_event,
)


def beta_kind(header: Path = BETA_HEADER) -> OutsideKind:
    """The example's kernel, or a changed copy of its header."""
    return OutsideKind("beta", header, "BetaKernel", BETA_NAMES)


def changed_beta(folder: Path, *changes: tuple[str, str]) -> OutsideKind:
    """A kind whose header is the example's with texts replaced (each must be there)."""
    text = BETA_HEADER.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "changed.h"
    path.write_text(text)
    return beta_kind(path)


def a_camera(dtype: torch.dtype = torch.float64) -> Camera:
    eye, target, up = torch.tensor([[0.3, -0.4, -3.0], [0, 0, 0], [0, -1, 0]], dtype=dtype).unbind(0)
    return Camera.look_at(eye, target, up, 0.9, (60, 44))


def some(kind: OutsideKind, count: int = 8, dtype: torch.dtype = torch.float64) -> OutsideDrawable:
    generator = torch.Generator().manual_seed(3)
    rows = (fog_rows if kind is FOG else beta_rows)(count, generator)
    return OutsideDrawable(
        kind, rows.to(dtype), torch.rand(count, 3, generator=generator, dtype=torch.float64).to(dtype)
    )


def draw(drawable: OutsideDrawable, **options: bool) -> Frame:
    return render([drawable], a_camera(drawable.dtype), settings=replace(SETTINGS, **options))


def compiler_script(folder: Path, command: str) -> Path:
    """To be named in CXX: a shell script that asks the real compiler for its version and else runs `command`."""
    script = folder / "compiler"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {find_compiler()[0]} --version\n{command}\n')
    script.chmod(0o755)
    return script
