"""Adam, schedules, data order, pose and exposure refinement, and the guard against NaN."""

from __future__ import annotations

import math

import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.configs.config import OptimizerConfig, RefineConfig, ScheduleConfig
from smalti.primitives.family import RowMap
from smalti.primitives.gaussians import Gaussians
from smalti.scene.scene import Scene
from smalti.trainers import schedules
from smalti.trainers.adam import Adam, AdamSettings, RowAdam
from smalti.trainers.guard import find_bad_gradients
from smalti.trainers.ordering import ViewOrder
from smalti.trainers.refinement import Refinement, expose, twisted

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_adam_is_torchs_adam() -> None:
    ours = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    theirs = ours.detach().clone().requires_grad_(True)
    adam, judge = Adam(AdamSettings(0.9, 0.99, 1e-8)), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    for step in range(20):
        for leaf in (ours, theirs):
            leaf.grad = None
            ((leaf - step).square() * torch.arange(1.0, 4.0)).sum().backward()
        adam.step({"x": ours}, {"x": 0.01})
        judge.step()
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert adam.bytes == 2 * 50 * 3 * 4


def test_held_rows_keep_values_and_moments_while_others_move() -> None:
    leaf, adam = torch.zeros(4, 2).requires_grad_(True), Adam(AdamSettings())
    leaf.grad = torch.ones(4, 2)
    adam.step({"x": leaf}, {"x": 0.1})
    before = leaf.detach().clone(), adam.moments["x"][0].clone()
    leaf.grad = torch.full((4, 2), math.nan)
    leaf.grad[[0, 3]] = 1.0
    adam.step({"x": leaf}, {"x": 0.1}, {"x": torch.tensor([1, 2])})
    assert torch.equal(leaf.detach()[1:3], before[0][1:3])
    assert torch.equal(adam.moments["x"][0][1:3], before[1][1:3])
    assert bool((leaf.detach()[[0, 3]] < before[0][[0, 3]]).all())
    assert bool(torch.isfinite(leaf).all())


def test_adam_state_comes_back() -> None:
    leaf, adam = torch.zeros(3, 2).requires_grad_(True), Adam(AdamSettings())
    leaf.grad = torch.ones(3, 2)
    adam.step({"x": leaf}, {"x": 0.1})
    tensors, counts = adam.state()
    other = Adam(AdamSettings())
    other.load(tensors, counts, torch.device("cpu"))
    assert other.counts == {"x": 1}
    assert torch.equal(other.moments["x"][1], adam.moments["x"][1])
    other.rearrange("x", RowMap.append(3, torch.tensor([1])))
    assert other.moments["x"][0].shape == (4, 2)
    assert not other.moments["x"][0][3].any()


def test_row_adam_moves_visited_rows_only_each_by_its_own_count() -> None:
    table, adam = torch.zeros(3, 2).requires_grad_(True), RowAdam((3, 2), AdamSettings())
    for rows in ([0], [0, 2], [0]):
        table.grad = torch.ones(3, 2)
        adam.step(table, rows, 0.1)
    assert adam.counts.tolist() == [3, 0, 1]
    assert torch.allclose(table.detach()[:, 0], torch.tensor([-0.3, 0.0, -0.1]), atol=1e-5)
    table.grad = torch.full((3, 2), math.inf)
    assert adam.step(table, [1], 0.1) == [1]
    assert not table.detach()[1].any()


def test_rates_decay_positions_and_warm_up() -> None:
    family = Gaussians.from_points(torch.rand(3, 3), torch.rand(3, 3), {})
    config = OptimizerConfig(position_final=0.01, warmup=9)
    given = {"means": 1.0, "sh_dc": 0.5}
    rates = lambda step: schedules.learning_rates(family, given, config, step, 100)  # noqa: E731
    assert rates(0)["means"] == pytest.approx(0.1)
    assert rates(50)["means"] == pytest.approx(0.1)
    assert rates(100)["means"] == pytest.approx(0.01)
    assert rates(100)["sh_dc"] == 0.5
    assert rates(100)["log_scales"] == family.default_learning_rates()["log_scales"]


def test_resolution_and_degree_schedules() -> None:
    config = ScheduleConfig(resolution=[(10, 4), (20, 2)], sh_every=10)
    assert [schedules.reduction(step, config) for step in (0, 9, 10, 19, 20)] == [4, 4, 2, 2, 1]
    assert [schedules.color_degree(step, config) for step in (0, 9, 10, 25)] == [0, 0, 1, 2]


