"""Primitives that are no usable numbers, or barely: skipped and counted, culled, or drawn, never a NaN."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from backends import ORACLE, Backend
from compare import PLANES, Agreement, compare_frames, relative_error, take_gradients
from scenes import Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.frame import Frame

NAN, INF = float("nan"), float("inf")
HOSTILE = (NAN, INF, -INF, 0.0, -0.0, 1e-45, 1e-38, -1e-38, 1e-20, -1.0, 1e10, 1e20, -1e20)
HOSTILE_VALUES = (NAN, INF, -INF, 0.0, -0.0, 1e-45, 1e-38, -1e-38, 1e10, -1e10)
"""For opacities, colours and features: finite but huger ones give gradients that truly overflow float32."""
ROW = 7
"""The primitive that a test spoils."""


def spoiled(name: str, value: Any, **options: Any) -> Scene:
    """Twenty Gaussians of which row 7 has `value` in (the first entry of) field `name`; a list sets the whole row."""
    drawable = gaussians(20, 30, degree=1, feature_count=2, scale=0.4, **options)
    tensor = getattr(drawable, name).clone()
    if isinstance(value, list):
        tensor[ROW] = torch.tensor(value, dtype=tensor.dtype)
    else:
        tensor[ROW].view(-1)[0] = value
    return Scene((replace(drawable, **{name: tensor}),), simple_camera(40, 32))


def without(scene: Scene) -> Scene:
    """The scene with row 7 gone."""
    (drawable,) = scene.drawables
    keep = torch.arange(len(drawable)) != ROW
    tensors = {field.name: getattr(drawable, field.name) for field in fields(drawable)}
    tensors = {name: value[keep] for name, value in tensors.items() if isinstance(value, Tensor)}
    return replace(scene, drawables=(replace(drawable, **tensors),))


def draw(backend: Backend, scene: Scene) -> tuple[Frame, dict[str, Tensor]]:
    """Frame and gradients, with all pixels in the loss."""
    leaves, ready = scene.leaves(backend.dtype)
    frame = backend.render(ready)
    return frame, take_gradients(frame, leaves, torch.ones_like(frame.alpha, dtype=torch.bool))


@cache
def draw_without(backend: Backend) -> tuple[Frame, dict[str, Tensor]]:
    """What every scene with row 7 spoiled beyond use must look like."""
    return draw(backend, without(spoiled("opacities", 0.5)))


def require_finite(frame: Frame, gradients: dict[str, Tensor]) -> None:
    for name in (*PLANES, "contribution_sum", "contribution_max"):
        plane = getattr(frame, name)
        assert plane is None or bool(plane.isfinite().all()), name
    for name, gradient in gradients.items():
        assert bool(gradient.isfinite().all()), f"gradient of {name}"


SKIPPED = {
    **{f"{name} {value}": (name, value) for name in ("means", "quaternions", "scales") for value in (NAN, INF, -INF)},
    **{
        f"{name} {value}": (name, value)
        for name in ("opacities", "sh_dc", "sh_rest", "features")
        for value in (NAN, INF)
    },
    "zero quaternion": ("quaternions", [0.0, 0, 0, 0]),
    "quaternion of length 1e-13": ("quaternions", [0.0, 1e-13, 0, 0]),
    "zero scale": ("scales", 0.0),
    "negative scale": ("scales", -0.1),
    "scale too large to square": ("scales", [1e30, 1e30, 1e30]),
    "quaternion too long to square": ("quaternions", [1e20, 1e20, 0.0, 0.0]),
}


@pytest.mark.parametrize("case", list(SKIPPED))
def test_unusable_primitive_is_skipped_and_counted(case: str, backend: Backend) -> None:
    name, value = SKIPPED[case]
    if case == "scale too large to square" and backend.dtype == torch.float64:
        value = [1e200, 1e200, 1e200]
    if case == "quaternion too long to square" and backend.dtype == torch.float64:
        value = [1e200, 1e200, 0.0, 0.0]
    scene = spoiled(name, value)
    frame, gradients = draw(backend, scene)
    expected, expected_gradients = draw_without(backend)
    assert frame.visibility.skipped == 1
    assert not bool(frame.visibility.visible[ROW])
    require_finite(frame, gradients)
    for plane in PLANES:
        torch.testing.assert_close(
            getattr(frame, plane), getattr(expected, plane), msg=lambda text, p=plane: f"{p}: {text}"
        )
    keep = torch.arange(20) != ROW
    for name, gradient in gradients.items():
        if len(gradient) == 20:
            assert not bool(gradient[ROW].any()), f"gradient of {name} at the skipped primitive"
            gradient = gradient[keep]
        assert relative_error(gradient, expected_gradients[name]) < backend.gradient_tolerance, name


DRAWN = {
    "quaternion of length 1e-11": ("quaternions", [1e-11, 0, 0, 0]),
    "long quaternion": ("quaternions", [1e15, 2e15, -1e15, 0]),
    "scale of 1e-30": ("scales", [1e-30, 1e-30, 1e-30]),
    "denormal scale": ("scales", [1e-40, 1e-40, 1e-40]),
    "one denormal axis": ("scales", 1e-40),
    "scale of 1e4": ("scales", [1e4, 1e4, 1e4]),
    "disk of 1e4": ("scales", [1e4, 1e-6, 1e4]),
    "opacity 1": ("opacities", 1.0),
    "opacity 0": ("opacities", 0.0),
    "opacity of a denormal": ("opacities", 1e-42),
    "negative opacity": ("opacities", -0.5),
    "far away": ("means", [-2e7, 3e7, 1e8]),
    "as far away as 1e20": ("means", [-2e19, 3e19, 1e20]),
    "behind": ("means", [0.0, 0.0, -50.0]),
    "bright": ("sh_dc", [1e6, -1e6, 0]),
}


@cache
def oracle_frame(case: str, dtype: torch.dtype) -> Frame:
    """In the backend's own dtype: an overflow is part of what a dtype means."""
    return replace(ORACLE, dtype=dtype).render(spoiled(*DRAWN[case]).leaves(dtype)[1])


