"""The general compositor's CUDA kernels, run by the emulator, beside the CPU engine; and their compilation by NVRTC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from backends import emulator
from mixed_scenes import KINDS, boxes, every_kind, neurals, ray_gaussians, triangles
from scenes import simple_camera
from torch import Tensor

from smalti.renderers.drawables import Drawable
from smalti.renderers.engine import cubins, exact_cuda, nvrtc
from smalti.renderers.engine.emulator import Emulator
from smalti.renderers.engine.exact_source import BUILT_IN, ExactSource
from smalti.renderers.engine.library import EngineError
from smalti.renderers.frame import Frame
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The emulator; one library holds all kinds, so that only one has to be compiled."""

    def all_kinds(kinds: object, dtype: torch.dtype) -> ExactSource:
        return ExactSource(tuple(BUILT_IN.values()), dtype)

    monkeypatch.setattr(exact_cuda, "ExactSource", all_kinds)
    with emulator().selected() as selected:
        yield selected


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def drawn(
    drawables: Sequence[Drawable], backend: str, dtype: torch.dtype = torch.float64, **options: Any
) -> tuple[Frame, list[Tensor | None]]:
    """The frame, and the gradients of a weighted sum of all its planes."""
    camera = simple_camera(36, 28)
    pose = {name: getattr(camera, name).detach().to(dtype).requires_grad_() for name in ("rotation", "translation")}
    intrinsics = camera.intrinsics.detach().to(dtype).requires_grad_()
    leaves: list[Tensor] = []
    ready: list[Drawable] = []
    for drawable in drawables:
        changed: dict[str, Tensor] = {}
        for field in fields(drawable):  # pyright: ignore[reportArgumentType]
            value = getattr(drawable, field.name)
            if isinstance(value, Tensor) and value.is_floating_point():
                changed[field.name] = value.detach().to(device_of(backend), dtype).requires_grad_()
            elif isinstance(value, Tensor):
                changed[field.name] = value.to(device_of(backend))
        ready.append(replace(drawable, **changed))  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
        leaves += [tensor for tensor in changed.values() if tensor.requires_grad]
    background = torch.tensor([0.3, 0.6, 0.1], dtype=dtype, device=device_of(backend)).requires_grad_()
    chosen: dict[str, Any] = {"order": "ray", "depth": True, "normals": True, "statistics": True, **options}
    settings = RenderSettings(**chosen)
    seen = replace(camera, intrinsics=intrinsics, **pose)
    frame = render(ready, seen, background=background, settings=settings, backend=backend)
    generator = torch.Generator().manual_seed(3)
    loss = torch.zeros((), dtype=dtype, device=device_of(backend))
    for plane in (frame.color, frame.alpha, frame.features, frame.normal, frame.depth):
        if plane is not None:
            weights = torch.rand(plane.shape, generator=generator, dtype=torch.float64).to(plane)
            loss = loss + (weights * plane * (1 if plane is not frame.depth else frame.alpha.detach())).sum()
    wanted = [*leaves, *pose.values(), intrinsics, background]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    gradients: list[Tensor | None] = list(found)
    return frame, [None if g is None else g.cpu() for g in gradients]


def require_same(drawables: Sequence[Drawable], limit: float = 1e-9, backend: str = "emulator", **options: Any) -> None:
    """Kernels and CPU engine agree: picture, statistics and every gradient."""
    expected, gradients = drawn(drawables, "cpu", **options)
    got, own = drawn(drawables, backend, **options)
    assert expected.alpha.max() > 0.1, "the scene shows nothing"
    for name in ("color", "alpha", "features", "normal", "depth", "depth_first", "depth_median"):
        a, b = getattr(expected, name), getattr(got, name)
        assert (a is None) == (b is None), name
        if a is not None:
            b = b.cpu()
            assert (a - b).abs().max() <= limit * max(1.0, float(a.abs().max())), name
    for name, ids in expected.ids.items():
        assert torch.equal(ids, got.ids[name].cpu()), name
    for name in ("contribution_sum", "contribution_max"):
        assert torch.allclose(getattr(expected, name), getattr(got, name).cpu(), rtol=1e-9, atol=limit), name
    assert torch.equal(expected.visibility.visible, got.visibility.visible.cpu())
    assert expected.visibility.skipped == got.visibility.skipped
    assert expected.visibility.intersections == got.visibility.intersections
    for k, (a, b) in enumerate(zip(gradients, own, strict=True)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a - b).norm() <= limit * (1 + float(a.norm())), f"gradient {k}"


@pytest.mark.parametrize("order", ["ray", "centre"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_equals_the_cpu_engine(kind: str, order: str) -> None:
    require_same([KINDS[kind](6)], order=order)


@pytest.mark.parametrize("order", ["ray", "centre"])
def test_all_kinds_at_once(order: str) -> None:
    require_same(every_kind(4), order=order)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("order", ["ray", "centre"])
def test_a_device_draws_the_same(order: str) -> None:
    require_same(every_kind(6), 1e-7, "cuda", order=order)


def test_bands_of_tiles_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little memory that every tile is a band of its own."""
    monkeypatch.setattr(exact_cuda, "BAND_BYTES", 1)
    require_same([ray_gaussians(8), neurals(4)])


def test_threads_in_another_order(device: Emulator) -> None:
    """Right kernels do not depend on which thread of a block runs first."""
    device.direction = -1
    try:
        require_same([ray_gaussians(8), triangles(4), boxes(2)])
    finally:
        device.direction = 1


def test_additive_boxes() -> None:
    require_same([boxes(4, accumulation="additive")])


def test_single_precision() -> None:
    expected, _ = drawn(every_kind(4), "cpu")
    got, gradients = drawn(every_kind(4), "emulator", torch.float32)
    assert (expected.color - got.color).abs().quantile(0.999) < 2e-4
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)


def test_deterministic_rows_sum_to_the_same() -> None:
    """Every (tile, primitive) keeps its own row; the same bits in any order of threads."""
    torch.use_deterministic_algorithms(True)
    try:
        require_same([ray_gaussians(8), neurals(4)])
        with pytest.raises(EngineError, match="not deterministic"):
            drawn([boxes(2)], "emulator")
    finally:
        torch.use_deterministic_algorithms(False)


def test_more_sums_than_a_thread_holds_are_refused() -> None:
    drawable = neurals(4, features=torch.zeros(4, 150, dtype=torch.float64))
    with pytest.raises(EngineError, match="fewer features"):
        drawn([drawable], "emulator", normals=False)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [(kind, (75, 80, 90, 120, 80, 90)[k]) for k, kind in enumerate(sorted(BUILT_IN))],
)
def test_every_kind_compiles(kind: str, architecture: int) -> None:
    source = ExactSource((BUILT_IN[kind],), torch.float32)
    compiled = nvrtc.load().compile(source.text(), f"sm_{architecture}", cubins.OPTIONS)
    assert compiled.code.startswith(b"\x7fELF")
    assert "warning" not in compiled.log, compiled.log
