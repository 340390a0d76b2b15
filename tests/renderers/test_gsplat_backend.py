"""The back end gsplat, as far as it can be held without CUDA: what is handed to it and what becomes of its answer."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gsplat_on_cpu
import pytest
import torch
from scenes import Scene, gaussians, simple_camera
from torch import Tensor

from smalti.cli.main import main
from smalti.configs.resolve import resolve
from smalti.primitives.meshes import Meshes
from smalti.renderers import backends, gsplat_backend
from smalti.renderers.backends import BackendError
from smalti.renderers.frame import Frame
from smalti.renderers.gsplat_backend import render_gsplat
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings
from smalti.trainers import loop
from smalti.trainers.display import PlainDisplay
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_torch_thread")
DEPTH = RenderSettings(depth=True, absolute_gradient=True)


def faint(count: int, seed: int, **options: Any) -> Any:
    """No opacity above our cap, which gsplat does not have."""
    made = gaussians(count, seed, **options)
    return replace(made, opacities=made.opacities.clamp_max(0.9))


SCENES = {
    "harmonics": Scene((faint(40, 1, degree=3),), simple_camera(40, 24), settings=DEPTH),
    "compensated": Scene(
        (faint(40, 2, scale=0.02, compensated=True, filter_variance=0.1),),
        simple_camera(40, 24),
        torch.tensor([0.25, 0.5, 0.125], dtype=torch.float64),
        DEPTH,
    ),
    "features of two": Scene(
        (faint(20, 3, degree=2, feature_count=4), faint(20, 4, degree=1, feature_count=4)),
        simple_camera(37, 21),
        torch.rand(21, 37, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
        DEPTH,
    ),
    "near": Scene((faint(60, 5),), simple_camera(40, 24), settings=RenderSettings(near=4.0)),
}


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all tests but those on a device."""
    pytest.importorskip("gsplat", reason="gsplat (an extra of the tests) is not installed")
    if request.node.get_closest_marker("cuda") is None:
        monkeypatch.setattr(gsplat_backend, "_rasterization", lambda: gsplat_on_cpu.rasterization)


def drawn(scene: Scene, by: Any, pose: bool = True) -> tuple[Frame, dict[str, Tensor]]:
    """The frame in float32, and the gradients of a fixed sum over it."""
    leaves, ready = scene.leaves(torch.float32)
    fixed = ("intrinsics",) if pose else ("intrinsics", "rotation", "translation")
    ready = replace(ready, camera=replace(ready.camera, **{name: leaves.pop(name).detach() for name in fixed}))
    frame = by(ready.drawables, ready.camera, ready.background, ready.settings)
    generator = torch.Generator().manual_seed(7)
    total = torch.zeros(())
    for plane in (frame.color, frame.alpha, frame.features, frame.depth):
        if plane is not None:
            total = total + (plane * torch.randn(plane.shape, generator=generator)).sum()
    total.backward()
    return frame, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def ours(drawables: Any, camera: Any, background: Any, settings: Any) -> Frame:
    return render(drawables, camera, background=background, settings=settings, backend="cpu")


def on_device(drawables: Any, camera: Any, background: Any, settings: Any) -> Frame:
    """By gsplat itself; pictures and gradients are back on the CPU."""
    tensors = [{f.name: getattr(d, f.name) for f in fields(d)} for d in drawables]
    moved = [{name: value.cuda() for name, value in each.items() if isinstance(value, Tensor)} for each in tensors]
    there = [replace(drawable, **each) for drawable, each in zip(drawables, moved, strict=True)]
    frame = render(there, camera, background=background, settings=settings, backend="gsplat")
    planes = {name: getattr(frame, name) for name in ("color", "alpha", "features", "depth")}
    return replace(frame, **{name: plane.cpu() for name, plane in planes.items() if plane is not None})


