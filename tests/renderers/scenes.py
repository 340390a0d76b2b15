"""Scenes that every backend draws: float64 tensors of values exact in float32, so that all judge the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.settings import RenderSettings

CAMERA_TENSORS = ("rotation", "translation", "intrinsics")
EVERYTHING = RenderSettings(depth=True, statistics=True, absolute_gradient=True)


@dataclass(frozen=True, eq=False)
class Scene:
    """What `render` takes."""

    drawables: tuple[GaussianDrawable, ...]
    camera: Camera
    background: Tensor | None = None
    settings: RenderSettings = EVERYTHING
    single_precision_slack: float = 1.0
    """Factor on the image tolerance of float32 backends; a scene that sets it says why."""

    def leaves(self, dtype: torch.dtype) -> tuple[dict[str, Tensor], Scene]:
        """The same scene in `dtype` with every tensor a leaf that requires its gradient, and these leaves by name."""
        leaves: dict[str, Tensor] = {}

        def leaf(name: str, value: Tensor) -> Tensor:
            leaves[name] = value.detach().clone().to(dtype).requires_grad_()
            return leaves[name]

        drawables = []
        for number, drawable in enumerate(self.drawables):
            values = {field.name: getattr(drawable, field.name) for field in fields(drawable)}
            new = {name: leaf(f"{number}.{name}", value) for name, value in values.items() if isinstance(value, Tensor)}
            drawables.append(replace(drawable, **new))
        camera = replace(self.camera, **{name: leaf(name, getattr(self.camera, name)) for name in CAMERA_TENSORS})
        background = None if self.background is None else leaf("background", self.background)
        return leaves, replace(self, drawables=tuple(drawables), camera=camera, background=background)


def single(value: Tensor) -> Tensor:
    """Rounded to float32, held in float64."""
    return value.float().double()


def simple_camera(width: int = 64, height: int = 48, distance: float = 4.0, fov: float = 0.9) -> Camera:
    """Looks at the origin, a little from the side and from above."""
    position = torch.tensor([0.3, -0.4, -1.0], dtype=torch.float64)
    position = position / position.norm() * distance
    camera = Camera.look_at(
        position, torch.zeros_like(position), position.new_tensor([0, -1.0, 0.1]), fov, (width, height)
    )
    return replace(camera, **{name: single(getattr(camera, name)) for name in CAMERA_TENSORS})


def gaussians(
    count: int, seed: int = 0, degree: int = 0, feature_count: int = 0, scale: float = 0.15, **other: object
) -> GaussianDrawable:
    """`count` Gaussians around the origin, standard deviation about `scale`; `other` replaces fields or options."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values: dict[str, object] = {
        "means": single(normal(count, 3)),
        "quaternions": single(normal(count, 4)),
        "scales": single(scale * torch.exp(0.5 * normal(count, 3))),
        "opacities": single(torch.sigmoid(1.5 * normal(count))),
        "sh_dc": single(0.8 * normal(count, 3)),
        "sh_rest": single(0.2 * normal(count, (degree + 1) ** 2 - 1, 3)) if degree else None,
        "sh_degree": degree,
        "features": single(normal(count, feature_count)) if feature_count else None,
    }
    return GaussianDrawable(**{**values, **other})  # type: ignore[arg-type]


def small() -> Scene:
    return Scene((gaussians(40),), simple_camera(40, 24))


def not_a_multiple_of_the_tile() -> Scene:
    background = torch.tensor([0.25, 0.5, 0.125], dtype=torch.float64)
    return Scene((gaussians(150, 1, degree=1),), simple_camera(61, 83), background)


def degree_two_features() -> Scene:
    return Scene((gaussians(200, 2, degree=2, feature_count=1),), simple_camera(64, 48))


def degree_three_many_features() -> Scene:
    generator = torch.Generator().manual_seed(9)
    background = single(torch.rand(70, 90, 3, generator=generator, dtype=torch.float64))
    return Scene((gaussians(300, 3, degree=3, feature_count=5),), simple_camera(90, 70), background)


