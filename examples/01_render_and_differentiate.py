"""Three Gaussians, one camera: render them, then ask how the picture changes with every number that went in.

python examples/01_render_and_differentiate.py [picture.png]
"""

from __future__ import annotations

import sys

import torch
from PIL import Image

import smalti

means = torch.tensor([[-0.4, 0.0, 0.0], [0.4, 0.0, 0.3], [0.0, 0.3, -0.4]], requires_grad=True)
quaternions = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.4], [0.9, 0.3, 0.0, 0.0]], requires_grad=True)
scales = torch.tensor([[0.30, 0.15, 0.15], [0.35, 0.10, 0.10], [0.15, 0.15, 0.25]], requires_grad=True)
opacities = torch.tensor([0.9, 0.8, 0.6], requires_grad=True)
colors = torch.tensor([[0.9, 0.3, 0.2], [0.2, 0.7, 0.4], [0.2, 0.4, 0.9]])
sh_dc = ((colors - 0.5) / 0.28209479).requires_grad_()  # degree-0 spherical harmonics: colour = 0.5 + 0.282 sh_dc


def camera_at(height: float) -> smalti.Camera:
    """World y points down here, as in the camera: `up` is -y."""
    position = torch.tensor([0.0, height, -2.5])
    return smalti.Camera.look_at(position, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), fov_x=0.8, size=(160, 120))


def draw(camera: smalti.Camera) -> smalti.Frame:
    drawable = smalti.GaussianDrawable(means, quaternions, scales, opacities, sh_dc)
    return smalti.render([drawable], camera, background=torch.ones(3), settings=smalti.RenderSettings(depth=True))


# The frame is premultiplied and already lies over the background; colours are values as image files store them.
frame = draw(camera_at(-0.5))
assert frame.depth is not None
print(f"colour {tuple(frame.color.shape)}, alpha up to {float(frame.alpha.detach().max()):.3f}")
print(f"depth in the middle: {float(frame.depth[60, 80].detach()):.3f} (camera z)")

# Any loss of any output; gradients reach all parameters.
loss = frame.color[:, :80].mean() + 0.1 * frame.depth.mean()
loss.backward()
for name, tensor in (("means", means), ("scales", scales), ("opacities", opacities), ("sh_dc", sh_dc)):
    assert tensor.grad is not None
    print(f"d loss / d {name}: {tensor.grad.flatten().tolist()[:3]}")

# The camera is a value made of tensors: its gradient arrives as well.
camera = camera_at(-0.5)
camera.translation.requires_grad_()
camera.intrinsics.requires_grad_()
draw(camera).color.square().mean().backward()
assert camera.translation.grad is not None
assert camera.intrinsics.grad is not None
print(f"d loss / d translation: {camera.translation.grad.tolist()}")
print(f"d loss / d (fx, fy, cx, cy): {camera.intrinsics.grad.tolist()}")

if len(sys.argv) > 1:
    pixels = (frame.color.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(sys.argv[1])
