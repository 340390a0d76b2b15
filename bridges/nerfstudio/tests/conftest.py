"""A tiny capture with exactly known cameras, and a message where nerfstudio is not to be had."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.cameras.camera import Camera
from smalti.renderers.render import render
from smalti.scene import demo_scene

try:
    import nerfstudio.engine.trainer  # noqa: F401

    MISSING = ""
except ImportError as error:
    MISSING = f"nerfstudio cannot be imported ({error}); bridges/nerfstudio/try.sh makes an environment that has it"

SIZE = (64, 48)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """The tests themselves import the plug-in, which imports nerfstudio."""
    return True if MISSING and collection_path.name == "test_methods.py" else None


def cameras(count: int = 12) -> list[Camera]:
    """On a ring round the middle of the demo scene, far from the origin in a frame of their own."""
    middle, up = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.0, 1.0, 0.0])
    found = []
    for row in range(count):
        angle = 2.0 * np.pi * row / count
        place = middle + 3.0 * torch.tensor([np.cos(angle), 0.3 + 0.1 * (row % 3), np.sin(angle)]).float()
        found.append(Camera.look_at(place, middle, up, 0.8, SIZE))
    return found


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`transforms.json` and pictures with alpha."""
    root = tmp_path_factory.mktemp("capture")
    (root / "images").mkdir()
    scene, frames = demo_scene(), []
    for row, camera in enumerate(cameras()):
        frame = render(scene.drawables(camera), camera, settings=scene.settings())
        color = (frame.color / frame.alpha.clamp_min(1e-6)[..., None]).clamp(0, 1)  # straight
        pixels = torch.cat([color, frame.alpha[..., None]], dim=-1).detach().mul(255.0).round().to(torch.uint8)
        name = f"images/view_{row:02d}.png"
        Image.fromarray(pixels.numpy()).save(root / name)
        matrix = camera.world_from_camera.double().numpy() @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    fx, fy, cx, cy = cameras(1)[0].intrinsics.tolist()
    table = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": SIZE[0], "h": SIZE[1], "frames": frames}
    (root / "transforms.json").write_text(json.dumps(table))
    return root


@pytest.fixture(scope="session")
def colmap_model(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same capture as a COLMAP model in text, with three points."""
    root = tmp_path_factory.mktemp("colmap")
    (root / "images").symlink_to(capture / "images")
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    fx, fy, cx, cy = cameras(1)[0].intrinsics.tolist()
    (model / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} {fx!r} {fy!r} {cx!r} {cy!r}\n")
    lines = []
    for row, camera in enumerate(cameras()):
        w, x, y, z = _quaternion(camera.rotation.double().numpy())
        tx, ty, tz = camera.translation.tolist()
        lines += [f"{row + 1} {w!r} {x!r} {y!r} {z!r} {tx!r} {ty!r} {tz!r} 1 view_{row:02d}.png", ""]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    points = [f"{row + 1} {x} {y} {z} {r} 20 30 0.5" for row, (x, y, z, r) in enumerate(POINTS)]
    (model / "points3D.txt").write_text("\n".join(points) + "\n")
    return root


POINTS = [(0.1, 0.2, 0.3, 10), (0.9, 0.5, 0.2, 11), (-1.5, 2.0, 0.0, 12)]


def _quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """w x y z, by the eigenvector of Bar-Itzhack's matrix (2000)."""
    r = rotation
    table = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    x, y, z, w = np.linalg.eigh(table)[1][:, -1]
    return float(w), float(x), float(y), float(z)
