"""Kind `box`: oriented boxes with a voxel payload, marched on one grid (Lombardi et al. 2021; kinds.md, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import BoxDrawable
from smalti.renderers.oracle import rotation_matrices
from smalti.renderers.oracle_kinds.events import Events, View, usable_quaternions, usable_rows
from smalti.renderers.oracle_kinds.texture import trilinear

MOST_CELLS = 2**24
"""Between the camera and a box's far end; more is an overflow."""


class BoxKind:
    """Cell n of every ray covers arc lengths [n, n + 1] step from the camera centre and is sampled at its middle."""

    def __init__(self, drawable: BoxDrawable, camera: Camera) -> None:
        self.drawable, self.camera = drawable, camera
        given = [drawable.centres, drawable.quaternions, drawable.half_extents, drawable.warp]
        given.append(drawable.payload.square())  # a colour times a density must not overflow either
        usable = usable_rows(len(drawable), given, [drawable.half_extents])
        usable &= usable_quaternions(drawable.quaternions)
        with torch.no_grad():
            centres = drawable.centres @ camera.rotation.T + camera.translation
            reach = centres.norm(dim=-1) + drawable.half_extents.norm(dim=-1)
            usable &= reach < MOST_CELLS * drawable.step
        self.rows, self.skipped = usable.nonzero()[:, 0], int((~usable).sum())
        self.keys = (drawable.centres @ camera.rotation[2] + camera.translation[2]).detach()
        self.centres = drawable.centres[self.rows] @ camera.rotation.T + camera.translation
        self.axes = camera.rotation @ rotation_matrices(drawable.quaternions[self.rows])
        self.half_extents = drawable.half_extents[self.rows]

    def events(self, view: View) -> Events:
        """One segment per pixel, box and cell whose sample is inside the box and has a density."""
        drawable = self.drawable
        lengths = view.directions.norm(dim=-1)
        with torch.no_grad():
            pixel, row, cell = self._cells(view)
            y = self._local(view, lengths, pixel, row, cell)
            drawn = (y.abs() < 1).all(-1)
            drawn &= (cell + 0.5) * drawable.step / lengths[pixel] >= view.settings.near
            pixel, row, cell, y = pixel[drawn], row[drawn], cell[drawn], y[drawn]
            dense = self._sample(y, row)[1] > 0
        pixel, row, cell = pixel[dense], row[dense], cell[dense]
        color, density = self._sample(self._local(view, lengths, pixel, row, cell), row)
        z0, z1 = (number * drawable.step / lengths[pixel] for number in (cell, cell + 1))
        return Events(pixel, self.rows[row], z0, z1, density * drawable.step, color)

    def _cells(self, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, boxes and cells whose samples may be inside: those in the sphere around the box."""
        pixel, row = view.pairs(len(self.rows))
        directions = torch.nn.functional.normalize(view.directions, dim=-1)
        along = (self.centres[row] * directions[pixel]).sum(-1)
        apart = (self.centres[row] - along[:, None] * directions[pixel]).square().sum(-1)
        inside = self.half_extents[row].square().sum(-1) - apart
        half = inside.clamp(min=0).sqrt()
        first = ((along - half) / self.drawable.step - 1).floor().clamp(min=0)
        count = ((along + half) / self.drawable.step + 1).ceil() - first
        count = torch.where(inside > 0, count, 0).clamp(min=0).long()
        start = count.cumsum(0) - count
        pair = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        cell = first[pair] + (torch.arange(len(pair), device=count.device) - start[pair])
        return pixel[pair], row[pair], cell

    def _local(self, view: View, lengths: Tensor, pixel: Tensor, row: Tensor, cell: Tensor) -> Tensor:
        """The samples in the boxes' axes, -1..1 inside; arc lengths are numbers, not parameters."""
        arc = (cell + 0.5) * self.drawable.step
        offset = (arc / lengths[pixel])[:, None] * view.directions[pixel] - self.centres[row]
        return (self.axes[row] * offset[:, :, None]).sum(1) / self.half_extents[row]

    def _sample(self, y: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Colour, and density per world unit times the opacity window; the density may be negative."""
        drawable, primitive = self.drawable, self.rows[row]
        at = y if drawable.warp is None else trilinear(drawable.warp, primitive, y).clamp(-1, 1)
        payload = trilinear(drawable.payload, primitive, at)
        density = payload[:, 3]
        if drawable.fade_scale > 0:
            fall = y.abs().pow(drawable.fade_exponent).sum(-1)
            density = density * torch.exp(-drawable.fade_scale * fall)
        return payload[:, :3], density
