"""Fragments on CUDA, run by the emulator, beside the CPU engine in double: to the last digits, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
import torch
from mixed_scenes import KINDS, boxes, every_kind, textured, triangles
from scenes import simple_camera
from torch import Tensor

from smalti.renderers.backends import BackendError
from smalti.renderers.drawables import Drawable, GaussianDrawable
from smalti.renderers.engine import exact_cuda
from smalti.renderers.engine.emulator import Emulator
from smalti.renderers.fragments import Fragments, composite, fragments
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

pytestmark = pytest.mark.usefixtures("every_kind_emulator")
LIMIT = 1e-12
EXACT = ("primitives", "drawables", "thick", "counts")
DIFFERENTIABLE = ("z0", "z1", "values", "colors", "local")


def listed(
    drawables: Sequence[Drawable], backend: str, most: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[Fragments, list[Tensor | None]]:
    """The fragments, and the gradients of a weighted sum of all that is differentiable."""
    ready: list[Drawable] = []
    leaves: list[Tensor] = []
    for drawable in drawables:
        changed: dict[str, Tensor] = {}
        for field in fields(drawable):  # pyright: ignore[reportArgumentType]
            value = getattr(drawable, field.name)
            if isinstance(value, Tensor) and value.is_floating_point():
                changed[field.name] = value.detach().to(device, dtype).requires_grad_()
            elif isinstance(value, Tensor):
                changed[field.name] = value.to(device)
        ready.append(replace(drawable, **changed))  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
        leaves += [tensor for tensor in changed.values() if tensor.requires_grad]
    camera = simple_camera(21, 18)
    names = ("rotation", "translation", "intrinsics")
    pose = {name: getattr(camera, name).detach().to(dtype).requires_grad_() for name in names}
    found = fragments(ready, replace(camera, **pose), most, backend=backend)
    generator = torch.Generator().manual_seed(5)
    loss = torch.zeros((), dtype=dtype, device=device)
    for name in DIFFERENTIABLE:
        plane = getattr(found, name)
        weights = torch.rand(plane.shape, generator=generator, dtype=torch.float64)
        loss = loss + (weights.to(plane) * plane).sum()
    wanted = [*leaves, *pose.values()]
    gradients: list[Tensor | None] = list(torch.autograd.grad(loss, wanted, allow_unused=True))
    return found, [None if g is None else g.cpu() for g in gradients]


def require_same(
    drawables: Sequence[Drawable], most: int, limit: float = LIMIT, backend: str = "emulator", device: str = "cpu"
) -> Fragments:
    """Every field, and every gradient relative to its norm."""
    expected, gradients = listed(drawables, "cpu", most)
    got, own = listed(drawables, backend, most, device=device)
    assert int(expected.counts.max()) > 0, "the scene shows nothing"
    for name in EXACT:
        assert torch.equal(getattr(expected, name), getattr(got, name).cpu()), name
    for name in (*DIFFERENTIABLE, "normals", "left"):
        a, b = getattr(expected, name), getattr(got, name).cpu()
        assert (a - b).abs().max() <= limit * max(1.0, float(a.abs().max())), name
    for k, (a, b) in enumerate(zip(gradients, own, strict=True)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a - b).norm() <= limit * (1 + float(a.norm())), f"gradient {k}"
    return expected


@pytest.mark.parametrize("most", [2, 160])
@pytest.mark.parametrize("kind", [*sorted(KINDS), "all"])
def test_each_kind_equals_the_cpu_engine(kind: str, most: int) -> None:
    """With fewer places than events, and with more."""
    found = require_same(every_kind(3) if kind == "all" else [KINDS[kind](6)], most)
    assert found.complete == (most == 160) or int(found.counts.max()) <= 2
    assert bool((found.primitives[..., -1] < 0).any())


def test_bands_of_tiles_and_threads_in_another_order(
    every_kind_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_cuda, "BAND_BYTES", 1)
    every_kind_emulator.direction = every_kind_emulator.block_direction = -1
    require_same(every_kind(2), 7)


def test_deterministic_bytes_in_any_order(every_kind_emulator: Emulator) -> None:
    """As the rendered picture's: gradients of texels and voxels, too."""
    torch.use_deterministic_algorithms(True)
    try:
        drawables = [textured(5), boxes(2), triangles(3)]
        found, upwards = listed(drawables, "emulator", 9, torch.float32)
        every_kind_emulator.direction = every_kind_emulator.block_direction = -1
        again, downwards = listed(drawables, "emulator", 9, torch.float32)
        assert torch.equal(found.z0, again.z0)
        for a, b in zip(upwards, downwards, strict=True):
            assert (a is b is None) or (a is not None and b is not None and torch.equal(a, b))
        require_same(drawables, 9)
    finally:
        torch.use_deterministic_algorithms(False)


def test_composited_they_are_the_fused_picture() -> None:
    drawables = [replace(d, features=None) if isinstance(d, GaussianDrawable) else d for d in every_kind(2)]
    camera, settings = simple_camera(14, 12), RenderSettings(order="ray")
    frame = render(drawables, camera, settings=settings, backend="emulator")
    found = fragments(drawables, camera, 160, backend="emulator")
    assert found.complete
    color, alpha = composite(found, found.colors[..., :3])
    assert (color - frame.color).abs().max() < 1e-9
    assert (alpha - frame.alpha).abs().max() < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("most", [3, 160])
def test_a_device_lists_the_same(most: int) -> None:
    require_same(every_kind(4), most, 1e-7, "cuda", "cuda")


def test_the_oracle_has_no_such_door() -> None:
    with pytest.raises(BackendError, match="'cpu' and 'cuda', not by 'oracle'"):
        fragments([triangles(2)], simple_camera(8, 8), backend="oracle")
