"""What the CPU engine promises beyond right numbers: the same bits for any number of threads, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from scenes import Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.engine import EngineError, arena_bytes, get_threads, library, set_threads, training
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.trainers.losses import ImageLossWeights, image_loss_torch


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    set_threads(0)


def large_scene(dtype: torch.dtype = torch.float32) -> Scene:
    """Some thousand Gaussians over several chunks of tiles, with everything that has a gradient."""
    drawable = gaussians(3000, seed=3, degree=3, feature_count=2, scale=0.08)
    settings = RenderSettings(depth=True, absolute_gradient=True)
    background = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    return Scene((drawable,), simple_camera(331, 190), background=background, settings=settings)


def all_numbers(scene: Scene, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Every output and every gradient of one render, by name."""
    leaves, typed = scene.leaves(dtype)
    frame = render(typed.drawables, typed.camera, background=typed.background, settings=typed.settings, backend="cpu")
    outputs = {"color": frame.color, "alpha": frame.alpha, "features": frame.features, "depth": frame.depth}
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (v * torch.randn(v.shape, generator=generator, dtype=dtype)).sum() for v in outputs.values() if v is not None
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    found = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}
    found |= {name: None if v is None else v.detach() for name, v in outputs.items()}
    found |= {f"screen {name}": value for name, value in frame.visibility.screen_gradient.items()}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("isa", library.available())
def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    scene, dtype = large_scene(), torch.float64 if isa == "double" else torch.float32
    answers = []
    for threads in (1, 2, 3):
        set_threads(threads)
        if isa == "double":
            answers.append(all_numbers(scene, dtype))
        else:
            with library.use_isa(isa):
                answers.append(all_numbers(scene, dtype))
    assert len(answers[0]) >= 15
    for other in answers[1:]:
        for name, value in answers[0].items():
            assert torch.equal(value, other[name]), name