@pytest.mark.parametrize("case", list(DRAWN))
def test_extreme_but_usable_primitive(case: str, backend: Backend) -> None:
    """Same picture as the oracle in the same dtype; nothing counted, nothing NaN."""
    scene = spoiled(*DRAWN[case])
    frame, gradients = draw(backend, scene)
    assert frame.visibility.skipped == 0
    require_finite(frame, gradients)
    expected = oracle_frame(case, backend.dtype)
    agreement = Agreement({"image": max(backend.image_tolerance, 2e-5), "gradient": 1e-3})
    compare_frames(agreement, frame, expected)
    assert not agreement.faults, "\n".join([str(agreement), *agreement.faults])


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_hostile_numbers_never_reach_the_picture(seed: int, compensated: bool, backend: Backend) -> None:
    """Fuzz: a tenth of all numbers is NaN, Inf, denormal, huge or tiny."""
    generator = torch.Generator().manual_seed(seed)
    drawable = gaussians(300, seed, degree=2, feature_count=2, compensated=compensated)
    values, unusable = {}, torch.zeros(300, dtype=torch.bool)
    for field in fields(GaussianDrawable):
        tensor = getattr(drawable, field.name)
        if isinstance(tensor, Tensor):
            spoil = torch.rand(tensor.shape, generator=generator) < 0.1 / tensor[0].numel()
            shape = field.name in ("means", "quaternions", "scales")
            choice = torch.tensor(HOSTILE if shape else HOSTILE_VALUES)
            hostile = choice[torch.randint(len(choice), tensor.shape, generator=generator)]
            values[field.name] = torch.where(spoil, hostile.double(), tensor)
            if field.name not in ("sh_dc", "sh_rest"):
                unusable |= ~values[field.name].isfinite().reshape(300, -1).all(1)
    unusable |= (values["scales"] <= 0).any(1)
    scene = Scene((replace(drawable, **values),), simple_camera(40, 32))
    frame, gradients = draw(backend, scene)
    require_finite(frame, gradients)
    # At least those that are unusable by themselves; at most also those whose colour or projection overflows.
    assert int(unusable.sum()) <= frame.visibility.skipped < 200
    assert not bool(frame.visibility.visible[unusable].any())
    for name, gradient in gradients.items():
        if len(gradient) == 300:
            assert not bool(gradient[unusable].any()), f"gradient of {name} at an unusable primitive"
