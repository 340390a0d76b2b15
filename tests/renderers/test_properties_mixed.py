"""What must not change a picture of many kinds, and how it must change: order of rows, batches, motions, units, crops,
threads.

What scales with the unit of length: means, scales, corners, centres, half extents (`LENGTHS`), the march step, the
camera's translation and near by the factor; densities of voxels by its inverse. Opacities, the neural network (it works
in units of the primitive's size), colours, warps, filter variance (pixels) and sigma (NDC) do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from backends import Backend, found_backends
from compare import relative_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mixed_scenes import KINDS, OF_ALL_FACES, every_kind, mapped
from scenes import Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.drawables import BoxDrawable, Drawable, TriangleDrawable
from smalti.renderers.engine.library import get_threads, set_threads
from smalti.renderers.frame import Frame
from smalti.renderers.oracle import rotation_matrices
from smalti.renderers.settings import RenderSettings

PLANES = ("color", "alpha", "features", "normal", "depth")
RAY = RenderSettings(order="ray", depth=True, normals=True, statistics=True)
CENTRE = replace(RAY, order="centre")
BACKGROUND = torch.tensor([0.25, 0.75, 0.5], dtype=torch.float64)
ENGINE = [backend for backend in found_backends() if backend.backend == "cpu"]
(DOUBLE,) = (backend for backend in ENGINE if backend.dtype == torch.float64)
FAST = ENGINE[0]
LENGTHS = {"means", "scales", "corners", "centres", "half_extents"}
ROTATED = {"means", "corners", "centres"}


@pytest.fixture(params=[FAST, DOUBLE], ids=lambda backend: backend.name)
def engine(request: pytest.FixtureRequest) -> Backend:
    return request.param


def scene_of(drawables: list[Drawable], size: tuple[int, int] = (30, 21), given: RenderSettings = RAY) -> Scene:
    return Scene(tuple(drawables), simple_camera(*size), BACKGROUND, given)  # type: ignore[arg-type]


def draw(engine: Backend, scene: Scene, backward: bool = False, unit: float = 1.0) -> tuple[Frame, dict[str, Tensor]]:
    """Frame, and gradients of fixed weights of every plane, depth in `unit`s."""
    leaves, ready = scene.leaves(engine.dtype)
    frame = engine.render(ready)
    if not backward:
        return frame, {}
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros((), dtype=engine.dtype)
    for name in PLANES:
        plane = getattr(frame, name)
        if plane is not None:
            plane = plane / unit if name == "depth" else plane
            total = total + (torch.randn(plane.shape, generator=generator).to(plane) * plane).sum()
    with engine.chosen():
        total.backward()
    return frame, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def worst_share(engine: Backend, got: Frame, want: Frame, slack: float = 1.0) -> float:
    """Share of the pixels that differ by more than the tolerance in any plane."""
    differ = torch.zeros_like(want.alpha, dtype=torch.bool)
    for name in PLANES:
        one, other = getattr(got, name), getattr(want, name)
        assert (one is None) == (other is None), name
        if other is not None:
            far = (one - other).abs() > slack * engine.image_tolerance * float(
                other.detach().abs().max().clamp_min(1e-3)
            )
            differ |= far if far.dim() == 2 else far.any(-1)
    return float(differ.double().mean())


def require_same(engine: Backend, got: Frame, want: Frame, slack: float = 1.0, pixels: int = 0) -> None:
    """But for `pixels` that stand on a threshold or an edge, where another rounding decides otherwise."""
    share = worst_share(engine, got, want, slack)
    assert share * want.alpha.numel() <= pixels + 1e-9, f"{share:.1%} of the pixels differ"


def rows_of(drawable: Any, rows: Tensor | slice) -> Any:
    """Some of its primitives; a texture belongs to all."""
    changed = mapped(drawable, lambda name, value: value if name in OF_ALL_FACES else value[rows])
    neighbours = getattr(drawable, "neighbours", None)
    return changed if neighbours is None else replace(changed, neighbours=neighbours[rows])


# ---- order and batches
@pytest.mark.parametrize("order", [RAY, CENTRE], ids=["ray", "centre"])
@pytest.mark.parametrize("seed", [1, 2])
def test_order_of_drawables_and_rows_does_not_matter(engine: Backend, order: RenderSettings, seed: int) -> None:
    """Nothing ties here, but cells of boxes, which add."""
    drawables = every_kind(6)
    generator = torch.Generator().manual_seed(seed)
    shuffled = [rows_of(d, torch.randperm(len(d), generator=generator)) for d in drawables]
    shuffled = [shuffled[k] for k in torch.randperm(len(shuffled), generator=generator).tolist()]
    want, _ = draw(engine, scene_of(drawables, given=order))
    got, _ = draw(engine, scene_of(shuffled, given=order))
    require_same(engine, got, want)
    assert want.contribution_sum is not None
    assert got.contribution_sum is not None
    sums = [frame.contribution_sum.sort().values for frame in (got, want)]
    assert relative_error(sums[0], sums[1]) <= 10 * engine.image_tolerance


@pytest.mark.parametrize("order", [RAY, CENTRE], ids=["ray", "centre"])
@pytest.mark.parametrize("name", list(KINDS))
def test_splitting_a_batch_changes_nothing(engine: Backend, name: str, order: RenderSettings) -> None:
    """One drawable as two with the same rows, another kind behind them: the same bits, the same gradients."""
    whole, other = KINDS[name](9), gaussians(5, 77, feature_count=2)
    at = max(len(whole) // 3, 1)
    parts = [rows_of(whole, slice(0, at)), rows_of(whole, slice(at, None))]
    want, expected = draw(engine, scene_of([whole, other], given=order), backward=True)
    got, found = draw(engine, scene_of([*parts, other], given=order), backward=True)
    for plane in PLANES:
        if getattr(want, plane) is not None:
            assert torch.equal(getattr(got, plane), getattr(want, plane)), plane
    for key in ("first", "median", "dominant"):
        assert torch.equal(got.ids[key], want.ids[key])
    for key, gradient in expected.items():
        number, _, field = key.rpartition(".")
        if number == "0" and field in OF_ALL_FACES:
            joined = found[f"0.{field}"] + found[f"1.{field}"]
        elif number == "0":
            joined = torch.cat([found[f"0.{field}"], found[f"1.{field}"]])
        else:
            joined = found[f"2.{field}" if number else field]
        assert relative_error(joined, gradient) <= engine.gradient_tolerance, key


def test_merging_two_scenes_far_apart_shows_both(engine: Backend) -> None:
    """Scenes that no ray shares: the picture of both is one picture over the other's as its background."""
    first, second = every_kind(3), every_kind(4)
    aside = torch.tensor([0.0, 0.0, 60.0], dtype=torch.float64) @ simple_camera().rotation

    def moved(name: str, value: Tensor) -> Tensor:
        return value + aside if name in ROTATED else value

    behind = [mapped(d, moved) for d in second]
    far, _ = draw(engine, scene_of(behind, given=replace(RAY, transmittance_min=0.0)))
    both, _ = draw(engine, scene_of([*first, *behind], given=replace(RAY, transmittance_min=0.0)))
    scene = scene_of(first, given=replace(RAY, transmittance_min=0.0))
    near, _ = draw(engine, replace(scene, background=None))
    left = 1 - near.alpha[..., None]
    for plane in ("color", "features", "normal"):
        one, other, merged = (getattr(frame, plane).double() for frame in (near, far, both))
        assert relative_error(merged, one + left.double() * other) <= 4 * engine.image_tolerance, plane
    assert relative_error(both.alpha, near.alpha + left[..., 0] * far.alpha) <= 4 * engine.image_tolerance


