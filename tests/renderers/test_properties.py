"""What must not change a picture, and how it must change: order of rows, frames of reference, units, crops, padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from backends import Backend
from compare import PLANES, relative_error, take_gradients
from scenes import EVERYTHING, Scene, gaussians, simple_camera, single
from torch import Tensor

from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.frame import Frame
from smalti.renderers.oracle import rotation_matrices
from smalti.renderers.settings import RenderSettings


def mapped(drawable: GaussianDrawable, change: Callable[[Tensor], Tensor]) -> GaussianDrawable:
    """The drawable with `change` made to every tensor (rows taken, rows added)."""
    tensors = {field.name: getattr(drawable, field.name) for field in fields(drawable)}
    return replace(drawable, **{name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)})


def draw(backend: Backend, scene: Scene) -> tuple[Frame, dict[str, Tensor]]:
    leaves, ready = scene.leaves(backend.dtype)
    frame = backend.render(ready)
    return frame, take_gradients(frame, leaves, torch.ones_like(frame.alpha, dtype=torch.bool))


def require_same(backend: Backend, got: Frame, expected: Frame, slack: float = 1.0) -> None:
    for name in PLANES:
        if getattr(expected, name) is not None:
            error = relative_error(getattr(got, name), getattr(expected, name))
            assert error <= slack * backend.image_tolerance, f"{name}: {error:.1e}"


@pytest.fixture
def scene() -> Scene:
    background = torch.tensor([0.25, 0.75, 0.5], dtype=torch.float64)
    return Scene((gaussians(80, 40, degree=2, feature_count=2),), simple_camera(48, 36), background)


def test_order_of_rows_does_not_matter(backend: Backend, scene: Scene) -> None:
    """No two depths of this scene tie, so the picture is the same to the last bit, and the gradients move along."""
    (drawable,) = scene.drawables
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    frame, gradients = draw(backend, scene)
    moved, moved_gradients = draw(backend, replace(scene, drawables=(mapped(drawable, lambda value: value[order]),)))
    assert torch.equal(moved.color, frame.color)
    assert moved.depth is not None
    assert frame.depth is not None
    assert torch.equal(moved.depth, frame.depth)
    back = torch.cat([order, torch.tensor([-1])])
    for name, ids in frame.ids.items():
        assert torch.equal(back[moved.ids[name].long()], ids.long()), name
    for name in ("means", "scales", "sh_rest", "opacities"):
        expected = gradients[f"0.{name}"][order]
        assert relative_error(moved_gradients[f"0.{name}"], expected) <= backend.gradient_tolerance, name


def test_rigid_motion_of_the_world(backend: Backend) -> None:
    """World and camera turn and move together; degree 0, because harmonics are tied to the world's axes."""
    scene = Scene((gaussians(80, 41, feature_count=1),), simple_camera(48, 36))
    (drawable,), camera = scene.drawables, scene.camera
    q = torch.tensor([[0.6, -0.3, 0.5, 0.4]], dtype=torch.float64)
    turn, shift = rotation_matrices(q)[0], torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    a = torch.nn.functional.normalize(q[0], dim=0)
    w, v = drawable.quaternions[:, :1], drawable.quaternions[:, 1:]
    product_w = a[0] * w - v @ a[1:, None]
    product_v = a[0] * v + w * a[1:] + torch.linalg.cross(a[1:].expand_as(v), v)
    turned = replace(
        drawable, means=drawable.means @ turn.T + shift, quaternions=torch.cat([product_w, product_v], dim=1)
    )
    rotation = camera.rotation @ turn.T
    camera = replace(camera, rotation=rotation, translation=camera.translation - rotation @ shift)
    expected, _ = draw(backend, scene)
    frame, _ = draw(backend, Scene((turned,), camera))
    require_same(backend, frame, expected, slack=4.0)


