"""Kind `neural`: a neural density in an ellipsoid, its integral closed (Zhou et al. 2025; kinds.md, section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import NeuralDrawable
from smalti.renderers.oracle import rotation_matrices
from smalti.renderers.oracle_kinds.ellipsoids import Ellipsoids, largest, splat_colors, splat_keys, usable_splats
from smalti.renderers.oracle_kinds.events import Events, View, faded
from smalti.renderers.settings import ALPHA_MAX, ALPHA_MIN

TAU_MAX = -math.log(1 - ALPHA_MAX)


@dataclass(frozen=True, eq=False)
class Chords:
    """Rays inside the bounds: [z0, z1], and the line integral of the density over it (not yet clamped at 0)."""

    z0: Float[Tensor, "k"]
    z1: Float[Tensor, "k"]
    integral: Float[Tensor, "k"]


class NeuralKind:
    """Bounds as ellipsoids; the field is evaluated around the mean, in world or local axes."""

    def __init__(self, drawable: NeuralDrawable, camera: Camera) -> None:
        self.drawable, self.camera = drawable, camera
        network = [drawable.frequencies, drawable.phases, drawable.amplitudes, drawable.offsets]
        usable = usable_splats(drawable, camera, [*network])
        usable = Ellipsoids.without_overflow(drawable, camera, usable)
        self.rows, self.skipped = usable.nonzero()[:, 0], int((~usable).sum())
        self.keys = splat_keys(drawable.means, camera)
        self.bounds = Ellipsoids.of(drawable, camera, self.rows)
        self.k = 1 / largest(drawable.scales[self.rows])
        self.colors = splat_colors(drawable, camera, self.rows)
        # First layer in camera axes: W . x = (W axes) . (camera offset).
        frequencies = drawable.frequencies[self.rows]
        if drawable.frame == "local":
            frequencies = frequencies @ rotation_matrices(drawable.quaternions[self.rows]).transpose(1, 2)
        self.frequencies = frequencies @ camera.rotation.T
        self.phases, self.amplitudes, self.offsets = (tensor[self.rows] for tensor in network[1:])

    def events(self, view: View) -> Events:
        """One segment per pixel and primitive whose bound the ray crosses behind the near plane."""
        with torch.no_grad():
            pixel, row = view.pairs(len(self.rows))
            ray = self.bounds.closest(view.directions[pixel], row)
            crossed = ray.a > ray.n
            pixel, row = pixel[crossed], row[crossed]
            chord = self._cross(view, pixel, row)
            drawn = (chord.z1 > chord.z0) & chord.integral.isfinite()
            shown = self._shown(chord.integral)
            if self.drawable.leak == 0:  # else the others absorb nothing and take a gradient
                drawn &= shown
        pixel, row = pixel[drawn], row[drawn]
        chord = self._cross(view, pixel, row)
        primitive = self.rows[row]
        features = None if self.drawable.features is None else self.drawable.features[primitive]
        tau = self._optical_depth(chord.integral, view.settings.smooth_cutoff)
        return Events(pixel, primitive, chord.z0, chord.z1, tau, self.colors[row], features)

    def _cross(self, view: View, pixel: Tensor, row: Tensor) -> Chords:
        """The part of the chord at z >= near; pairs whose ray crosses the bound."""
        direction = view.directions[pixel]
        ray = self.bounds.closest(direction, row)
        middle, half = ray.b / ray.a, (ray.a - ray.n).sqrt() / ray.a
        near = view.settings.near
        z0 = torch.where(middle - half < near, near, middle - half)  # the clamped end has no gradient
        z1 = middle + half
        middle, half = 0.5 * (z0 + z1), 0.5 * (z1 - z0)

        boost = self.drawable.omega * self.k[row][:, None]
        weights = self.frequencies[row]
        x = boost * (weights * direction[:, None]).sum(-1) * half[:, None]
        offset = middle[:, None] * direction - self.bounds.means[row]
        phase = boost * (weights * offset[:, None]).sum(-1) + self.drawable.omega * self.phases[row]
        mean_density = self.offsets[row] + (self.amplitudes[row] * sinc(x) * torch.cos(phase)).sum(-1)
        return Chords(z0, z1, self.k[row] * direction.norm(dim=-1) * 2 * half * mean_density)

    def _shown(self, integral: Tensor) -> Tensor:
        return -torch.expm1(-integral) >= ALPHA_MIN if self.drawable.cap else integral > 0

    def _optical_depth(self, integral: Tensor, smooth: bool) -> Tensor:
        leaked = self.drawable.leak * (integral - integral.detach())
        shown = self._shown(integral.detach())
        tau = torch.where(shown, integral, leaked)
        if self.drawable.cap:
            share = torch.where(shown, -torch.expm1(-tau) / ALPHA_MIN, 2)
            tau = faded(tau, share, smooth).clamp(max=TAU_MAX)
        return tau


def sinc(x: Tensor) -> Tensor:
    """sin(x) / x, differentiable at 0."""
    small = x.abs() < 0.1
    safe = torch.where(small, 1, x)
    s = torch.where(small, x, 0).square()
    # Taylor: what is left out is below 0.1^12 / 13!.
    series = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72 * (1 - s / 110))))
    return torch.where(small, series, torch.sin(safe) / safe)
