"""The second door: the nearest events of every pixel, for shading in ordinary torch, and compositing by the same rule.

`composite(fragments, fragments.colors)` is what `render` draws with `order="ray"`, where K covers all events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.backends import BackendError, choose
from smalti.renderers.drawables import Drawable
from smalti.renderers.render import validate
from smalti.renderers.settings import DEPTH_WEIGHT_MIN, RenderSettings


@dataclass(frozen=True, eq=False)
class Fragments:
    """Per pixel the K nearest events, nearest first (segments by where they begin); contract, section 3 of the design.

    Differentiable: `z0`, `z1`, `values`, `colors`, and `local` of all kinds but EWA Gaussians.
    """

    primitives: Int[Tensor, "h w k"]
    """Rows, numbered through the drawables in the order given; -1 where there is no event."""
    drawables: Int[Tensor, "h w k"]
    """Which drawable the row belongs to; -1 where there is no event."""
    thick: Bool[Tensor, "h w k"]
    """Segments, which begin and end and may overlap; all others are at one depth."""
    z0: Float[Tensor, "h w k"]
    """Camera z of the event, or of the segment's begin."""
    z1: Float[Tensor, "h w k"]
    """The segment's end; `z0` of other events."""
    values: Float[Tensor, "h w k"]
    """alpha, or the segment's optical depth."""
    colors: Float[Tensor, "h w k c"]
    """Colour and features as the kind itself shades the event."""
    local: Float[Tensor, "h w k 3"]
    """The kind's local coordinates: barycentrics of triangles, coordinates in the splat of others; 0 of boxes."""
    normals: Float[Tensor, "h w k 3"]
    """World axes, towards the camera; 0 where the kind has none. Not differentiable here."""
    counts: Int[Tensor, "h w"]
    """Events that the ray met before it ended; those beyond K are not listed."""
    left: Float[Tensor, "h w"]
    """Transmittance behind all events of the ray, listed or not. Not differentiable."""
    camera: Camera
    transmittance_min: float
    additive: bool = False
    """Boxes of the additive accumulation, which is theirs in `composite`, too."""

    @property
    def complete(self) -> bool:
        """Whether K covers every ray."""
        return bool((self.counts <= self.primitives.shape[-1]).all())


def fragments(
    drawables: Sequence[Drawable],
    camera: Camera,
    most: int = 16,
    *,
    settings: RenderSettings | None = None,
    backend: str = "auto",
) -> Fragments:
    """The `most` nearest events per pixel along exact rays (`order="ray"`, whatever `settings.order` says).

    `backend`: `"auto"` (by the tensors' device), `"cpu"` or `"cuda"`. Raises BackendError where it cannot be used, and
    for the oracle, which has no such door.

    Gradients reach the drawables and the camera as in `render`.
    """
    if most < 1:
        raise ValueError(f"fragments: expected at least one event per pixel, got most={most}")
    settings = replace(settings or RenderSettings(), order="ray", depth=False, statistics=False, normals=False)
    validate(drawables, camera, None)
    device = drawables[0].device
    if backend == "emulator":
        from smalti.renderers.engine.cuda import fragments_emulated

        return fragments_emulated(drawables, camera, most, settings)
    if backend not in ("auto", device.type) or device.type not in ("cpu", "cuda"):
        # What does not fit: the one place that knows why, and the remedy. It raises, unless only the door is missing.
        backend = choose(backend, device)
        raise BackendError(f"fragments are drawn by the back ends 'cpu' and 'cuda', not by {backend!r}")
    if device.type == "cuda":
        from smalti.renderers.engine.cuda import fragments_cuda

        return fragments_cuda(drawables, camera, most, settings)
    from smalti.renderers.engine.cpu import fragments_cpu

    return fragments_cpu(drawables, camera, most, settings)


