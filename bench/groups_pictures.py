"""The picture of docs/groups.md: three scenes as they are, and after one edit of a group each."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.scene import Scene
from smalti.scene.groups.boxes import Array, Boxes, joined
from smalti.scene.groups.demo import box, demo_table, layer_of
from smalti.scene.groups.levels import rotation
from smalti.scene.groups.members import read_all
from smalti.trainers.pictures import write_png

LIGHT = np.array([0.45, 0.8, 0.4]) / np.linalg.norm([0.45, 0.8, 0.4])
WOOD, DARK, GREEN = (0.75, 0.55, 0.35), (0.5, 0.32, 0.2), (0.35, 0.55, 0.3)


def fence() -> Scene:
    """Five posts and a rail."""
    posts = [box([-1.6 + 0.5 * k, 0.45, 0.0], [0.12, 0.9, 0.1]) for k in range(5)]
    rail = box([-0.6, 0.55, 0.1], [2.4, 0.08, 0.06])
    scene = Scene(order="ray")
    layer_of(scene, "fence", joined([*posts, rail]), torch.tensor([WOOD] * 5 + [DARK]))
    return scene


def chairs() -> Scene:
    """Five chairs around a round table."""
    turns = [rotation(np.array([0.0, 2 * math.pi * k / 5, 0.0])) for k in range(5)]
    seat, back = box([0.95, 0.4, 0.0], [0.4, 0.07, 0.4]), box([1.15, 0.7, 0.0], [0.07, 0.55, 0.4])
    parts = [part.mapped(turn, np.zeros(3)) for part in (seat, back) for turn in turns]
    top = Boxes(np.array([[0.0, 0.6, 0.0]]), np.eye(3)[None], np.array([[0.6, 0.05, 0.6]]), np.array([[0.1, 1.0]]))
    leg = Boxes(np.array([[0.0, 0.28, 0.0]]), np.eye(3)[None], np.array([[0.1, 0.28, 0.1]]), np.array([[0.1, 1.0]]))
    colors = torch.tensor([GREEN] * 5 + [GREEN] * 5 + [WOOD, DARK])
    scene = Scene(order="ray")
    layer_of(scene, "chairs", joined([*parts, top, leg]), colors)
    return scene


def shaded(scene: Scene, size: int = 64) -> Scene:
    """The same blocks with a light baked into their textures."""
    result, (parts, boxes) = scene.flattened(), read_all(scene)
    latitude = (np.arange(size) + 0.5) / size * math.pi - 0.5 * math.pi
    longitude = (np.arange(size) + 0.5) / size * 2.0 * math.pi - math.pi
    for held in result:
        colors = held.family.base_colors()
        texels = torch.zeros(len(held.family), size, size, 3)
        for row, part in enumerate(parts):
            if part.layer == held.name:
                e1, e2 = boxes.exponents[row]
                flat = power(np.cos(latitude), 2 - e1)[:, None]
                local = np.stack(
                    [
                        flat * power(np.sin(longitude), 2 - e2) / boxes.halves[row, 0],
                        np.repeat(power(np.sin(latitude), 2 - e1)[:, None], size, 1) / boxes.halves[row, 1],
                        flat * power(np.cos(longitude), 2 - e2) / boxes.halves[row, 2],
                    ],
                    axis=-1,
                )
                normals = local / np.linalg.norm(local, axis=-1, keepdims=True) @ boxes.rotations[row].T
                light = torch.from_numpy(0.55 + 0.5 * np.maximum(normals @ LIGHT, 0.0)).float()
                texels[part.row] = (colors[part.row] * light[..., None]).clamp(0.02, 0.98)
        held.family.replace({"raw_textures": torch.logit(texels)})
        held.family.metadata["level"] = 5
    return result


def power(base: Array, exponent: float) -> Array:
    """With the sign of the base."""
    return np.sign(base) * np.abs(base) ** exponent


def panel(scene: Scene, eye: list[float]) -> Tensor:
    """One picture."""
    floor = box([0.0, -0.06, 0.0], [5.4, 0.12, 6.0])
    with_floor = Scene(order="ray", background=(0.93, 0.95, 0.97))
    for held in scene:
        with_floor.add(held.name, held.family.copy())
    layer_of(with_floor, "floor", floor, torch.tensor([[0.8, 0.8, 0.78]]))
    position, target = torch.tensor(eye), torch.tensor([0.0, 0.35, 0.0])
    camera = Camera.look_at(position, target, torch.tensor([0.0, 1.0, 0.0]), 0.75, (360, 250))
    with torch.no_grad():
        return shaded(with_floor).render(camera).color.clamp(0, 1)


def draw(path: Path) -> None:
    """Before above, after below."""
    columns = list[Tensor]()
    for scene, eye, edit in (
        (demo_table(), [1.9, 1.6, 2.9], "leg"),
        (fence(), [0.7, 1.8, 5.0], "count"),
        (chairs(), [1.6, 2.3, 3.2], "ring"),
    ):
        before = panel(scene, eye)
        groups = scene.find_groups()
        print(groups)
        if edit == "leg":
            number = max(range(4), key=lambda each: sum(read_all(scene)[1].centres[groups[0].members[each].row]))
            groups[0].move([-0.25, 0.0, -0.1], number)
        elif edit == "count":
            groups[0].set(count=9, spacing=0.4)
        else:
            for group in groups:
                if group.kind == "rotation":
                    group.set(count=7, mode="fit")
        columns.append(torch.cat([before, torch.ones(6, before.shape[1], 3), panel(scene, eye)], dim=0))
    sheet = torch.cat([columns[0], *(torch.cat([torch.ones(len(c), 6, 3), c], dim=1) for c in columns[1:])], dim=1)
    write_png(path, (sheet * 255).round().byte().numpy())


if __name__ == "__main__":
    draw(Path("groups.png"))