# ---- frames of reference
def turned(drawable: Any, quaternion: Tensor, shift: Tensor) -> Any:
    """Turned and moved in the world."""
    turn = rotation_matrices(quaternion[None])[0]
    w, v = quaternion[0] / quaternion.norm(), quaternion[1:] / quaternion.norm()

    def change(name: str, value: Tensor) -> Tensor:
        if name in ROTATED:
            return value @ turn.T + shift
        if name == "normals":
            return value @ turn.T
        if name == "quaternions":
            real, rest = value[:, :1], value[:, 1:]
            product = w * rest + real * v + torch.linalg.cross(v.expand_as(rest), rest)
            return torch.cat([w * real - rest @ v[:, None], product], dim=1)
        if name == "frequencies" and drawable.frame == "world":
            return value @ turn.T
        return value

    return mapped(drawable, change)


def without_harmonics(drawable: Any) -> Any:
    """They are tied to the world's axes."""
    return replace(drawable, sh_degree=0) if hasattr(drawable, "sh_degree") else drawable


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quaternion=st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.05),
    shift=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_rigid_motion_of_the_world(quaternion: list[float], shift: list[float]) -> None:
    """World and camera turn and move together. A few pixels on edges or cells of another rounding are set aside."""
    q, t = (torch.tensor(values, dtype=torch.float64) for values in (quaternion, shift))
    drawables = [without_harmonics(d) for d in every_kind(4)]
    scene = scene_of(drawables)
    # A camera's rotation is one to single precision only; turned it must stay the same matrix times a rotation.
    turn = rotation_matrices(q[None])[0]
    rotation = scene.camera.rotation @ turn.T
    camera = replace(scene.camera, rotation=rotation, translation=scene.camera.translation - rotation @ t)
    want, _ = draw(DOUBLE, scene)
    got, _ = draw(DOUBLE, replace(scene, drawables=tuple(turned(d, q, t) for d in drawables), camera=camera))
    got = replace(got, normal=None if got.normal is None else got.normal @ turn)
    require_same(DOUBLE, got, want, slack=100.0, pixels=2)


