"""All kinds at once on the oracle: what must not change the picture, hostile numbers, and what `render` refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mixed_scenes import KINDS, OF_ALL_FACES, boxes, every_kind, mapped, triangles
from on_axis import RAY, RED, block, draw, gaussian, numbers, one_pixel, surfel, wall
from scenes import gaussians, simple_camera
from test_oracle_neural import looking, product, rotation
from torch import Tensor

from smalti.renderers.drawables import BoxDrawable, Drawable, RayGaussianDrawable, TriangleDrawable
from smalti.renderers.oracle import render_oracle
from smalti.renderers.oracle_kinds.picture import render_mix

EVERYTHING = replace(RAY, normals=True, absolute_gradient=True)
PLANES = ("color", "alpha", "features", "depth", "normal", "depth_first", "depth_median")


def close(one: Any, other: Any, tolerance: float = 1e-9, planes: tuple[str, ...] = PLANES) -> None:
    for name in planes:
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), atol=tolerance, rtol=tolerance, err_msg=name
        )


# ---- the two splats that are evaluated on the ray
@pytest.mark.parametrize("response", ["maximum", "integral"])
def test_ray_gaussians_against_samples_along_the_ray(response: Any) -> None:
    """The largest of many samples, or their sum, of the Gaussian itself; needles, flakes and balls, off the axis."""
    camera = looking(4, 3)
    generator = torch.Generator().manual_seed(5)
    for _ in range(6):
        mean, quaternion = (0.4 * torch.randn(1, n, generator=generator, dtype=torch.float64) for n in (3, 4))
        scales = 0.4 * torch.exp(torch.randn(1, 3, generator=generator, dtype=torch.float64))
        opacity = 0.8 if response == "maximum" else 0.6
        splat = RayGaussianDrawable(
            mean, quaternion, scales, numbers([opacity]), numbers([[0.0, 0, 0]]), response=response
        )
        frame = draw(splat, camera=camera)
        turn = rotation(quaternion[0].numpy())
        for row, column in np.ndindex(3, 4):
            fx, fy, cx, cy = camera.intrinsics.tolist()
            direction = np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
            per_z = np.linalg.norm(direction)
            t = np.linspace(-20, 26, 60_001)
            points = camera.centre.numpy() + t[:, None] * (camera.rotation.numpy().T @ direction / per_z)
            local = (points - mean[0].numpy()) @ turn / scales[0].numpy()
            values = np.exp(-0.5 * (local**2).sum(1))
            z = t[values.argmax()] / per_z
            if response == "maximum":
                alpha = opacity * values.max()
            else:
                alpha = -math.expm1(-opacity / float(scales.max()) * values.sum() * (t[1] - t[0]))
            alpha = min(alpha, 0.99) if alpha >= 1 / 255 and z >= 0.01 else 0.0
            np.testing.assert_allclose(frame.alpha[row, column], alpha, atol=1e-6)
            if alpha:
                assert frame.depth is not None
                np.testing.assert_allclose(frame.depth[row, column], z, atol=2e-3)


def test_surfels_by_hand() -> None:
    """A disk turned by 60 degrees about y through (0, 0, 3): rays hit its plane; the normal faces the camera."""
    half = math.radians(30)
    disk = replace(surfel(3.0, 0.9, RED), quaternions=numbers([[2 * math.cos(half), 0.0, 2 * math.sin(half), 0.0]]))
    frame = draw(disk, camera=one_pixel(5, 5), settings=replace(RAY, normals=True))
    c, s = math.cos(2 * half), math.sin(2 * half)
    first, second, normal = np.array([c, 0, -s]), np.array([0, 1.0, 0]), np.array([s, 0, c])
    for row, column in np.ndindex(5, 5):
        direction = np.array([(column - 2) / 8, (row - 2) / 8, 1.0])
        z = 3 * c / (normal @ direction)
        offset = z * direction - [0, 0, 3]
        alpha = 0.9 * math.exp(-0.5 * ((first @ offset / 0.2) ** 2 + (second @ offset / 0.3) ** 2))
        alpha = alpha if alpha >= 1 / 255 else 0
        np.testing.assert_allclose(frame.alpha[row, column], alpha, atol=1e-12)
        assert frame.normal is not None
        np.testing.assert_allclose(frame.normal[row, column], -alpha * normal, atol=1e-12)


# ---- what changes nothing
@pytest.mark.parametrize("order", ["ray", "centre"])
def test_gaussians_alone_are_the_same_through_either_path(order: Any) -> None:
    scene = [gaussians(40, degree=2, feature_count=2), gaussians(30, seed=2, feature_count=2)]
    settings = replace(EVERYTHING, order=order, normals=False)
    camera, background = simple_camera(30, 21), numbers([0.3, 0.1, 0.9])
    found = []
    for draw_with in (render_oracle, render_mix):
        leaves: list[Tensor] = []

        def leaf(_: str, value: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
            leaves.append(value.clone().requires_grad_())
            return leaves[-1]

        frame = draw_with([mapped(drawable, leaf) for drawable in scene], camera, background, settings)
        assert frame.features is not None
        assert frame.depth is not None
        (frame.color.square().sum() + frame.features.sum() + frame.depth.sum()).backward()
        found.append((frame, [leaf.grad for leaf in leaves]))
    (one, gradients), (other, other_gradients) = found
    detached = {name: getattr(one, name).detach() for name in PLANES if name != "normal"}
    for name, plane in detached.items():
        np.testing.assert_allclose(getattr(other, name).detach(), plane, atol=1e-13, err_msg=name)
    for name in ("first", "median", "dominant"):
        assert torch.equal(one.ids[name], other.ids[name])
    for name in ("sum", "absolute"):
        screens = [frame.visibility.screen_gradient[name] for frame in (one, other)]
        np.testing.assert_allclose(screens[1], screens[0], atol=1e-12)
    np.testing.assert_allclose(other.contribution_sum, one.contribution_sum, atol=1e-12)
    np.testing.assert_allclose(other.contribution_max, one.contribution_max, atol=1e-12)
    for a, b in zip(gradients, other_gradients, strict=True):
        assert a is not None
        np.testing.assert_allclose(b, a, atol=1e-11)


def test_order_of_drawables_and_rows() -> None:
    """Away from ties the order in which things are given is no matter."""
    camera, scene = looking(16, 12), every_kind(6)
    before = draw(*scene, camera=camera, settings=replace(EVERYTHING))
    shuffled = [mapped(d, lambda name, t: t if name in OF_ALL_FACES else t.flip(0)) for d in reversed(scene)]
    after = draw(*shuffled, camera=camera, settings=EVERYTHING)
    assert 0.3 < float(before.alpha.mean()) < 0.999
    close(after, before, 1e-12)


def test_rigid_motion_of_the_world() -> None:
    camera = looking(16, 12)
    half = 0.4
    turn = numbers([math.cos(half), 0.0, math.sin(half), 0.0])
    matrix, shift = torch.from_numpy(rotation(turn.numpy())), numbers([0.3, -2.0, 1.1])

    def move(name: str, value: Tensor) -> Tensor:
        match name:
            case "means" | "centres" | "corners":
                return value @ matrix.T + shift
            case "quaternions":
                return torch.cat([product(turn, q) for q in value])
            case _:
                return value

    # Harmonics and fields in world axes do not turn with their primitives.
    scene = [d for name, make in KINDS.items() if name != "neural" for d in [make(6)]]
    scene = [replace(d, sh_degree=0) if hasattr(d, "sh_degree") else d for d in scene]
    turned = camera.rotation @ matrix.T
    other = replace(camera, rotation=turned, translation=camera.translation - turned @ shift)
    before = draw(*scene, camera=camera)
    after = draw(*[mapped(d, move) for d in scene], camera=other)
    close(after, before, 1e-7, ("color", "alpha", "depth"))


def test_scale_of_the_world() -> None:
    camera = looking(16, 12)

    def grow(name: str, value: Tensor) -> Tensor:
        if name == "payload":
            return value * numbers([1, 1, 1, 0.25])
        return 4 * value if name in ("means", "centres", "corners", "scales", "half_extents") else value

    scene = every_kind(6)
    grown = [mapped(d, grow) for d in scene]
    grown = [replace(d, step=4 * d.step) if isinstance(d, BoxDrawable) else d for d in grown]
    before = draw(*scene, camera=camera)
    after = draw(
        *grown, camera=replace(camera, translation=4 * camera.translation), settings=replace(RAY, near=4 * RAY.near)
    )
    close(after, before, 1e-9, ("color", "alpha"))
    assert after.depth is not None
    assert before.depth is not None
    np.testing.assert_allclose(after.depth, 4 * before.depth, atol=1e-9)


def test_rows_of_the_picture_alone() -> None:
    """Cropping is exact, but for soft edges, whose unit is the picture, and the field of view that EWA clamps to."""
    camera = looking(16, 12)
    scene = [make(6) for name, make in KINDS.items() if name not in ("triangle_soft", "gaussian")]
    whole = draw(*scene, camera=camera)
    for top in (0, 5):
        part = draw(*scene, camera=camera.cropped(0, top, 16, 4))
        np.testing.assert_allclose(part.color, whole.color[top : top + 4], atol=1e-12)


def test_single_precision() -> None:
    camera = simple_camera(16, 12)
    scene = every_kind(6)
    exact = draw(*scene, camera=camera)
    rough = draw(*[mapped(d, lambda _, t: t.float()) for d in scene], camera=camera)
    assert rough.color.dtype == torch.float32
    differences = (rough.color.double() - exact.color).abs().amax(-1)
    # Few pixels decide a threshold otherwise.
    assert float(differences.median()) < 1e-6
    assert int((differences > 2e-5).sum()) <= 2


def test_seen_and_not_seen() -> None:
    """Visible is what has an event; radii say how wide it is; keys are of all."""
    frame = draw(wall(2.0, 0.5, RED), gaussian(-2.0, 0.5, RED), surfel(3.0, 0.5, RED), camera=one_pixel(3, 5))
    visibility = frame.visibility
    assert visibility.visible.tolist() == [True, False, True]
    assert visibility.depths.tolist() == [2.0, -2.0, 3.0]
    assert visibility.radii[0] == 2.5
    assert visibility.radii[1] == 0
    assert visibility.skipped == 0
    assert visibility.fallback == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_kind(kind: str) -> None:
    """A drawable without primitives, alone and beside others."""
    some = KINDS[kind](4)
    none = mapped(some, lambda name, t: t if name in OF_ALL_FACES else t[:0])
    assert len(none) == 0
    camera = looking(5, 4)
    alone = draw(none, camera=camera, settings=EVERYTHING)
    assert not bool(alone.alpha.any())
    close(draw(none, some, none, camera=camera), draw(some, camera=camera), 1e-14, ("color", "alpha", "depth"))


# ---- hostile numbers
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e300, 1e-300, 0.0, -1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_numbers(kind: str, value: float) -> None:
    """In each tensor in turn: nothing but numbers in the picture and in every gradient."""
    camera, good = looking(5, 4), KINDS[kind](4)
    names: list[str] = []
    mapped(good, lambda name, tensor: names.append(name) or tensor)
    for hostile in names:
        leaves: list[Tensor] = []

        def spoil(name: str, tensor: Tensor, hostile: str = hostile, leaves: list[Tensor] = leaves) -> Tensor:
            tensor = tensor.clone()
            if name == hostile:
                tensor.view(-1)[0] = value
            leaves.append(tensor.requires_grad_())
            return leaves[-1]

        frame = draw(mapped(good, spoil), triangles(3), camera=camera, settings=EVERYTHING)
        total = torch.zeros((), dtype=torch.float64)
        for name in ("color", "alpha", "depth", "normal"):
            plane = getattr(frame, name)
            bounded = abs(value) < 1e100 or not math.isfinite(value)
            assert bool(plane.isfinite().all()) or not bounded, (hostile, name)
            total = total + torch.where(plane.isfinite(), plane, 0).sum()
        total.backward()
        for leaf in leaves:
            assert leaf.grad is None or not math.isnan(float(leaf.grad.sum())) or abs(value) > 1e100, hostile
        # All faces share a texture; of an EWA Gaussian that is not drawn the colour is not looked at.
        if math.isnan(value) and hostile not in OF_ALL_FACES and not (kind == "gaussian" and hostile.startswith("sh")):
            assert frame.visibility.skipped == 1, hostile


# ---- what is refused
def test_additive_boxes_are_alone() -> None:
    adding = boxes(2, accumulation="additive")
    draw(adding, adding)
    for other in (boxes(2), wall(2.0, 0.5, RED)):
        with pytest.raises(ValueError, match="additive"):
            draw(adding, other)


def test_boxes_share_their_step() -> None:
    with pytest.raises(ValueError, match=r"0\.1, 0\.2"):
        draw(block(2, 3, 0.5, RED, 0.1), wall(2.0, 0.5, RED), block(2, 3, 0.5, RED, 0.2))


def test_one_dtype_for_all() -> None:
    single: Drawable = mapped(wall(2.0, 0.5, RED), lambda _, t: t.float())
    with pytest.raises(ValueError, match="drawable 1"):
        draw(wall(2.0, 0.5, RED), single)
    with pytest.raises(ValueError, match="at least one"):
        draw()


def test_a_kind_that_the_oracle_does_not_know() -> None:
    class Strange(TriangleDrawable):
        kind = "strange"

    class Unknown:
        kind = "unknown"
        dtype, device, feature_count = torch.float64, torch.device("cpu"), 0

        def __len__(self) -> int:
            return 1

    good = wall(2.0, 0.5, RED)
    assert draw(Strange(good.corners, good.opacities, good.colors)).alpha[0, 0] == 0.5
    with pytest.raises(ValueError, match="unknown"):
        draw(Unknown())  # type: ignore[arg-type]
