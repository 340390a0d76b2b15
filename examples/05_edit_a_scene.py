"""Edit a scene: choose primitives by what they are and where they lie, move, recolour and copy them, take it all back.

Two families are edited by the same calls. Every edit is in the scene's history, which holds what it needs to undo it
and no more.

    python examples/05_edit_a_scene.py
"""

from __future__ import annotations

import torch

from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.scene import (
    Scene,
    box,
    delete,
    demo_camera,
    duplicate,
    in_rectangle,
    layer,
    move,
    rotate,
    split,
    tint,
    where,
)

generator = torch.Generator().manual_seed(0)
points = 2 * torch.rand(400, 3, generator=generator) - 1
scene = Scene(order="ray")
scene.add("cloud", Gaussians.from_points(points, (points + 1) / 2, {"sh_degree": 0, "initial_opacity": 0.6}))
scene.add("ball", Meshes.sphere(torch.tensor([0.0, 0.0, 0.0]), 0.5, {"level": 2}))
camera = demo_camera(96, 72)


def picture() -> torch.Tensor:
    """What the camera sees."""
    with torch.no_grad():
        return scene.render(camera).color


before = picture()

# Selections are recipes: nothing is looked up before an edit asks.
corner = layer("cloud") & box([0, -1, -1], [1, 0, 1])
faint_or_far = layer("cloud") & (where("opacity", "<", 0.1) | ~box([-0.9] * 3, [0.9] * 3))

print(f"deleted {delete(scene, faint_or_far)} primitives")
with scene.edit("a red corner, turned"):
    split(scene, corner, "corner")
    tint(scene, layer("corner"), [1.0, 0.3, 0.3])
    rotate(scene, scene["corner"].select(), [0, 1, 0], 30.0)
    move(scene, scene["corner"].select(), [0.3, -0.3, 0.0])
print(f"copied {duplicate(scene, layer('ball'), [-1.0, 0.0, 0.0])} faces")

# What can be seen in the left half of the picture: not what lies behind it.
seen = in_rectangle(camera, 0, 0, camera.width / 2, camera.height, occluded=False)
print(f"seen on the left: {seen.counts(scene)}")

# A locked layer is refused, and a refused edit changes nothing.
scene["ball"].locked = True
try:
    delete(scene, seen)
except ValueError as error:
    print(f"refused: {error}")

after = picture()
changed = float((after - before).abs().mean())
print(f"{len(scene.history.done)} edits in {scene.history.bytes / 1024:.0f} KiB; mean change {changed:.3f}")
assert changed > 0.01

while scene.history.done:
    print(f"undone: {scene.undo()}")
assert torch.equal(picture(), before)
while scene.history.undone:
    scene.redo()
assert torch.equal(picture(), after)
