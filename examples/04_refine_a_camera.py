"""Find a camera again: its pose is off by two degrees and a few centimetres; gradients through the renderer mend it.

The pose is a free rotation vector and a shift beside the known start, so the rotation never leaves SO(3).

    python examples/04_refine_a_camera.py
"""

from __future__ import annotations

from dataclasses import replace

import torch

import smalti

torch.manual_seed(3)
COUNT, STEPS = 60, 150
scene = smalti.GaussianDrawable(
    means=torch.empty(COUNT, 3).uniform_(-0.7, 0.7),
    quaternions=torch.randn(COUNT, 4),
    scales=torch.empty(COUNT, 3).uniform_(0.08, 0.25),
    opacities=torch.empty(COUNT).uniform_(0.4, 0.9),
    sh_dc=torch.randn(COUNT, 3),
)
true = smalti.Camera.look_at(
    torch.tensor([1.2, -0.8, -2.2]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), fov_x=0.7, size=(64, 48)
)
target = smalti.render([scene], true).color


def rotation_from(vector: torch.Tensor) -> torch.Tensor:
    """Rodrigues' formula as a matrix exponential: differentiable at zero as well."""
    x, y, z = vector.unbind()
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))


def error(camera: smalti.Camera) -> tuple[float, float]:
    """Degrees of rotation and world units of position away from the true camera."""
    with torch.no_grad():
        chord = (camera.rotation - true.rotation).norm() / 8**0.5  # sin(angle / 2); well conditioned near zero
        return float(torch.rad2deg(2 * chord.asin())), float((camera.centre - true.centre).norm())


start = replace(
    true,
    rotation=rotation_from(torch.deg2rad(torch.tensor([1.2, -1.5, 0.8]))) @ true.rotation,
    translation=true.translation + torch.tensor([0.03, -0.02, 0.05]),
)
turn = torch.zeros(3, requires_grad=True)
shift = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.Adam([turn, shift], lr=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
camera = start
for _ in range(STEPS):
    turned = rotation_from(turn)
    camera = replace(start, rotation=turned @ start.rotation, translation=turned @ start.translation + shift)
    loss = (smalti.render([scene], camera).color - target).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

(degrees, distance), (left_degrees, left_distance) = error(start), error(camera)
print(
    f"rotation error {degrees:.3f} -> {left_degrees:.4f} degrees, position error {distance:.4f} -> {left_distance:.5f}"
)
assert left_degrees < 0.1 * degrees
assert left_distance < 0.1 * distance
