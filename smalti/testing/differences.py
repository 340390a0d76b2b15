"""Central differences of pictures with the visible set frozen: pixels in which something appeared, vanished or changed
places between the two sides are set aside, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.renderers.frame import Frame

Draw = Callable[[Mapping[str, Tensor]], Frame]
"""A picture of leaves by name."""


@dataclass(frozen=True)
class Difference:
    """How far the gradient of one leaf (column) is from central differences."""

    error: float
    """Largest, over the largest difference."""
    set_aside: float
    """Share of (number, pixel) pairs that were set aside, of those that differ at all."""


def weighted(frame: Frame, seed: int = 7) -> Tensor:
    """One number per pixel: colour, alpha, and depth times alpha, weighted at random, the same for every frame."""
    generator = torch.Generator().manual_seed(seed)
    planes = [frame.color, frame.alpha[..., None]]
    if frame.depth is not None:
        planes.append((frame.depth * frame.alpha)[..., None])
    if frame.features is not None:
        planes.append(frame.features)
    stacked = torch.cat(planes, dim=-1)
    return (stacked * torch.randn(stacked.shape[-1], generator=generator).to(stacked)).sum(-1)


def difference(draw: Draw, leaves: Mapping[str, Tensor], name: str, columns: slice | None = None) -> Difference:
    """Of `leaves[name]` (of its last dimension's `columns`), in float64.

    A pixel is set aside where differences over steps of h and h / 4 disagree: there the picture jumps.
    """
    given = {key: value.detach() for key, value in leaves.items()}
    leaf = given[name]
    indices = torch.arange(leaf.numel()).reshape(leaf.shape)
    wanted = (indices if columns is None else indices[..., columns]).flatten().tolist()
    moving = leaf.clone().requires_grad_(True)
    plane = weighted(draw({**given, name: moving}))
    pixel_weights = torch.randn(plane.shape, generator=torch.Generator().manual_seed(11)).to(plane)

    def at(position: int, step: float) -> Tensor:
        shifted = leaf.clone()
        shifted.view(-1)[position] += step
        with torch.no_grad():
            return weighted(draw({**given, name: shifted})) * pixel_weights

    found: list[tuple[float, float]] = []
    aside = felt = 0
    for position in wanted:
        step = 1e-5 * max(1.0, abs(float(leaf.view(-1)[position])))
        wide, narrow = ((at(position, h) - at(position, -h)) / (2 * h) for h in (step, step / 4))
        keep = (wide - narrow).abs() <= 1e-4 * max(float(narrow.abs().median()), 1e-3 * float(narrow.abs().max()), 1e-4)
        aside += int((~keep).sum())
        felt += int((narrow != 0).sum())
        loss = (plane * pixel_weights * keep).sum()
        gradient = torch.autograd.grad(loss, moving, retain_graph=True)[0]
        found.append((float(gradient.view(-1)[position]), float((narrow * keep).sum())))
    got, expected = torch.tensor(found, dtype=torch.float64).reshape(-1, 2).unbind(1)
    scale = float(expected.abs().max()) or 1.0
    return Difference(float((got - expected).abs().max()) / scale, aside / max(felt, 1))
