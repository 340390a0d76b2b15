"""Kinds from outside, by the reference that they bring along (kinds.md, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.oracle_kinds.events import Events, View, usable_rows
from smalti.renderers.outside import OutsideDrawable


class OutsideEvents:
    """What `OutsideKind.reference` says, made safe as the engine does it with the header's event."""

    def __init__(self, drawable: OutsideDrawable, camera: Camera) -> None:
        if drawable.outside.reference is None:
            raise ValueError(
                f"the oracle does not know the kind {drawable.outside.name!r}; give its OutsideKind a `reference`"
            )
        self.drawable, self.reference = drawable, drawable.outside.reference
        usable = usable_rows(len(drawable), [drawable.parameters, drawable.colors, drawable.features], [])
        self.rows, self.skipped = usable.nonzero()[:, 0], int((~usable).sum())
        centres = drawable.parameters[:, :3] @ camera.rotation.T + camera.translation
        self.keys = centres[:, 2].detach()
        # The camera seen from the centre, world axes.
        self.origins = -centres[self.rows] @ camera.rotation
        self.rotation = camera.rotation
        own = drawable.parameters[self.rows]
        self.parameters = torch.cat([torch.zeros_like(own[:, :3]), own[:, 3:]], dim=1)

    def events(self, view: View) -> Events:
        """One event or segment per pixel and primitive that the reference says is hit, beyond the near plane."""
        with torch.no_grad():
            pixel, row = view.pairs(len(self.rows))
            z0, z1, value, hit = self._ask(view, pixel, row)
            hit = hit & (value > 0) & (z0 + z1 + value).isfinite()
            thick = self.drawable.outside.thick
            hit &= ((z1 > z0) & (z1 > view.settings.near)) if thick else (z0 >= view.settings.near)
        pixel, row = pixel[hit], row[hit]
        z0, z1, value, _ = self._ask(view, pixel, row)
        primitive = self.rows[row]
        color = self.drawable.colors[primitive]
        features = None if self.drawable.features is None else self.drawable.features[primitive]
        if not thick:
            return Events(pixel, primitive, z0, None, value.clamp(max=1), color, features)
        begin = torch.where(z0 < view.settings.near, view.settings.near, z0)
        value = torch.where(z0 < view.settings.near, value / (z1 - z0) * (z1 - begin), value)
        return Events(pixel, primitive, begin, z1, value, color, features)

    def _ask(self, view: View, pixel: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z0, z1 (of thin events: the same), value and hit of pairs."""
        found = self.reference(self.parameters[row], self.origins[row], (view.directions @ self.rotation)[pixel])
        if self.drawable.outside.thick:
            z0, z1, value, hit = found
            return z0, z1, value, hit
        z, value, hit = found
        return z, z, value, hit
