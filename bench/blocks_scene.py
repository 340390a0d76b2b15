"""The synthetic scene of the experiment with blocks: three textured cuboids on a checker ground under a sky that fades.

Drawn by our own renderer (kind `triangle`, hard edges, `ACROSS`^2 samples per pixel) and written as an ordinary
capture: PNG pictures and a `transforms.json`, z up, nothing else: no masks, no points, no hint where the ground is. The
true surface is known here and serves the report alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.primitives.surface import Surface
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

ACROSS = 8
"""Samples per pixel and direction."""
FIELD_OF_VIEW, DISTANCE = math.radians(46.0), 2.6
ELEVATIONS = (14.0, 24.0, 36.0)
"""Degrees above the ground, in turn."""
TARGET = (0.0, 0.0, 0.18)
TEXELS = 16
"""Of a cuboid's side."""
GROUND_HALF, CHECK = 12.0, 1.6
"""Half side of the ground and side of one of its checks."""
SKY_LOW, SKY_HIGH = (0.80, 0.86, 0.93), (0.42, 0.60, 0.86)
"""At the horizon and overhead."""


@dataclass(frozen=True)
class Cuboid:
    """One solid, upright, turned about z."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    turn: float
    """Degrees."""
    colors: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Of its pattern."""
    pattern: str
    """`bands` or `checks`."""


CUBOIDS = (
    Cuboid((-0.42, 0.20, 0.30), (0.20, 0.17, 0.30), 20.0, ((0.80, 0.22, 0.18), (0.95, 0.78, 0.35)), "bands"),
    Cuboid((0.38, 0.32, 0.20), (0.22, 0.22, 0.20), -35.0, ((0.16, 0.42, 0.30), (0.55, 0.80, 0.40)), "checks"),
    Cuboid((0.08, -0.42, 0.13), (0.42, 0.14, 0.13), 8.0, ((0.20, 0.24, 0.62), (0.85, 0.62, 0.80)), "bands"),
)
CORNERS = torch.tensor([[x, y, z] for z in (-1.0, 1.0) for y in (-1.0, 1.0) for x in (-1.0, 1.0)])
SIDES = ((0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5))
"""Corners of the six sides (below, above, then around), counter-clockwise from outside."""
SHADES = (0.55, 1.0, 0.80, 0.86, 0.72, 0.92)
"""Baked light of these sides."""


def cuboid_surface(cuboid: Cuboid) -> Surface:
    """Its twelve triangles, outward, world units."""
    angle = math.radians(cuboid.turn)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
    )
    vertices = (CORNERS * torch.tensor(cuboid.half)) @ turn.T + torch.tensor(cuboid.centre)
    faces = torch.tensor([[side[0], side[k], side[k + 1]] for side in SIDES for k in (1, 2)])
    return Surface(vertices, faces)


def true_surface() -> Surface:
    """All cuboids, closed, with the sides that they stand on."""
    parts = [cuboid_surface(cuboid) for cuboid in CUBOIDS]
    faces = torch.cat([part.faces + len(CORNERS) * row for row, part in enumerate(parts)])
    return Surface(torch.cat([part.vertices for part in parts]), faces)


def drawables() -> list[TriangleDrawable]:
    """Cuboids and ground."""
    return [*(_drawn_cuboid(cuboid) for cuboid in CUBOIDS), _drawn_ground()]


