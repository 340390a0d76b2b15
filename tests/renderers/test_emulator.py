"""The CUDA kernels and their launch sequence, run by the emulator, beside the CPU engine.

`test_backends.py`, `test_closed_form.py` and others run over the emulator as one more backend; here is what only it
shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from backends import Backend, emulator
from compare import relative_error, take_gradients
from scenes import EVERYTHING, Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.backends import BackendError
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.engine import cuda
from smalti.renderers.engine.emulator import Emulator
from smalti.renderers.engine.kernel_source import GAUSSIAN, KernelSource, KindSource, Variant
from smalti.renderers.engine.library import EngineError
from smalti.renderers.engine.parameters import structures
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

EMULATOR = Backend("emulator-float64", "emulator", torch.float64)
SINGLE = Backend("emulator-float32", "emulator", torch.float32)
CPU = Backend("cpu-double", "cpu", torch.float64, "double")
Outcome = dict[str, Tensor]


def outcome(backend: Backend, scene: Scene) -> Outcome:
    """Every plane, statistic and gradient by name."""
    leaves, ready = scene.leaves(backend.dtype)
    frame = backend.render(ready)
    found = planes(frame)
    found.update(take_gradients(frame, leaves, torch.ones_like(frame.alpha, dtype=torch.bool)))
    return found


def planes(frame: Frame) -> Outcome:
    found = {name: value.detach() for name, value in vars(frame).items() if isinstance(value, Tensor)}
    found.update({f"ids {name}": value for name, value in frame.ids.items()})
    seen = frame.visibility
    found.update(visible=seen.visible.float(), radii=seen.radii, depths=seen.depths)
    found["counts"] = torch.tensor([seen.skipped, seen.intersections])
    return found


def require_equal(got: Outcome, expected: Outcome, limit: float = 0.0) -> None:
    assert set(got) == set(expected)
    for name in sorted(got):
        error = relative_error(got[name], expected[name])
        assert error <= limit, f"{name}: {error:.1e}"


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def mixed_scene(feature_count: int = 2, **settings: bool) -> Scene:
    """Two layers interleaved in depth, over a picture; tiles cut at the right and below."""
    first = gaussians(90, 31, degree=2, feature_count=feature_count, compensated=True, filter_variance=0.2)
    second = gaussians(60, 32, degree=1, feature_count=feature_count)
    generator = torch.Generator().manual_seed(4)
    background = torch.rand(37, 42, 3, generator=generator, dtype=torch.float64)
    return Scene((first, second), simple_camera(42, 37), background, replace(EVERYTHING, **settings))


@pytest.mark.parametrize("feature_count", [0, 1, 2, 5, 13, 32], ids=lambda count: f"{count + 4} channels")
def test_agrees_with_the_cpu_engine(feature_count: int) -> None:
    """To the rounding of float64, tile entries included: in one launch of 4 or 8 channels, and in several."""
    scene = mixed_scene(feature_count)
    require_equal(outcome(EMULATOR, scene), outcome(CPU, scene), 1e-10)


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("absolute_gradient", [False, True])
@pytest.mark.parametrize("smooth_cutoff", [False, True])
def test_every_option_agrees_with_the_cpu_engine(
    depth: bool, statistics: bool, absolute_gradient: bool, smooth_cutoff: bool
) -> None:
    settings = RenderSettings(
        depth=depth, statistics=statistics, absolute_gradient=absolute_gradient, smooth_cutoff=smooth_cutoff
    )
    scene = Scene((gaussians(70, 33, degree=1),), simple_camera(30, 20), None, settings)
    require_equal(outcome(EMULATOR, scene), outcome(CPU, scene), 1e-10)


def test_slots_give_what_atomics_give(deterministic: None) -> None:
    """With deterministic algorithms: a row per (tile, primitive), summed in order."""
    scene = mixed_scene(13)
    slotted = outcome(EMULATOR, scene)
    torch.use_deterministic_algorithms(False)
    require_equal(slotted, outcome(EMULATOR, scene), 1e-11)


@pytest.mark.parametrize("backend", [EMULATOR, SINGLE], ids=lambda backend: backend.name)
def test_order_of_the_threads_does_not_matter(backend: Backend) -> None:
    """To the last bit: a missing barrier would let one order read what the other has not written."""
    scene = mixed_scene(3)
    forwards = outcome(backend, scene)
    emulator().direction = -1
    try:
        require_equal(outcome(backend, scene), forwards)
    finally:
        emulator().direction = 1


class Twin(GaussianDrawable):
    """Another class of drawables, so another kind."""


def test_two_kinds_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second layer drawn by a kind of its own, which happens to be the same: nothing changes, to the last bit."""
    twin = KindSource("twin", GAUSSIAN.header, "GaussianKind", "", 8, 6, 8)
    monkeypatch.setitem(cuda.KINDS, Twin, twin)
    monkeypatch.setattr(emulator(), "variants", (Variant(8, False),))  # fewer to compile
    scene = mixed_scene(1)
    expected = outcome(SINGLE, scene)
    values = dict(vars(scene.drawables[1]))
    require_equal(outcome(SINGLE, replace(scene, drawables=(scene.drawables[0], Twin(**values)))), expected)


def test_only_some_cotangents() -> None:
    """A loss on the opacity alone, and none on the picture."""
    scene = Scene((gaussians(40, 34),), simple_camera(32, 24), torch.full((3,), 0.5, dtype=torch.float64))
    found = []
    for backend in (EMULATOR, CPU):
        leaves, ready = scene.leaves(torch.float64)
        with backend.chosen():
            backend.render(ready).alpha.square().sum().backward()
        found.append({name: value.grad for name, value in leaves.items() if value.grad is not None})
    assert relative_error(found[0]["background"], torch.zeros(3)) == 0
    require_equal(*found, limit=1e-10)


def test_barrier_that_some_threads_miss_is_found(tmp_path: Path) -> None:
    """The emulator reports it and does not hang. (The kernel is a foreign kind's, in a file outside of the package.)"""
    header = tmp_path / "stuck.h"
    body = "if (threadIdx.x == (unsigned)p.entries) __syncthreads(); else __any_sync(~0u, 1)"
    header.write_text(
        f'#include "{GAUSSIAN.header}"\n'
        f"#define STUCK_KERNELS SMALTI_KERNEL(stuck, smalti::RangeParameters, 256, {body})\n"
    )
    kind = KindSource("stuck", header, "GaussianKind", "STUCK_KERNELS", 8, 6, 8)
    source = KernelSource((kind,), (Variant(3, False),), torch.float32)
    device = Emulator(tmp_path)
    device.variants = source.variants
    c = structures(torch.float32)
    device.launch(source, "stuck", 2, c.RangeParameters(entries=1000))
    with pytest.raises(EngineError, match="barrier"):
        device.launch(source, "stuck", 2, c.RangeParameters(entries=40))
    device.launch(source, "stuck", 2, c.RangeParameters(entries=1000))


def test_emulator_has_to_be_selected() -> None:
    scene = Scene((gaussians(3),), simple_camera(16, 16))
    with pytest.raises(BackendError, match="for tests"):
        render(scene.drawables, scene.camera, backend="emulator")
