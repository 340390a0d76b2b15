"""Which primitive did what in each pixel (kinds.md, section 1, statistics). Nothing here is differentiable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smalti.renderers.oracle_kinds.accumulate import Result
from smalti.renderers.oracle_kinds.order import EventList, Sequence


@dataclass(frozen=True, eq=False)
class Statistics:
    """Per pixel; -1 and 0 where there is none."""

    ids: dict[str, Int[Tensor, "p"]]
    """first, median, dominant: primitives."""
    depth_first: Float[Tensor, "p"]
    depth_median: Float[Tensor, "p"]


@torch.no_grad()
def summarise(events: EventList, sequence: Sequence, result: Result, pixels: int, linear: bool) -> Statistics:
    """`linear`: transmittance falls linearly within a piece (additive accumulation), not exponentially."""
    seen = result.event_weight > 0
    last_rank = len(sequence.pixel)

    def first_of(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Per pixel the chosen event that comes first, and whether there is one."""
        rank = torch.where(chosen, sequence.rank, last_rank)
        least = rank.new_full((pixels,), last_rank).scatter_reduce(0, events.pixel, rank, "amin")
        there = least < last_rank
        # A row is a begin or a thin event of just the event whose rank it is.
        return sequence.event[torch.where(there, least, 0)] if last_rank else least, there

    first, hit = first_of(seen)
    largest = result.event_weight.new_zeros(pixels).scatter_reduce(0, events.pixel, result.event_weight, "amax")
    dominant, _ = first_of(seen & (result.event_weight == largest[events.pixel]))
    median, depth, halved = _median(events, sequence, result, pixels, linear)

    def primitive(event: Tensor, there: Tensor) -> Tensor:
        return torch.where(there, events.primitive[torch.where(there, event, 0)], -1) if last_rank else event * 0 - 1

    ids = {"first": primitive(first, hit), "median": primitive(median, halved), "dominant": primitive(dominant, hit)}
    nothing = depth.new_zeros(pixels)
    depth_first = torch.where(hit, events.z0[torch.where(hit, first, 0)], 0) if last_rank else nothing
    return Statistics(ids, depth_first, depth)


def _median(
    events: EventList, sequence: Sequence, result: Result, pixels: int, linear: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Per pixel: the event at or in which T falls to 0.5 or below, the z where it does, and whether it does."""
    count = len(sequence.pixel)
    event, depth = sequence.pixel.new_zeros(pixels), result.after.new_zeros(pixels)
    falls = ((result.before > 0.5) & (result.after <= 0.5)).nonzero()[:, 0]
    row = sequence.pixel.new_full((pixels,), -1)
    row[sequence.pixel[falls]] = falls
    there = row >= 0
    if not bool(there.any()):
        return event, depth, there
    at = row[there]

    # Of the segments open in a piece, the one opened last.
    latest = torch.full((count,), -1, device=row.device)
    latest = latest.scatter_reduce(0, sequence.share_row, sequence.rank[sequence.share_event], "amax")
    inside = result.between[at] <= 0.5
    event[there] = torch.where(inside, sequence.event[latest[at].clamp(min=0)], sequence.event[at])

    before = result.before[at]
    need = (before - 0.5) if linear else torch.log(2 * before)
    share = torch.where(inside, need / torch.where(inside, result.piece_tau[at], 1), 1)
    depth[there] = sequence.start[at] + share * (sequence.stop - sequence.start)[at]
    return event, depth, there
