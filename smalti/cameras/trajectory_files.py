"""Camera paths as JSON: our own format, and nerfstudio's camera_path.json (read only)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from smalti.cameras.camera import Camera
from smalti.cameras.models import lens_model
from smalti.cameras.rotations import nearest_rotation

FORMAT = "smalti-trajectory"
VERSION = 1


def save_trajectory(path: Path | str, cameras: Sequence[Camera]) -> None:
    """Write cameras as JSON, numbers in full; the file is replaced in one step. Poses are world-to-camera."""
    records = [
        {
            "rotation": camera.rotation.detach().double().tolist(),
            "translation": camera.translation.detach().double().tolist(),
            "intrinsics": camera.intrinsics.detach().double().tolist(),
            "width": camera.width,
            "height": camera.height,
            "model": camera.model,
            "distortion": list(camera.distortion),
            "time": camera.time,
            "name": camera.name,
        }
        for camera in cameras
    ]
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    text = json.dumps({"format": FORMAT, "version": VERSION, "cameras": records}, indent=1, allow_nan=False)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def from_file(path: Path | str) -> list[Camera]:
    """Read a camera path (float64): what `save_trajectory` wrote, or nerfstudio's camera_path.json.

    nerfstudio's poses are in the frame that its trainer used, which is not the data set's own unless orienting,
    centring and scaling were off there. Raises ValueError that names the file, the camera and the remedy.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); give a file that save_trajectory or nerfstudio wrote") from error
    if isinstance(content, dict) and isinstance(content.get("camera_path"), list):
        return [_nerfstudio(path, content, index) for index in range(len(content["camera_path"]))]
    if isinstance(content, dict) and content.get("format") == FORMAT:
        if content.get("version") != VERSION:
            raise ValueError(f"{path}: version {content.get('version')!r} is unknown here; update smalti")
        content = content.get("cameras")
    if not isinstance(content, list):
        raise ValueError(f"{path}: neither a {FORMAT} nor a nerfstudio camera path (no camera_path, no cameras)")
    return [_own(path, record, index) for index, record in enumerate(content)]


def _own(path: Path, record: Any, index: int) -> Camera:
    try:
        camera = Camera(
            torch.tensor(record["rotation"], dtype=torch.float64),
            torch.tensor(record["translation"], dtype=torch.float64),
            torch.tensor(record["intrinsics"], dtype=torch.float64),
            int(record["width"]),
            int(record["height"]),
            record.get("model", "PINHOLE"),
            tuple(float(value) for value in record.get("distortion", ())),
            float(record.get("time", 0.0)),
            str(record.get("name", "")),
        )
        lens_model(camera.model).check(camera.distortion)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: camera {index}: {_words(error)}; repair or leave out this record") from error
    return _checked(path, camera, index)


def _nerfstudio(path: Path, content: dict[str, Any], index: int) -> Camera:
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise ValueError(f"{path}: camera_type {kind!r}; only perspective paths can be rendered, export one as such")
    record = content["camera_path"][index]
    try:
        width, height = int(content["render_width"]), int(content["render_height"])
        values = torch.tensor(record["camera_to_world"], dtype=torch.float64).reshape(-1)
        if values.numel() not in (12, 16):
            raise ValueError(f"camera_to_world has {values.numel()} numbers, expected 16")
        pose = values[:12].reshape(3, 4)
        angle = math.radians(float(record["fov"]))
        if not 0.0 < angle < math.pi:
            raise ValueError(f"fov {record['fov']} is not between 0 and 180 degrees")
        # OpenGL camera axes (y up, z backwards) to ours; fov is the vertical one.
        axes = pose[:, :3] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
        rotation = axes.T
        focal = 0.5 * height / math.tan(0.5 * angle)
        intrinsics = torch.tensor([focal, focal, 0.5 * width, 0.5 * height], dtype=torch.float64)
        time = float(record.get("render_time", 0.0))
        camera = Camera(rotation, torch.zeros(3, dtype=torch.float64), intrinsics, width, height, time=time)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: camera_path[{index}]: {_words(error)}; export the path again") from error
    camera = _checked(path, camera, index)
    return replace(camera, translation=-camera.rotation @ pose[:, 3], name=f"{index:05d}")


def _checked(path: Path, camera: Camera, index: int) -> Camera:
    """Finite, and a rotation to 1e-3; then exactly one."""
    numbers = torch.cat([camera.rotation.reshape(-1), camera.translation, camera.intrinsics])
    if not bool(torch.isfinite(numbers).all()) or float(camera.intrinsics[:2].min()) <= 0.0:
        raise ValueError(f"{path}: camera {index}: a number is not finite or a focal length not positive; repair it")
    deviation = float((camera.rotation @ camera.rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
    if deviation > 1e-3 or float(torch.linalg.det(camera.rotation)) < 0.0:
        raise ValueError(f"{path}: camera {index}: its rotation is not one (off by {deviation:.2g}); repair the pose")
    # Left alone where it is exact to the last digits, so that files come back as they were written.
    return camera if deviation < 1e-12 else replace(camera, rotation=nearest_rotation(camera.rotation))


def _words(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