def require_alike(one: tuple[Frame, dict[str, Tensor]], other: tuple[Frame, dict[str, Tensor]]) -> None:
    """Pictures but for a few thresholds, gradients, visibility, and the screen's gradient."""
    theirs, gradients = one
    mine, expected = other
    for plane in ("color", "alpha", "features", "depth"):
        got, wanted = getattr(theirs, plane), getattr(mine, plane)
        assert (got is None) == (wanted is None), plane
        if got is not None:
            far = (got - wanted).abs() > 1e-4 * wanted.abs().max()
            assert far.float().mean() < 2e-3, plane  # a threshold that falls otherwise
    assert set(gradients) == set(expected)
    for leaf, gradient in expected.items():
        error = (gradients[leaf] - gradient).norm() / gradient.norm().clamp_min(1e-12)
        assert error < 2e-3, (leaf, float(error))
    seen = (mine.visibility.screen_gradient["sum"] != 0).any(1)
    assert int(seen.sum()) > 5
    assert bool(theirs.visibility.visible.cpu()[seen].all())
    assert bool((theirs.visibility.radii.cpu()[seen] + 1.0 >= mine.visibility.radii[seen]).all())
    torch.testing.assert_close(theirs.visibility.depths.cpu(), mine.visibility.depths)
    for sort, gradient in mine.visibility.screen_gradient.items():
        felt = theirs.visibility.screen_gradient[sort].cpu()
        assert float((felt - gradient).norm() / gradient.norm()) < 2e-3, sort
    assert set(theirs.visibility.screen_gradient) == set(mine.visibility.screen_gradient)


@pytest.mark.parametrize("pose", [True, False], ids=["pose", "fixed"])
@pytest.mark.parametrize("name", SCENES)
def test_pictures_gradients_and_visibility_are_those_of_the_engine(name: str, pose: bool) -> None:
    """With a fixed pose it is gsplat that evaluates the harmonics."""
    scene = SCENES[name]
    require_alike(drawn(scene, render_gsplat, pose), drawn(scene, ours, pose))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pose", [True, False], ids=["pose", "fixed"])
@pytest.mark.parametrize("name", SCENES)
def test_the_same_on_a_device_with_its_own_kernels(name: str, pose: bool) -> None:
    scene = SCENES[name]
    require_alike(drawn(scene, on_device, pose), drawn(scene, ours, pose))


def test_what_is_no_number_is_left_out_and_counted() -> None:
    whole = gaussians(30, 6)
    broken = replace(
        whole,
        means=whole.means.index_put((torch.tensor(3),), torch.tensor(torch.nan).double()),
        quaternions=whole.quaternions.index_put((torch.tensor(5),), torch.tensor(0.0).double()),
        scales=whole.scales.index_put((torch.tensor(7),), torch.tensor(-1.0).double()),
    )
    theirs, gradients = drawn(Scene((broken,), simple_camera(40, 24), settings=DEPTH), render_gsplat)
    mine, _ = drawn(Scene((broken,), simple_camera(40, 24), settings=DEPTH), ours)
    assert theirs.visibility.skipped == mine.visibility.skipped == 3
    assert not theirs.visibility.visible[[3, 5, 7]].any()
    assert theirs.color.isfinite().all()
    assert all(bool((gradient[[3, 5, 7]] == 0).all()) for name, gradient in gradients.items() if name[0] == "0")
    assert bool((theirs.visibility.screen_gradient["sum"][[3, 5, 7]] == 0).all())


def test_no_gaussian_at_all_is_the_background() -> None:
    none = Scene((gaussians(0),), simple_camera()).leaves(torch.float32)[1].drawables[0]
    frame = render_gsplat([none], simple_camera(8, 6), torch.tensor([0.5, 0.25, 1.0]), DEPTH)
    assert frame.color[3, 4].tolist() == [0.5, 0.25, 1.0]
    assert frame.alpha.max() == 0
    assert frame.depth is not None


