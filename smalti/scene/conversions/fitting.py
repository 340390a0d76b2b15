"""A few steps of optimisation that bring a converted family nearer to the original's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from smalti.primitives.family import Family
from smalti.scene.conversions.sources import Picture, draw, extent, near_plane

MOST_VIEWS_HELD = 256
"""Pictures that are fitted to at most; more are thinned out evenly."""


def fit_to(family: Family, views: Sequence[Picture], steps: int, rates: Mapping[str, float] | None = None) -> None:
    """`steps` of Adam, one view each in an order fixed by seed 0, on the mean absolute difference of colour on black
    and of alpha. In place.

    `rates`: of the parameters to fit, by default the family's own of all (those of positions times the extent, as in
    training). Rates fall to a tenth in the second half.
    """
    if steps < 1 or not len(family):
        return
    views = views[:: max(1, -(-len(views) // MOST_VIEWS_HELD))]
    low, high = extent(family).unbind(0)
    size, near = 0.5 * float((high - low).max()), near_plane(family)
    rates = family.default_learning_rates() if rates is None else rates
    family.require_gradients(False)
    groups = []
    for name in sorted(set(rates) & set(family.parameters)):
        value = family.parameters[name].requires_grad_(True)
        groups.append({"params": [value], "lr": rates[name] * (size if name in family.position_parameters() else 1.0)})
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 10.0 ** (1.0 - 2.0 * step / steps)))
    generator = torch.Generator().manual_seed(0)
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = torch.randperm(len(views), generator=generator).tolist()
        view = views[order.pop()]
        frame = draw(family, view.camera, near)
        color, alpha = view.color.to(frame.color), view.alpha.to(frame.alpha)
        loss = (frame.color - color).abs().mean() + 0.5 * (frame.alpha - alpha).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    for value in family.parameters.values():
        value.grad = None
    family.require_gradients(True)
