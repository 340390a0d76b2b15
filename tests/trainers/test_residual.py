"""Points where layers differ from pictures: thin things and wide ones, hidden places, rays that are empty."""

from __future__ import annotations

from math import atan, cos, pi, sin
from pathlib import Path

import pytest
import torch
import yaml

from smalti.cameras.camera import Camera
from smalti.configs.resolve import resolve
from smalti.datasets.open import open_dataset, select_views
from smalti.primitives.meshes import Meshes
from smalti.renderers.settings import RenderSettings
from smalti.trainers.residual import Residual, missing_points, residuals
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SIZE, FOCAL = 64, 90.0
BOUNDS = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
WHITE = torch.ones(3)
ROD, BALL = torch.tensor([0.6, 0.6]), torch.tensor([-0.3, 0.0, 0.0])


def views_of_a_rod_and_a_ball(*, ball_drawn: bool, alpha: bool) -> list[Residual]:
    """An upright blue rod, less than two pixels wide, and a red ball of radius 0.3, cast by hand."""
    found = []
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    for index in range(10):
        angle = 2 * pi * index / 10 + 0.1
        eye = (3.2 * cos(angle), 3.2 * sin(angle), 0.8 if index % 2 else -0.5)
        camera = Camera.look_at(
            torch.tensor(eye), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]), 2 * atan(0.5 * SIZE / FOCAL), (SIZE, SIZE)
        )
        rays = torch.stack([(x - SIZE / 2) / FOCAL, (y - SIZE / 2) / FOCAL, torch.ones_like(x)], dim=2)
        rays = rays @ camera.rotation  # to the world; z along the axis is 1
        towards = BALL - camera.centre
        unit = rays / rays.norm(dim=2, keepdim=True)
        along = unit @ towards
        gap = along.square() - towards.square().sum() + 0.09
        on_ball = gap > 0
        depth = torch.where(on_ball, (along - gap.clamp_min(0).sqrt()) / rays.norm(dim=2), torch.inf)
        flat = unit[..., :2] / unit[..., :2].norm(dim=2, keepdim=True)
        offset = ROD - camera.centre[:2]
        reach = flat @ offset
        beside = (offset - flat * reach[..., None]).norm(dim=2)
        at = reach / rays[..., :2].norm(dim=2)
        height = camera.centre[2] + rays[..., 2] * at
        on_rod = (beside < 0.03) & (height.abs() < 0.8) & (at < depth)
        red, blue = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8])
        behind = torch.where(on_ball[..., None], red, WHITE)
        target = torch.where(on_rod[..., None], blue, behind)
        error = (target - (behind if ball_drawn else WHITE)).abs().mean(dim=2)
        foreground = on_ball | on_rod if alpha else torch.ones_like(on_ball)
        solid = depth if ball_drawn else torch.full_like(depth, torch.inf)
        found.append(Residual(camera, target, error, foreground, solid))
    return found


@pytest.mark.parametrize("alpha", [True, False])
def test_what_is_drawn_already_gets_no_points(alpha: bool) -> None:
    views = views_of_a_rod_and_a_ball(ball_drawn=True, alpha=alpha)
    positions, colors = missing_points(views, BOUNDS, 100, torch.Generator().manual_seed(0))
    assert len(positions) == 100
    beside = (positions[:, :2] - ROD).norm(dim=1)
    assert float((beside < 0.12).float().mean()) > 0.95
    assert bool((positions[:, 2].abs() < 0.9).all())
    assert float(positions[:, 2].max() - positions[:, 2].min()) > 1.2
    assert torch.allclose(colors.median(dim=0).values, torch.tensor([0.1, 0.1, 0.8]), atol=0.02)


