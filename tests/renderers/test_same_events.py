"""The backward pass sees exactly the forward pass's events: contributing (pixel, primitive) pairs agree, none excepted.

Features that are the identity make the picture's channels the weights T a of every (pixel, primitive) pair as the
forward pass saw them; cotangents that are the identity over pixels make the features' gradient the same table as the
backward pass replays it. The scenes are made so that float32 has many pixels within a few roundings of each threshold.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backends import Backend
from scenes import Scene, gaussians, simple_camera
from torch import Tensor

from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.settings import RenderSettings

SIDE = 10
COUNT = SIDE * SIDE
"""Primitives, pixels and features: one table is square."""


def flat(opacities: Tensor, width: float) -> GaussianDrawable:
    """Wide Gaussians one behind the other: alpha falls by little more than roundings over the picture."""
    depth = torch.linspace(-1, 1, len(opacities), dtype=torch.float64)
    towards = simple_camera(SIDE, SIDE).rotation[2]
    drawable = gaussians(len(opacities), 50, feature_count=len(opacities))
    return replace(
        drawable,
        means=(towards * depth[:, None]).float().double(),
        quaternions=torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).repeat(len(opacities), 1),
        scales=torch.full((len(opacities), 3), width, dtype=torch.float64),
        opacities=opacities.float().double(),
    )


def at_the_cut_off() -> GaussianDrawable:
    """Opacities within a few parts in 1e7 of 1/255."""
    return flat((1 + 1e-7 * torch.arange(-5, COUNT - 5, dtype=torch.float64)) / 255, width=600.0)


def at_the_end_of_the_ray() -> GaussianDrawable:
    """Thirteen events take T to 1e-4 in the middle of the picture, and much stands behind."""
    opacities = torch.full((COUNT,), 0.5, dtype=torch.float64)
    opacities[:13] = (1 - 1e-4 ** (1 / 13)) * (1 + 2e-6)
    return flat(opacities, width=600.0)


def below_the_cap() -> GaussianDrawable:
    """Two events that multiply to T = 1e-4 only where alpha rounds up to the cap."""
    opacities = torch.full((COUNT,), 0.3, dtype=torch.float64)
    opacities[:2] = 0.99 * (1 + 1.5e-6)
    return flat(opacities, width=900.0)


def crowd() -> GaussianDrawable:
    return gaussians(COUNT, 51, feature_count=COUNT, scale=0.2)


SCENES = {f.__name__: f for f in (at_the_cut_off, at_the_end_of_the_ray, below_the_cap, crowd)}


def tables(backend: Backend, drawable: GaussianDrawable) -> tuple[Tensor, Tensor]:
    """Weights T a by (pixel, primitive), as the forward and as the backward pass sees them."""
    drawable = replace(drawable, features=torch.eye(COUNT, dtype=torch.float64))
    leaves, ready = Scene((drawable,), simple_camera(SIDE, SIDE), settings=RenderSettings()).leaves(backend.dtype)
    frame = backend.render(ready)
    assert frame.features is not None
    forward = frame.features.reshape(COUNT, COUNT)
    forward.backward(torch.eye(COUNT, dtype=backend.dtype))
    replayed = leaves["0.features"].grad
    assert replayed is not None
    return forward.detach(), replayed.T


@pytest.mark.parametrize("name", list(SCENES))
def test_backward_replays_the_events_of_the_forward_pass(name: str, backend: Backend) -> None:
    forward, replayed = tables(backend, SCENES[name]())
    assert torch.equal(forward > 0, replayed > 0)
    share = float((forward > 0).double().mean())
    assert 0 < share < 1, "some pairs contribute and some do not, or this shows nothing"
    torch.testing.assert_close(replayed, forward, rtol=1e-4 if backend.dtype == torch.float32 else 1e-10, atol=0)


@pytest.mark.parametrize("name", ["at_the_cut_off", "at_the_end_of_the_ray", "below_the_cap"])
def test_scenes_stand_on_their_threshold(name: str) -> None:
    """Else the test above would pass whatever the passes do: float32 pixels fall on both sides."""
    from backends import ORACLE_SINGLE

    forward, _ = tables(ORACLE_SINGLE, SCENES[name]())
    split = (forward > 0).any(0) & ~(forward > 0).all(0)
    assert bool(split.any()), f"{int((forward > 0).sum())} pairs contribute"


def test_any_number_of_channels_takes_the_same_decisions(backend: Backend) -> None:
    """Colour alone, with depth, and with features are separate loops in the engine: same picture, same gradients."""
    answers = []
    for depth, feature_count in ((False, 0), (True, 0), (False, 7), (True, 7)):
        drawable = replace(gaussians(300, 52, degree=1, scale=0.15), features=None)
        if feature_count:
            drawable = replace(drawable, features=torch.ones(300, feature_count, dtype=torch.float64))
        scene = Scene((drawable,), simple_camera(40, 37), settings=RenderSettings(depth=depth))
        leaves, ready = scene.leaves(backend.dtype)
        frame = backend.render(ready)
        weight = torch.randn(37, 40, 3, generator=torch.Generator().manual_seed(1)).to(backend.dtype)
        (frame.color * weight).sum().backward()
        found = {name: leaf.grad for name, leaf in leaves.items() if "features" not in name}
        answers.append({"color": frame.color, "alpha": frame.alpha, **found})
    for other in answers[1:]:
        for name, expected in answers[0].items():
            if backend.backend == "cpu" or (backend.backend != "oracle" and name in ("color", "alpha")):
                assert torch.equal(other[name], expected), name
            else:  # sums in another order
                torch.testing.assert_close(other[name], expected, rtol=1e-3, atol=1e-5)


def test_pixels_beyond_the_picture_give_no_gradient(backend: Backend) -> None:
    """The last tiles stick out of the picture; what lies there is opaque many times over, and must not overflow."""
    for statistics in (False, True):
        drawable = flat(torch.full((60,), 1.0, dtype=torch.float64), width=40.0)
        scene = Scene((drawable,), simple_camera(3, 3), settings=RenderSettings(statistics=statistics, depth=True))
        leaves, ready = scene.leaves(backend.dtype)
        frame = backend.render(ready)
        (frame.color.sum() + frame.alpha.sum()).backward()
        for name, leaf in leaves.items():
            if leaf.grad is not None:
                assert bool(leaf.grad.isfinite().all()), f"{name}, statistics={statistics}"