@pytest.mark.parametrize("factor", [0.125, 64.0])
def test_scaling_of_the_world(backend: Backend, scene: Scene, factor: float) -> None:
    """Another unit of length: the same picture, depths and gradients by the unit. Powers of two lose no digits."""
    (drawable,), camera = scene.drawables, scene.camera
    settings = replace(EVERYTHING, near=EVERYTHING.near * factor)
    bigger = replace(drawable, means=drawable.means * factor, scales=drawable.scales * factor)
    camera = replace(camera, translation=camera.translation * factor)
    expected, _ = draw(backend, scene)
    frame, _ = draw(backend, replace(scene, drawables=(bigger,), camera=camera, settings=settings))
    changed = {name: getattr(frame, name) / factor for name in ("depth", "depth_median", "depth_first")}
    require_same(backend, replace(frame, **changed), expected)


def test_parts_of_the_picture_rendered_alone(backend: Backend) -> None:
    """A crop shows what the whole shows there.

    The Gaussians are at most 3 pixels in radius: larger ones reach into a crop from where its affine map is clamped.
    """
    drawable = gaussians(200, 42, degree=1)
    drawable = replace(drawable, means=single(0.5 * drawable.means), scales=torch.full_like(drawable.scales, 2**-6))
    camera = simple_camera(64, 48)
    whole, _ = draw(backend, Scene((drawable,), camera))
    assert float(whole.visibility.radii.max()) < 3
    for left, top, width, height in ((0, 0, 64, 24), (0, 24, 64, 24), (21, 9, 30, 35)):
        part, _ = draw(backend, Scene((drawable,), camera.cropped(left, top, width, height)))
        for name in PLANES:
            plane, expected = getattr(part, name), getattr(whole, name)
            if plane is not None:
                window = expected[top : top + height, left : left + width]
                assert relative_error(plane, window) <= backend.image_tolerance, name


def test_padding_changes_nothing(backend: Backend, scene: Scene) -> None:
    """Culled rows before, between and after: behind the camera, transparent, off the screen, unusable."""
    (drawable,) = scene.drawables
    pads = gaussians(120, 43, degree=2, feature_count=2)
    means, opacities, scales = pads.means.clone(), pads.opacities.clone(), pads.scales.clone()
    towards = scene.camera.rotation
    means[:30] -= 40 * towards[2]
    opacities[30:60] = 0
    means[60:90] += 500 * towards[0]
    scales[90:] = float("nan")
    pads = replace(pads, means=means, opacities=opacities, scales=scales)
    row = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    position = row[:80].sort().values  # where the true rows stand, in their order
    rest = torch.ones(200, dtype=torch.bool)
    rest[position] = False

    def woven(name: str) -> Tensor:
        true, padding = getattr(drawable, name), getattr(pads, name)
        both = true.new_zeros(200, *true.shape[1:])
        both[position], both[rest] = true, padding
        return both

    names = ("means", "quaternions", "scales", "opacities", "sh_dc", "sh_rest", "features")
    padded = replace(drawable, **{name: woven(name) for name in names})
    expected, gradients = draw(backend, scene)
    frame, padded_gradients = draw(backend, replace(scene, drawables=(padded,)))
    assert torch.equal(frame.color, expected.color)
    assert frame.visibility.skipped == 30
    for name in names:
        gradient = padded_gradients[f"0.{name}"]
        assert not bool(gradient[rest].any()), name
        assert relative_error(gradient[position], gradients[f"0.{name}"]) <= backend.gradient_tolerance, name


def test_two_drawables_instead_of_one(backend: Backend, scene: Scene) -> None:
    (drawable,) = scene.drawables
    first, second = mapped(drawable, lambda value: value[:33]), mapped(drawable, lambda value: value[33:])
    expected, gradients = draw(backend, scene)
    frame, split_gradients = draw(backend, replace(scene, drawables=(first, second)))
    assert torch.equal(frame.color, expected.color)
    for name, ids in expected.ids.items():
        assert torch.equal(frame.ids[name], ids), name
    assert torch.equal(frame.visibility.visible, expected.visibility.visible)
    for name in ("means", "quaternions", "scales", "opacities", "sh_dc", "sh_rest", "features"):
        joined = torch.cat([split_gradients[f"0.{name}"], split_gradients[f"1.{name}"]])
        assert relative_error(joined, gradients[f"0.{name}"]) <= backend.gradient_tolerance, name
    for name in ("screen sum", "screen absolute", "rotation", "intrinsics"):
        assert relative_error(split_gradients[name], gradients[name]) <= backend.gradient_tolerance, name