def test_concurrent_renders_do_not_disturb_each_other() -> None:
    scene = large_scene()
    expected = all_numbers(scene)
    found: list[dict[str, Tensor]] = []
    workers = [threading.Thread(target=lambda: found.append(all_numbers(scene))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    assert all(torch.equal(value, one[name]) for one in found for name, value in expected.items())


def test_number_of_threads_may_change_at_any_time() -> None:
    scene = large_scene()
    expected = all_numbers(scene)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for count in (1, 5, 2, 9):
                set_threads(count)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        answers = [all_numbers(scene) for _ in range(5)]
    finally:
        done.set()
        changer.join()
    assert all(torch.equal(value, one[name]) for one in answers for name, value in expected.items())


def test_engine_works_in_a_forked_child() -> None:
    program = """
import os, torch
from smalti.renderers.engine import set_threads
from tests_scene import color
set_threads(2)
before = color()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(color(), before) else 3)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
"""
    scene = """
import torch, smalti
def color():
    g = torch.Generator().manual_seed(0)
    r = lambda *s: torch.randn(*s, generator=g)
    splats = smalti.GaussianDrawable(r(200, 3), r(200, 4), 0.1 + r(200, 3).abs() * 0.1, r(200).sigmoid(), r(200, 3))
    eye = torch.tensor([0.0, 0.0, -5.0])
    camera = smalti.Camera.look_at(eye, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, (90, 70))
    return smalti.render([splats], camera, backend="cpu").color
"""
    program = program.replace("from tests_scene import color", scene)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_nothing_is_left_behind() -> None:
    before = arena_bytes()
    frame = render(large_scene().leaves(torch.float32)[1].drawables, simple_camera(331, 190), backend="cpu")
    assert arena_bytes() > before
    frame.color.sum().backward()
    del frame
    assert arena_bytes() == before


def test_running_out_of_memory_in_any_thread_is_an_error_not_the_end_of_the_process() -> None:
    """Under limits of address space from nothing to plenty, with scratch of 10 MB per thread."""
    program = """
import resource, torch, smalti
from smalti.renderers.engine import EngineError, set_threads
set_threads(3)
g = torch.Generator().manual_seed(0)
r = lambda *s: torch.randn(*s, generator=g)
means = r(20, 3)
splats = lambda features: smalti.GaussianDrawable(
    means, torch.ones(20, 4), torch.full((20, 3), 0.3), torch.full((20,), 0.5), torch.zeros(20, 3), features=features)
eye = torch.tensor([0.0, 0.0, -5.0])
camera = smalti.Camera.look_at(eye, torch.zeros(3), torch.tensor([0.0, -1.0, 0.0]), 0.8, (40, 40))
draw = lambda features: smalti.render([splats(features)], camera, backend="cpu").features
expected, wide = draw(torch.ones(20, 1))[..., 0], torch.ones(20, 10_000)
ends = {"drawn": 0, "engine": 0, "torch": 0}
for extra in range(0, 160, 4):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (extra << 20), resource.RLIM_INFINITY))
    try:
        ends["drawn"] += bool(torch.equal(draw(wide)[..., 7], expected))
    except EngineError as error:
        assert "memory" in str(error), error
        ends["engine"] += 1
    except (RuntimeError, MemoryError):
        ends["torch"] += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert ends["drawn"] and ends["engine"], ends
assert torch.equal(draw(wide)[..., 7], expected)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_counters_that_would_overflow_are_refused() -> None:
    _, scene = large_scene().leaves(torch.float32)
    with pytest.raises(EngineError, match="524272 pixels per side"):
        render(scene.drawables, simple_camera(600_000, 1), backend="cpu")


def test_drawables_whose_tensors_do_not_fit_are_refused() -> None:
    """The kernels would read past the end of the shorter ones."""
    drawable = gaussians(20, degree=1, feature_count=2)
    assert drawable.sh_rest is not None
    assert drawable.features is not None
    wrongs = {
        **{"means": drawable.means[:, :2], "quaternions": drawable.scales, "opacities": drawable.opacities[:19]},
        **{"sh_rest": drawable.sh_rest[:19], "features": drawable.features[:, 0], "sh_dc": drawable.sh_dc.to("meta")},
    }
    for name, wrong in wrongs.items():
        with pytest.raises(ValueError, match=f"GaussianDrawable.{name}"):
            replace(drawable, **{name: wrong})
    with pytest.raises(ValueError, match=r"GaussianDrawable.sh_rest: expected shape \(20, 3, 3\)"):
        replace(drawable, sh_rest=drawable.sh_rest[:, :, :2])


def test_loss_and_adam_refuse_what_does_not_fit() -> None:
    picture = torch.zeros(8, 9, 3)
    with pytest.raises(ValueError, match="do not fit"):
        training.image_loss(picture, picture[:7], None, 0.2)
    with pytest.raises(ValueError, match="do not fit"):
        training.image_loss(picture, picture, torch.ones(9, 8), 0.2)
    with pytest.raises(ValueError, match="one size and dtype"):
        training.adam_update(picture, picture[:7], (picture, picture), 0.1, 1, (0.9, 0.999, 1e-15))


def test_settings_that_mean_nothing_are_refused() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        *({"near": -1.0}, {"near": float("nan")}),
        *({"transmittance_min": 1.5}, {"order": "center"}),
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RenderSettings(**wrong)


def test_backward_can_run_twice() -> None:
    leaves, scene = large_scene().leaves(torch.float32)
    frame = render(scene.drawables, scene.camera, settings=scene.settings, backend="cpu")
    first = torch.autograd.grad(frame.color.sum(), leaves["0.means"], retain_graph=True)[0]
    second = torch.autograd.grad(frame.color.sum(), leaves["0.means"])[0]
    assert torch.equal(first, second)


def test_library_choice_is_named_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = library.available()
    assert "baseline" in names
    assert "double" in names
    monkeypatch.setenv("SMALTI_ISA", "baseline")
    assert library.chosen() == "baseline"
    monkeypatch.setenv("SMALTI_ISA", "avx1024")
    with pytest.raises(EngineError, match=r"avx1024.*baseline"):
        library.chosen()


def test_a_processor_without_vector_extensions_gets_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMALTI_ISA", raising=False)
    monkeypatch.setattr(library, "processor_flags", lambda: frozenset({"sse2", "fma"}))
    assert library.available() == ["baseline", "double"]
    assert library.chosen() == "baseline"


def test_threads_follow_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    set_threads(0)
    assert get_threads() == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="0 or more"):
        set_threads(-1)


def test_other_types_are_refused() -> None:
    _, scene = large_scene().leaves(torch.float16)
    with pytest.raises(EngineError, match="float16"):
        render(scene.drawables, scene.camera, backend="cpu")


@pytest.mark.parametrize("isa", library.available())
@pytest.mark.parametrize(("height", "width", "masked"), [(37, 53, False), (5, 7, True), (48, 64, True), (1, 1, False)])
def test_image_loss_is_the_torch_one(isa: str, height: int, width: int, masked: bool) -> None:
    dtype = torch.float64 if isa == "double" else torch.float32
    generator = torch.Generator().manual_seed(0)
    rendered = torch.rand(height, width, 3, generator=generator, dtype=dtype).requires_grad_()
    target = torch.rand(height, width, 3, generator=generator, dtype=dtype)
    mask = torch.rand(height, width, generator=generator, dtype=dtype) if masked else None
    judge = image_loss_torch(
        rendered.double(), target.double(), None if mask is None else mask.double(), ImageLossWeights(0.2)
    )
    expected = torch.autograd.grad(judge, rendered)[0]
    with library.use_isa(isa if isa != "double" else "baseline"):
        loss = training.image_loss(rendered, target, mask, 0.2)
        gradient = torch.autograd.grad(loss, rendered)[0]
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert float(loss.detach()) == pytest.approx(float(judge.detach()), rel=tolerance)
    assert float((gradient - expected).norm() / expected.norm()) < tolerance


def test_image_loss_reads_wider_pixels_in_place_and_has_the_same_bits_for_any_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    wide, target = torch.rand(70, 90, 5, generator=generator), torch.rand(70, 90, 3, generator=generator)
    values, gradients = [], []
    for threads in (1, 2):
        set_threads(threads)
        leaf = wide.clone().requires_grad_()
        loss = training.image_loss(leaf[..., :3], target, None, 0.2)
        loss.backward()
        values.append(float(loss.detach()))
        gradients.append(leaf.grad)
    narrow = float(training.image_loss(wide[..., :3].contiguous(), target, None, 0.2))
    assert values == [narrow, narrow]
    assert torch.equal(torch.as_tensor(gradients[0]), torch.as_tensor(gradients[1]))


@pytest.mark.parametrize("count", [1, 15, 16, 200_003])
def test_adam_is_torchs(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(count, generator=generator)
    ours, theirs = start.clone(), start.clone().double().requires_grad_()
    moments = (torch.zeros(count), torch.zeros(count))
    judge = torch.optim.Adam([theirs], lr=0.01, eps=1e-15)
    for step in range(1, 5):
        gradient = torch.randn(count, generator=generator)
        training.adam_update(ours, gradient, moments, 0.01, step, (0.9, 0.999, 1e-15))
        theirs.grad = gradient.double()
        judge.step()
    assert float((ours - theirs.detach()).abs().max()) < 2e-6


def test_a_render_counts_its_own_memory_whatever_else_is_alive() -> None:
    _, scene = large_scene().leaves(torch.float32)

    def counted() -> tuple[Frame, int, int]:
        frame = render(scene.drawables, scene.camera, settings=scene.settings, backend="cpu")
        before = frame.visibility.memory["arena"]
        frame.color.sum().backward()
        return frame, before, frame.visibility.memory["arena"]

    kept, *alone = counted()
    _, *beside = counted()
    assert 0 < alone[0] < alone[1]
    assert beside == alone
    assert arena_bytes() >= kept.visibility.memory["arena"]
