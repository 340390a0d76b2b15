"""Kind `surfel`: flat Gaussian disks (Huang et al. 2024; kinds.md, section 2): a thin event where the ray hits."""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import SurfelDrawable
from smalti.renderers.oracle import rotation_matrices
from smalti.renderers.oracle_kinds.ellipsoids import splat_colors, splat_keys, usable_splats
from smalti.renderers.oracle_kinds.events import Events, View, faded
from smalti.renderers.settings import ALPHA_MAX, ALPHA_MIN


class SurfelKind:
    """Disks in camera axes: means, and the three columns of the rotation, the third being the normal."""

    def __init__(self, drawable: SurfelDrawable, camera: Camera) -> None:
        self.drawable, self.camera = drawable, camera
        usable = usable_splats(drawable, camera, [drawable.opacities])
        self.keys = splat_keys(drawable.means, camera)
        largest = drawable.means.detach().norm(dim=-1) / drawable.scales.detach().amin(-1)
        usable &= (self.keys / drawable.scales.detach().amin(-1)).square().isfinite() & largest.square().isfinite()
        self.rows, self.skipped = usable.nonzero()[:, 0], int((~usable).sum())
        self.means = drawable.means[self.rows] @ camera.rotation.T + camera.translation
        self.world_axes = rotation_matrices(drawable.quaternions[self.rows])
        self.axes = camera.rotation @ self.world_axes
        self.scales, self.opacities = drawable.scales[self.rows], drawable.opacities[self.rows]
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

        away = (self.axes[row][:, :, 2] * view.directions[pixel]).sum(-1, keepdim=True).detach() > 0
        normal = self.world_axes[row][:, :, 2]
        primitive = self.rows[row]
        features = None if self.drawable.features is None else self.drawable.features[primitive]
        return Events(pixel, primitive, z, None, alpha, self.colors[row], features, torch.where(away, -normal, normal))

    def _respond(self, view: View, pixel: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """z and alpha of the pairs; not finite where the ray runs along the disk."""
        direction, mean, axes = view.directions[pixel], self.means[row], self.axes[row]
        z = (axes[:, :, 2] * mean).sum(-1) / (axes[:, :, 2] * direction).sum(-1)
        offset = z[:, None] * direction - mean
        local = (axes[:, :, :2] * offset[:, :, None]).sum(1) / self.scales[row]
        alpha = self.opacities[row] * torch.exp(-0.5 * local.square().sum(-1))
        return z, alpha.clamp(max=ALPHA_MAX)