@pytest.mark.parametrize("factor", [0.125, 64.0])
@pytest.mark.parametrize("order", [RAY, CENTRE], ids=["ray", "centre"])
def test_scale_of_the_world(engine: Backend, order: RenderSettings, factor: float) -> None:
    """Powers of two lose no digits: the same picture, depths by the factor, gradients of lengths by its inverse."""
    drawables = every_kind(5)
    scene = scene_of(drawables, given=order)

    def change(name: str, value: Tensor) -> Tensor:
        if name == "payload":
            return torch.cat([value[..., :3], value[..., 3:] / factor], dim=-1)
        return value * factor if name in LENGTHS else value

    bigger = [mapped(d, change) for d in drawables]
    bigger = [replace(d, step=d.step * factor) if isinstance(d, BoxDrawable) else d for d in bigger]
    camera = replace(scene.camera, translation=scene.camera.translation * factor)
    want, expected = draw(engine, scene, backward=True)
    nearer = replace(order, near=order.near * factor)
    other = replace(scene, drawables=tuple(bigger), camera=camera, settings=nearer)
    got, found = draw(engine, other, backward=True, unit=factor)
    assert want.depth is not None
    assert got.depth is not None
    require_same(engine, replace(got, depth=got.depth / factor), want)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        field, changed = name.split(".")[-1], found[name]
        if field in LENGTHS or field == "translation":
            changed = changed * factor
        elif field == "payload":
            changed = torch.cat([changed[..., :3], changed[..., 3:] / factor], dim=-1)
        assert bool(gradient.any()), name
        assert relative_error(changed, gradient) <= engine.gradient_tolerance, name


@pytest.mark.parametrize("order", [RAY, CENTRE], ids=["ray", "centre"])
def test_parts_of_the_picture_rendered_alone(engine: Backend, order: RenderSettings) -> None:
    """Rows and crops show what the whole shows there. EWA's affine map is clamped by the crop's own field of view, and
    soft edges are measured by its shorter side, so these two are not here.
    """
    kinds = [name for name in KINDS if name not in ("gaussian", "triangle_soft")]
    scene = scene_of([KINDS[name](6) for name in kinds], (50, 37), order)
    whole, _ = draw(engine, scene)
    for left, top, width, height in ((0, 0, 50, 16), (0, 16, 50, 21), (0, 20, 50, 1), (13, 9, 21, 17)):
        part, _ = draw(engine, replace(scene, camera=scene.camera.cropped(left, top, width, height)))
        for name in PLANES:
            plane, want = getattr(part, name), getattr(whole, name)
            window = want[top : top + height, left : left + width]
            off = (plane - window).abs().reshape(height * width, -1).amax(1) > engine.image_tolerance * max(
                float(want.detach().abs().max()), 1e-3
            )
            # Of float32: u of a pixel is (s - cx) / fx with another cx, so an edge may fall on the other side.
            assert int(off.sum()) <= (1 if engine.dtype == torch.float32 else 0), name


# ---- threads
@pytest.mark.parametrize("order", [RAY, CENTRE], ids=["ray", "centre"])
def test_bits_do_not_depend_on_threads(engine: Backend, order: RenderSettings) -> None:
    """Forward and backward, textures, payloads, camera and statistics too."""
    scene = scene_of(every_kind(12), (70, 52), order)
    answers, before = [], get_threads()
    try:
        for threads in (1, 2, 3, 1):
            set_threads(threads)
            frame, found = draw(engine, scene, backward=True)
            answers.append((frame, found))
    finally:
        set_threads(0 if before > 1 else before)
    (first, gradients), *others = answers
    assert {name.split(".")[-1] for name in gradients} >= {"texture", "uvs", "payload", "warp", "rotation"}
    assert any(isinstance(d, TriangleDrawable) and d.texture is not None for d in scene.drawables)
    for frame, found in others:
        for name in (*PLANES, "depth_first", "depth_median", "contribution_sum", "contribution_max"):
            assert torch.equal(getattr(frame, name), getattr(first, name)), name
        for name, ids in first.ids.items():
            assert torch.equal(frame.ids[name], ids), name
        for name, gradient in gradients.items():
            assert torch.equal(found[name], gradient), name
