"""Fit Gaussians to four small views of the demo scene with nothing but torch: what a trainer is, in a page.

The real one (`smalti train`) adds initial points, density control, D-SSIM, schedules, checkpoints and held-out views.

    python examples/02_fit_a_few_views.py
"""

from __future__ import annotations

import torch

import smalti
from smalti.datasets.images import ImageCache
from smalti.datasets.open import open_dataset

COUNT, STEPS, VIEWS = 1000, 120, (0, 10, 20, 30)
torch.manual_seed(0)

# Pictures are decoded on demand; straight alpha goes over white, as the data set says.
dataset = open_dataset("demo")
views = []
with ImageCache(dataset, downscale=2) as pictures:
    for row in VIEWS:
        loaded = pictures.get(row)
        assert loaded.alpha is not None
        alpha = loaded.alpha[..., None] / 255
        views.append((loaded.camera, loaded.image / 255 * alpha + (1 - alpha)))

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
