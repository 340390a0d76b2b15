"""Small captures with exactly known cameras, written by the tests in every format that the readers know."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smalti.cameras.camera import Camera

WIDTH, HEIGHT = 48, 36
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def cameras(count: int = 6, *, distance: float = 4.0, off_centre: bool = False) -> list[Camera]:
    """Pinhole cameras on a ring around the origin, each at its own height, float64."""
    found = []
    for row in range(count):
        angle = 2 * np.pi * row / count
        place = torch.tensor([np.cos(angle), np.sin(angle), 0.3 + 0.05 * row], dtype=torch.float64) * distance
        up, target = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        camera = Camera.look_at(place, target, up, 0.9, (WIDTH, HEIGHT))
        if off_centre:
            shift = torch.tensor([0.7, -0.4, 1.25, -0.75], dtype=torch.float64)
            camera = replace(camera, intrinsics=camera.intrinsics + shift)
        found.append(replace(camera, name=f"view_{row:02d}.png"))
    return found


def picture(row: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A different picture for every row."""
    return np.random.default_rng(row).integers(0, 256, (height, width, 3), np.uint8)


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def matrix(camera: Camera, centre: float = 0.0) -> np.ndarray:
    """K, with `centre` taken off the principal point (0.5 for formats whose pixel centres are whole numbers)."""
    fx, fy, cx, cy = camera.intrinsics.tolist()
    return np.array([[fx, 0, cx - centre], [0, fy, cy - centre], [0, 0, 1]])


def opengl(camera: Camera) -> list[list[float]]:
    return (camera.world_from_camera.numpy() @ FLIP).tolist()


def write_pictures(folder: Path, views: list[Camera]) -> None:
    for row, camera in enumerate(views):
        write_picture(folder / camera.name, picture(row, camera.width, camera.height))


def frame(camera: Camera, path: str, **more: object) -> dict[str, object]:
    return {"file_path": path, "transform_matrix": opengl(camera), **more}


def write_transforms(root: Path, views: list[Camera], **top: object) -> Path:
    """transforms.json with global intrinsics of the first view."""
    write_pictures(root / "images", views)
    fx, fy, cx, cy = views[0].intrinsics.tolist()
    table = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": WIDTH, "h": HEIGHT, **top}
    table.setdefault("frames", [frame(camera, f"images/{camera.name}") for camera in views])
    (root / "transforms.json").write_text(json.dumps(table))
    return root


def write_blender(root: Path, views: list[Camera], times: list[float] | None = None) -> Path:
    """Even rows train, odd rows test; RGBA."""
    angle = 2 * np.arctan(0.5 * WIDTH / float(views[0].intrinsics[0]))
    for split, start in (("train", 0), ("test", 1)):
        frames = []
        for row in range(start, len(views), 2):
            alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
            alpha[:, : WIDTH // 2] = 0
            write_picture(root / split / f"r_{row}.png", np.concatenate([picture(row), alpha], 2))
            more = {} if times is None else {"time": times[row]}
            frames.append(frame(views[row], f"./{split}/r_{row}", **more))
        table = {"camera_angle_x": angle, "frames": frames}
        (root / f"transforms_{split}.json").write_text(json.dumps(table))
    return root


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z) by the largest eigenvector of Bar-Itzhack's matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    return np.array([w, x, y, z]) * (1 if w >= 0 else -1)


def points(count: int = 40) -> np.ndarray:
    return np.random.default_rng(5).uniform(-0.5, 0.5, (count, 3))


def sightings(views: list[Camera], positions: np.ndarray) -> list[np.ndarray]:
    """Pixels of all points in all views."""
    found = []
    for camera in views:
        local = positions @ camera.rotation.numpy().T + camera.translation.numpy()
        fx, fy, cx, cy = camera.intrinsics.tolist()
        found.append(local[:, :2] / local[:, 2:] * (fx, fy) + (cx, cy))
    return found


def write_colmap_binary(root: Path, views: list[Camera], *, pictures: bool = True) -> Path:
    """One PINHOLE camera per view; every point seen by all."""
    if pictures:
        write_pictures(root / "images", views)
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    positions = points()
    seen = sightings(views, positions)
    data = struct.pack("<Q", len(views))
    for row, camera in enumerate(views, 1):
        data += struct.pack("<IiQQ4d", row, 1, camera.width, camera.height, *camera.intrinsics.tolist())
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(views))
    for row, camera in enumerate(views, 1):
        pose = (*quaternion(camera.rotation.numpy()), *camera.translation.tolist())
        data += struct.pack("<I7dI", row, *pose, row) + camera.name.encode() + b"\0"
        data += struct.pack("<Q", len(positions))
        for number, xy in enumerate(seen[row - 1], 1):
            data += struct.pack("<ddq", *xy, number)
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(positions))
    for number, position in enumerate(positions, 1):
        data += struct.pack("<Q3d3BdQ", number, *position, 10, 20, 30, 0.5, len(views))
        for row in range(1, len(views) + 1):
            data += struct.pack("<II", row, number - 1)
    (folder / "points3D.bin").write_bytes(data)
    return root


