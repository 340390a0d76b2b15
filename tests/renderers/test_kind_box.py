"""The box kind in the engine: every build against the oracle, against boxes tried one by one, and in closed form.

`test_oracle_boxes.py` holds the oracle to the published primitive (Lombardi et al. 2021); numbers in names are those of
the tests proposed there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backends import Backend, found_backends
from box_scenes import (
    BOXES,
    RAY,
    SCENES,
    error,
    gradients,
    judged,
    loss_of,
    planes,
    ready,
    tensors_of,
)
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import BoxDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.render import render

ENGINES = [backend for backend in found_backends() if backend.backend == "cpu"]
CAMERA = ("rotation", "translation", "intrinsics")


@pytest.fixture(params=ENGINES, ids=lambda backend: backend.name)
def engine(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every build of the CPU engine in turn, chosen for the length of the test."""
    with request.param.chosen():
        yield request.param


@pytest.fixture
def double() -> Backend:
    """The float64 build."""
    return next(backend for backend in ENGINES if backend.dtype == torch.float64)


@pytest.mark.parametrize("name", SCENES)
def test_agrees_with_the_oracle(engine: Backend, name: str) -> None:
    """Pictures, statistics, and the gradient of every tensor, the camera's and the background included."""
    scene, own = SCENES[name], ready(SCENES[name], engine.dtype)
    expected, wanted = judged(name)
    got = own.draw("cpu")
    single = engine.dtype == torch.float32
    assert bool((expected.alpha > 0.05).any())
    for plane, value in planes(expected).items():
        assert error(planes(got)[plane], value) <= (2e-5 if single else 1e-12), plane
    assert expected.contribution_sum is not None
    assert got.contribution_sum is not None
    assert error(got.contribution_sum, expected.contribution_sum) <= (2e-5 if single else 1e-12)
    if scene.order == "ray":
        for which, ids in expected.ids.items():
            assert int((got.ids[which] != ids).sum()) <= (1 if single else 0), which
    found = gradients(own, got)
    for leaf, value in wanted.items():
        assert error(found[leaf], value) <= (1e-3 if single else 1e-10), leaf
    assert expected.visibility.skipped == got.visibility.skipped == 0


@pytest.mark.parametrize("name", ["warped", "another window", "with Gaussians", "additive", "additive, saturated"])
def test_6_central_differences(double: Backend, name: str) -> None:
    """Of the engine itself, with the samples that are inside and the rays that saturate frozen by a small step."""
    scene = SCENES[name]
    own = ready(scene, torch.float64)
    found = gradients(own, own.draw("cpu"))
    generator = torch.Generator().manual_seed(1)

    def loss(changed: dict[str, Tensor]) -> float:
        with torch.no_grad():
            return float(loss_of(ready(scene, torch.float64, leaves=False, **changed).draw("cpu")))

    for leaf, gradient in found.items():
        value = own.leaves[leaf].detach()
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        expected = float((gradient * direction).sum())
        size = float((gradient * direction).abs().sum())
        # Within a step samples may jump in or out at |y| = 1, and cross from voxel to voxel: the best of several steps.
        errors = []
        for step in (3e-6, 1e-6, 3e-7, 1e-7, 3e-8):
            ahead, back = ({leaf: value + sign * step * direction} for sign in (1, -1))
            errors.append(abs((loss(ahead) - loss(back)) / (2 * step) - expected))
        assert min(errors) <= 2e-6 * size, leaf


