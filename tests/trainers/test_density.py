"""Density control: alignment of state, the closed forms of each rule, the byte budget."""

from __future__ import annotations

import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.configs.config import ContributionConfig, TrainConfig, parse_bytes
from smalti.configs.resolve import resolve
from smalti.primitives.gaussians import Gaussians
from smalti.primitives.superquadrics import Superquadrics
from smalti.renderers.render import render
from smalti.scene.scene import Scene
from smalti.trainers.adam import Adam, AdamSettings
from smalti.trainers.density.budget import Budget, CardMemory
from smalti.trainers.density.evidence import drawn_count, fold, near_cameras, unsupported
from smalti.trainers.density.gradient import GradientRule
from smalti.trainers.density.mcmc import McmcRule
from smalti.trainers.density.population import Population
from smalti.trainers.density.rule import Change, Sighting

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def population(count: int = 10) -> Population:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator) * 2 - 1
    family = Gaussians.from_points(points, torch.rand(count, 3, generator=generator), {"sh_degree": 0})
    scene = Scene()
    made = Population(scene.add("gaussians", family), Adam(AdamSettings()))
    # Row numbers as moments and statistics: wherever rows go, they tell.
    for name, parameter in made.parameters().items():
        number = torch.arange(1.0, count + 1).reshape(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter).clone()
        made.adam.moments[name] = (number, number.clone())
        made.adam.counts[name] = 3
    made.statistic("row").copy_(torch.arange(1.0, count + 1))
    return made


def change(made: Population, step: int = 1000, budget: Budget | None = None) -> Change:
    budget = budget or Budget(10**9, 10**6)
    return Change(step, [made], budget, torch.Generator().manual_seed(1), 1e-4)


def moments_of(made: Population) -> list[float]:
    first = made.adam.moments["gaussians/means"][0][:, 0]
    for name in made.parameters():
        for moment in made.adam.moments[name]:
            assert torch.equal(moment.reshape(len(first), -1).amax(1) if moment.numel() else first, first)
    return first.tolist()


def nobody(made: Population) -> torch.Tensor:
    return torch.zeros(len(made), dtype=torch.bool)


def test_pruning_keeps_every_row_with_its_moments_and_statistics() -> None:
    made = population(6)
    means = made.family.positions().detach().clone()
    assert made.prune(torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)) == 2
    assert torch.equal(made.family.positions(), means[[0, 2, 3, 5]])
    assert moments_of(made) == [1, 3, 4, 6]
    assert made.statistic("row").tolist() == [1, 3, 4, 6]
    assert all(value.requires_grad and value.is_leaf for value in made.family.parameters.values())


def test_clones_are_exact_and_start_without_momentum() -> None:
    made = population(4)
    means = made.family.positions().detach().clone()
    made.clone(torch.tensor([1, 3]))
    assert torch.equal(made.family.positions(), torch.cat([means, means[[1, 3]]]))
    assert moments_of(made) == [1, 2, 3, 4, 0, 0]


def test_split_replaces_the_parent_by_two_smaller_ones() -> None:
    made = population(4)
    sizes = made.family.sizes().detach().clone()
    made.split(torch.tensor([2]), torch.Generator().manual_seed(0))
    assert len(made) == 5
    assert moments_of(made) == [1, 2, 4, 0, 0]
    assert torch.allclose(made.family.sizes()[3:], sizes[[2, 2]] / 1.6)


def test_relocation_keeps_what_host_and_newcomers_draw_together() -> None:
    made = population(5)
    made.family.replace({**made.family.parameters, "logit_opacities": torch.tensor([2.0, -9.0, 0.0, -9.0, 1.0])})
    host_opacity = float(made.family.opacities()[0].double())
    mean = made.family.positions().detach()[0].clone()
    made.relocate(torch.tensor([1, 3]), torch.tensor([0, 0]))
    assert torch.equal(made.family.positions().detach()[[0, 1, 3]], mean.expand(3, 3))
    transmitted = (1 - made.family.opacities()[[0, 1, 3]].double()).prod()
    assert float(1 - transmitted) == pytest.approx(host_opacity, rel=1e-5)
    assert moments_of(made) == [0, 0, 3, 0, 5]