def cameras(count: int, width: int) -> list[Camera]:
    """Around the scene at three heights, four pixels across to three down."""
    found = []
    for row in range(count):
        angle, height = 2 * math.pi * row / count, math.radians(ELEVATIONS[row % len(ELEVATIONS)])
        ring = math.cos(height)
        away = torch.tensor([ring * math.cos(angle), ring * math.sin(angle), math.sin(height)], dtype=torch.float64)
        target = torch.tensor(TARGET, dtype=torch.float64)
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        size = (width, 3 * width // 4)
        found.append(Camera.look_at(target + DISTANCE * away, target, up, FIELD_OF_VIEW, size).to(torch.float32))
    return found


def picture(camera: Camera) -> Float[Tensor, "h w 3"]:
    """The truth from `camera`, values 0..1."""
    fine = camera.scaled_to(ACROSS * camera.width, ACROSS * camera.height)
    settings = RenderSettings(order="ray", near=0.01)
    image = render(drawables(), fine, background=sky(fine), settings=settings).color
    return image.reshape(camera.height, ACROSS, camera.width, ACROSS, 3).mean(dim=(1, 3)).clamp(0, 1)


def sky(camera: Camera) -> Float[Tensor, "h w 3"]:
    """By the height of each pixel's ray."""
    fx, fy, cx, cy = camera.intrinsics.tolist()
    x = (torch.arange(camera.width) + 0.5 - cx) / fx
    y = (torch.arange(camera.height) + 0.5 - cy) / fy
    rays = torch.stack([x.expand(camera.height, -1), y[:, None].expand(-1, camera.width), torch.ones(())
                        .expand(camera.height, camera.width)], dim=-1)  # fmt: skip
    rise = (torch.nn.functional.normalize(rays, dim=-1) @ camera.rotation)[..., 2:].clamp(0, 1).sqrt()
    return torch.lerp(torch.tensor(SKY_LOW).expand(*rise.shape[:2], 3), torch.tensor(SKY_HIGH), rise)


def write_capture(folder: Path, width: int = 64, views: int = 12) -> None:
    """The capture, once."""
    from PIL import Image

    stamp = json.dumps({"width": width, "views": views, "version": 1})
    mark = folder / "done.json"
    if mark.is_file() and mark.read_text() == stamp:
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    taken = cameras(views, width)
    for row, camera in enumerate(taken):
        name = f"images/{row:02d}.png"
        Image.fromarray(np.round(255.0 * picture(camera).numpy()).astype(np.uint8), "RGB").save(folder / name)
        opengl = camera.world_from_camera.double() @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).double()
        frames.append({"file_path": name, "transform_matrix": opengl.tolist()})
    fx, fy, cx, cy = taken[0].intrinsics.tolist()
    content = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": 3 * width // 4, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content, indent=1) + "\n")
    mark.write_text(stamp)


def _drawn_cuboid(cuboid: Cuboid) -> TriangleDrawable:
    surface = cuboid_surface(cuboid)
    # One strip of six squares; half a texel is left at the rim of each, so that none bleeds into the next.
    low, high = 0.5 / TEXELS, 1 - 0.5 / TEXELS
    square = [(low, low), (high, low), (high, high), (low, high)]
    uvs = [
        [((side + u) / len(SIDES), v) for u, v in (square[0], square[k], square[k + 1])]
        for side in range(len(SIDES))
        for k in (1, 2)
    ]
    texture = torch.cat([_side(cuboid, side) for side in range(len(SIDES))], dim=1)
    return TriangleDrawable(surface.corners, torch.ones(len(surface.faces)), texture=texture, uvs=torch.tensor(uvs))


def _side(cuboid: Cuboid, side: int) -> Float[Tensor, "t t 3"]:
    """Bands or checks, shaded, a little lighter towards one corner: no two sides look alike."""
    row, column = torch.meshgrid(torch.arange(TEXELS), torch.arange(TEXELS), indexing="ij")
    step = TEXELS // 4
    number = row // step + (column // step if cuboid.pattern == "checks" else 0) + (side if side % 2 else 0)
    first, second = torch.tensor(cuboid.colors[0]), torch.tensor(cuboid.colors[1])
    color = torch.where((number % 2 == 0)[..., None], first, second)
    slope = 1.0 + 0.15 * ((row + column).float() / (TEXELS - 1) - 1.0)
    return (color * SHADES[side] * slope[..., None]).clamp(0, 1)


def _drawn_ground() -> TriangleDrawable:
    half = GROUND_HALF
    corners = torch.tensor([[-half, -half, 0.0], [half, -half, 0.0], [half, half, 0.0], [-half, half, 0.0]])
    count = round(2 * half / CHECK)
    row, column = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    light = ((row + column) % 2 == 0)[..., None]
    texture = torch.where(light, torch.tensor([0.62, 0.58, 0.52]), torch.tensor([0.40, 0.38, 0.36]))
    texture = texture.repeat_interleave(8, dim=0).repeat_interleave(8, dim=1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])[faces]
    return TriangleDrawable(corners[faces], torch.ones(2), texture=texture, uvs=uvs)
