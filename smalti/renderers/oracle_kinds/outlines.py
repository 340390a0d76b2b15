"""Outlines of triangles on the screen, clipped at the near plane, and distances to them (soft, antialiased)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera

LEAST_NEAR = 1e-6
"""A corner at z = 0 has no place on the screen: the plane is no nearer than this share of the largest z."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """Per triangle four line segments in pixels: what is left of its edges, and the cut along the near plane."""

    ends: Float[Tensor, "m 4 2 2"]
    """Segment (the edge from corner i to i + 1; the cut), begin and end, x and y."""
    there: Bool[Tensor, "m 4"]

    @staticmethod
    def of(q: Float[Tensor, "m 3 3"], camera: Camera, near: float) -> Outlines:
        """Outlines of triangles with corners `q` in camera axes."""
        plane = (LEAST_NEAR * q.detach()[..., 2].amax(1, keepdim=True)).clamp(min=near)
        begin, end = q, q[:, [1, 2, 0]]
        begin_in, end_in = begin[..., 2] >= plane, end[..., 2] >= plane
        crosses = begin_in != end_in
        rise = torch.where(crosses, end[..., 2] - begin[..., 2], 1)
        cut = begin + ((plane - begin[..., 2]) / rise)[..., None] * (end - begin)
        ends = [torch.where(begin_in[..., None], begin, cut), torch.where(end_in[..., None], end, cut)]
        there = (begin_in | end_in) & (plane > 0)

        # The fourth: from the edge that leaves the visible side to the one that comes back.
        rows = torch.arange(len(q), device=q.device)
        closing = [cut[rows, (crosses & leaves).byte().argmax(1)] for leaves in (begin_in, end_in)]
        ends = torch.stack([torch.cat([ends[k], closing[k][:, None]], dim=1) for k in range(2)], dim=2)
        there = torch.cat([there, crosses.any(1, keepdim=True)], dim=1)

        z = torch.where(there[:, :, None], ends[..., 2], 1)
        fx, fy, cx, cy = camera.intrinsics.unbind()
        screen = torch.stack([fx * ends[..., 0] / z + cx, fy * ends[..., 1] / z + cy], dim=-1)
        return Outlines(screen, there)

    def squared_distances(self, pixels: Float[Tensor, "k 2"], row: Int[Tensor, "k"]) -> Float[Tensor, "k 4"]:
        """Squared distances in pixels to the segments of the outline `row`; infinite where there is none."""
        begin, end = self.ends[row].unbind(2)
        along = end - begin
        length = along.square().sum(-1)
        offset = pixels[:, None] - begin
        share = (offset * along).sum(-1) / torch.where(length > 0, length, 1)
        nearest = offset - share.clamp(0, 1)[..., None] * along
        return torch.where(self.there[row], nearest.square().sum(-1), torch.inf)
