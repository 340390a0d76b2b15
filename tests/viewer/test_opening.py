"""Where a client begins before a scene that knows its canonical frame."""

from __future__ import annotations

import torch

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.scene import demo_scene
from smalti.viewer.opening import opening_of
from smalti.viewer.stage import Stage

LYING = Similarity(
    0.5,
    torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64),
    torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64),
)


def test_a_client_begins_upright_before_the_front_of_the_cube() -> None:
    scene = demo_scene()
    scene.canonical_from_scene = LYING
    opening = opening_of(Stage(scene))
    place, target, up = (
        torch.tensor(part, dtype=torch.float64) for part in (opening.position, opening.target, opening.up)
    )
    assert torch.allclose(up, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(LYING.apply(target), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    front = LYING.apply(place)
    assert float(front[2]) > 2.0
    assert 0.0 < float(front[1]) < float(front[2])
    camera = Camera.look_at(place, target, up, opening.fov, (64, 64))
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    seen = LYING.inverse.apply(corners) @ camera.rotation.T + camera.translation
    pixels = seen[:, :2] / seen[:, 2:] * camera.intrinsics[:2] + camera.intrinsics[2:]
    assert bool((seen[:, 2] > 0).all())
    assert bool(((pixels > 0) & (pixels < 64)).all())
