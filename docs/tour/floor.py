"""The fox that was cut out, on a floor of triangles: reads scene.spz, writes floor.smalti."""

import torch

from smalti.primitives.meshes import Meshes
from smalti.scene import add_layer, delete, half_space, where
from smalti.scene.open_file import open_scene

scene = open_scene("scene.spz").scene
wall = half_space([-1.0, 0.0, 0.0], -0.4) | half_space([-1.0, 0.0, 0.3], -0.55)
delete(scene, wall | where("size", ">", 0.7))
scene["gaussians"].name = "fox"
print(scene.counts())

# A floor of 12 x 12 tiles of 0.5, two triangles and one colour each; the fox's world has z up.
corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
tiles = [(i, j) for i in range(12) for j in range(12)]
vertices = torch.cat([0.5 * (corner + torch.tensor([i - 5.0, j - 7.0, 0.0])) for i, j in tiles])
faces = torch.cat([torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(len(tiles))])
light, dark = torch.tensor([0.85, 0.8, 0.7]), torch.tensor([0.25, 0.3, 0.35])
colors = torch.cat([(light if (i + j) % 2 else dark).expand(4, 3) for i, j in tiles])
add_layer(scene, "floor", Meshes.from_mesh(vertices, faces, colors, {}))
scene["floor"].position = [0.0, 0.0, -1.6]
scene.order = "ray"
scene.save("floor.smalti")