def sighting(gradient: torch.Tensor, width: int = 100, height: int = 50) -> Sighting:
    count = len(gradient)
    return Sighting(torch.ones(count, dtype=torch.bool), torch.full((count,), 3.0), gradient, width, height)


def test_the_pull_does_not_depend_on_the_resolution() -> None:
    pulls = []
    for factor in (1, 4):
        made = population(3)
        rule = GradientRule(TrainConfig(), extent=1.0)
        rule.observe(made, sighting(torch.tensor([[1e-5, 2e-5]] * 3) / factor, 100 * factor, 50 * factor))
        pulls.append(made.statistic("pull"))
    assert torch.allclose(pulls[0], pulls[1])
    assert float(pulls[0][0]) == pytest.approx(((1e-5 * 50) ** 2 + (2e-5 * 25) ** 2) ** 0.5, rel=1e-5)


def test_the_gradient_rule_clones_small_splits_large_prunes_faint() -> None:
    made = population(5)
    scales = torch.full((5, 3), -6.0)
    scales[1] = 0.0
    opacities = torch.tensor([0.0, 0.0, 0.0, -7.0, 0.0])
    made.family.replace({**made.family.parameters, "log_scales": scales, "logit_opacities": opacities})
    rule = GradientRule(TrainConfig(), extent=1.0)
    rule.observe(made, sighting(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])))
    counts = rule.change(made, nobody(made), change(made))
    assert counts == {"pruned": 1, "cloned": 1, "split": 1, "refused": 0}
    assert len(made) == 6
    assert not made.statistic("pull").any()


def test_refused_growth_takes_the_strongest_and_is_counted() -> None:
    made = population(5)
    made.family.replace({**made.family.parameters, "log_scales": torch.full((5, 3), -6.0)})
    rule = GradientRule(TrainConfig(), extent=1.0)
    rule.observe(made, sighting(torch.tensor([[1.0, 0], [5.0, 0], [2.0, 0], [4.0, 0], [3.0, 0]])))
    budget = Budget(10**9, most=7)
    means = made.family.positions().detach().clone()
    assert rule.change(made, nobody(made), change(made, budget=budget))["refused"] == 3
    assert budget.refused == 3
    assert torch.equal(made.family.positions()[5:], means[[1, 3]])


def test_the_opacity_reset_cuts_opacities_and_forgets_their_moments_only() -> None:
    made = population(4)
    rule = GradientRule(resolve("gaussians"), extent=1.0)
    rule.after_update(made, change(made, step=3000))
    assert float(made.family.opacities().max()) == pytest.approx(0.01, rel=1e-4)
    assert not made.adam.moments["gaussians/logit_opacities"][0].any()
    assert made.adam.moments["gaussians/means"][0].all()
    before = made.family.opacities().detach().clone()
    rule.after_update(made, change(made, step=2999))
    assert torch.equal(before, made.family.opacities())


def test_mcmc_moves_the_dead_and_grows_by_its_share() -> None:
    made = population(100)
    opacities = torch.full((100,), 1.0)
    opacities[:10] = -8.0
    made.family.replace({**made.family.parameters, "logit_opacities": opacities})
    rule = McmcRule(resolve("gaussians-mcmc"), extent=1.0)
    counts = rule.change(made, nobody(made), change(made))
    assert counts == {"relocated": 10, "grown": 5, "refused": 0}
    assert len(made) == 105
    assert float(made.family.opacities().min()) > 0.005


def test_mcmc_gives_up_the_faintest_where_the_budget_is_overrun() -> None:
    made = population(100)
    made.family.replace({**made.family.parameters, "logit_opacities": torch.arange(100.0) / 50})
    rule = McmcRule(resolve("gaussians-mcmc"), extent=1.0)
    budget = Budget(60 * made.bytes_per_primitive, 10**6)
    assert rule.change(made, nobody(made), change(made, budget=budget))["pruned"] == 40
    assert made.statistic("row").tolist() == list(range(41, 101))


