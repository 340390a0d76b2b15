"""What only a CUDA device shows: streams, threads, atomics, the cache between processes, torch's own kernels.

The `cuda-...` cases of test_backends.py and its neighbours appear where there is a device, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backends import Backend, moved
from compare import relative_error, take_gradients
from scenes import EVERYTHING, Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.render import render
from smalti.trainers.adam import AdamSettings, adam_update
from smalti.trainers.losses import ImageLossWeights, image_loss

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = Backend("cuda-float32", "cuda", torch.float32, device="cuda")
CPU = Backend("cpu", "cpu", torch.float32)


def scene() -> Scene:
    """Several tiles, channels for two launches, two layers."""
    layers = gaussians(3000, 51, degree=3, feature_count=9, scale=0.05), gaussians(500, 52, feature_count=9)
    return Scene(layers, simple_camera(320, 200), torch.full((3,), 0.25, dtype=torch.float64))


def gradients(backend: Backend, given: Scene) -> dict[str, Tensor]:
    leaves, ready = given.leaves(torch.float32)
    frame = backend.render(ready)
    return take_gradients(frame, leaves, torch.ones_like(frame.alpha, dtype=torch.bool))


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_same_as_the_cpu_engine() -> None:
    got, expected = gradients(CUDA, scene()), gradients(CPU, scene())
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert relative_error(got[name], value) <= 2e-3, name


def test_deterministic_runs_are_bit_equal(deterministic: None) -> None:
    first = gradients(CUDA, scene())
    for _ in range(4):
        again = gradients(CUDA, scene())
        assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_auto_follows_the_tensors() -> None:
    _, ready = scene().leaves(torch.float32)
    drawables = tuple(moved(drawable, "cuda") for drawable in ready.drawables)
    frame = render(drawables, ready.camera)
    assert frame.color.is_cuda
    assert frame.visibility.radii.is_cuda


def test_another_stream_and_another_thread() -> None:
    """Launches go to torch's current stream; a thread that never touched the device finds its context."""
    expected = gradients(CUDA, scene())
    found: list[dict[str, Tensor]] = []

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            found.append(gradients(CUDA, scene()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for each in found:
        assert all(relative_error(each[name], value) <= 1e-3 for name, value in expected.items())


def test_several_renders_before_their_backward_passes() -> None:
    """Nothing of a render is kept in the engine between calls."""
    expected = gradients(CUDA, scene())
    _, other = Scene((gaussians(200, 53),), simple_camera(64, 64)).leaves(torch.float32)
    leaves, ready = scene().leaves(torch.float32)
    frame = CUDA.render(ready)
    CUDA.render(other).color.sum().backward()
    got = take_gradients(frame, leaves, torch.ones_like(frame.alpha, dtype=torch.bool))
    assert all(relative_error(got[name], value) <= 1e-3 for name, value in expected.items())


def test_memory_is_given_back() -> None:
    _, ready = scene().leaves(torch.float32)
    ready = replace(ready, settings=EVERYTHING)
    CUDA.render(ready).color.sum().backward()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        CUDA.render(ready).color.sum().backward()
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


def test_second_process_takes_the_kernels_from_the_cache(tmp_path: Path) -> None:
    program = """
import torch, smalti
ones = lambda *shape: torch.ones(10, *shape, device="cuda")
drawable = smalti.GaussianDrawable(ones(3), ones(4), ones(3), ones(), ones(3))
intrinsics = torch.tensor([50.0, 50.0, 16.0, 16.0])
camera = smalti.Camera(torch.eye(3), torch.tensor([0.0, 0.0, 5.0]), intrinsics, 32, 32)
assert smalti.render([drawable], camera).color.isfinite().all()
"""
    environment = {**os.environ, "SMALTI_CACHE": str(tmp_path)}
    root = Path(__file__).parents[2]
    said = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stderr.count("compiling CUDA kernels"))
        for entry in (tmp_path / "cuda").iterdir() if len(said) == 2 else ():
            entry.write_bytes(entry.read_bytes()[:-100])  # damaged: the third process compiles anew
    assert said == [1, 0, 1]


def test_loss_and_adam_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(3)
    rendered, target = (torch.rand(60, 80, 3, generator=generator) for _ in range(2))
    mask = torch.rand(60, 80, generator=generator)
    found = []
    for device in ("cpu", "cuda"):
        leaf = rendered.to(device).requires_grad_()
        loss = image_loss(leaf, target.to(device), mask.to(device), ImageLossWeights(0.2))
        loss.backward()
        assert leaf.grad is not None
        parameter, moments = torch.ones(60, 80, 3, device=device), (torch.zeros_like(leaf), torch.zeros_like(leaf))
        for step in (1, 2, 3):
            adam_update(parameter, leaf.grad, moments, 0.1, step, AdamSettings())
        found.append([loss.detach(), leaf.grad, parameter])
    for got, expected in zip(found[1], found[0], strict=True):
        assert relative_error(got, expected) <= 1e-4
