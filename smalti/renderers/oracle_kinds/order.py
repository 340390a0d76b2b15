"""Sorts the events of every pixel and cuts segments where something begins, ends or happens (kinds.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TIE = 2.0**-19
"""Relative; nearer to one another than this share of z, the lower primitive comes first."""
THIN, BEGIN, END = 0, 1, 2


@dataclass(frozen=True, eq=False)
class EventList:
    """Events of all drawables, in any order."""

    pixel: Int[Tensor, "k"]
    primitive: Int[Tensor, "k"]
    """Numbered through all drawables."""
    z0: Float[Tensor, "k"]
    z1: Float[Tensor, "k"]
    """`z0` where thin."""
    value: Float[Tensor, "k"]
    """alpha or optical depth."""
    thick: Bool[Tensor, "k"]
    channels: Float[Tensor, "k c"]

    def rows(self, index: Tensor) -> EventList:
        """The rows named by `index`."""
        return EventList(**{name: value[index] for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Sequence:
    """All pixels one after the other, each from front to back. A row is first a piece of what is open, then a point."""

    pixel: Int[Tensor, "r"]
    column: Int[Tensor, "r"]
    """Number within the pixel."""
    event: Int[Tensor, "r"]
    """Whose begin, end or thin event the point is."""
    point: Int[Tensor, "r"]
    """THIN, BEGIN or END."""
    start: Float[Tensor, "r"]
    stop: Float[Tensor, "r"]
    """Camera z: the piece is [start, stop], the point at stop."""
    share_row: Int[Tensor, "s"]
    """What a piece has of a segment: one entry per piece and open segment."""
    share_event: Int[Tensor, "s"]
    share_tau: Float[Tensor, "s"]
    rank: Int[Tensor, "k"]
    """Per event: the row of its begin, or of itself if thin."""


def sort_by(*keys: Tensor) -> Int[Tensor, "k"]:
    """Indices that sort by the first key, its ties by the second, and so on; stable."""
    order = torch.arange(len(keys[0]), device=keys[0].device)
    for key in reversed(keys):
        order = order[torch.argsort(key.detach()[order], stable=True)]
    return order


def columns_of(pixel: Int[Tensor, "r"], pixels: int) -> Int[Tensor, "r"]:
    """Number of each row within its pixel; `pixel` ascends."""
    count = torch.bincount(pixel, minlength=pixels)
    return torch.arange(len(pixel), device=pixel.device) - (count.cumsum(0) - count)[pixel]


def along_the_ray(events: EventList, pixels: int) -> Sequence:
    """`order="ray"`: by z, and by primitive among what is nearer than TIE (chains of it are one tie)."""
    numbers = torch.arange(len(events.pixel), device=events.pixel.device)
    thick = numbers[events.thick]
    event = torch.cat([numbers[~events.thick], thick, thick])
    counts = [len(numbers) - len(thick), len(thick), len(thick)]
    point = torch.repeat_interleave(torch.tensor([THIN, BEGIN, END]), torch.tensor(counts)).to(event.device)
    z = torch.where(point == END, events.z1[event], events.z0[event])

    # At one z, events of one primitive keep their order: a box's cell ends before its next one begins.
    order = sort_by(events.pixel[event], z, events.primitive[event], event, point)
    sorted_z, sorted_pixel = z.detach()[order], events.pixel[event][order]
    apart = sorted_z.diff() > TIE * sorted_z[1:].abs()
    chain = torch.cat([order.new_zeros(min(len(order), 1)), (apart | (sorted_pixel.diff() != 0)).cumsum(0)])
    # Within a chain a primitive's own points keep their order.
    order = order[sort_by(chain, events.primitive[event][order])]
    event, point, stop = event[order], point[order], z[order]

    pixel = events.pixel[event]
    column = columns_of(pixel, pixels)
    # Before the first point nothing is open.
    start = torch.where(column > 0, torch.cat([stop[:1], stop[:-1]]), stop)
    row = torch.arange(len(event), device=event.device)
    rank, last = torch.zeros_like(numbers), torch.zeros_like(numbers)
    rank[event[point != END]], last[event[point == END]] = row[point != END], row[point == END]
    # A segment has a share in every piece after its begin, to its end. Where a tie turned two points round, a length is
    # negative (by less than TIE): so the shares add up to the whole in any case.
    pieces = last[thick] - rank[thick]
    share_event = torch.repeat_interleave(thick, pieces)
    share_row = rank[share_event] + 1 + columns_of(torch.repeat_interleave(pieces), len(thick))
    density = events.value / torch.where(events.thick, events.z1 - events.z0, 1)
    share_tau = density[share_event] * (stop - start)[share_row]
    return Sequence(pixel, column, event, point, start, stop, share_row, share_event, share_tau, rank)


def by_centre(events: EventList, keys: Float[Tensor, "n"], pixels: int) -> tuple[EventList, Sequence]:
    """`order="centre"`: by each primitive's one key; segments become thin events at their middle."""
    middle = torch.where(events.thick, 0.5 * (events.z0 + events.z1), events.z0)
    tau = torch.where(events.thick, events.value, 0)
    alpha = torch.where(events.thick, -torch.expm1(-tau), events.value)
    thin = EventList(
        events.pixel, events.primitive, middle, middle, alpha, torch.zeros_like(events.thick), events.channels
    )
    order = sort_by(events.pixel, keys[events.primitive], events.primitive, events.z0)
    pixel, z = events.pixel[order], middle[order]
    rank = torch.argsort(order)
    none = order.new_zeros(0)
    column = columns_of(pixel, pixels)
    return thin, Sequence(pixel, column, order, torch.zeros_like(order), z, z, none, none, z.new_zeros(0), rank)
