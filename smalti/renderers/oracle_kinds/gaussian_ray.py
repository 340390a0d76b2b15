"""Kind `gaussian_ray`: 3D Gaussians evaluated on the ray (kinds.md, section 2): thin, at the largest response."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import RayGaussianDrawable
from smalti.renderers.oracle_kinds.ellipsoids import Ellipsoids, largest, splat_colors, splat_keys, usable_splats
from smalti.renderers.oracle_kinds.events import Events, View, faded
from smalti.renderers.settings import ALPHA_MAX, ALPHA_MIN


class RayGaussianKind:
    """`maximum`: Yu et al. 2024 (Gaussian Opacity Fields), Moenne-Loccoz et al. 2024 (3DGRT); `integral`: classical."""

    def __init__(self, drawable: RayGaussianDrawable, camera: Camera) -> None:
        self.drawable = drawable
        usable = usable_splats(drawable, camera, [drawable.opacities])
        usable = Ellipsoids.without_overflow(drawable, camera, usable)
        self.rows, self.skipped = usable.nonzero()[:, 0], int((~usable).sum())
        self.keys = splat_keys(drawable.means, camera)
        self.ellipsoids = Ellipsoids.of(drawable, camera, self.rows)
        self.scales = largest(drawable.scales[self.rows])
        self.opacities = drawable.opacities[self.rows]
        self.colors = splat_colors(drawable, camera, self.rows)

    def events(self, view: View) -> Events:
        """One event per pixel and primitive with alpha >= 1/255 and z >= near."""
        with torch.no_grad():
            pixel, row = view.pairs(len(self.rows))
            z, alpha = self._respond(view, pixel, row)
            drawn = (alpha >= ALPHA_MIN) & (z >= view.settings.near) & z.isfinite()
        pixel, row = pixel[drawn], row[drawn]
        z, alpha = self._respond(view, pixel, row)
        alpha = faded(alpha, alpha / ALPHA_MIN, view.settings.smooth_cutoff)
        primitive = self.rows[row]
        features = None if self.drawable.features is None else self.drawable.features[primitive]
        return Events(pixel, primitive, z, None, alpha, self.colors[row], features)

    def _respond(self, view: View, pixel: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """z and alpha of the pairs."""
        direction = view.directions[pixel]
        ray = self.ellipsoids.closest(direction, row)
        response = self.opacities[row] * torch.exp(-0.5 * ray.n / ray.a)
        if self.drawable.response == "integral":
            chord = direction.norm(dim=-1) / (ray.a.sqrt() * self.scales[row])
            response = -torch.expm1(-math.sqrt(2 * math.pi) * response * chord)
        return ray.b / ray.a, response.clamp(max=ALPHA_MAX)
