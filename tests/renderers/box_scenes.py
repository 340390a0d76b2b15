"""Scenes of boxes, and what is compared of them, for the tests of kind `box`.

Values are exact in float32, so that all builds and the oracle judge the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import BoxDrawable, Drawable, GaussianDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

RAY = RenderSettings(order="ray", depth=True, statistics=True)
BOXES = ("centres", "quaternions", "half_extents", "payload", "warp")


def exact(values: Tensor) -> Tensor:
    """Rounded to float32."""
    return values.float().double()


@dataclass(frozen=True)
class Scene:
    """What a scene of random boxes is made with."""

    count: int = 5
    voxels: tuple[int, int, int] = (3, 5, 4)
    density: float = 4.0
    empty: float = 0.1
    """Share of the densities that lies below zero."""
    warped: bool = False
    gaussians: int = 0
    distance: float = 2.5
    spread: tuple[float, float, float] = (0.8, 0.6, 0.5)
    scale: float = 1.0
    turned: bool = True
    order: Literal["centre", "ray"] = "ray"
    near: float = 0.01
    numbers: dict[str, Any] = field(default_factory=dict)
    """Of the drawable: step, fade_scale, fade_exponent, accumulation."""


SCENES = {
    "plain": Scene(),
    "warped": Scene(warped=True),
    "overlapping": Scene(count=12, density=1.0, spread=(0.2, 0.2, 0.2)),
    "opaque": Scene(count=7, density=80.0),
    "no window": Scene(numbers={"fade_scale": 0.0}),
    "another window": Scene(warped=True, numbers={"fade_scale": 6.5, "fade_exponent": 7.5}),
    "pointed window": Scene(numbers={"fade_scale": 2.0, "fade_exponent": 1.0}),
    "empty voxels": Scene(count=7, empty=0.6),
    "one voxel across": Scene(voxels=(1, 4, 3)),
    "one voxel along x": Scene(voxels=(3, 2, 1)),
    "camera inside": Scene(distance=0.1, density=2.0),
    "cut at the near plane": Scene(distance=1.0, near=0.9),
    "along the axes": Scene(turned=False),
    "far away": Scene(distance=2000.0, scale=300.0, density=0.01, numbers={"step": 8.0}),
    "with Gaussians": Scene(gaussians=12),
    "by centre": Scene(order="centre", gaussians=5),
    "additive": Scene(numbers={"accumulation": "additive"}),
    "additive, saturated": Scene(count=7, density=60.0, numbers={"accumulation": "additive"}),
    "additive, at once": Scene(density=2000.0, empty=0.0, numbers={"accumulation": "additive", "fade_scale": 0.0}),
    "additive, overlapping": Scene(count=9, spread=(0.2, 0.2, 0.2), numbers={"accumulation": "additive"}),
}


@dataclass(frozen=True, eq=False)
class Ready:
    """A scene's leaves, and what `render` takes."""

    leaves: dict[str, Tensor]
    drawables: list[Drawable]
    camera: Camera
    background: Tensor
    settings: RenderSettings

    def draw(self, backend: str) -> Frame:
        return render(self.drawables, self.camera, background=self.background, settings=self.settings, backend=backend)


def tensors_of(scene: Scene) -> dict[str, Tensor]:
    """The scene's numbers by name, those of the camera and the background too."""
    generator = torch.Generator().manual_seed(4)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    n, scale = scene.count, scene.scale
    payload = uniform(n, *scene.voxels, 4)
    payload[..., 3] = (payload[..., 3] - scene.empty) / (1 - scene.empty) * scene.density
    rotation = torch.eye(3, dtype=torch.float64)
    quaternions = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).repeat(n, 1)
    intrinsics = torch.tensor([40.0, 42.0, 18.5, 13.5], dtype=torch.float64)
    if scene.turned:
        u, _, v = torch.linalg.svd(rotation + 0.3 * (uniform(3, 3) - 0.5))
        rotation, quaternions = u @ v, 2 * uniform(n, 4) - 1
        intrinsics = intrinsics + torch.tensor([0.0, 0.0, 0.3, 0.2])
    spread = torch.tensor(scene.spread, dtype=torch.float64)
    found = {
        "centres": scale * spread * (2 * uniform(n, 3) - 1),
        "quaternions": quaternions,
        "half_extents": scale * (0.15 + 0.3 * uniform(n, 3)),
        "payload": payload,
        "rotation": rotation,
        "translation": torch.tensor([0.02, -0.03, scene.distance], dtype=torch.float64),
        "intrinsics": intrinsics * torch.tensor([scene.distance / 2.5 / scale if scale > 1 else 1.0] * 2 + [1.0, 1.0]),
        "background": uniform(3),
    }
    if scene.warped:
        z, y, x = torch.meshgrid(
            *[torch.linspace(-1, 1, size, dtype=torch.float64) for size in (3, 2, 4)], indexing="ij"
        )
        grid = torch.stack([x, y, z], dim=-1)
        found["warp"] = grid + 0.4 * (uniform(n, *grid.shape) - 0.5)
    k = scene.gaussians
    if k:
        found |= {"means": scale * spread * (2 * uniform(k, 3) - 1), "sh_dc": uniform(k, 3), "opacities": uniform(k)}
        found |= {"scales": 0.05 + 0.2 * uniform(k, 3), "rotations": uniform(k, 4) - 0.5}
    return {name: exact(value) for name, value in found.items()}


def ready(scene: Scene, dtype: torch.dtype, *, leaves: bool = True, **changed: Tensor) -> Ready:
    """The scene in `dtype`; `changed` replaces tensors by name."""
    t = {name: v.to(dtype).requires_grad_(leaves) for name, v in (tensors_of(scene) | changed).items()}
    numbers = {"step": 0.03125, **scene.numbers}
    drawables: list[Drawable] = [BoxDrawable(*[t[name] for name in BOXES[:4]], warp=t.get("warp"), **numbers)]
    if scene.gaussians:
        drawables.append(GaussianDrawable(t["means"], t["rotations"], t["scales"], t["opacities"], t["sh_dc"]))
    camera = Camera(t["rotation"], t["translation"], t["intrinsics"], 37, 27)
    return Ready(t, drawables, camera, t["background"], replace(RAY, order=scene.order, near=scene.near))


def planes(frame: Frame) -> dict[str, Tensor]:
    """What is compared: the depth where there is enough to have one."""
    assert frame.depth is not None
    return {"color": frame.color, "alpha": frame.alpha, "depth": frame.depth * (frame.alpha.detach() > 0.01)}


def loss_of(frame: Frame) -> Tensor:
    """Of all planes, with weights that are the same everywhere."""
    generator = torch.Generator().manual_seed(7)
    total = frame.alpha.new_zeros(())
    for plane in planes(frame).values():
        total = total + (plane * torch.randn(plane.shape, generator=generator, dtype=torch.float64).to(plane)).sum()
    return total


def gradients(scene: Ready, frame: Frame) -> dict[str, Tensor]:
    """Of `loss_of`, by the leaves' names."""
    names = list(scene.leaves)
    return dict(zip(names, torch.autograd.grad(loss_of(frame), [scene.leaves[name] for name in names]), strict=True))


def error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value."""
    return float(
        (got.detach().double() - expected.detach()).abs().max() / expected.detach().abs().max().clamp(min=1e-12)
    )


@cache
def judged(name: str) -> tuple[Frame, dict[str, Tensor]]:
    """The oracle's frame and gradients of a scene."""
    judge = ready(SCENES[name], torch.float64)
    frame = judge.draw("oracle")
    return frame, gradients(judge, frame)
