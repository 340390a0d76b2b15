"""Numbers as colours, and normals from depth."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera


def depth_limits(
    depth: Float[Tensor, "h w"], hit: Bool[Tensor, "h w"], alpha: Float[Tensor, "h w"]
) -> tuple[float, float]:
    """1st and 99th percentile of the depth where half of the ray or more is absorbed, else wherever something is."""
    solid = depth[hit & (alpha >= 0.5)]
    return quantiles(solid if solid.numel() else depth[hit], 0.01, 0.99)


def quantiles(values: Float[Tensor, "n"], low: float, high: float) -> tuple[float, float]:
    """Two of them, of the finite values; (0, 1) where there are none."""
    values = values[torch.isfinite(values)]
    if values.numel() == 0:
        return 0.0, 1.0
    found = np.quantile(values.double().cpu().numpy(), [low, high])
    return float(found[0]), float(found[1])


@cache
def _table(name: str) -> Float[Tensor, "256 3"]:
    from matplotlib import colormaps

    return torch.tensor(colormaps[name](np.arange(256))[:, :3], dtype=torch.float32)


def mapped(name: str, share: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Colours of 0..1 by one of matplotlib's maps."""
    table = _table(name).to(share)
    return table[(share * 256).long().clamp(0, 255)]


def depth_normals(depth: Float[Tensor, "h w"], alpha: Float[Tensor, "h w"], camera: Camera) -> Float[Tensor, "h w 3"]:
    """Unit normals of the surface that the depth makes, in world axes, towards the camera, by central differences. 0 at
    the picture's border and beside pixels that are less than half covered.
    """
    fx, fy, cx, cy = camera.intrinsics.detach().to(depth).unbind()
    height, width = depth.shape
    x = (torch.arange(width, device=depth.device) + 0.5 - cx) / fx
    y = (torch.arange(height, device=depth.device) + 0.5 - cy) / fy
    points = torch.stack([x[None, :] * depth, y[:, None] * depth, depth], dim=-1)
    result = torch.zeros_like(points)
    if height < 3 or width < 3:
        return result
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    normal = torch.where((normal * points[1:-1, 1:-1]).sum(-1, keepdim=True) > 0, -normal, normal)
    solid = (alpha >= 0.5) & (depth > 0)
    around = solid[1:-1, 2:] & solid[1:-1, :-2] & solid[2:, 1:-1] & solid[:-2, 1:-1] & solid[1:-1, 1:-1]
    result[1:-1, 1:-1] = (normal @ camera.rotation.detach().to(normal)) * around[..., None]
    return result
