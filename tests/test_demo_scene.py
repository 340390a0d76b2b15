"""The built-in demo scene: complete, small, uncut, and its cameras agree with its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def test_demo_scene_is_whole(demo_folder: Path) -> None:
    files = [path for path in demo_folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    assert {"LICENSE.txt", "SOURCE.txt"} <= {path.name for path in files}
    for split, count in (("train", 43), ("test", 8)):
        content = json.loads((demo_folder / f"transforms_{split}.json").read_text())
        assert len(content["frames"]) == count == len(list((demo_folder / split).iterdir()))
        for frame in content["frames"]:
            matrix = np.array(frame["transform_matrix"])
            np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-8)
            assert np.linalg.det(matrix[:3, :3]) > 0
            np.testing.assert_allclose(matrix[:3, 3], 3.5 * matrix[:3, 2], atol=1e-6)  # looks at the origin
            with Image.open(demo_folder / (frame["file_path"] + ".png")) as picture:
                assert (picture.mode, picture.size) == ("RGBA", (224, 224))
                alpha = np.asarray(picture)[..., 3]
            border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
            assert border.max() == 0, "the object is cut by the picture's border"
            assert 0.2 < (alpha > 0).mean() < 0.6


def test_demo_alpha_and_cameras_agree(demo_folder: Path) -> None:
    """The visual hull, re-projected, fills the silhouettes: wrong axes or a wrong focal length would empty it."""
    frames = json.loads((demo_folder / "transforms_train.json").read_text())
    axis = np.linspace(-1.15, 1.15, 48)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    focal = 112.0 / np.tan(0.5 * frames["camera_angle_x"])
    inside = np.ones(len(points), bool)
    pixels, masks = [], []
    for frame in frames["frames"]:
        matrix = np.array(frame["transform_matrix"])
        x, y, z = ((points - matrix[:3, 3]) @ matrix[:3, :3]).T
        column, row = (focal * x / -z + 112.0).astype(int), (focal * -y / -z + 112.0).astype(int)
        alpha = np.asarray(Image.open(demo_folder / (frame["file_path"] + ".png")))[..., 3]
        pixels.append((row.clip(0, 223), column.clip(0, 223)))
        masks.append(alpha > 127)
        inside &= masks[-1][pixels[-1]]
    assert 0.02 < inside.mean() < 0.2
    for (row, column), mask in zip(pixels, masks, strict=True):
        covered = np.zeros_like(mask)
        for down in range(-3, 4):  # a grid point stands for about 5 pixels
            for right in range(-3, 4):
                covered[(row[inside] + down).clip(0, 223), (column[inside] + right).clip(0, 223)] = True
        assert (covered & mask).sum() / mask.sum() > 0.97
