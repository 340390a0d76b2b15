"""PSNR and SSIM against closed forms and independent programs; masks; the protocol."""

from __future__ import annotations

import math

import pytest
import torch

from smalti.trainers.metrics import SSIM_C1, SSIM_C2, Protocol, fit_exposure, psnr, ssim


def pictures(height: int = 40, width: int = 52, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(height, width, 3, generator=generator)
    truth = torch.nn.functional.avg_pool2d(truth.permute(2, 0, 1), 3, 1, 1).permute(1, 2, 0).contiguous()
    return (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


def test_psnr_in_closed_form() -> None:
    truth = torch.full((4, 6, 3), 0.5)
    assert float(psnr(truth + 0.1, truth)) == pytest.approx(20.0, abs=1e-5)
    assert float(psnr(truth, truth)) == math.inf
    half = torch.zeros(4, 6, dtype=torch.bool)
    half[:2] = True
    image = truth.clone()
    image[:2] += 0.01
    image[2:] += 0.3
    assert float(psnr(image, truth, half)) == pytest.approx(40.0, abs=1e-4)


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b = 0.3, 0.7
    expected = (2 * a * b + SSIM_C1) / (a * a + b * b + SSIM_C1)
    assert float(ssim(torch.full((20, 20, 3), a), torch.full((20, 20, 3), b))) == pytest.approx(expected, abs=1e-7)


def test_ssim_of_opposite_stripes_is_the_structure_term() -> None:
    """cos(pi x / 2 + ...) averages to about 0 under the window: with b = 2 m - a, covariance = -variance."""
    wave = 0.2 * torch.cos(math.pi * torch.arange(64, dtype=torch.float64))  # alternating +-0.2, variance known
    a = (0.5 + wave)[None, :, None].expand(30, 64, 3)
    b = (0.5 - wave)[None, :, None].expand(30, 64, 3)
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    taps = torch.exp(-offsets.square() / 4.5)
    taps = taps / taps.sum()
    mean = float((taps * torch.cos(math.pi * offsets)).sum()) * 0.2  # what the window leaves of the wave
    variance = 0.04 - mean * mean
    high, low = 0.5 + mean, 0.5 - mean
    luminance = (2 * high * low + SSIM_C1) / (high * high + low * low + SSIM_C1)
    expected = luminance * (-2 * variance + SSIM_C2) / (2 * variance + SSIM_C2)
    assert float(ssim(a, b)) == pytest.approx(expected, abs=1e-10)


def test_ssim_agrees_with_scikit_image() -> None:
    judge = pytest.importorskip("skimage.metrics", reason="scikit-image judges SSIM where it is installed")
    image, truth = pictures()
    expected = judge.structural_similarity(
        image.double().numpy(),
        truth.double().numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert float(ssim(image, truth)) == pytest.approx(expected, abs=1e-9)


def test_ssim_agrees_with_scipy_filters() -> None:
    filters = pytest.importorskip("scipy.ndimage", reason="scipy judges SSIM")
    image, truth = pictures(seed=3)

    def blur(values: torch.Tensor) -> torch.Tensor:
        full = filters.gaussian_filter(values.numpy(), sigma=(1.5, 1.5, 0), truncate=3.5, mode="constant")
        return torch.from_numpy(full)[5:-5, 5:-5]

    a, b = image.double(), truth.double()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    quotient = (2 * mean_a * mean_b + SSIM_C1) * (2 * cov + SSIM_C2)
    expected = quotient / ((mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2))
    assert float(ssim(image, truth)) == pytest.approx(float(expected.mean()), abs=1e-10)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_the_mask_hides_has_no_influence(metric: object) -> None:
    image, truth = pictures()
    mask = torch.zeros(40, 52, dtype=torch.bool)
    mask[8:30, 10:40] = True
    first = metric(image, truth, mask)  # pyright: ignore[reportCallIssue]
    noise = torch.rand(40, 52, 3, generator=torch.Generator().manual_seed(9))
    changed = torch.where(mask[..., None], image, noise)
    other = torch.where(mask[..., None], truth, 1 - noise)
    assert torch.equal(first, metric(changed, other, mask))  # pyright: ignore[reportCallIssue]
    assert not torch.equal(first, metric(image, truth))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(metric(image, truth, torch.ones_like(mask)), metric(image, truth))  # pyright: ignore[reportCallIssue]


def test_the_same_bits_for_any_number_of_threads() -> None:
    image, truth = pictures(300, 400)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((psnr(image, truth), ssim(image, truth)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_gradients_of_the_metrics() -> None:
    image, truth = pictures(14, 13)
    image = image.double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: ssim(x, truth.double()), (image,))
    assert torch.autograd.gradcheck(lambda x: psnr(x, truth.double()), (image,))


def test_bad_arguments_are_named() -> None:
    image, truth = pictures()
    with pytest.raises(ValueError, match="expected two pictures"):
        psnr(image[:-1], truth)
    with pytest.raises(ValueError, match="bool mask"):
        psnr(image, truth, torch.ones(40, 52))
    with pytest.raises(ValueError, match="leaves no pixel"):
        ssim(image, truth, torch.zeros(40, 52, dtype=torch.bool))
    with pytest.raises(ValueError, match="smaller than the window of 11"):
        ssim(image[:10], truth[:10])


def test_fitted_exposure_undoes_gain_and_offset() -> None:
    _, truth = pictures()
    image = truth * torch.tensor([0.5, 0.8, 1.3]) + torch.tensor([0.1, -0.05, 0.02])
    torch.testing.assert_close(fit_exposure(image, truth), truth, atol=1e-6, rtol=0)
    flat = torch.full_like(truth, 0.2)
    torch.testing.assert_close(fit_exposure(flat, truth), truth.mean(dim=(0, 1)).expand_as(truth), atol=1e-6, rtol=0)


def test_the_protocol_says_and_does_what_it_says() -> None:
    image, truth = pictures()
    image = image * 1.2
    plain, rounded = Protocol(), Protocol(background=(1, 1, 1), downscale=4, rounding=True)
    assert torch.equal(plain.prepare(image, truth), image.clamp(0, 1))
    levels = rounded.prepare(image, truth) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert "not rounded" in str(plain)
    assert "background (1, 1, 1); downscale 4" in str(rounded)
    assert "rounded to 8 bit" in str(rounded)
    fitted = Protocol(exposure="fitted")
    assert "fitted" in str(fitted)
    assert psnr(fitted.prepare(truth * 0.5, truth), truth) > 100
    assert rounded.to_json()["text"] == str(rounded)
