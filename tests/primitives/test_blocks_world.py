"""Blocks before a ground and a dome: the published checks (dbw.md, section 10) that need both families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_families import a_camera, backdrops, blocks, picture
from torch import Tensor

from smalti.configs.resolve import resolve
from smalti.primitives.backdrops import Backdrops
from smalti.primitives.family import Family
from smalti.primitives.superquadrics import Superquadrics
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CUBE = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def dome() -> Backdrops:
    return backdrops(form="dome", reach=6.0)


@pytest.mark.parametrize("backend", ["oracle", "cpu"])
def test_one_picture_is_the_published_two_in_their_premultiplied_form(backend: str) -> None:
    """Test 5: F + (1 - M) E of blocks (F, M) and of what is behind all of them (E) is the one picture; the released
    form F M + (1 - M) E is darker at soft borders.
    """
    camera = a_camera(*((24, 18) if backend == "oracle" else (96, 72)))
    near, behind = blocks(3), dome()
    if backend == "cpu":
        camera = camera.to(torch.float32)
        for family in (near, behind):
            family.replace({key: value.detach().float() for key, value in family.parameters.items()})

    def drawn(*families: Family) -> tuple[Tensor, Tensor]:
        drawables = [each for family in families for each in family.drawables(camera)]
        settings = RenderSettings(order="ray", transmittance_min=0.0 if backend == "oracle" else 1e-4)
        frame = render(drawables, camera, settings=settings, backend=backend)
        return frame.color.detach(), frame.alpha.detach()[..., None]

    whole, (front, share), (ground, _) = drawn(near, behind)[0], drawn(near), drawn(behind)
    apart = front + (1.0 - share) * ground
    released = front * share + (1.0 - share) * ground
    assert float((whole - apart).abs().max()) < (1e-12 if backend == "oracle" else 2e-4)
    border = ((share > 0.2) & (share < 0.8)).expand_as(whole)
    assert int(border.sum()) > 20
    assert float((released - whole)[border].mean()) < -0.02
    clear = (share < 1e-9).expand_as(whole)
    assert torch.allclose(released[clear], whole[clear])


@pytest.mark.parametrize("form", ["plane", "dome"])
def test_gradients_of_what_is_behind_by_central_differences(form: str) -> None:
    """Test 6: its place and turn move its colours over the picture; soft edges, so that sides have a derivative too."""
    family = backdrops(form=form, reach=1.5 if form == "plane" else 5.0, initial_height=0.2, edges="soft", sigma=2e-3)
    family.replace({key: value.detach()[:1] for key, value in family.parameters.items()})
    # The texture is a smooth one: bilinear lookups have kinks.
    u = torch.linspace(-2, 2, 8, dtype=torch.float64)
    family.replace({"raw_textures": torch.stack([u[:, None] * u, u[:, None] + u, u[:, None] - u], -1)[None]})
    camera, generator = a_camera(16, 12), torch.Generator().manual_seed(0)
    weights = torch.rand(12, 16, 4, generator=generator, dtype=torch.float64)
    (picture(family, camera) * weights).sum().backward()
    for name, value in family.parameters.items():
        toward = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        analytic = float((value.grad * toward).sum())  # type: ignore[operator]
        sums, start = [], value.detach().clone()
        for sign in (1, -1):
            value.data = start + sign * 1e-6 * toward
            sums.append(float((picture(family, camera).detach() * weights).sum()))
        value.data = start
        assert abs(analytic) > 1e-3, name
        assert (sums[0] - sums[1]) / 2e-6 == pytest.approx(analytic, rel=2e-4, abs=1e-6), name


def test_the_published_scene_has_the_published_number_of_parameters() -> None:
    """Test 12: 2,359,455 for ten blocks with a ground that moves and a dome that does not."""
    families = [
        Superquadrics.at_random(CUBE, 10, torch.Generator(), {}),
        Backdrops.at_random(CUBE, 1, torch.Generator(), {}),
        Backdrops.at_random(CUBE, 1, torch.Generator(), {"form": "dome"}),
    ]
    numbers = [{key: value.numel() for key, value in family.parameters.items()} for family in families]
    fixed = {"translations", "rotations"}
    assert sum(numbers[0].values()) + sum(numbers[1].values()) + numbers[2]["raw_textures"] == 2_359_455
    assert sum(numbers[2][name] for name in fixed) == 9
    preset = {layer.name: layer for layer in resolve("blocks", {}).scene}
    assert preset["dome"].learning_rates == dict.fromkeys(fixed, 0.0)


def test_the_preset_follows_the_published_curriculum(tmp_path: Path) -> None:
    """Rates are per canonical unit; noise and pooling while coarse; opaque blocks, little variation and no dome that
    moves at the end. End to end on the demo.
    """
    small = {
        **{"data.path": "demo", "data.downscale": 16, "data.split": "none"},
        **{"data.points": "hull", "data.sampled_points": 300, "run.stretch": 0.002},
        **{f"scene.{name}.metadata.texture_size": 16 for name in ("blocks", "ground", "dome")},
        "loss.perceptual_kind": "gradients",
    }
    config = resolve("blocks", small)
    steps = config.run.steps
    trainer = Trainer(Run.create(tmp_path / "run", config))
    ground, above, near = (trainer.scene.layers[name].family for name in ("ground", "dome", "blocks"))
    canonical = trainer.scene.canonical_from_scene
    assert canonical is not None
    assert trainer.extent == pytest.approx(1.0 / canonical.scale)
    assert near.metadata["ratio"] == pytest.approx(0.25 * trainer.extent)
    fixed = {name: above.parameters[name].detach().clone() for name in ("translations", "rotations")}
    before = ground.positions().detach().clone(), near.positions().detach().clone()
    trainer.step()
    for start, family, rate in zip(before, (ground, near), (5e-3, 0.0125), strict=True):
        moved = (family.positions().detach() - start).abs().amax() / trainer.extent
        assert float(moved) == pytest.approx(rate, rel=0.02)  # Adam's first step is the rate
    assert near.metadata["binary"] is False
    for _ in range(steps - 1):
        trainer.step()
    assert near.metadata["binary"] is True
    assert all(torch.equal(above.parameters[name].detach(), value) for name, value in fixed.items())
    weights = trainer.options.at(steps - 1).weights
    assert weights["ground"]["total_variation"] == pytest.approx(0.01)
    assert weights["blocks"]["total_variation"] == pytest.approx(0.01)
