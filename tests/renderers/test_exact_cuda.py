"""The general compositor's CUDA kernels, run by the emulator, beside the CPU engine; and their compilation by NVRTC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from mixed_scenes import KINDS, boxes, every_kind, neurals, ray_gaussians, textured, triangles
from scenes import simple_camera
from torch import Tensor

from smalti.renderers.drawables import Drawable
from smalti.renderers.engine import cubins, exact_cuda, nvrtc
from smalti.renderers.engine.emulator import Emulator
from smalti.renderers.engine.exact_lists import TileLists, list_scene
from smalti.renderers.engine.exact_source import BUILT_IN, FRAGMENTS, PICTURES, ExactSource
from smalti.renderers.engine.library import EngineError
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("every_kind_emulator")


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


def test_threads_in_another_order(every_kind_emulator: Emulator) -> None:
    """Right kernels do not depend on which thread of a block runs first, nor on which block."""
    every_kind_emulator.direction = every_kind_emulator.block_direction = -1
    require_same([ray_gaussians(8), triangles(4), boxes(2)])


@pytest.mark.parametrize("make", [ray_gaussians, neurals], ids=["thin", "thick"])
def test_events_that_were_not_counted_are_an_error(
    make: Callable[[int], Drawable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a picture without them."""

    def with_none(*arguments: Any) -> tuple[TileLists, Visibility]:
        lists, visibility = list_scene(*arguments)
        return replace(lists, offsets=torch.zeros_like(lists.offsets)), visibility

    monkeypatch.setattr(exact_cuda, "list_scene", with_none)
    settings = RenderSettings(order="ray")
    with pytest.raises(EngineError, match="more events than were counted"):
        render([make(1)], simple_camera(36, 28), settings=settings, backend="emulator")


def test_additive_boxes() -> None:
    require_same([boxes(4, accumulation="additive")])


def test_single_precision() -> None:
    expected, _ = drawn(every_kind(4), "cpu")
    got, gradients = drawn(every_kind(4), "emulator", torch.float32)
    assert (expected.color - got.color).abs().quantile(0.999) < 2e-4
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def scene_with_tables() -> list[Drawable]:
    return [ray_gaussians(8), neurals(4), triangles(4), textured(6), boxes(3)]


def test_deterministic_sums_are_the_same(deterministic: None) -> None:
    """Every (tile, primitive) keeps its own row; textures, voxels and contributions are added as integers."""
    require_same(scene_with_tables())


def tensors_of(dtype: torch.dtype) -> list[Tensor | None]:
    frame, gradients = drawn(scene_with_tables(), "emulator", dtype)
    return [frame.color.detach(), frame.contribution_sum, frame.contribution_max, *gradients]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_deterministic_bytes_in_any_order(
    deterministic: None, every_kind_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Threads and blocks downwards, and every tile a band: the same bytes, which float atomics do not give."""
    expected = tensors_of(dtype)
    for threads, blocks, band_bytes in ((-1, 1, 1 << 30), (1, -1, 1 << 30), (-1, -1, 1)):
        every_kind_emulator.direction, every_kind_emulator.block_direction = threads, blocks
        monkeypatch.setattr(exact_cuda, "BAND_BYTES", band_bytes)
        for a, b in zip(expected, tensors_of(dtype), strict=True):
            assert (a is b is None) or (a is not None and b is not None and torch.equal(a, b))
    torch.use_deterministic_algorithms(False)
    downwards = tensors_of(dtype)
    every_kind_emulator.direction = every_kind_emulator.block_direction = 1
    pairs = zip(tensors_of(dtype), downwards, strict=True)
    assert any(a is not None and b is not None and not torch.equal(a, b) for a, b in pairs), "the order has no say"


def test_tables_take_a_second_sweep_only_where_they_are_differentiated(
    deterministic: None, every_kind_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []
    launch = every_kind_emulator.launch

    def counted(source: Any, kernel: str, blocks: int, parameters: Any) -> None:
        launched.append(kernel)
        launch(source, kernel, blocks, parameters)

    monkeypatch.setattr(every_kind_emulator, "launch", counted)
    drawable = textured(4, mipmaps=None)  # of which rays this coarse would see nothing else
    assert drawable.texture is not None
    for names, sweeps in ((("corners",), 1), (("corners", "texture"), 2)):
        leaves = {name: getattr(drawable, name).clone().requires_grad_() for name in names}
        launched.clear()
        frame = render([replace(drawable, **leaves)], simple_camera(20, 18), backend="emulator")
        frame.color.sum().backward()
        assert launched.count("exact_backward") == sweeps
        assert all(bool((leaf.grad != 0).any()) for leaf in leaves.values())


def test_integers_hold_what_doubles_do(deterministic: None) -> None:
    """Cotangents over sixteen orders of magnitude: 80 bits below the greatest of them every voxel has its digits."""
    exponents = 16 * torch.rand(20, 24, 1, generator=torch.Generator().manual_seed(8), dtype=torch.float64) - 8
    found: list[Tensor] = []
    for chosen in (True, False):
        torch.use_deterministic_algorithms(chosen)
        payload = boxes(3).payload.clone().requires_grad_()
        color = render([replace(boxes(3), payload=payload)], simple_camera(24, 20), backend="emulator").color
        (color * 10**exponents).sum().backward()
        assert payload.grad is not None
        found.append(payload.grad[..., :3])  # of colours: all of one sign, so nothing cancels
    felt = found[1] > 0
    assert found[1][felt].max() > 1e12 * found[1][felt].min()
    assert torch.allclose(*found, rtol=1e-12, atol=float(found[1].max()) * 2**-80)


def test_what_is_not_a_number_stays_in_its_texels(deterministic: None) -> None:
    """A loss that is infinite at one pixel: the same texels feel it as with float atomics, and no other."""
    found: list[Tensor] = []
    for chosen in (True, False):
        torch.use_deterministic_algorithms(chosen)
        payload = boxes(2).payload.clone().requires_grad_()
        color = render([replace(boxes(2), payload=payload)], simple_camera(24, 20), backend="emulator").color
        hit = (color.detach().sum(-1) > 0).nonzero()[0]
        (color.sum() + color[hit[0], hit[1]].sum() * torch.inf).backward()
        assert payload.grad is not None
        found.append(payload.grad)
    finite = found[1].isfinite()
    assert torch.equal(found[0].isfinite(), finite)
    assert 0 < int(finite.sum()) < finite.numel()
    assert torch.allclose(found[0][finite], found[1][finite], rtol=1e-9, atol=1e-12)


def test_more_sums_than_a_thread_holds_are_refused() -> None:
    drawable = neurals(4, features=torch.zeros(4, 150, dtype=torch.float64))
    with pytest.raises(EngineError, match="fewer features"):
        drawn([drawable], "emulator", normals=False)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [(kind, (75, 80, 90, 120)[k % 4]) for k, kind in enumerate(sorted(BUILT_IN))],
)
def test_every_kind_compiles(kind: str, architecture: int) -> None:
    """With the kernels of pictures and of fragments in one module."""
    source = ExactSource((BUILT_IN[kind],), torch.float32, (PICTURES, FRAGMENTS))
    compiled = nvrtc.load().compile(source.text(), f"sm_{architecture}", cubins.OPTIONS)
    assert compiled.code.startswith(b"\x7fELF")
    assert "warning" not in compiled.log, compiled.log