def test_ray_order_is_centre_order(backend: Backend, scene: Scene) -> None:
    """EWA Gaussians have one depth each, so both orders draw the same."""
    expected, _ = draw(backend, scene)
    frame, _ = draw(backend, replace(scene, settings=replace(EVERYTHING, order="ray")))
    assert torch.equal(frame.color, expected.color)


def test_absolute_gradient_is_the_sum_over_pixels(backend: Backend) -> None:
    """Against one backward pass per pixel."""
    scene = Scene((gaussians(6, 44),), simple_camera(12, 9))
    leaves, ready = scene.leaves(backend.dtype)
    frame = backend.render(ready)
    screen = frame.visibility.screen_gradient
    total = torch.zeros(6, 2, dtype=backend.dtype)
    for pixel in frame.color.sum(-1).flatten():
        for value in screen.values():
            value.zero_()
        pixel.backward(retain_graph=True)
        total += frame.visibility.screen_gradient["sum"].abs()
    for value in screen.values():
        value.zero_()
    frame.color.sum().backward()
    assert float(total.max()) > 0
    assert relative_error(frame.visibility.screen_gradient["absolute"], total) <= backend.gradient_tolerance
    assert leaves["0.means"].grad is not None


def test_screen_gradients_of_several_passes_add_up(backend: Backend) -> None:
    settings = RenderSettings(absolute_gradient=True)
    _, ready = Scene((gaussians(6, 44),), simple_camera(12, 9), settings=settings).leaves(backend.dtype)
    frame = backend.render(ready)
    frame.color.sum().backward(retain_graph=True)
    once = {name: value.clone() for name, value in frame.visibility.screen_gradient.items()}
    frame.color.sum().backward()
    assert set(once) == {"sum", "absolute"}
    for name, value in once.items():
        assert bool(value.any())
        assert relative_error(frame.visibility.screen_gradient[name], 2 * value) <= backend.gradient_tolerance, name


def test_without_gradients_nothing_is_kept(backend: Backend, scene: Scene) -> None:
    """Under no_grad, and with options off, the picture is the same and the extras are absent."""
    expected, _ = draw(backend, scene)
    _, ready = replace(scene, settings=replace(EVERYTHING, depth=False, statistics=False)).leaves(backend.dtype)
    with torch.no_grad():
        frame = backend.render(ready)
    assert not frame.color.requires_grad
    require_same(
        backend, replace(frame, depth=None), replace(expected, depth=None, depth_median=None, depth_first=None)
    )
    assert frame.depth is None
    assert frame.depth_first is None
    assert frame.contribution_sum is None
    assert not frame.ids
    assert not any(bool(value.any()) for value in frame.visibility.screen_gradient.values())


def test_what_cannot_be_drawn_is_refused(backend: Backend, scene: Scene) -> None:
    (drawable,) = scene.drawables
    tensors = lambda value: value.to(backend.dtype)  # noqa: E731
    drawable = mapped(drawable, tensors)
    bad_background = torch.zeros(4, dtype=backend.dtype)
    fisheye = replace(scene.camera, model="OPENCV_FISHEYE", distortion=(0.1, 0.0, 0.0, 0.0))
    for drawables, camera, background, word in (
        ((), scene.camera, None, "drawable"),
        ((drawable,), fisheye, None, "OPENCV_FISHEYE"),
        ((drawable,), scene.camera, bad_background, "background"),
    ):
        with pytest.raises(ValueError, match=word):
            backend.render(Scene(drawables, camera, background))
