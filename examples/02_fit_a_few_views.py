"""Fit Gaussians to four small views of the demo scene with nothing but torch: what a trainer is, in a page.

The real one (`smalti train`) adds initial points, density control, D-SSIM, schedules, checkpoints and held-out views.

    python examples/02_fit_a_few_views.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import smalti

DEMO = Path(smalti.__file__).parent / "datasets" / "demo"
SIZE, COUNT, STEPS, VIEWS = 56, 400, 60, (0, 10, 20, 30)
torch.manual_seed(0)


def load(split: str, index: int) -> tuple[smalti.Camera, torch.Tensor]:
    """A camera and its picture [SIZE, SIZE, 3] over white."""
    content = json.loads((DEMO / f"transforms_{split}.json").read_text())
    frame = content["frames"][index]
    picture = Image.open(DEMO / (frame["file_path"] + ".png"))
    width, height = picture.size
    world_from_opengl = torch.tensor(frame["transform_matrix"])
    world_from_camera = world_from_opengl[:3, :3] @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    rotation = world_from_camera.T
    focal = 0.5 * width / np.tan(0.5 * content["camera_angle_x"])
    intrinsics = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float32)
    camera = smalti.Camera(rotation, -rotation @ world_from_opengl[:3, 3], intrinsics, width, height)
    rgba = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255.0
    rgb, alpha = torch.from_numpy(rgba).split([3, 1], dim=-1)
    return camera.scaled_to(SIZE, SIZE), rgb * alpha + (1 - alpha)


views = [load("train", index) for index in VIEWS]
means = torch.empty(COUNT, 3).uniform_(-0.8, 0.8).requires_grad_()
log_scales = torch.full((COUNT, 3), -2.3, requires_grad=True)
quaternions = torch.randn(COUNT, 4).requires_grad_()
logits = torch.full((COUNT,), -1.0, requires_grad=True)
sh_dc = torch.zeros(COUNT, 3, requires_grad=True)
optimizer = torch.optim.Adam(
    [
        {"params": [means], "lr": 0.01},
        {"params": [log_scales, quaternions], "lr": 0.02},
        {"params": [logits, sh_dc], "lr": 0.1},
    ]
)


def draw(camera: smalti.Camera) -> torch.Tensor:
    drawable = smalti.GaussianDrawable(means, quaternions, log_scales.exp(), logits.sigmoid(), sh_dc)
    return smalti.render([drawable], camera, background=torch.ones(3)).color


@torch.no_grad()
def psnr() -> float:
    error = torch.stack([(draw(camera) - truth).square().mean() for camera, truth in views]).mean()
    return float(-10.0 * error.log10())


before = psnr()
for step in range(STEPS):
    camera, truth = views[step % len(views)]
    loss = (draw(camera) - truth).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = psnr()
print(f"{COUNT} Gaussians, {STEPS} steps: PSNR on the {len(views)} fitted views {before:.1f} -> {after:.1f} dB")
assert after > before + 5.0
