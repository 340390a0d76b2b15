"""Losses: closed forms, masks, borders, the engine's fused version against plain torch, thread counts."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from smalti.primitives.family import LossContext
from smalti.primitives.gaussians import Gaussians
from smalti.trainers.losses import (
    ImageLossWeights,
    family_loss,
    image_loss,
    image_loss_torch,
    psnr_of,
    ssim_map,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def pictures(height: int = 21, width: int = 17) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(height, width, 3), draw(height, width, 3), (draw(height, width) > 0.4).double()


def test_equal_pictures_cost_nothing_and_l1_is_the_mean_difference() -> None:
    first, second, _ = pictures()
    assert float(image_loss_torch(first, first, None, ImageLossWeights(0.2))) == pytest.approx(0.0, abs=1e-12)
    expected = float((first - second).abs().mean())
    assert float(image_loss_torch(first, second, None, ImageLossWeights(0.0))) == pytest.approx(expected)


def test_ssim_of_constant_pictures_inside_and_beyond_the_border() -> None:
    """Inside, SSIM of constants a, b is (2ab + C1) / (a^2 + b^2 + C1); at the corner the zero border enters the
    window.
    """
    a, b = 0.3, 0.6
    first, second = (torch.full((31, 31, 3), value, dtype=torch.float64) for value in (a, b))
    values = ssim_map(first, second)
    assert float(values[15, 15, 0]) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), rel=1e-9)
    offset = torch.arange(11.0, dtype=torch.float64) - 5
    weight = torch.exp(-offset * offset / 4.5)
    share = float((weight / weight.sum())[5:].sum()) ** 2
    mean_a, mean_b = share * a, share * b
    variance = lambda x, y: share * x * y - share * share * x * y  # noqa: E731
    top = (2 * mean_a * mean_b + 1e-4) * (2 * variance(a, b) + 9e-4)
    bottom = (mean_a**2 + mean_b**2 + 1e-4) * (variance(a, a) + variance(b, b) + 9e-4)
    assert float(values[0, 0, 0]) == pytest.approx(top / bottom, rel=1e-9)


def test_masked_pixels_change_nothing() -> None:
    first, second, mask = pictures()
    weights = ImageLossWeights(0.2)
    value = image_loss_torch(first, second, mask, weights)
    changed = torch.where(mask[:, :, None] > 0, first, torch.full_like(first, 9.0))
    assert torch.equal(value, image_loss_torch(changed, second, mask, weights))
    leaf = first.clone().requires_grad_(True)
    image_loss_torch(leaf, second, mask, weights).backward()
    assert leaf.grad is not None
    assert not leaf.grad[mask == 0].any()
    assert float(image_loss_torch(first, second, torch.zeros_like(mask), weights)) == 0.0


def test_squared_differences_are_means_over_what_the_mask_leaves() -> None:
    first, second, mask = pictures()
    squares = (first - second).square()
    weights = ImageLossWeights(0.0, "mse")
    assert float(image_loss_torch(first, second, None, weights)) == pytest.approx(float(squares.mean()))
    assert float(image_loss_torch(first, second, mask, weights)) == pytest.approx(float(squares[mask > 0].mean()))
    changed = torch.where(mask[:, :, None] > 0, first, torch.full_like(first, 9.0))
    mixed = ImageLossWeights(0.3, "mse")
    assert torch.equal(image_loss(changed, second, mask, mixed), image_loss(first, second, mask, mixed))
    assert float(image_loss(first, second, torch.zeros_like(mask), mixed)) == 0.0
    one_minus_ssim = image_loss_torch(first, second, mask, ImageLossWeights(1.0))
    expected = 0.7 * squares[mask > 0].mean() + 0.3 * one_minus_ssim
    assert float(image_loss_torch(first, second, mask, mixed)) == pytest.approx(float(expected))


def test_the_engine_alone_is_asked_for_absolute_differences() -> None:
    """The default keeps the bits that it had before there was a choice."""
    from smalti.renderers.engine.training import image_loss as native

    first, second, mask = (each.float() for each in pictures(40, 33))
    assert torch.equal(image_loss(first, second, mask, ImageLossWeights(0.2)), native(first, second, mask, 0.2))


@pytest.mark.parametrize("pixel", ["l1", "mse"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_central_differences(masked: bool, pixel: Literal["l1", "mse"]) -> None:
    first, second, mask = pictures(13, 12)
    leaf = first.clone().requires_grad_(True)
    weights = ImageLossWeights(0.3, pixel)
    loss = lambda x: image_loss_torch(x, second, mask if masked else None, weights)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (leaf,), eps=1e-7, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("pixel", ["l1", "mse"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_loss_is_the_torch_loss(masked: bool, pixel: Literal["l1", "mse"]) -> None:
    first, second, mask = pictures(40, 33)
    results = []
    for function in (image_loss, image_loss_torch):
        leaf = first.float().requires_grad_(True)
        loss = function(leaf, second.float(), mask.float() if masked else None, ImageLossWeights(0.2, pixel))
        loss.backward()
        results.append((float(loss.detach()), leaf.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-7, rtol=1e-3)


def test_regularizers_are_the_means_that_they_claim() -> None:
    family = Gaussians.from_points(torch.rand(7, 3), torch.rand(7, 3), {"sh_degree": 0})
    family.replace({**family.parameters, "log_scales": torch.randn(7, 3)})

    def value(limit: float = 8.0, **weights: float) -> float:
        loss = family_loss(family, weights, LossContext(2.0, torch.Generator(), limit))
        assert loss is not None
        return float(loss.detach())

    assert value(opacity=3.0) == pytest.approx(3 * float(family.opacities().detach().mean()))
    assert value(scale=1.0) == pytest.approx(float(family.sizes().detach().mean()) / 2)
    two = family.sizes().detach().sort(dim=1, descending=True).values
    excess = (two[:, 0] / two[:, 1] - 1.5).clamp_min(0).mean()
    assert value(1.5, anisotropy=1.0) == pytest.approx(float(excess), rel=1e-5)
    both = value(opacity=3.0) + value(scale=0.5)
    assert value(opacity=3.0, scale=0.5) == pytest.approx(both)
    assert family_loss(family, {"opacity": 0.0}, LossContext(2.0, torch.Generator())) is None


def test_psnr() -> None:
    picture = torch.zeros(4, 4, 3)
    assert psnr_of(picture + 0.1, picture) == pytest.approx(20.0, abs=1e-4)
    assert psnr_of(picture + 7.0, picture + 1) == 120.0