def test_a_budget_is_filled_and_never_exceeded() -> None:
    made = population(100)
    rule = McmcRule(resolve("gaussians-mcmc", {"mcmc.growth": 0.3}), extent=1.0)
    total = parse_bytes("100KB")
    budget = Budget(total, 10**6)
    for _ in range(12):
        budget.observe(50 * len(made), len(made))
        rule.change(made, nobody(made), change(made, budget=budget))
        budget.observe(50 * len(made), len(made))
        assert budget.used([made]) <= total
    assert budget.used([made]) > 0.95 * total
    assert budget.refused > 0
    assert made.bytes_per_primitive == 4 * 4 * (3 + 3 + 4 + 1 + 3) + 4


def test_on_a_card_the_renderers_memory_is_what_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator's counters are stood in for: no card is at hand."""
    asked = []
    figures = {"reset_peak_memory_stats": None, "max_memory_allocated": 900, "memory_allocated": 300}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.accelerator, name, lambda device, n=name, f=figure: (asked.append((n, device)), f)[1])
    card = torch.device("cuda", 1)
    assert CardMemory(card).taken() == 600
    assert asked == [(name, card) for name in figures]
    assert CardMemory(torch.device("cpu")).taken() == 0


def test_primitives_at_a_camera_are_found() -> None:
    made = population(50)
    positions = made.family.positions().detach()
    near = near_cameras(made.family, positions[[7, 9]] + 0.001, 0.01, rows=8)
    assert torch.nonzero(near).squeeze(1).tolist() == [7, 9]
    assert not near_cameras(made.family, positions, 0.0).any()


def test_what_drawn_rows_report_is_gathered_by_primitive() -> None:
    """Superquadrics draw many faces each; a dead one draws none."""
    family = Superquadrics.from_points(torch.rand(30, 3), torch.rand(30, 3), {"count": 3, "texture_size": 4})
    family.replace({**family.parameters, "logit_opacities": torch.tensor([2.0, -9.0, 2.0])})
    faces = drawn_count(family) // 2
    assert faces == 80
    rows = torch.zeros(2 * faces)
    rows[5], rows[7], rows[faces + 3] = 0.25, 0.5, 0.125
    assert fold(rows, family).tolist() == [0.5, 0.0, 0.125]
    splats = population(4).family
    assert drawn_count(splats) == 4
    assert torch.equal(fold(rows[4:8], splats), rows[4:8])


def test_what_no_view_or_too_few_views_support_is_found() -> None:
    """In front: one Gaussian. Behind it, hidden: another. Aside, in one of three views: a third."""
    family = Gaussians.from_points(
        torch.tensor([[0.0, 0, 0], [0, 0, 4.0], [3.0, 0, 0]]), torch.full((3, 3), 0.5), {"sh_degree": 0}
    )
    values = {**family.parameters, "log_scales": torch.tensor([[0.0] * 3, [-3.0] * 3, [-2.0] * 3])}
    family.replace({**values, "logit_opacities": torch.tensor([12.0, 3.0, 3.0])})
    scene = Scene()
    scene.add("gaussians", family)
    up = torch.tensor([0.0, -1, 0])
    look = lambda x, target: Camera.look_at(  # noqa: E731
        torch.tensor([0.0, 0, -5]) + x, torch.tensor(target), up, 0.5, (24, 24)
    )
    zero = torch.zeros(3)
    cameras = [look(zero, [0.0, 0, 0]), look(zero + 0.01, [0.0, 0, 0]), look(zero, [3.0, 0, 0])]

    def draw(scene: Scene, camera: Camera):
        return render(scene.drawables(camera), camera, settings=scene.settings(statistics=True))

    with torch.no_grad():
        once = unsupported(scene, cameras, ContributionConfig(minimum=0.05), draw)["gaussians"]
        twice = unsupported(scene, cameras, ContributionConfig(minimum=0.05, min_views=2), draw)["gaussians"]
    assert once.tolist() == [False, True, False]
    assert twice.tolist() == [False, True, True]