def composite(
    given: Fragments, colors: Float[Tensor, "h w k c"], background: Float[Tensor, "c"] | None = None
) -> tuple[Float[Tensor, "h w c"], Float[Tensor, "h w"]]:
    """(colour, alpha) of the listed events with these colours, by the rule of `render` (docs/kinds.md, section 1).

    Differentiable in `colors`, `background` and all of the fragments that is. Cost and memory grow with K squared where
    segments are among the events. ValueError where `colors` are not those of these fragments.
    """
    if colors.dim() != 4 or colors.shape[:3] != given.primitives.shape:
        shape = (*given.primitives.shape, "c")
        raise ValueError(f"composite: colors: expected shape {shape}, got {tuple(colors.shape)}")
    there = given.primitives >= 0
    zero = torch.zeros_like(given.values)
    alpha = torch.where(there & ~given.thick, given.values, zero)
    segment = there & given.thick
    if not bool(segment.any()):
        weights, left = _over(torch.zeros_like(alpha), alpha, given.transmittance_min)[1:]
        color = (weights[..., None] * colors).sum(-2)
        return _behind(color, left, background)

    # Begins (thin events: their one place) and ends, sorted; stable, so that ties keep the order of the events.
    infinite = given.z0.new_full((), torch.inf)
    begin = torch.where(there, given.z0, infinite).detach().cummax(-1).values
    end = torch.where(segment, torch.maximum(given.z1.detach(), begin), begin)
    order = torch.cat([begin, end], dim=-1).argsort(dim=-1, stable=True)
    count = begin.shape[-1]
    places = torch.where(there, given.z0, zero), torch.where(segment, given.z1, torch.where(there, given.z0, zero))
    z = torch.cat(places, dim=-1).gather(-1, order)
    at = order.argsort(dim=-1)  # rank of every begin and end
    ranks = torch.arange(2 * count, device=z.device)
    opened = (
        segment[..., None, :] & (at[..., None, :count] < ranks[:, None]) & (at[..., None, count:] >= ranks[:, None])
    )
    length = torch.cat([torch.zeros_like(z[..., :1]), (z[..., 1:] - z[..., :-1]).clamp_min(0)], dim=-1)
    chord = torch.where(segment, given.z1 - given.z0, 1.0)
    density = torch.where(segment, given.values / torch.where(chord > 0, chord, 1.0), zero)
    open_density = torch.where(opened, density[..., None, :], 0.0)  # [h, w, piece, event]
    tau = open_density.sum(-1) * length
    thin_rank = torch.where(order < count, torch.cat([alpha, zero], -1).gather(-1, order), 0.0)
    if given.additive:
        share, weights, left = _added(tau)
    else:
        share, weights, left = _over(tau, thin_rank, given.transmittance_min)
    # A piece's share goes to its open segments by density; tau is theirs together.
    felt = tau > DEPTH_WEIGHT_MIN  # of less the quotient's derivative would leave single precision
    together = torch.where(felt, share / torch.where(felt, tau, 1.0), 0.0) * length
    own = (together[..., None] * open_density).sum(-2)
    color = ((own + weights.gather(-1, at[..., :count]))[..., None] * colors).sum(-2)
    return _behind(color, left, background)


def _over(tau: Tensor, alpha: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of pieces and of the thin events after each, and what is left; a ray ends where T falls below `least`."""
    passed = torch.stack([torch.exp(-tau), 1 - alpha], dim=-1).flatten(-2)
    first = torch.ones_like(passed[..., :1])
    alive = torch.cat([first, _running(passed.detach(), torch.mul)[..., :-1]], dim=-1) >= least
    passed = torch.where(alive, passed, 1.0)
    products = torch.cat([first, _running(passed, torch.mul)], dim=-1)
    before = products[..., :-1]
    absorbed = torch.stack([-torch.expm1(-tau), alpha], dim=-1).flatten(-2)
    weights = (torch.where(alive, absorbed, 0.0) * before).unflatten(-1, (-1, 2))
    return weights[..., 0], weights[..., 1], products[..., -1]


def _added(tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_over`, of pieces alone, by the additive rule: w = min(A + tau, 1) - A."""
    sums = torch.cat([torch.zeros_like(tau[..., :1]), _running(tau, torch.add)], dim=-1).clamp_max(1)
    return sums.diff(dim=-1), torch.zeros_like(tau), 1 - sums[..., -1]


def _running(values: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Running sums or products along the last axis, by doubling.

    Deterministic algorithms refuse torch's cumsum on CUDA, and with it the derivative of cumprod; nor is anything
    divided by `1 - alpha` here.
    """
    step = 1
    while step < values.shape[-1]:
        values = torch.cat([values[..., :step], combine(values[..., step:], values[..., :-step])], dim=-1)
        step *= 2
    return values


def _behind(color: Tensor, left: Tensor, background: Tensor | None) -> tuple[Tensor, Tensor]:
    return (color if background is None else color + left[..., None] * background), 1 - left
