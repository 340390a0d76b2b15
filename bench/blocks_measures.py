"""What is measured of a scene of blocks: their number, how decided they are, their distance from the true surface, and
the training pictures as the paper counts them (Monnier et al. 2023: all views, hard edges, 4 x 4 samples per pixel).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.datasets.images import ImageCache
from smalti.primitives.superquadrics import Superquadrics
from smalti.primitives.surface import Surface
from smalti.renderers.drawables import TriangleDrawable
from smalti.renderers.render import render
from smalti.scene.palette import flat_color
from smalti.scene.scene import Layer, Scene
from smalti.testing.chamfer import Chamfer, chamfer, sampled
from smalti.trainers.evaluation import target_of
from smalti.trainers.metrics import lpips, ssim

ACROSS = 4
"""Samples per pixel and direction."""
BATCH = 4
"""Pictures whose squared errors the published PSNR averages before the logarithm."""
LIGHT = (0.35, -0.8, -0.5)
"""From where flat colours are lit, in the camera's axes (x right, y down, z forward)."""


@dataclass(frozen=True)
class Pictures:
    """How well all views of a capture are drawn."""

    psnr: float
    """Mean over pictures, dB."""
    psnr_of_batches: float
    """Mean over batches of 4 pictures, each from its mean squared error, as the released code computes it: never above
    the other, because -log is convex.
    """
    ssim: float
    views: int
    lpips_vgg: float | None = None
    """Where it was asked for."""


def block_layers(scene: Scene) -> list[Layer]:
    """Those that hold blocks."""
    return [layer for layer in scene if isinstance(layer.family, Superquadrics)]


def block_opacities(scene: Scene) -> Float[Tensor, "n"]:
    """Of all blocks, without noise."""
    found = [layer.family.opacities().detach() for layer in block_layers(scene)]
    return torch.cat(found) if found else torch.zeros(0)


def counts(scene: Scene) -> dict[str, Any]:
    """Blocks above one half, which are the ones that exist, and the share of all that are neither there nor gone."""
    opacities = block_opacities(scene)
    undecided = (opacities > 0.1) & (opacities < 0.9)
    return {
        "blocks": int((opacities > 0.5).sum()),
        "blocks_of": len(opacities),
        "undecided": float(undecided.double().mean()) if len(opacities) else 0.0,
        "opacities": [round(value, 4) for value in opacities.tolist()],
    }


def hardened(scene: Scene) -> Scene:
    """A copy as it is judged: hard edges, blocks above one half opaque, the others gone."""
    copy = Scene.from_state(*scene.state())
    for layer in copy:
        values = layer.family.metadata
        if "edges" in values:
            values["edges"] = "hard"
        if "binary" in values:
            values["binary"] = True
    for layer in block_layers(copy):
        layer.visible = layer.visible and bool((layer.family.opacities() > 0.5).any())
    return copy


def existing_surface(scene: Scene) -> Surface:
    """The meshes of the blocks that exist, in the scene's frame, without ground and dome; empty where none exists."""
    vertices, faces, count = [torch.zeros(0, 3)], [torch.zeros(0, 3, dtype=torch.int64)], 0
    for layer in block_layers(hardened(scene).flattened()):
        if layer.visible:
            family = layer.family
            assert isinstance(family, Superquadrics)
            part = family.surface()
            vertices.append(part.vertices.detach().float())
            faces.append(part.faces + count)
            count += len(part.vertices)
    return Surface(torch.cat(vertices), torch.cat(faces))


def block_chamfer(scene: Scene, truth: Float[Tensor, "m 3"], spacing: float) -> Chamfer | None:
    """Of the existing blocks alone against points of the true surface; None where no block exists."""
    samples = sampled(existing_surface(scene), spacing, torch.Generator().manual_seed(0))
    return chamfer(samples, truth) if len(samples) else None


@torch.no_grad()
def supersampled(
    scene: Scene, camera: Camera, background: Float[Tensor, "3"], across: int = ACROSS
) -> Float[Tensor, "h w 3"]:
    """The mean of `across`^2 samples per pixel, values 0..1; an empty scene gives the background."""
    fine = camera.scaled_to(across * camera.width, across * camera.height)
    drawables = scene.drawables(fine)
    if not drawables:
        return background.expand(camera.height, camera.width, 3).clone()
    color = render(drawables, fine, background=background, settings=scene.settings()).color
    return color.reshape(camera.height, across, camera.width, across, 3).mean(dim=(1, 3)).clamp(0, 1)


@torch.no_grad()
def flat_picture(
    scene: Scene, camera: Camera, behind: Float[Tensor, "h w 3"], across: int = 4, share: float = 0.85
) -> Float[Tensor, "h w 3"]:
    """The existing blocks in flat colours, a little shaded, over a picture; ground and dome are left out."""
    corners, colors = [], []
    for layer in block_layers(hardened(scene).flattened()):
        family = layer.family
        if layer.visible and isinstance(family, Superquadrics):
            surface = family.surface()
            rows = torch.nonzero(family.opacities() > 0.5).squeeze(1)
            owners = rows.repeat_interleave(len(surface.faces) // len(rows))
            base = torch.tensor([flat_color(row) for row in range(len(family))])[owners]
            light = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0) @ camera.rotation.float()
            shade = 0.75 + 0.25 * (surface.normals().float() @ light)
            corners.append(surface.corners.float())
            colors.append((base * shade[:, None]).clamp(0, 1))
    if not corners:
        return behind
    fine = camera.scaled_to(across * camera.width, across * camera.height)
    painted = torch.cat(colors)[:, None, :].expand(-1, 3, -1).contiguous()
    drawn = TriangleDrawable(torch.cat(corners), torch.ones(len(painted)), colors=painted)
    frame = render([drawn], fine, settings=scene.settings())
    shape = (camera.height, across, camera.width, across)
    color = frame.color.reshape(*shape, 3).mean(dim=(1, 3))
    alpha = frame.alpha.reshape(shape).mean(dim=(1, 3))[..., None]
    return (share * color + (1 - share * alpha) * behind).clamp(0, 1)


@torch.no_grad()
def measured_pictures(
    scene: Scene,
    cache: ImageCache,
    rows: Sequence[int],
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    with_lpips: bool = False,
) -> Pictures:
    """PSNR and SSIM of the hardened scene in the views `rows` (those that it was trained on, as published)."""
    hard, behind = hardened(scene), torch.tensor(background)
    errors, similar, perceptual = [], [], []
    for row in rows:
        view = cache.get(row)
        image = supersampled(hard, view.camera, behind)
        truth, mask = target_of(view, behind)
        squares = (image - truth).double().square().mean(dim=-1)
        errors.append(float(squares.mean() if mask is None else squares[mask].mean()))
        similar.append(float(ssim(image, truth, mask)))
        if with_lpips:
            perceptual.append(float(lpips(image, truth, mask, "vgg")))
    seen = statistics.fmean(perceptual) if perceptual else None
    return Pictures(mean_psnr(errors, 1), mean_psnr(errors, BATCH), statistics.fmean(similar), len(errors), seen)


def mean_psnr(errors: Sequence[float], batch: int) -> float:
    """Mean of -10 log10 over the mean squared errors of so many pictures in a row (the last batch may be smaller)."""
    groups = [errors[first : first + batch] for first in range(0, len(errors), batch)]
    return statistics.fmean(-10.0 * math.log10(max(statistics.fmean(group), 1e-12)) for group in groups)