def test_a_thin_thing_has_its_share_beside_a_wide_one() -> None:
    views = views_of_a_rod_and_a_ball(ball_drawn=False, alpha=True)
    positions, colors = missing_points(views, BOUNDS, 400, torch.Generator().manual_seed(0))
    on_rod = (positions[:, :2] - ROD).norm(dim=1) < 0.12
    in_ball = (positions - BALL).norm(dim=1) < 0.36
    assert float((on_rod | in_ball).float().mean()) > 0.95
    pixels = [((view.target[..., 2] > 0.5) & view.foreground).sum() / view.foreground.sum() for view in views]
    by_volume = 0.03**2 * pi * 1.6 / (4 / 3 * pi * 0.3**3)
    share = float(on_rod.float().mean())
    assert share == pytest.approx(float(torch.stack(pixels).mean()), rel=0.3)
    assert share > 2 * by_volume
    assert bool((colors[on_rod, 2] > 0.5).float().mean() > 0.9)
    assert bool((colors[in_ball, 0] > 0.5).float().mean() > 0.9)


def test_nothing_missing_gives_no_points() -> None:
    from dataclasses import replace

    views = [
        replace(view, error=torch.zeros_like(view.error))
        for view in views_of_a_rod_and_a_ball(ball_drawn=True, alpha=True)
    ]
    assert len(missing_points(views, BOUNDS, 50, torch.Generator())[0]) == 0
    empty = [replace(view, foreground=torch.zeros_like(view.foreground)) for view in views]
    assert len(missing_points(empty, BOUNDS, 50, torch.Generator())[0]) == 0
    assert (
        len(missing_points(views_of_a_rod_and_a_ball(ball_drawn=True, alpha=True), BOUNDS, 0, torch.Generator())[0])
        == 0
    )


def test_views_are_compared_with_what_is_drawn() -> None:
    dataset = select_views(open_dataset("demo"), [0, 10, 20])
    settings = RenderSettings(order="ray", depth=True)
    nothing = residuals(dataset, [], WHITE, settings)
    assert all(bool(torch.isinf(view.depth).all()) for view in nothing)
    assert all(float(view.error[~view.foreground].max()) < 0.04 for view in nothing)
    ball = Meshes.sphere(torch.zeros(3), 1e3)  # around everything: mid grey, seen from inside
    grey = residuals(dataset, [ball], WHITE, settings)
    assert torch.allclose(grey[0].error, (grey[0].target - 0.5).abs().mean(2), atol=1e-4)
    assert bool(torch.isfinite(grey[0].depth).all())


def winding(points: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """How often a closed surface goes around each point (Van Oosterom and Strackee 1983)."""
    a, b, c = (corners[None] - points[:, None, None]).double().unbind(2)
    la, lb, lc = a.norm(dim=2), b.norm(dim=2), c.norm(dim=2)
    below = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (a * c).sum(2) * lb
    return 2 * torch.atan2((a * torch.linalg.cross(b, c)).sum(2), below).sum(1) / (4 * pi)


def test_a_layer_starts_where_the_one_before_it_fails(tmp_path: Path) -> None:
    body = {"name": "body", "family": "meshes", "initializer": "hull", "settings": {"faces": 150}}
    fuzz = {"name": "fuzz", "family": "gaussians", "initializer": "missing", "settings": {"count": 120}}
    inside, corners = {}, torch.zeros(0)
    for name, layers in {"after": [body, fuzz], "alone": [fuzz]}.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"preset": "gaussians-fast", "scene": layers}))
        config = resolve(str(file), {"data.path": "demo", "data.downscale": 8, "data.sampled_points": 400})
        trainer = Trainer(Run.planned(tmp_path / name, config))
        starts = trainer.scene.layers["fuzz"].family.positions().detach()
        assert len(starts) == 120
        if name == "after":
            body_family = trainer.scene.layers["body"].family
            assert isinstance(body_family, Meshes)
            corners = body_family.corners().detach()
        inside[name] = float((winding(starts, corners) > 0.5).float().mean())
    assert inside["after"] < 0.25  # what an opaque mesh hides needs no Gaussians
    assert inside["alone"] > 2 * inside["after"]