# ---- 9. the lists
def tried_one_by_one(drawable: BoxDrawable, camera: Camera) -> tuple[int, Tensor]:
    """Every box at every pixel and every cell: samples inside of boxes, and the optical depth of every cell."""
    x, y = (torch.arange(size, dtype=torch.float64) + 0.5 for size in (camera.width, camera.height))
    fx, fy, cx, cy = camera.intrinsics.unbind()
    v, u = torch.meshgrid((y - cy) / fy, (x - cx) / fx, indexing="ij")
    directions = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(-1, 3)
    lengths = directions.norm(dim=-1, keepdim=True)
    world = directions / lengths @ camera.rotation
    w, a, b, c = torch.nn.functional.normalize(drawable.quaternions, dim=-1).unbind(-1)
    rows = [1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)]
    rows += [2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)]
    rows += [2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)]
    rotations = torch.stack(rows, dim=-1).reshape(-1, 3, 3)
    offset = camera.centre - drawable.centres
    cells = math.ceil(float((offset.norm(dim=-1) + drawable.half_extents.norm(dim=-1)).max()) / drawable.step) + 1
    arc = (torch.arange(cells, dtype=torch.float64) + 0.5) * drawable.step
    seen = (arc[None] / lengths) >= 0.01
    inside, tau = 0, torch.zeros(len(directions), cells, dtype=torch.float64)
    for k in range(len(drawable)):
        start = (offset[k] @ rotations[k]) / drawable.half_extents[k]
        along = (world @ rotations[k]) / drawable.half_extents[k]
        there = ((start + arc[None, :, None] * along[:, None]).abs() < 1).all(-1) & seen
        inside += int(there.sum())
        tau += there * (drawable.payload[k, 0, 0, 0, 3] * drawable.step)
    return inside, tau


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 500])
@pytest.mark.parametrize("place", ["apart", "inside", "along the axes", "long and thin"])
def test_9_lists_lose_nothing(double: Backend, count: int, place: str) -> None:
    """No sample of any box is lost or taken twice, and nothing is cut short, however many boxes a ray meets."""
    generator = torch.Generator().manual_seed(count)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    centres, quaternions, half = 2 * uniform(count, 3) - 1, uniform(count, 4) - 0.5, 0.05 + 0.3 * uniform(count, 3)
    if place == "long and thin":
        half = half * torch.tensor([3.0, 0.1, 0.3])
    rotation, shift = torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64)
    if place == "along the axes":
        # Dyadic everything, and a ray through the middle of a pixel that runs along z exactly.
        quaternions = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).repeat(count, 1)
        centres, half = (centres * 16).round() / 16 + 1 / 64, (half * 16).ceil() / 16
    else:
        u, _, v = torch.linalg.svd(torch.randn(3, 3, generator=generator, dtype=torch.float64))
        rotation = u @ v
        if place == "inside":
            shift = -rotation @ centres[0]
    payload = torch.full((count, 1, 1, 1, 4), 0.5, dtype=torch.float64)
    payload[..., 3] = 0.2 * (1 + torch.arange(count).double()[:, None, None, None]) / count
    drawable = BoxDrawable(centres, quaternions, half, payload, step=0.0625, fade_scale=0.0)
    # Whole tiles: lanes outside of the picture would be counted too.
    width = 16 if count > 100 else 32
    camera = Camera(rotation, shift, torch.tensor([20.0, 21.0, width / 2 + 0.5, 7.5], dtype=torch.float64), width, 16)
    frame = render([drawable], camera, settings=replace(RAY, transmittance_min=0.0), backend="cpu")
    inside, tau = tried_one_by_one(drawable, camera)
    assert frame.visibility.lookups == inside
    assert inside > 0 or count < 4
    np.testing.assert_allclose(frame.alpha.flatten(), 1 - torch.exp(-tau.sum(1)), atol=1e-12)
    np.testing.assert_allclose(frame.color[..., 0].flatten(), 0.5 * (1 - torch.exp(-tau.sum(1))), atol=1e-12)
    additive = render([replace(drawable, accumulation="additive")], camera, settings=RAY, backend="cpu")
    np.testing.assert_allclose(additive.alpha.flatten(), tau.sum(1).clamp(max=1), atol=1e-12)


# ---- closed forms, on one ray
def block(z0: float, z1: float, density: float, step: float, **other: Any) -> BoxDrawable:
    """A cube on the axis, of constant density from z0 to z1; no window."""
    payload = torch.tensor([0.25, 0.5, 1.0, density], dtype=torch.float64).expand(1, 2, 2, 2, 4)
    centre = torch.tensor([[0.0, 0.0, (z0 + z1) / 2]], dtype=torch.float64)
    half = torch.full((1, 3), (z1 - z0) / 2, dtype=torch.float64)
    upright = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    values: dict[str, Any] = {"step": step, "fade_scale": 0.0, **other}
    return BoxDrawable(centre, upright, half, payload, **values)


