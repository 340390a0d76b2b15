"""Scenes: layers, stored order, state, similarities."""

from __future__ import annotations

import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity
from smalti.primitives.gaussians import Gaussians
from smalti.scene.scene import Scene


def gaussians(seed: int) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(8, 3, generator=generator) - 0.5
    return Gaussians.from_points(
        points, torch.rand(8, 3, generator=generator), {"sh_degree": 1, "initial_opacity": 0.7}
    )


def camera() -> Camera:
    return Camera.look_at(torch.tensor([0.0, 0, -3]), torch.zeros(3), torch.tensor([0.0, -1, 0]), 0.6, (24, 20))


def test_state_gives_the_scene_back() -> None:
    scene = Scene(order="ray", near=0.2, background=(1.0, 1.0, 1.0))
    scene.add("a", gaussians(0), locked=True)
    scene.add("b", gaussians(1), visible=False, similarity=Similarity(2.0))
    tensors, plain = scene.state()
    back = Scene.from_state(tensors, plain)
    assert list(back.layers) == ["a", "b"]
    assert (back.order, back.near, back.background) == ("ray", 0.2, (1.0, 1.0, 1.0))
    assert back.layers["a"].locked
    assert not back.layers["b"].visible
    assert back.layers["b"].similarity.scale == 2.0
    for name in ("a", "b"):
        for key, value in scene.layers[name].family.parameters.items():
            assert torch.equal(value, back.layers[name].family.parameters[key])
    plain["version"] = 99
    with pytest.raises(ValueError, match="update smalti"):
        Scene.from_state(tensors, plain)


def test_adding_a_layer_changes_neither_order_nor_others() -> None:
    scene = Scene(order="centre")
    scene.add("a", gaussians(0))
    with pytest.raises(ValueError, match="there is a layer 'a' already"):
        scene.add("a", gaussians(1))
    assert scene.order == "centre"
    assert len(scene) == 8
    assert scene.settings(depth=True).order == "centre"


def test_invisible_layers_are_not_drawn() -> None:
    scene = Scene()
    scene.add("a", gaussians(0))
    with torch.no_grad():
        alone = scene.render(camera()).color
        scene.add("b", gaussians(1), visible=False)
        assert torch.equal(scene.render(camera()).color, alone)
        scene.layers["b"].visible = True
        assert not torch.equal(scene.render(camera()).color, alone)
        for layer in scene:
            layer.visible = False
        with pytest.raises(ValueError, match="nothing to draw"):
            scene.render(camera())


def test_a_flattened_layer_is_drawn_where_its_similarity_puts_it() -> None:
    move = Similarity(1.0, torch.eye(3, dtype=torch.float64), torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64))
    scene, moved = Scene(), Scene()
    scene.add("a", gaussians(0), similarity=move)
    family = gaussians(0)
    family.transform(move)
    moved.add("a", family)
    with torch.no_grad():
        assert torch.allclose(scene.flattened().render(camera()).color, moved.render(camera()).color)
        assert torch.equal(scene.render(camera()).color, moved.render(camera()).color)
    frame = scene.render(camera())  # drawn alike where gradients are wanted, which it has none of
    assert torch.equal(frame.color, moved.render(camera()).color)
    with pytest.raises(RuntimeError, match="flattened"):
        frame.color.sum().backward()


def test_similarities_compose_and_invert() -> None:
    turn = torch.linalg.matrix_exp(
        torch.tensor([[0.0, -0.4, 0.1], [0.4, 0, 0.2], [-0.1, -0.2, 0]], dtype=torch.float64)
    )
    first = Similarity(2.0, turn, torch.tensor([1.0, 2, 3], dtype=torch.float64))
    second = Similarity(0.5, turn @ turn, torch.tensor([0.0, -1, 0], dtype=torch.float64))
    points = torch.rand(5, 3, dtype=torch.float64)
    assert torch.allclose((second @ first).apply(points), second.apply(first.apply(points)))
    assert torch.allclose(first.inverse.apply(first.apply(points)), points)
    assert torch.allclose(Similarity.from_plain(first.to_plain()).apply(points), first.apply(points))
    with pytest.raises(ValueError, match="proper rotation"):
        Similarity(1.0, -torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="positive"):
        Similarity(0.0)
