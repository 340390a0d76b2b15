"""A small scene of every family, and how its bytes and its picture are compared."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.boxes import Boxes
from smalti.primitives.family import Family, find_family
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import icosphere
from smalti.renderers.settings import RenderSettings
from smalti.scene import Scene

SPLATS = ("gaussians", "ray_gaussians", "surfels", "neural_splats")
LAYERS = (*SPLATS, "local", "boxes", "meshes", "textured", "superquadrics")


def points(seed: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 1.2 * torch.rand(count, 3, generator=generator) - 0.6, torch.rand(count, 3, generator=generator)


def shaken(family: Family, sizes: dict[str, float]) -> Family:
    generator = torch.Generator().manual_seed(5)
    for name, size in sizes.items():
        if name in family.parameters:
            value = family.parameters[name].detach()
            family.replace({name: value + size * torch.randn(value.shape, generator=generator)})
    return family


def a_family(name: str, seed: int = 0) -> Family:
    """By a layer's name; seven splats, four boxes, twenty faces, three blocks."""
    if name in SPLATS or name == "local":
        kind = find_family("neural_splats" if name == "local" else name)
        options: dict[str, object] = {"sh_degree": 2, "active_sh_degree": 2}
        options |= {"initial_opacity": 0.8} if name in SPLATS[:3] else {"initial_offset": 1.0}
        options |= {"frame": "local"} if name == "local" else {}
        made = kind.from_points(*points(seed, 7), options)
        return shaken(made, {"log_scales": 0.3, "quaternions": 0.5, "sh_rest": 0.2, "amplitudes": 0.1})
    if name == "boxes":
        options = {"voxels": 3, "initial_opacity": 0.5, "step": 0.05, "warp_voxels": 2}
        made = Boxes.from_points(*points(seed, 4), options)
        return shaken(made, {"quaternions": 0.4, "colors": 0.2, "raw_densities": 0.5, "warps": 0.1})
    if name in ("meshes", "textured"):
        ball = icosphere(0)
        vertices = 0.6 * ball.vertices.float() * torch.tensor([1.0, 0.8, 1.2]) + 0.1 * seed
        options = {"texture_size": 24} if name == "textured" else {}
        colors = torch.rand(len(vertices), 3, generator=torch.Generator().manual_seed(3))
        return Meshes.from_mesh(vertices, ball.faces, colors, {**options, "initial_opacity": 0.7})
    bounds = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    generator = torch.Generator().manual_seed(4 + seed)
    made = Superquadrics.at_random(bounds, 3, generator, {"texture_size": 8, "sigma": 1e-3, "initial_opacity": 0.7})
    return shaken(made, {"raw_textures": 1.0, "raw_exponents": 0.5})


def a_scene(*names: str, double: bool = False) -> Scene:
    scene = Scene(order="ray")
    for name in names or LAYERS:
        family = a_family(name)
        if double:
            family.replace({key: value.detach().double() for key, value in family.parameters.items()})
        scene.add(name, family)
    return scene


def a_camera() -> Camera:
    position = torch.tensor([0.4, -0.5, -2.6], dtype=torch.float64)
    return Camera.look_at(position, torch.zeros_like(position), position.new_tensor([0, -1, 0]), 0.9, (24, 18))


def picture(scene: Scene, camera: Camera, near: float = 0.01) -> Tensor:
    """RGBA by the oracle."""
    settings = RenderSettings(order="ray", near=near, transmittance_min=0.0)
    with torch.no_grad():
        frame = scene.render(camera, settings=settings, backend="oracle")
    return torch.cat([frame.color, frame.alpha[..., None]], dim=-1)


def in_bytes(scene: Scene) -> tuple[list[tuple[str, bytes, str]], str]:
    """Everything that is saved, in order."""
    tensors, plain = scene.state()
    held = [
        (key, value.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes(), f"{value.dtype} {value.shape}")
        for key, value in tensors.items()
    ]
    return held, json.dumps(plain)
