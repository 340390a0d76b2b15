"""Composites sequences front to back: exponential transmittance, or the additive clamp (kinds.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.renderers.oracle_kinds.order import THIN, EventList, Sequence


@dataclass(frozen=True, eq=False)
class Result:
    """Sums per pixel, before the background."""

    channels: Float[Tensor, "p c"]
    depth: Float[Tensor, "p"]
    """Sum of weights times camera z."""
    weight: Float[Tensor, "p"]
    """Sum of weights."""
    transmittance: Float[Tensor, "p"]
    event_weight: Float[Tensor, "k"]
    """What each event contributed, over all its pieces."""
    before: Float[Tensor, "r"]
    """Transmittance before a row's piece, after it, and after its point."""
    between: Float[Tensor, "r"]
    after: Float[Tensor, "r"]
    piece_tau: Float[Tensor, "r"]


def exponential(events: EventList, sequence: Sequence, pixels: int, transmittance_min: float) -> Result:
    """C += T phi(tau) sum tau_i c_i per piece, T *= exp(-tau); C += T alpha c per thin event, T *= 1 - alpha."""
    tau = _per_row(sequence, sequence.share_tau)
    thin = sequence.point == THIN
    alpha = torch.where(thin, events.value[sequence.event], 0)

    # What comes after the ray's end is decided on the transmittance without an end: it is the same up to there.
    ended_before, ended_between = (
        t < transmittance_min for t in _transmittance(sequence, tau.detach(), alpha.detach())
    )
    tau, alpha = torch.where(ended_before, 0, tau), torch.where(ended_between, 0, alpha)
    before, between = _transmittance(sequence, tau, alpha)

    share = torch.where(ended_before, 0, before * phi(tau))
    share_weight = share[sequence.share_row] * sequence.share_tau
    thin_weight = between * alpha
    length = sequence.stop - sequence.start
    depth = before * (-torch.expm1(-tau) * sequence.start + length * psi(tau)) + thin_weight * sequence.stop
    weight = before * -torch.expm1(-tau) + thin_weight
    after = between * (1 - alpha)
    return _sums(events, sequence, pixels, [share_weight, thin_weight, depth, weight, before, between, after, tau])


def additive(events: EventList, sequence: Sequence, pixels: int) -> Result:
    """Lombardi et al. 2021: w = min(A + tau, 1) - A, A += w; segments only."""
    tau = _per_row(sequence, sequence.share_tau)
    absorbed, absorbed_then = _running_sums(sequence, tau, pixels)
    full_before, full_then = absorbed.detach() >= 1, absorbed_then.detach() >= 1
    before, between = torch.where(full_before, 0, 1 - absorbed), torch.where(full_then, 0, 1 - absorbed_then)
    weight = torch.where(full_before, 0, torch.where(full_then, 1 - absorbed, tau))
    some = tau > 0
    share_weight = (weight / torch.where(some, tau, 1))[sequence.share_row] * sequence.share_tau
    depth = weight * 0.5 * (sequence.start + sequence.stop)
    none = torch.zeros_like(weight)
    return _sums(events, sequence, pixels, [share_weight, none, depth, weight, before, between, between, tau])


def phi(x: Tensor) -> Tensor:
    """(1 - exp(-x)) / x, differentiable at 0."""
    small = x.abs() < 1e-2
    safe = torch.where(small, 1, x)
    s = torch.where(small, x, 0)
    series = 1 - s / 2 * (1 - s / 3 * (1 - s / 4 * (1 - s / 5 * (1 - s / 6 * (1 - s / 7)))))
    return torch.where(small, series, -torch.expm1(-safe) / safe)


def psi(x: Tensor) -> Tensor:
    """(1 - (1 + x) exp(-x)) / x = phi(x) - exp(-x), differentiable at 0."""
    small = x.abs() < 0.1
    safe = torch.where(small, 1, x)
    s = torch.where(small, x, 0)
    terms, factorial = torch.zeros_like(s), 1.0
    for k in range(1, 12):  # sum of (-1)^(k+1) k x^k / (k+1)!
        factorial *= k + 1
        terms = terms + (-1) ** (k + 1) * k / factorial * s**k
    return torch.where(small, terms, phi(safe) - torch.exp(-safe))


def _per_row(sequence: Sequence, value: Tensor) -> Tensor:
    """Sum of the shares' `value` in each row."""
    rows = value.new_zeros(len(sequence.pixel), *value.shape[1:])
    return rows.index_add(0, sequence.share_row, value)


def _table(sequence: Sequence, value: Tensor, pixels: int, empty: float) -> Tensor:
    """[pixels, columns] of what is given per row."""
    widest = int(sequence.column.max()) + 1 if len(sequence.column) else 0
    table = value.new_full((pixels, widest), empty)
    return table.index_put((sequence.pixel, sequence.column), value)


def _transmittance(sequence: Sequence, tau: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """T before each row's piece, and between the piece and its point."""
    pixels = int(sequence.pixel.max()) + 1 if len(sequence.pixel) else 0
    passed = _table(sequence, 1 - alpha, pixels, 1.0)
    passed = torch.cat([passed.new_ones(pixels, 1), passed], dim=1).cumprod(1)[sequence.pixel, sequence.column]
    depth, depth_then = _running_sums(sequence, tau, pixels)
    return torch.exp(-depth) * passed, torch.exp(-depth_then) * passed


def _running_sums(sequence: Sequence, value: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Sums of `value` over the rows of the same pixel in front of each row, without and with the row itself."""
    table = _table(sequence, value, pixels, 0.0)
    sums = torch.cat([table.new_zeros(pixels, 1), table], dim=1).cumsum(1)
    return sums[sequence.pixel, sequence.column], sums[sequence.pixel, sequence.column + 1]


def _sums(events: EventList, sequence: Sequence, pixels: int, parts: list[Tensor]) -> Result:
    share_weight, thin_weight, depth, weight, before, between, after, tau = parts
    row_channels = _per_row(sequence, share_weight[:, None] * events.channels[sequence.share_event])
    row_channels = row_channels + thin_weight[:, None] * events.channels[sequence.event]

    def per_pixel(value: Tensor) -> Tensor:
        return value.new_zeros(pixels, *value.shape[1:]).index_add(0, sequence.pixel, value)

    last = torch.bincount(sequence.pixel, minlength=pixels).cumsum(0) - 1
    hit = torch.bincount(sequence.pixel, minlength=pixels) > 0
    transmittance = after.new_ones(pixels)
    transmittance = transmittance.index_put((hit.nonzero()[:, 0],), after[last[hit]])
    event_weight = torch.zeros_like(events.value).index_add(0, sequence.share_event, share_weight)
    event_weight = event_weight.index_add(0, sequence.event, thin_weight)
    totals = [per_pixel(value) for value in (row_channels, depth, weight)]
    return Result(totals[0], totals[1], totals[2], transmittance, event_weight, before, between, after, tau)
