"""Comparison of a backend with the float64 oracle, tolerant of threshold flips and of nothing else.

A float32 backend may decide a threshold (1/255, the end of a ray, which event halves T, two depths a rounding apart)
otherwise than float64 does. Such pixels differ by far more than rounding. They are set aside, counted, limited in
number, and the gradients are then taken with output cotangents that are zero there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from backends import Backend
from scenes import Scene
from torch import Tensor

from smalti.renderers.frame import Frame
from smalti.renderers.oracle import render_oracle

PLANES = ("color", "alpha", "features", "depth", "depth_median", "depth_first")
SHARE = 1e-4
"""Pixels that may be set aside; in a small picture at least one."""


class Reference:
    """The oracle's frame of a scene, kept with its graph for any number of backward passes."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.leaves, ready = scene.leaves(torch.float64)
        self.frame = render_oracle(ready.drawables, ready.camera, ready.background, ready.settings)
        self._whole: dict[str, Tensor] | None = None

    def gradients(self, keep: Tensor) -> dict[str, Tensor]:
        """By leaf, and of the screen, for the cotangents of `keep`."""
        if bool(keep.all()) and self._whole is not None:
            return self._whole
        found = take_gradients(self.frame, self.leaves, keep)
        if bool(keep.all()):
            self._whole = found
        return found


@dataclass
class Agreement:
    """What a comparison found: relative errors by name, and what was set aside."""

    limits: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    set_aside: int = 0
    pixels: int = 0

    def note(self, kind: str, name: str, error: float) -> None:
        """Record an error; one that is not within the limit of its kind is a fault (NaN included)."""
        self.errors[f"{kind} {name}"] = error
        if not error <= self.limits[kind]:
            self.faults.append(f"{kind} {name}: relative error {error:.2e}, limit {self.limits[kind]:.0e}")

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            self.faults.append(text)

    def __str__(self) -> str:
        worst = sorted(self.errors.items(), key=lambda item: -item[1])[:4]
        share = self.set_aside / max(self.pixels, 1)
        return f"set aside {self.set_aside}/{self.pixels} ({share:.1e}); worst " + ", ".join(
            f"{k} {v:.1e}" for k, v in worst
        )


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; the difference itself where nothing but zero is expected."""
    if got.shape != expected.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    difference = float((got.detach().cpu().double() - expected.detach().cpu().double()).abs().max())
    return difference / (float(expected.detach().abs().max()) or 1.0)


def cotangents(frame: Frame, keep: Tensor) -> dict[str, Tensor]:
    """Random weights of every plane, the same for every backend, zero outside of `keep`."""
    generator = torch.Generator().manual_seed(77)
    found = {}
    for name in PLANES:
        plane = getattr(frame, name)
        if plane is not None:
            values = torch.randn(plane.shape, generator=generator).to(plane.dtype)
            found[name] = values * (keep if plane.dim() == 2 else keep[..., None])
    return found


def take_gradients(frame: Frame, leaves: dict[str, Tensor], keep: Tensor) -> dict[str, Tensor]:
    """Gradients of the weighted planes by leaf, and `screen sum`, `screen absolute`."""
    for value in leaves.values():
        value.grad = None
    for value in frame.visibility.screen_gradient.values():
        value.zero_()
    loss = sum((getattr(frame, name) * weight).sum() for name, weight in cotangents(frame, keep).items())
    assert isinstance(loss, Tensor)
    loss.backward(retain_graph=True)
    found = {k: torch.zeros_like(v) if v.grad is None else v.grad.clone() for k, v in leaves.items()}
    screen = frame.visibility.screen_gradient
    return {**found, **{f"screen {name}": value.clone() for name, value in screen.items()}}


def compare_frames(agreement: Agreement, frame: Frame, expected: Frame) -> Tensor:
    """Planes, ids, contributions and visibility; returns the pixels that need not be set aside."""
    keep = torch.ones_like(expected.alpha, dtype=torch.bool)
    planes = [name for name in PLANES if getattr(expected, name) is not None]
    for name in planes:
        got, want = getattr(frame, name), getattr(expected, name).detach()
        if got is None or got.shape != want.shape:
            agreement.require(
                False, f"{name}: got {None if got is None else tuple(got.shape)}, expected {tuple(want.shape)}"
            )
            continue
        close = (got.detach().double() - want).abs() <= agreement.limits["image"] * (float(want.abs().max()) or 1.0)
        keep &= close if close.dim() == 2 else close.all(-1)
    for name, want in expected.ids.items():
        keep &= frame.ids[name] == want
    agreement.pixels, agreement.set_aside = keep.numel(), int((~keep).sum())
    allowed = max(1, math.floor(SHARE * keep.numel()))
    agreement.require(
        agreement.set_aside <= allowed, f"{agreement.set_aside} of {keep.numel()} pixels differ, allowed {allowed}"
    )
    for name in planes:
        got, want = getattr(frame, name), getattr(expected, name)
        if got is not None and got.shape == want.shape:
            whole = torch.where(keep if want.dim() == 2 else keep[..., None], got, want.to(got.dtype))
            agreement.note("image", name, relative_error(whole, want))
    for name in ("contribution_sum", "contribution_max"):
        got, want = getattr(frame, name), getattr(expected, name)
        if want is not None:
            # A pixel set aside may move the whole of its light from one primitive to another.
            slack = agreement.set_aside / (float(want.max()) or 1.0) if want.numel() else 0.0
            agreement.note("image", name, max(0.0, relative_error(got, want) - slack))
    compare_visibility(agreement, frame, expected)
    return keep


def compare_visibility(agreement: Agreement, frame: Frame, expected: Frame) -> None:
    """Skipped, depths, radii; `visible` may differ by what no pixel shows."""
    got, want = frame.visibility, expected.visibility
    agreement.require(got.skipped == want.skipped, f"skipped {got.skipped}, expected {want.skipped}")
    finite = want.depths.isfinite()
    agreement.note("image", "visibility.depths", relative_error(got.depths[finite], want.depths[finite]))
    both = got.visible & want.visible
    agreement.note("gradient", "visibility.radii", relative_error(got.radii[both], want.radii[both]))
    agreement.require(bool((got.radii[~got.visible] == 0).all()), "radii of invisible primitives are not 0")
    agreement.require(got.intersections >= int(got.visible.sum()), f"only {got.intersections} tile entries")
    if expected.contribution_sum is not None and agreement.set_aside == 0:
        shown = expected.contribution_sum > 0
        agreement.require(bool(got.visible[shown].all()), "primitives that pixels show are not `visible`")


def compare(backend: Backend, reference: Reference) -> Agreement:
    """Every output and every gradient of `backend` against the oracle."""
    slack = reference.scene.single_precision_slack if backend.dtype == torch.float32 else 1.0
    agreement = Agreement({"image": slack * backend.image_tolerance, "gradient": backend.gradient_tolerance})
    leaves, scene = reference.scene.leaves(backend.dtype)
    frame = backend.render(scene)
    keep = compare_frames(agreement, frame, reference.frame)
    expected = reference.gradients(keep)
    got = take_gradients(frame, leaves, keep)
    agreement.require(set(got) == set(expected), f"gradients of {sorted(set(got) ^ set(expected))} on one side only")
    for name in sorted(set(got) & set(expected)):
        agreement.note("gradient", name, relative_error(got[name], expected[name]))
    return agreement