def test_every_view_comes_once_per_epoch_and_the_order_resumes() -> None:
    order = ViewOrder(7, torch.Generator().manual_seed(0))
    first = [order.next(1)[0] for _ in range(7)]
    assert sorted(first) == list(range(7))
    order.next(3)
    state, random = order.state(), order.generator.get_state()
    saved = {"pending": list(state["pending"]), "epoch": state["epoch"]}
    later = [order.next(2) for _ in range(6)]
    other = ViewOrder(7, torch.Generator().manual_seed(99))
    other.load(saved)
    other.generator.set_state(random)
    assert [other.next(2) for _ in range(6)] == later
    with pytest.raises(ValueError, match="no view"):
        ViewOrder(0, torch.Generator())


def camera() -> Camera:
    return Camera.look_at(
        torch.tensor([1.0, 2, -5]), torch.zeros(3), torch.tensor([0.0, -1, 0]), 0.8, (20, 10)
    )  # fmt: skip


def test_a_twist_is_a_rigid_motion_in_the_cameras_frame() -> None:
    base = camera()
    still = twisted(base, torch.zeros(6), 3.0)
    assert torch.allclose(still.rotation, base.rotation)
    moved = twisted(base, torch.tensor([0.0, 0, 0.3, 0.1, 0, 0]), 3.0)
    assert torch.allclose(moved.rotation @ moved.rotation.T, torch.eye(3), atol=1e-6)
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3), 0], [math.sin(0.3), math.cos(0.3), 0], [0, 0, 1]])
    assert torch.allclose(moved.rotation, turn @ base.rotation, atol=1e-6)
    shifted = twisted(base, torch.tensor([0.0, 0, 0, 0.1, 0, 0]), 3.0)
    assert torch.allclose(shifted.translation - base.translation, torch.tensor([0.3, 0, 0]), atol=1e-6)


def test_refinement_finds_a_wrong_pose_and_exposure() -> None:
    config = RefineConfig(poses=1e-2, exposure=1e-2, exposure_regularizer=0.0)
    refinement = Refinement(config, 2, 1.0)
    point, wanted = torch.tensor([0.2, -0.1, 0.3]), camera()
    wrong = twisted(wanted, torch.tensor([0.05, -0.02, 0.03, 0.02, 0.01, -0.02]), 1.0)
    color = torch.rand(4, 5, 3, generator=torch.Generator().manual_seed(0))
    points = 8 * torch.stack([point, -point, point.roll(1), -point.roll(2)])
    place = lambda c: points @ c.rotation.T + c.translation  # noqa: E731
    for step in range(300):
        found = refinement.camera(wrong, 1)
        loss = (place(found) - place(wanted)).square().sum()
        loss = loss + (refinement.exposed(color, 1) - (0.8 * color + 0.1)).square().mean()
        loss.backward()
        refinement.step([1], step, 0.1 if step > 200 else 1.0)
    assert torch.allclose(refinement.camera(wrong, 1).rotation, wanted.rotation, atol=2e-3)
    assert float((refinement.exposed(color, 1).detach() - (0.8 * color + 0.1)).abs().max()) < 1e-2
    assert not refinement.tables["poses"].detach()[0].any()


def test_gradients_of_exposure() -> None:
    generator = torch.Generator().manual_seed(0)
    color = torch.rand(3, 4, 3, dtype=torch.float64, generator=generator).requires_grad_(True)
    transform = torch.rand(3, 4, dtype=torch.float64, generator=generator).requires_grad_(True)
    assert torch.autograd.gradcheck(expose, (color, transform))


def test_bad_gradients_are_named() -> None:
    scene = Scene()
    layer = scene.add("statue", Gaussians.from_points(torch.rand(20, 3), torch.rand(20, 3), {"sh_degree": 0}))
    for parameter in layer.family.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    assert find_bad_gradients(layer, 7, ("a.jpg",)) == []
    layer.family.parameters["means"].grad = torch.full((20, 3), 3e38)  # overflows in the sum, yet is finite
    assert find_bad_gradients(layer, 7, ("a.jpg",)) == []
    bad = torch.zeros(20)
    bad[[3, 11]] = torch.tensor([math.nan, math.inf])
    layer.family.parameters["logit_opacities"].grad = bad
    (found,) = find_bad_gradients(layer, 7, ("a.jpg",))
    assert str(found) == ("step 7: gradient of statue/logit_opacities is NaN or Inf in primitives 3, 11 (view a.jpg)")


def test_rows_that_a_second_view_spoils_are_named_too() -> None:
    scene = Scene()
    layer = scene.add("statue", Gaussians.from_points(torch.rand(5, 3), torch.rand(5, 3), {"sh_degree": 0}))
    gradient = torch.zeros(5, 3)
    gradient[1] = math.nan
    layer.family.parameters["means"].grad = gradient
    found = find_bad_gradients(layer, 7, ("a.jpg",))
    gradient[3] = math.inf
    found += find_bad_gradients(layer, 7, ("b.jpg",), found)
    assert [(each.rows.tolist(), each.views) for each in found] == [([1], ("a.jpg",)), ([3], ("b.jpg",))]
    assert find_bad_gradients(layer, 7, ("c.jpg",), found) == []
