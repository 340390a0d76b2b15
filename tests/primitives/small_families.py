"""Small families with every option that changes what is drawn, in float64, and a camera that sees them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.primitives.backdrops import Backdrops
from smalti.primitives.boxes import Boxes
from smalti.primitives.family import Family
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.primitives.neural_splats import NeuralSplats
from smalti.primitives.ray_gaussians import RayGaussians
from smalti.primitives.splats import SplatFamily
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import icosphere
from smalti.primitives.surfels import Surfels
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings


def a_camera(width: int = 24, height: int = 18) -> Camera:
    position = torch.tensor([0.4, -0.5, -2.6], dtype=torch.float64)
    return Camera.look_at(position, torch.zeros_like(position), position.new_tensor([0, -1, 0]), 0.9, (width, height))


def a_similarity() -> Similarity:
    turn = matrix_from_quaternion(torch.tensor([0.9, 0.2, -0.3, 0.5], dtype=torch.float64))
    return Similarity(2.5, turn, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))


def doubled(family: Family) -> Family:
    family.replace({key: value.detach().double() for key, value in family.parameters.items()})
    return family


def picture(family: Family, camera: Camera | None = None, near: float = 0.01) -> Tensor:
    """RGBA by the oracle, exact order."""
    camera = camera or a_camera()
    settings = RenderSettings(order="ray", near=near, transmittance_min=0.0)
    frame = render(family.drawables(camera), camera, settings=settings, backend="oracle")
    return torch.cat([frame.color, frame.alpha[..., None]], dim=-1)


def points(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=generator) - 0.5, torch.rand(count, 3, generator=generator)


def _splats(kind: type[SplatFamily], **options: object) -> Family:
    family = kind.from_points(*points(), {"sh_degree": 2, "active_sh_degree": 2, **options})
    generator = torch.Generator().manual_seed(1)
    values = {key: value.detach() for key, value in family.parameters.items()}

    def noise(name: str, size: float) -> Tensor:
        return values[name] + size * torch.randn(values[name].shape, generator=generator)

    changed = {
        name: noise(name, size) for name, size in {"log_scales": 0.3, "quaternions": 0.5, "sh_rest": 0.2}.items()
    }
    if "logit_opacities" in values:
        changed["logit_opacities"] = noise("logit_opacities", 0.5) + 2.5
    else:
        changed |= {"amplitudes": noise("amplitudes", 0.1), "offsets": values["offsets"] + 0.5}
    family.replace(changed)
    return doubled(family)


def boxes(**options: object) -> Boxes:
    family = Boxes.from_points(*points(4), {"voxels": 3, "initial_opacity": 0.5, "step": 0.05, **options})
    generator = torch.Generator().manual_seed(2)
    for name, size in {"quaternions": 0.4, "colors": 0.2, "raw_densities": 0.5, "warps": 0.1}.items():
        if name in family.parameters:
            value = family.parameters[name].data
            value += size * torch.randn(value.shape, generator=generator)
    return doubled(family)  # type: ignore[return-value]


def mesh(**options: object) -> Meshes:
    ball = icosphere(0)
    vertices = 0.6 * ball.vertices.float() * torch.tensor([1.0, 0.8, 1.2])
    generator = torch.Generator().manual_seed(3)
    colors = torch.rand(len(vertices), 3, generator=generator)
    return doubled(Meshes.from_mesh(vertices, ball.faces, colors, options))  # type: ignore[return-value]


def blocks(count: int = 2, **options: object) -> Superquadrics:
    bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    generator = torch.Generator().manual_seed(4)
    family = Superquadrics.at_random(bounds, count, generator, {"texture_size": 8, "sigma": 1e-3, **options})
    family.parameters["raw_textures"].data += torch.randn(count, 8, 8, 3, generator=generator)
    family.parameters["raw_exponents"].data += torch.randn(count, 2, generator=generator)
    return doubled(family)  # type: ignore[return-value]


def backdrops(**options: object) -> Backdrops:
    bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    family = Backdrops.at_random(bounds, 1, torch.Generator(), {"texture_size": 8, **options})
    generator = torch.Generator().manual_seed(6)
    family.replace({key: torch.cat([value.detach()] * 3) for key, value in family.parameters.items()})
    for name, size in {"translations": 0.3, "rotations": 0.3, "raw_textures": 1.0}.items():
        value = family.parameters[name].data
        value += size * torch.randn(value.shape, generator=generator)
    return doubled(family)  # type: ignore[return-value]


EVERY: dict[str, Callable[[], Family]] = {
    "gaussians": lambda: _splats(Gaussians),
    "ray_gaussians": lambda: _splats(RayGaussians),
    "ray_gaussians-integral": lambda: _splats(RayGaussians, response="integral"),
    "surfels": lambda: _splats(Surfels),
    "neural_splats": lambda: _splats(NeuralSplats),
    "neural_splats-local": lambda: _splats(NeuralSplats, frame="local", width=16, cap=False),
    "backdrops": lambda: backdrops(reach=0.8, initial_height=0.2, edges="soft", sigma=1e-3),
    "backdrops-dome": lambda: backdrops(form="dome", reach=4.0),
    "boxes": boxes,
    "boxes-warped": lambda: boxes(warp_voxels=2, fade_scale=2.0),
    "boxes-additive": lambda: boxes(accumulation="additive", density_activation="relu", initial_opacity=0.2),
    "meshes": mesh,
    "meshes-textured": lambda: mesh(texture_size=24, initial_opacity=0.7, edges="soft", sigma=1e-3),
    "meshes-texels": lambda: mesh(texture_size=24, texel_opacity=True, initial_opacity=0.6, smooth_normals=True),
    "superquadrics": blocks,
    "superquadrics-antialiased": lambda: blocks(edges="antialiased", level=0),
}
"""By name: `family` or `family-variant`."""