def on_axis(*boxes: BoxDrawable, dtype: torch.dtype) -> Frame:
    camera = Camera(torch.eye(3), torch.zeros(3), torch.tensor([8.0, 8.0, 0.5, 0.5]), 1, 1)
    own = [replace(box, **{name: getattr(box, name).to(dtype) for name in BOXES[:4]}) for box in boxes]
    return render(own, camera, settings=RAY, backend="cpu")


def test_1_and_13_constant_density(engine: Backend) -> None:
    """Density times length, to first order in the step; with the window, times the mean of exp(-8 y^8)."""
    y = (np.arange(100_000) + 0.5) / 100_000
    mean = float(np.exp(-8 * y**8).mean())
    for fade, share in ((0.0, 1.0), (8.0, mean)):
        for step in (0.1, 0.05, 0.025, 0.0125):
            box = block(2, 4, 0.3, step, fade_scale=fade, accumulation="additive")
            assert abs(float(on_axis(box, dtype=engine.dtype).alpha) - 0.6 * share) <= 0.3 * step
        thick = on_axis(replace(box, accumulation="exponential"), dtype=engine.dtype)
        assert abs(float(thick.alpha) - (1 - math.exp(-0.6 * share))) <= 0.3 * step


def test_2_saturation(engine: Backend) -> None:
    """A is 1 and no more; the colour's weights sum to it; what is behind adds nothing."""
    for density in (0.6, 1.3, 2.6):
        front = block(2, 4, density, 0.125, accumulation="additive")
        behind = block(5, 6, 3.0, 0.125, accumulation="additive")
        frame = on_axis(front, behind, dtype=engine.dtype)
        assert float(frame.alpha) == 1.0
        np.testing.assert_allclose(frame.color[0, 0], [0.25, 0.5, 1.0], rtol=1e-6)
        assert frame.contribution_sum is not None
        np.testing.assert_allclose(frame.contribution_sum, [1, 0], atol=1e-6)


def test_4_two_halves_are_one(engine: Backend) -> None:
    for accumulation in ("exponential", "additive"):
        scene = replace(SCENES["plain"], density=3.0, numbers={"accumulation": accumulation})
        whole = ready(scene, engine.dtype, leaves=False)
        box = whole.drawables[0]
        assert isinstance(box, BoxDrawable)
        half = replace(box, payload=box.payload * torch.tensor([1, 1, 1, 0.5]).to(box.payload))
        one = render([box], whole.camera, settings=RAY, backend="cpu")
        two = render([half, half], whole.camera, settings=RAY, backend="cpu")
        assert float(one.alpha.max()) > 0.5
        np.testing.assert_allclose(two.color, one.color, atol=1e-5)
        np.testing.assert_allclose(two.alpha, one.alpha, atol=1e-5)


def test_5_rules_agree_only_for_thin_content(engine: Backend) -> None:
    for density, near in ((1e-3, True), (1.0, False)):
        alphas = [
            float(on_axis(block(2, 3, density, 0.125, accumulation=a), dtype=engine.dtype).alpha)
            for a in ("exponential", "additive")
        ]
        assert (abs(alphas[0] - alphas[1]) <= 0.1 * density) == near


def test_7_linear_payloads(engine: Backend) -> None:
    """Trilinear lookup reproduces what is linear in y, up to both faces of the box."""
    nodes = torch.linspace(-1, 1, 5, dtype=torch.float64)
    box = block(2, 4, 0.0, 1 / 64, accumulation="additive")
    payload = torch.ones(1, 5, 2, 2, 4, dtype=torch.float64)
    payload[0, ..., 0] = nodes[:, None, None]
    payload[..., 3] = 1e-3
    frame = on_axis(replace(box, payload=payload), dtype=engine.dtype)
    np.testing.assert_allclose(frame.color[0, 0, 0], 0.0, atol=1e-9)
    half = on_axis(replace(box, payload=payload, half_extents=box.half_extents * 2), dtype=engine.dtype)
    # Seen from 0 to 5, of a box from 1 to 5: y from -1 to 1 as well, every value once.
    np.testing.assert_allclose(half.color[0, 0, 0], 0.0, atol=1e-9)
    quarter = block(2.5, 3.0, 0.0, 1 / 64, accumulation="additive")
    long = replace(quarter, centres=box.centres, half_extents=box.half_extents, payload=payload, step=1 / 64)
    cut = replace(RAY, near=3.0)
    camera = Camera(torch.eye(3), torch.zeros(3), torch.tensor([8.0, 8.0, 0.5, 0.5]), 1, 1)
    own = replace(long, **{name: getattr(long, name).to(engine.dtype) for name in BOXES[:4]})
    seen = render([own], camera, settings=cut, backend="cpu")
    # Its far half: the mean of y over [0, 1], times the optical depth of length 1.
    np.testing.assert_allclose(seen.color[0, 0, 0], 0.5e-3, rtol=1e-5)


