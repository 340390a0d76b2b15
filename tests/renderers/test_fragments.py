"""The second door: fragments of every kind, composited in torch, are the fused picture; and what each fragment says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from mixed_scenes import KINDS, boxes, every_kind, neurals, triangles
from scenes import simple_camera
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smalti.renderers.backends import BackendError
from smalti.renderers.drawables import BoxDrawable, Drawable, SurfelDrawable, TriangleDrawable
from smalti.renderers.engine import EngineError
from smalti.renderers.fragments import Fragments, composite, fragments
from smalti.renderers.render import render
from smalti.renderers.settings import RenderSettings

BACKGROUND = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def leaves_of(drawables: Sequence[Drawable]) -> tuple[list[Drawable], list[Tensor]]:
    ready: list[Drawable] = []
    leaves: list[Tensor] = []
    for drawable in drawables:
        changed: dict[str, Tensor] = {}
        for field in fields(drawable):  # pyright: ignore[reportArgumentType]
            value = getattr(drawable, field.name)
            if isinstance(value, Tensor) and value.is_floating_point():
                changed[field.name] = value.detach().double().requires_grad_()
        ready.append(replace(drawable, **changed))  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
        leaves += changed.values()
    return ready, leaves


def gradients(plane: Tensor, wanted: Sequence[Tensor]) -> list[Tensor | None]:
    weights = torch.rand(plane.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return list(torch.autograd.grad((plane * weights).sum(), list(wanted), allow_unused=True))


@pytest.mark.parametrize("kind", [*sorted(KINDS), "all"])
def test_composited_fragments_are_the_fused_picture(kind: str) -> None:
    """Colour, alpha, and the gradient of every tensor and the pose, thick and thin, overlapping."""
    drawables, leaves = leaves_of(every_kind(3) if kind == "all" else [KINDS[kind](6)])
    camera = simple_camera(12, 10)
    pose = [camera.rotation.double().requires_grad_(), camera.translation.double().requires_grad_()]
    camera = replace(camera, rotation=pose[0], translation=pose[1], intrinsics=camera.intrinsics.double())
    settings, most = RenderSettings(order="ray"), 160 if kind in ("box", "all") else 12
    frame = render(drawables, camera, background=BACKGROUND, settings=settings)
    found = fragments(drawables, camera, most, settings=settings)
    assert found.complete
    assert frame.alpha.max() > 0.1
    color, alpha = composite(found, found.colors[..., :3], BACKGROUND)
    assert (color - frame.color).abs().max() < 1e-9
    assert (alpha - frame.alpha).abs().max() < 1e-9
    assert (found.left - (1 - frame.alpha)).abs().max() < 1e-9
    expected, got = gradients(frame.color, [*leaves, *pose]), gradients(color, [*leaves, *pose])
    for k, (a, b) in enumerate(zip(expected, got, strict=True)):
        a = torch.zeros(()) if a is None else a
        b = torch.zeros(()) if b is None else b
        assert (a - b).norm() <= 1e-7 * (1 + float(a.norm())), f"gradient {k}"


def facing(z: float, color: float, opacity: float) -> TriangleDrawable:
    """A triangle across the whole view at depth z."""
    corners = torch.tensor([[[-9.0, -9.0, z], [9.0, -9.0, z], [0.0, 18.0, z]]], dtype=torch.float64)
    colors = torch.full((1, 3, 3), color, dtype=torch.float64)
    return TriangleDrawable(corners, torch.tensor([opacity], dtype=torch.float64), colors=colors)


def straight(drawables: Sequence[Drawable], most: int) -> Fragments:
    camera = simple_camera(8, 8)
    eye, origin = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return fragments(drawables, replace(camera, rotation=eye, translation=origin), most)


def test_the_nearest_are_listed_and_the_rest_is_counted() -> None:
    found = straight([facing(3, 0.3, 0.5), facing(1, 0.1, 0.25), facing(2, 0.2, 0.5)], 2)
    assert found.primitives[4, 4].tolist() == [1, 2]
    assert found.drawables[4, 4].tolist() == [1, 2]
    assert found.z0[4, 4].tolist() == pytest.approx([1.0, 2.0])
    assert found.values[4, 4].tolist() == pytest.approx([0.25, 0.5])
    assert found.counts[4, 4] == 3
    assert not found.complete
    assert float(found.left[4, 4]) == pytest.approx(0.75 * 0.5 * 0.5)


def test_behind_an_opaque_event_nothing_is_listed() -> None:
    found = straight([facing(2, 0.2, 0.5), facing(1, 0.1, 1.0)], 4)
    assert found.primitives[4, 4].tolist() == [1, -1, -1, -1]
    assert float(found.left[4, 4]) == 0


def test_overlapping_segments_are_told_apart() -> None:
    payload = torch.ones(1, 2, 2, 2, 4, dtype=torch.float64)
    rotation = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)

    def box(z: float) -> BoxDrawable:
        place = torch.tensor([[0.0, 0.0, z]], dtype=torch.float64), rotation, torch.ones(1, 3, dtype=torch.float64)
        return BoxDrawable(*place, payload, step=0.25, fade_scale=0)

    found = straight([box(3.0), box(3.5)], 32)
    seen = found.primitives[4, 4] >= 0
    assert bool(found.thick[4, 4][seen].all())
    assert bool((found.z1 > found.z0)[4, 4][seen].all())
    assert set(found.primitives[4, 4][seen].tolist()) == {0, 1}
    begins = found.z0[4, 4][seen]
    assert bool((begins[1:] >= begins[:-1] - 1e-5).all())
    shared = [z for z in begins.tolist() if abs(z - 3.0) < 0.3]
    assert len(shared) > len({round(z, 6) for z in shared}), "both boxes have a segment in the same cells"


def test_barycentrics_and_normals() -> None:
    found = straight([facing(2, 0.5, 1.0)], 1)
    local = found.local[4, 4, 0]
    assert float(local.sum()) == pytest.approx(1)
    corners = facing(2, 0.5, 1.0).corners[0]
    point = local @ corners
    camera = simple_camera(8, 8)
    fx, _, cx, _ = camera.intrinsics.tolist()
    assert float(point[0] / point[2] * fx + cx) == pytest.approx(4.5)
    assert found.normals[4, 4, 0].tolist() == pytest.approx([0, 0, -1])


def test_a_gradient_through_barycentrics_reaches_the_corners() -> None:
    """Shading in torch: a checker over the barycentrics, differentiated, against central differences."""
    base = triangles(3, edges="soft", sigma=1e-2)
    corners = base.corners.double()

    def shaded(moved: Tensor) -> Tensor:
        drawable = replace(base, corners=moved, opacities=base.opacities.double(), colors=base.colors)
        found = fragments([drawable], simple_camera(10, 8), 12)
        color = torch.sin(7 * found.local) * found.normals.new_tensor([1.0, 0.5, 0.25])
        return composite(found, color)[0].square().sum()

    leaf = corners.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(shaded(leaf), leaf)
    direction = torch.randn(corners.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-6
    numeric = (shaded(corners + step * direction) - shaded(corners - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "kind", [k for k in sorted(KINDS) if k not in ("box", "gaussian") and not k.startswith("triangle")]
)
def test_a_gradient_through_local_coordinates_reaches_a_splat(kind: str) -> None:
    """Of means, quaternions and scales, against central differences."""
    base = KINDS[kind](6)
    weights = torch.rand(10, 12, 16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(**moved: Tensor) -> Tensor:
        return (weights * fragments([replace(base, **moved)], simple_camera(12, 10), 16).local).sum()  # pyright: ignore[reportArgumentType]

    for name in ("means", "quaternions", "scales"):
        leaf = getattr(base, name).double().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(**{name: leaf}), leaf)
        direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        step = 1e-6 * direction
        numeric = (loss(**{name: leaf.detach() + step}) - loss(**{name: leaf.detach() - step})) / 2e-6
        assert abs(float(numeric)) > 1e-3
        assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-5), name


def test_shading_of_surfels_by_their_normal() -> None:
    surfels = KINDS["surfel"](5)
    assert isinstance(surfels, SurfelDrawable)
    found = fragments([surfels], simple_camera(12, 10), 8)
    there = found.primitives >= 0
    assert bool(there.any())
    assert torch.allclose(found.normals[there].norm(dim=-1), torch.ones(int(there.sum()), dtype=torch.float64))


def test_additive_boxes_are_added_up_in_torch_too() -> None:
    """As published, where rays saturate and where they do not, with their gradients."""
    (drawable,), leaves = leaves_of([boxes(3, accumulation="additive")])
    leaves[3].data[..., 3] *= 4  # payload: some rays saturate
    camera = simple_camera(12, 10)
    frame = render([drawable], camera, background=BACKGROUND, settings=RenderSettings(order="ray"))
    found = fragments([drawable], camera, 160)
    assert found.complete
    assert 0 < float((frame.alpha == 1).double().mean()) < 0.9
    color, alpha = composite(found, found.colors, BACKGROUND)
    assert (color - frame.color).abs().max() < 1e-9
    assert (alpha - frame.alpha).abs().max() < 1e-9
    for a, b in zip(gradients(frame.color, leaves), gradients(color, leaves), strict=True):
        if a is not None and b is not None:
            assert (a - b).norm() <= 1e-7 * a.norm()


@pytest.mark.parametrize("additive", [False, True])
def test_compositing_needs_nothing_that_deterministic_algorithms_refuse(additive: bool) -> None:
    """On CUDA torch refuses cumsum then; what is called here is what is called there."""
    called: set[str] = set()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    drawables = [boxes(2, accumulation="additive")] if additive else [boxes(2), triangles(3)]
    ready, leaves = leaves_of(drawables)
    found = fragments(ready, simple_camera(8, 8), 40)
    with Recorder():
        color, alpha = composite(found, found.colors[..., :3])
        torch.autograd.grad(color.sum() + alpha.sum(), leaves, allow_unused=True)
    assert "gather" in called
    assert not [name for name in called if "cumsum" in name or "histc" in name or "put" in name]


def test_refusals() -> None:
    drawable, camera = neurals(2), simple_camera(8, 8)
    with pytest.raises(ValueError, match="at least one event"):
        fragments([drawable], camera, 0)
    with pytest.raises(BackendError, match="'cpu'"):
        fragments([drawable], camera, backend="oracle")
    found = fragments([drawable], camera, 4)
    with pytest.raises(ValueError, match="colors"):
        composite(found, found.colors[..., :2, :])
    with pytest.raises(EngineError, match="pixels per side"):
        fragments([drawable], replace(camera, width=2**20))