def write_colmap_text(root: Path, views: list[Camera]) -> Path:
    """The same model as text; the second picture has no keypoints (an empty line)."""
    write_pictures(root / "images", views)
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    positions = points()
    seen = sightings(views, positions)
    lines = ["# Camera list"]
    for row, camera in enumerate(views, 1):
        lines.append(f"{row} PINHOLE {camera.width} {camera.height} " + " ".join(map(repr, camera.intrinsics.tolist())))
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list"]
    for row, camera in enumerate(views, 1):
        pose = (*quaternion(camera.rotation.numpy()), *camera.translation.tolist())
        lines.append(f"{row} " + " ".join(repr(float(value)) for value in pose) + f" {row} {camera.name}")
        keypoints = [f"{x!r} {y!r} {number}" for number, (x, y) in enumerate(seen[row - 1].tolist(), 1)]
        lines.append("" if row == 2 else " ".join(keypoints))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = ["# 3D point list"]
    for number, position in enumerate(positions.tolist(), 1):
        track = " ".join(f"{row} {number - 1}" for row in range(1, len(views) + 1) if row != 2)
        lines.append(f"{number} " + " ".join(map(repr, position)) + f" 10 20 30 0.5 {track}")
    (folder / "points3D.txt").write_text("\n".join(lines) + "\n")
    return root


def write_llff(root: Path, views: list[Camera], factor: int = 4) -> Path:
    """Sizes and focal lengths of pictures `factor` times larger than those in images_N."""
    write_pictures(root / f"images_{factor}", views)
    rows = []
    for camera in views:
        right, down, forward = camera.rotation.numpy()
        hwf = (factor * HEIGHT, factor * WIDTH, factor * float(camera.intrinsics[0]))
        pose = np.stack([down, right, -forward, camera.centre.numpy(), np.array(hwf)], 1)
        rows.append([*pose.ravel(), 1.0, 9.0])
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


def write_idr(root: Path, views: list[Camera]) -> Path:
    write_pictures(root / "image", views)
    table = {}
    for row, camera in enumerate(views):
        pose = np.concatenate([camera.rotation.numpy(), camera.translation.numpy()[:, None]], 1)
        projection = np.eye(4)
        projection[:3] = -2.5 * matrix(camera) @ pose  # the scale and the sign of a projection mean nothing
        table[f"world_mat_{row}"] = projection
        table[f"scale_mat_{row}"] = np.diag([2.0, 2.0, 2.0, 1.0])
    np.savez(root / "cameras.npz", **table)
    return root


def write_middlebury(root: Path, views: list[Camera]) -> Path:
    write_pictures(root, views)
    lines = [str(len(views))]
    for camera in views:
        values = [*matrix(camera, 0.5).ravel(), *camera.rotation.numpy().ravel(), *camera.translation.tolist()]
        lines.append(f"{camera.name} " + " ".join(repr(float(value)) for value in values))
    (root / "set_par.txt").write_text("\n".join(lines) + "\n")
    return root


def write_bundler(root: Path, views: list[Camera], unsolved: tuple[int, ...] = ()) -> Path:
    write_pictures(root / "images", views)
    (root / "list.txt").write_text("".join(f"images/{camera.name}\n" for camera in views))
    positions = points()
    seen = sightings(views, positions)
    lines = ["# Bundle file v0.3", f"{len(views)} {len(positions)}"]
    for row, camera in enumerate(views):
        focal = 0.0 if row in unsolved else float(camera.intrinsics[0])
        rotation = FLIP[:3, :3] @ camera.rotation.numpy()
        translation = FLIP[:3, :3] @ camera.translation.numpy()
        for values in ([focal, 0.0, 0.0], *rotation, translation):
            lines.append(" ".join(repr(float(value)) for value in values))
    for row, position in enumerate(positions.tolist()):
        lines += [" ".join(map(repr, position)), "10 20 30"]
        listed = [
            f"{view} {row} {xy[row][0] - WIDTH / 2!r} {HEIGHT / 2 - xy[row][1]!r}" for view, xy in enumerate(seen)
        ]
        lines.append(f"{len(listed)} " + " ".join(listed).replace("np.float64(", "").replace(")", ""))
    (root / "bundle.out").write_text("\n".join(lines) + "\n")
    return root


def rig_table(views: list[Camera], factor: int = 1) -> list[dict[str, object]]:
    """Cameras with OpenCV's numbers for pictures `factor` times larger than the views'."""
    table = []
    for row, camera in enumerate(views):
        larger = camera.scaled_to(factor * camera.width, factor * camera.height)
        table.append(
            {
                "name": f"cam_{row}",
                "size": [larger.width, larger.height],
                "K": matrix(larger, 0.5).tolist(),
                "distortion": [0.1, -0.05, 0.001, 0.002, 0.01],
                "R": camera.rotation.tolist(),
                "t": camera.translation.tolist(),
            }
        )
    return table


def write_rig(root: Path, views: list[Camera], frames: int = 3, factor: int = 2) -> Path:
    """A folder of frames per camera; the calibration is for larger pictures."""
    table = {"cameras": rig_table(views, factor), "unit": "metre"}
    (root / "calibration.json").write_text(json.dumps(table))
    for row in range(len(views)):
        for instant in range(frames):
            write_picture(root / "frames" / f"cam_{row}" / f"{instant:04d}.png", picture(10 * row + instant))
    return root


def write_krt(root: Path, views: list[Camera]) -> Path:
    blocks = []
    for row, camera in enumerate(views):
        pose = np.concatenate([camera.rotation.numpy(), camera.translation.numpy()[:, None]], 1)
        rows = [*matrix(camera, 0.5), [0.0] * 5, *pose]
        blocks.append("\n".join([f"40{row}", *(" ".join(repr(float(value)) for value in line) for line in rows)]))
        write_picture(root / "images" / f"40{row}" / "000.png", picture(row))
    (root / "KRT").write_text("\n\n".join(blocks) + "\n")
    return root
