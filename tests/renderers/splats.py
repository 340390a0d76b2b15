"""What the tests of the kinds with a mean share: EWA's scenes turned into others, the engine's builds, differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from backends import Backend, found_backends
from compare import Agreement, Reference, compare
from scenes import SCENES, Scene, gaussians, simple_camera
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import Drawable, GaussianDrawable, RayGaussianDrawable, SurfelDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

ENGINES = [backend for backend in found_backends() if backend.backend == "cpu"]
SMALL: dict[str, Callable[[], Scene]] = {
    "harmonics_and_features": lambda: Scene((gaussians(60, 3, degree=3, feature_count=5),), simple_camera(33, 20)),
    "covering": lambda: Scene((gaussians(9, 6, scale=2.5),), simple_camera(30, 21)),
}
"""Scenes beside those of `scenes.SCENES`; the oracle of these kinds tries all pairs, so these are small."""
ORDERS = {
    **{"small": "ray", "harmonics_and_features": "ray", "degree_below_the_stored": "centre", "covering": "ray"},
    **{
        "tiny": "ray",
        "around_the_camera": "ray",
        "opaque_and_clear": "centre",
        "two_layers": "ray",
        "off_centre": "centre",
    },
    **{"needles": "ray", "no_primitives": "ray", "all_culled": "centre"},
}
"""Scenes of both by the order in which they are drawn."""
WHITE = 0.5 / 0.28209479177387814
"""Degree 0 coefficient that shows as 1."""


Response = Literal["maximum", "integral"]


def ray_gaussians(drawable: GaussianDrawable, response: Response = "maximum") -> RayGaussianDrawable:
    """The same Gaussians evaluated on the ray."""
    return RayGaussianDrawable(*_shared(drawable, 3), response=response)


def surfels(drawable: GaussianDrawable) -> SurfelDrawable:
    """Disks in the first two axes of the Gaussians."""
    return SurfelDrawable(*_shared(drawable, 2))


def _shared(drawable: GaussianDrawable, scales: int) -> tuple[Any, ...]:
    d = drawable
    kept = d.scales[:, :scales].contiguous()
    return (d.means, d.quaternions, kept, d.opacities, d.sh_dc, d.sh_rest, d.sh_degree, d.features)


def converted(name: str, kind: Callable[[GaussianDrawable], Drawable], order: str) -> Scene:
    """A scene drawn by another kind."""
    scene = {**SCENES, **SMALL}[name]()
    drawables: Any = tuple(kind(drawable) for drawable in scene.drawables)
    settings = replace(scene.settings, order=order, normals=True, absolute_gradient=False)
    return replace(scene, drawables=drawables, settings=settings)


def disagreements(backend: Backend, reference: Reference) -> tuple[Agreement, list[str]]:
    """As `compare`, without what the oracle does not define for these kinds (radii to a fraction of a pixel, the
    screen's gradient: both are tested by themselves); and the normals."""
    agreement = compare(backend, reference)
    faults = [f for f in agreement.faults if not f.startswith(("gradient visibility.radii", "gradient screen"))]
    _, ready = reference.scene.leaves(backend.dtype)
    normal, expected = backend.render(ready).normal, reference.frame.normal
    assert normal is not None
    assert expected is not None
    wrong = (normal.detach().double() - expected.detach()).abs().amax(-1) > agreement.limits["image"]
    if int(wrong.sum()) > max(1, agreement.set_aside):
        faults.append(f"normals differ in {int(wrong.sum())} pixels")
    return agreement, faults


def straight_camera(width: int = 9, height: int = 7, focal: float = 10.0) -> Camera:
    """At the origin along z, square pixels, the axis in the middle of the picture."""
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return Camera(eye, zero, torch.tensor([focal, focal, width / 2, height / 2]).double(), width, height)


def directions(camera: Camera) -> Tensor:
    """(u, v, 1) of every pixel centre [h, w, 3]."""
    fx, fy, cx, cy = camera.intrinsics.tolist()
    v, u = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    u, v = (u.double() - cx) / fx, (v.double() - cy) / fy
    return torch.stack([u, v, torch.ones_like(u)], dim=-1)


def one(mean: list[float], scales: list[float], opacity: float, kind: str, **other: Any) -> Any:
    """A single white primitive."""
    values: list[Any] = [mean, [1.0, 0.0, 0.0, 0.0], scales, opacity, [WHITE] * 3]
    tensors: dict[str, Any] = {
        name: torch.tensor([value], dtype=torch.float64)
        for name, value in zip(("means", "quaternions", "scales", "opacities", "sh_dc"), values, strict=True)
    }
    return (SurfelDrawable if kind == "surfel" else RayGaussianDrawable)(**{**tensors, **other})


def drawn(drawable: Any, camera: Camera, dtype: torch.dtype = torch.float64, **settings: Any) -> Frame:
    """By the engine, in ray order with depth."""
    moved = {name: value.to(dtype) for name, value in vars(drawable).items() if isinstance(value, Tensor)}
    asked: Any = {"order": "ray", "depth": True, **settings}
    ready = RenderSettings(**asked)
    return render([replace(drawable, **moved)], camera.to(dtype=dtype), settings=ready, backend="cpu")


def central_differences(scene: Scene, step: float = 2e-6) -> dict[str, float]:
    """Largest error of every leaf's gradient against central differences of the double build, relative to the largest
    entry of that leaf's gradient. The scene is in the smooth test mode."""
    leaves, ready = scene.leaves(torch.float64)
    weights: dict[str, Tensor] = {}

    def loss(current: Scene) -> Tensor:
        frame = render(
            current.drawables,
            current.camera,
            background=current.background,
            settings=current.settings,
            backend="cpu",
        )
        total = torch.zeros((), dtype=torch.float64)
        for number, name in enumerate(("color", "alpha", "features", "normal", "depth")):
            plane = getattr(frame, name)
            if plane is None:
                continue
            if name == "depth":  # not normalised: faint pixels would lead
                plane = plane * frame.alpha
            if name not in weights:
                generator = torch.Generator().manual_seed(number)
                weights[name] = torch.randn(plane.shape, generator=generator, dtype=torch.float64)
            total = total + (plane * weights[name]).sum()
        return total

    loss(ready).backward()
    errors = {}
    for name, leaf in leaves.items():
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        numeric, flat = torch.zeros(leaf.numel(), dtype=torch.float64), leaf.detach().view(-1)
        for k in range(leaf.numel()):
            kept, ends = float(flat[k]), []
            for sign in (1, -1):
                flat[k] = kept + sign * step
                with torch.no_grad():
                    ends.append(float(loss(ready)))
            flat[k] = kept
            numeric[k] = (ends[0] - ends[1]) / (2 * step)
        largest = float(gradient.abs().max()) if gradient.numel() else 0.0
        errors[name] = float((numeric - gradient.view(-1)).abs().max()) / (largest or 1.0) if leaf.numel() else 0.0
    return errors