def cases() -> dict[str, tuple[list[Any], Any, RenderSettings]]:
    camera, good = simple_camera(8, 6), gaussians(3)
    single = Scene((good,), camera).leaves(torch.float32)[1].drawables[0]
    mesh = Meshes.sphere(torch.zeros(3), 1.0, {"level": 0}).drawables(camera)[0]
    free = replace(camera, intrinsics=camera.intrinsics.clone().requires_grad_())
    return {
        "not the kind 'triangle'": ([single, mesh], camera, RenderSettings()),
        "one filter": ([single, replace(single, filter_variance=0.1)], camera, RenderSettings()),
        "not torch.float64": ([good], camera, RenderSettings()),
        "contributions": ([single], camera, RenderSettings(statistics=True)),
        "smooth cut-off": ([single], camera, RenderSettings(smooth_cutoff=True)),
        "transmittance": ([single], camera, RenderSettings(transmittance_min=0.0)),
        "intrinsics": ([single], free, RenderSettings()),
    }


@pytest.mark.parametrize("words", cases())
def test_what_it_cannot_do_is_named(words: str) -> None:
    drawables, camera, settings = cases()[words]
    with pytest.raises(BackendError, match=f"'gsplat' offers .*{words}.*back end 'cuda'"):
        render_gsplat(drawables, camera, None, settings)


def test_the_order_of_a_ray_is_that_of_the_centres() -> None:
    scene = SCENES["harmonics"]
    exact = replace(scene, settings=replace(scene.settings, order="ray"))
    torch.testing.assert_close(drawn(exact, render_gsplat)[0].color, drawn(scene, render_gsplat)[0].color)


def test_without_cuda_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    single = cases()["contributions"][0]
    with pytest.raises(BackendError, match="'gsplat' cannot be used: it draws on CUDA only"):
        render(single, simple_camera(8, 6), backend="gsplat")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backends.gsplat_status().available
    with pytest.raises(BackendError, match="draws tensors on cuda, but these are on cpu"):
        render(single, simple_camera(8, 6), backend="gsplat")


SMALL: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 16, "data.points": "frustum", "data.sampled_points": 80,
    "schedule.resolution": [], "density.max_primitives": 160, "density.pixels_per_primitive": 0, "run.finish": [],
}  # fmt: skip


def test_training_learns_and_grows_by_what_it_hands_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer on the CPU, its pictures drawn by the stand-in."""
    from smalti.renderers.engine.cpu import render_cpu

    counted: list[RenderSettings] = []

    def by_name(drawables: Any, camera: Any, background: Any = None, *, settings: Any, backend: str) -> Frame:
        """As `render` does for tensors on CUDA."""
        if backend == "gsplat":
            return render_gsplat(drawables, camera, background, settings)
        counted.append(settings)
        return render_cpu(drawables, camera, background, settings)

    for module in ("trainers.trainer", "trainers.step", "scene.scene"):
        monkeypatch.setattr(f"smalti.{module}.render", by_name)
    steps = {"run.steps": 40, "density.start": 5, "density.every": 5, "density.stop": 30, "run.log_every": 1}
    steps |= {"contribution.at": [20], "run.preview_every": 1000}
    run = Run.create(tmp_path / "run", resolve("gaussians", {**SMALL, **steps}))
    trainer = Trainer(run, backend="gsplat")
    assert loop.train(trainer, PlainDisplay()) == "finished"
    losses = [each["loss"] for each in run.metrics() if each["kind"] == "train"]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert len(trainer.scene) > 80
    assert len(counted) == len(trainer.train_rows)  # pruning by contributions, which gsplat does not tell
    assert all(settings.statistics for settings in counted)


def test_a_training_that_cannot_be_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    call = ["train", "gaussians", "--data", "demo", "--downscale", "8", "--out", "run"]
    assert main([*call, "--backend", "gsplat", "--device", "cuda"]) == 2
    assert main([*call, "--backend", "gsplat"]) == 2
    assert "it draws on CUDA only" in capsys.readouterr().err
    assert main([*call, "--backend", "vulkan"]) == 2
    assert "backend" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BackendError, match="'gsplat' offers EWA Gaussians alone, not the kind 'surfel'"):
        Trainer(Run.planned(tmp_path / "run", resolve("surfels", SMALL)), backend="gsplat")