def test_8_rigid_motion_and_units(double: Backend) -> None:
    """The world turned, shifted and measured in another unit, camera and all: the same picture."""
    scene = SCENES["warped"]
    t = tensors_of(scene)
    first = ready(scene, torch.float64, leaves=False).draw("cpu")
    u, _, v = torch.linalg.svd(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    turn = u @ v * torch.det(u @ v)
    w, x, y, z = t["quaternions"].unbind(-1)
    qw = torch.sqrt((1 + turn.trace()).clamp(min=1e-9)) / 2
    a, b, c = (
        (turn[2, 1] - turn[1, 2]) / (4 * qw),
        (turn[0, 2] - turn[2, 0]) / (4 * qw),
        (turn[1, 0] - turn[0, 1]) / (4 * qw),
    )
    product = [qw * w - a * x - b * y - c * z, qw * x + a * w + b * z - c * y]
    product += [qw * y - a * z + b * w + c * x, qw * z + a * y - b * x + c * w]
    shift, unit = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64), 4.0
    moved = {
        "centres": unit * (t["centres"] @ turn.T + shift),
        "quaternions": torch.stack(product, dim=-1),
        "half_extents": unit * t["half_extents"],
        "payload": t["payload"] * torch.tensor([1, 1, 1, 1 / unit], dtype=torch.float64),
        "rotation": t["rotation"] @ turn.T,
        "translation": unit * (t["translation"] - t["rotation"] @ turn.T @ shift),
    }
    other = replace(scene, numbers={"step": 0.03125 * unit}, near=scene.near * unit)
    again = ready(other, torch.float64, leaves=False, **moved).draw("cpu")
    np.testing.assert_allclose(again.color, first.color, atol=1e-10)
    np.testing.assert_allclose(again.alpha, first.alpha, atol=1e-10)


def test_hostile_boxes_are_skipped_and_counted(engine: Backend) -> None:
    """Each of them names one number that no box can have; the others are drawn as if they were alone."""
    scene = SCENES["warped"]
    t = tensors_of(replace(scene, count=9))
    large = 1e20 if engine.dtype == torch.float32 else 1e200
    for row, (name, at, value) in enumerate(
        [
            ("centres", 0, math.nan),
            ("centres", 2, math.inf),
            ("quaternions", slice(None), 0.0),
            ("half_extents", 1, 0.0),
            ("half_extents", 1, -1.0),
            ("payload", (1, 2, 3, 1), math.nan),
            ("warp", (2, 1, 0, 2), math.inf),
            ("payload", (0, 1, 0, 0), large),  # its square overflows
        ]
    ):
        t[name][row][at] = value
    good = {name: t[name][8:] for name in BOXES}
    all_of_them = ready(scene, engine.dtype, leaves=False, **t).draw("cpu")
    alone = ready(scene, engine.dtype, leaves=False, **(t | good)).draw("cpu")
    assert all_of_them.visibility.skipped == 8
    assert alone.visibility.skipped == 0
    assert float(alone.alpha.max()) > 0.05
    assert torch.equal(all_of_them.color, alone.color)


def test_threads_do_not_matter(engine: Backend) -> None:
    """Bit-equal pictures and gradients, the payload's among them, for one thread and for several."""
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            own = ready(SCENES["with Gaussians"], engine.dtype)
            frame = own.draw("cpu")
            found.append([frame.color.detach(), *gradients(own, frame).values()])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
