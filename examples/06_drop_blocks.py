"""Train a few blocks on pictures, hand them to a physics engine, and film how they fall with our own renderer.

The blocks (superquadrics) become rigid bodies with their exact mass and inertia. MuJoCo moves them; the picture shows
them over a mesh floor and beside a copy of the toy that is made of Gaussians, all in one exact order per pixel. Needs
`pip install 'smalti[physics,video]'`.

    python examples/06_drop_blocks.py fall.mp4
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.cameras.trajectories import up_direction
from smalti.datasets.images import ImageCache
from smalti.datasets.initial import initial_points
from smalti.datasets.open import open_dataset
from smalti.primitives.meshes import Meshes
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import tangent_frames
from smalti.renderers.render import render
from smalti.scene import Scene
from smalti.scene.conversions import convert
from smalti.scene.physics import World, simulate, to_mjcf
from smalti.trainers.pictures import write_video

BLOCKS, STEPS, SECONDS, FRAMES = 14, 150, 1.8, 16
torch.manual_seed(0)
torch.set_num_threads(1)  # all tensors are small
generator = torch.Generator().manual_seed(0)

# 1. Train: blocks on the visual hull of the demo's toy, moved by gradients through the renderer.
dataset = open_dataset("demo")
views = []
with ImageCache(dataset, downscale=4) as images:
    for row in range(0, len(dataset.views), 3):
        loaded = images.get(row)
        assert loaded.alpha is not None
        alpha = loaded.alpha[..., None] / 255
        views.append((loaded.camera, loaded.image / 255 * alpha, alpha[..., 0]))
points = initial_points(dataset, 3000, generator, strategy="hull")
blocks = Superquadrics.from_points(
    torch.as_tensor(points.positions).float(),
    torch.as_tensor(points.colors).float() / 255,
    {"count": BLOCKS, "texture_size": 32, "level": 2, "initial_opacity": 0.95, "sigma": 1e-4},
)
blocks.replace({"raw_scales": blocks.parameters["raw_scales"].detach() - 0.5})
rates = {"translations": 1e-2, "raw_textures": 5e-2, "logit_opacities": 0.0}
optimizer = torch.optim.Adam([{"params": [p], "lr": rates.get(n, 2e-2)} for n, p in blocks.parameters.items()])
errors = []
for step in range(STEPS):
    camera, color, alpha = views[torch.randint(len(views), (1,), generator=generator).item()]
    frame = render(blocks.drawables(camera), camera)
    loss = (frame.color - color).abs().mean() + (frame.alpha - alpha).abs().mean()
    if step % 2:  # bodies that overlap would burst apart
        loss = loss + 1.0 * blocks.overlap_of(generator, samples=100)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    errors.append(float((frame.color - color).detach().square().mean()))
before, after = (-10 * torch.tensor(part).mean().log10() for part in (errors[:20], errors[-20:]))
print(f"{BLOCKS} blocks, {STEPS} steps: PSNR on black {before:.1f} -> {after:.1f} dB")
assert after > before + 2
blocks.metadata["binary"] = True  # opaque, with sharp edges

# 2. A scene: the blocks lifted a little above a floor, and beside them a copy of Gaussians, which stays.
up = up_direction([camera for camera, _, _ in views]).double()
heights = blocks.bounds().double() @ up
low, tall = float(heights.min()), float(heights.max() - heights.min())
aside = tangent_frames(up[None])[0, :, 0]
still = convert(blocks, "gaussians", count=5000)
print(f"a copy of Gaussians: {still}")
still.family.transform(Similarity(translation=-0.9 * tall * aside))
blocks.transform(Similarity(translation=0.6 * tall * aside + 0.25 * tall * up))
frame_of_floor = tangent_frames(up[None])[0]
corners = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0])).double() * 3.0 * tall
vertices = corners @ frame_of_floor[:, :2].T + low * up
tiles = torch.where((torch.arange(16)[:, None] + torch.arange(16)) % 2 > 0, 0.75, 0.6)
faces = torch.tensor([[0, 2, 1], [1, 2, 3]])
uvs = ((torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])))[faces]).float()
texture = torch.logit(tiles.repeat_interleave(8, 0).repeat_interleave(8, 1))[..., None].repeat(1, 1, 3)
floor = Meshes({"vertices": vertices.float(), "raw_texture": texture}, {"mipmaps": 8}, {"faces": faces, "uvs": uvs})
scene = Scene(order="ray", background=(0.8, 0.88, 0.95))
scene.add("toy", blocks)
scene.add("copy", still.family)
scene.add("floor", floor)

# 3. Hand over, simulate, film. The floor that bodies hit is an infinite plane at the height of the mesh.
target = Path(sys.argv[1]) if len(sys.argv) > 1 else None
with tempfile.TemporaryDirectory() as folder:
    world = World(density=600.0, metres=0.2, up=(float(up[0]), float(up[1]), float(up[2])), floor=low)
    exported = to_mjcf(scene, Path(folder) / "mjcf", world, ["toy"])
    masses = [body.mass.scaled(world.density, world.metres).mass for body in exported.bodies.moving]
    print(f"{len(exported.names)} bodies of {min(masses) * 1000:.0f} to {max(masses) * 1000:.0f} g")
    motion = simulate(exported, SECONDS, FRAMES, untangle=True)
    print(f"the fall took {float(motion.energy[0] - motion.energy[-1]):.2f} J out of them")
    assert float(motion.energy[-1]) < float(motion.energy[0])
    middle = (low + 0.35 * tall) * up
    eye = middle + 2.9 * tall * (0.5 * up - torch.linalg.cross(up, aside))
    camera = Camera.look_at(eye.float(), middle.float(), up.float(), 0.95, (288, 180))

    def pictures():
        for number in range(len(motion)):
            with torch.no_grad():
                shown = motion.scene(number).render(camera).color
            yield (shown.clamp(0, 1) * 255).round().byte().numpy()

    video = target or Path(folder) / "fall.mp4"
    print(f"{write_video(video, pictures(), FRAMES)} frames, {video.stat().st_size // 1024} KiB")
last = motion.scene(len(motion) - 1)
ends = [last.layers[f"{name} moving"].family for name in exported.names]
lowest = min(float((part.block_vertices().double() @ up).min()) for part in ends if isinstance(part, Superquadrics))
print(f"the lowest point of all ends {(lowest - low) / tall:+.3f} heights above the floor")
assert abs(lowest - low) < 0.03 * tall
