"""Kind `gaussian` (EWA) among other kinds: a thin event at the mean's camera z (docs/gaussian-kind.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.oracle import choose, project
from smalti.renderers.oracle_kinds.events import Events, View, faded
from smalti.renderers.settings import ALPHA_MAX, ALPHA_MIN, RenderSettings


class GaussianKind:
    """`screen`: rows of the picture's `Visibility.screen_gradient` that belong to this drawable; filled in backward."""

    def __init__(
        self, drawable: GaussianDrawable, camera: Camera, settings: RenderSettings, screen: dict[str, Tensor]
    ) -> None:
        self.rows, self.skipped, self.keys = choose(drawable, camera, settings)
        self.splats = project(drawable, camera, self.rows)
        self.has_features = drawable.features is not None
        self.screen = screen

    def events(self, view: View) -> Events:
        """One event per pixel and primitive with alpha >= 1/255."""
        with torch.no_grad():
            pixel, row = view.pairs(len(self.rows))
            drawn = self._alpha(view.pixels[pixel] - self.splats.centres[row], row) >= ALPHA_MIN
        pixel, row = pixel[drawn], row[drawn]
        offsets = view.pixels[pixel] - self.splats.centres[row]
        self._watch(offsets, self.rows[row])
        alpha = self._alpha(offsets, row)
        alpha = faded(alpha, alpha / ALPHA_MIN, view.settings.smooth_cutoff)
        features = self.splats.features[row] if self.has_features else None
        color = self.splats.colors.clamp(min=0)[row]
        return Events(pixel, self.rows[row], self.splats.depths[row], None, alpha, color, features)

    def _alpha(self, offsets: Tensor, row: Tensor) -> Tensor:
        dx, dy = offsets.unbind(-1)
        xx, xy, yy = self.splats.conics[row].unbind(-1)
        alpha = self.splats.opacities[row] * torch.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))
        return alpha.clamp(max=ALPHA_MAX)

    def _watch(self, offsets: Tensor, primitive: Tensor) -> None:
        if not offsets.requires_grad:
            return

        def add(gradient: Tensor) -> None:
            self.screen["sum"].index_add_(0, primitive, -gradient.detach())
            if "absolute" in self.screen:
                self.screen["absolute"].index_add_(0, primitive, gradient.detach().abs())

        offsets.register_hook(add)
