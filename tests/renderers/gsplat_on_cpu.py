"""gsplat's `rasterization` without CUDA: its own torch references of projection and harmonics, and a compositing of all
Gaussians at all pixels by the rules of its kernels (cap 0.999, skip below 1/255, stop before T reaches 1e-4).
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor


def rasterization(**given: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """One camera, `packed=False`; other words than gsplat's own are a TypeError, as they are there."""
    import gsplat
    from gsplat.cuda import _torch_impl as reference

    call = inspect.signature(gsplat.rasterization).bind(**given)
    call.apply_defaults()
    of = call.arguments
    assert not of["packed"]
    assert of["render_mode"] in ("RGB", "RGB+ED")
    covariances, _ = reference._quat_scale_to_covar_preci(of["quats"], of["scales"], True, False)
    radii, centres, depths, conics, compensations = reference._fully_fused_projection(
        *(of["means"], covariances, of["viewmats"], of["Ks"], of["width"], of["height"], of["eps2d"]),
        near_plane=of["near_plane"],
        calc_compensations=of["rasterize_mode"] == "antialiased",
    )
    opacities = of["opacities"] if compensations is None else of["opacities"] * compensations[0]
    colors = of["colors"]
    if of["sh_degree"] is not None:
        directions = of["means"] - torch.inverse(of["viewmats"])[0, :3, 3]
        colors = (reference._spherical_harmonics(of["sh_degree"], directions, colors) + 0.5).clamp_min(0)
    if of["render_mode"] == "RGB+ED":
        colors = torch.cat([colors, depths[0][:, None]], dim=1)
    seen = (radii[0] > 0).all(1).nonzero()[:, 0]
    order = seen[depths[0][seen].argsort(stable=True)]
    down, across = torch.meshgrid(torch.arange(of["height"]) + 0.5, torch.arange(of["width"]) + 0.5, indexing="ij")
    pixels = torch.stack([across, down], dim=-1).reshape(-1, 1, 2).to(centres)
    spread = centres.expand(len(pixels), -1, -1)
    if of["absgrad"] and spread.requires_grad:
        spread.register_hook(lambda gradient: setattr(centres, "absgrad", gradient.abs().sum(0)[None]))
    dx, dy = (pixels - spread[:, order]).unbind(-1)
    a, b, c = conics[0, order].unbind(-1)
    alpha = (opacities[order] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp_max(0.999)
    alpha = torch.where(alpha < 1 / 255, 0, alpha)
    through = torch.cumprod(1 - alpha, dim=1)
    alpha = torch.where(through > 1e-4, alpha, 0)  # once one is left out, all behind it are: T only falls
    through = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
    weights = before * alpha
    picture = (weights @ colors[order]).reshape(1, of["height"], of["width"], -1)
    opaque = weights.sum(1).reshape(1, of["height"], of["width"], 1)
    if of["render_mode"] == "RGB+ED":
        picture = torch.cat([picture[..., :-1], picture[..., -1:] / opaque.clamp_min(1e-10)], dim=-1)
    return picture, opaque, {"radii": radii, "means2d": centres, "depths": depths, "flatten_ids": order}