def degree_below_the_stored() -> Scene:
    return Scene((replace(gaussians(60, 4, degree=3), sh_degree=1),), simple_camera(48, 48))


def needles() -> Scene:
    """Up to 60 pixels long and a filter wide.

    d^T K d then cancels from terms near |d|^2 / f = 10^4, which costs float32 up to 1e-3 of alpha; hence the slack.
    """
    drawable = gaussians(120, 5)
    scales = single(drawable.scales * torch.tensor([4.0, 0.02, 0.02], dtype=torch.float64))
    return Scene((replace(drawable, scales=scales),), simple_camera(64, 64), single_precision_slack=20.0)


def large() -> Scene:
    return Scene((gaussians(30, 6, scale=2.5),), simple_camera(50, 40))


def tiny() -> Scene:
    return Scene((gaussians(300, 7, scale=1e-4),), simple_camera(64, 48))


def around_the_camera() -> Scene:
    """Most lie off the screen or behind; some pass close by, where the affine map is clamped."""
    drawable = gaussians(400, 8, scale=0.3)
    return Scene((replace(drawable, means=single(4 * drawable.means)),), simple_camera(64, 48))


def dense() -> Scene:
    """Opaque and crowded: most rays end early."""
    drawable = gaussians(900, 9, scale=0.3)
    return Scene((replace(drawable, opacities=single(0.5 + 0.5 * drawable.opacities)),), simple_camera(48, 48))


def opaque_and_clear() -> Scene:
    """Opacities of exactly 0 and 1."""
    drawable = gaussians(60, 10)
    return Scene((replace(drawable, opacities=(drawable.opacities > 0.3).double()),), simple_camera(48, 40))


def compensated() -> Scene:
    drawable = gaussians(250, 11, scale=0.03, compensated=True, filter_variance=0.25)
    return Scene((drawable,), simple_camera(64, 48))


def two_layers() -> Scene:
    """Layers with other filters and degrees, interleaved in depth."""
    first = gaussians(100, 12, degree=1, feature_count=3, compensated=True, filter_variance=0.125, scale=0.05)
    second = gaussians(80, 13, degree=3, feature_count=3)
    background = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    return Scene((first, second), simple_camera(64, 48), background)


def off_centre() -> Scene:
    """Principal point near a corner, focal lengths that differ."""
    camera = simple_camera(72, 40)
    intrinsics = torch.tensor([70.0, 55.0, 12.25, 31.75], dtype=torch.float64)
    return Scene((gaussians(150, 14, degree=1),), replace(camera, intrinsics=intrinsics))


def one_primitive() -> Scene:
    means = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)
    return Scene((gaussians(1, 15, means=single(means)),), simple_camera(33, 17))


def no_primitives() -> Scene:
    background = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return Scene((gaussians(0, 16, degree=1, feature_count=2),), simple_camera(20, 18), background)


def all_culled() -> Scene:
    drawable = gaussians(20, 17)
    behind = drawable.means + 20 * simple_camera().centre
    return Scene((replace(drawable, means=single(behind)),), simple_camera(20, 18))


def smooth() -> Scene:
    """A backdrop covers the picture: where nothing but faded events were, the depth would be a quotient of zeros."""
    settings = replace(EVERYTHING, smooth_cutoff=True, transmittance_min=0.0)
    drawable = gaussians(120, 18, degree=1, feature_count=2)
    camera = simple_camera(48, 48)
    means, scales, opacities = drawable.means.clone(), drawable.scales.clone(), drawable.opacities.clone()
    means[0], scales[0], opacities[0] = single(-camera.centre), 4.0, 0.75
    drawable = replace(drawable, means=means, scales=scales, opacities=opacities)
    return Scene((drawable,), camera, None, settings)


SCENES: dict[str, Callable[[], Scene]] = {
    function.__name__: function
    for function in (
        *(small, not_a_multiple_of_the_tile, degree_two_features, degree_three_many_features, degree_below_the_stored),
        *(needles, large, tiny, around_the_camera, dense, opaque_and_clear, compensated, two_layers, off_centre),
        *(one_primitive, no_primitives, all_culled, smooth),
    )
}
