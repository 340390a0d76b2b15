"""Edit a scene: choose primitives by what they are and where they lie, move, recolour, copy and simplify them, save it
in one file, take it all back.

Two families are edited by the same calls. Every edit is in the scene's history, which holds what it needs to undo it
and no more.

    python examples/05_edit_a_scene.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from smalti.primitives.gaussians import Gaussians
from smalti.primitives.meshes import Meshes
from smalti.scene import (
    Scene,
    box,
    delete,
    demo_camera,
    duplicate,
    fill,
    flood,
    hue,
    in_rectangle,
    layer,
    move,
    nearest,
    rotate,
    simplify,
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

# What hangs together with one primitive in space and in colour takes another hue.
alike = flood(nearest([0.5, 0.5, 0.5]), tolerance=0.3, distance=0.4)
print(f"hue of {hue(scene, alike, 60.0)} primitives")

# Neighbours alike are merged: fewer primitives, nearly the same picture. What cameras see decides where they are given.
print(f"simplified away: {simplify(scene, layer('cloud'), count=150, cameras=[camera])}")

# The whole scene in one file, and a region of another scene (here: of this one, saved) put back.
with tempfile.TemporaryDirectory() as folder:
    size = scene.save(Path(folder) / "scene.smalti")
    saved = Scene.load(Path(folder) / "scene.smalti")
print(f"saved {len(saved)} primitives in {size / 1024:.0f} KiB")
delete(scene, layer("ball"))
print(f"filled: {fill(scene, box([-2, -2, -2], [2, 2, 2]) & layer('ball'), saved)}")

# A layer as a whole is placed by its handle.
scene["ball"].position, scene["ball"].scale = [0.1, -0.2, 0.0], 0.8

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
