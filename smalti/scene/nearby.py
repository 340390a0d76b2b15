"""Selections by distance among primitives: the nearest to a point, and what hangs together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smalti.primitives.registry import FamilyError
from smalti.scene.selection import Masks, Selection, positions
from smalti.scene.vectors import Point, vector

if TYPE_CHECKING:
    from smalti.scene.scene import Scene

PAIRS = 4_000_000
"""Distances computed at once."""
BATCH = 4096
"""Primitives from which steps are made at once."""
HASH = (73856093, 19349663, 83492791)
"""Multipliers of the grid's hash (Teschner et al. 2003); where two cells collide their points are compared in vain."""


def nearest(point: Point, count: int = 1) -> Selection:
    """The `count` primitives whose centres are nearest, over all layers; ties go to the earlier layer and row.

    >>> from smalti.scene import demo_scene, nearest
    >>> sum(nearest([0, 0, 0], 5).counts(demo_scene()).values())
    5
    """
    spot = vector(point, "nearest: point")
    if count < 0:
        raise ValueError(f"nearest: count should not be negative, got {count}")

    def recipe(scene: Scene) -> Masks:
        points = _all_positions(scene)
        distance = (points - spot).square().sum(dim=1)
        chosen = torch.argsort(torch.where(distance.isnan(), torch.inf, distance), stable=True)[:count]
        return _by_layer(scene, torch.zeros(len(points), dtype=torch.bool).index_fill(0, chosen, True))

    return Selection(recipe, f"nearest({spot.tolist()}, {count})")


def connected(seed: Selection, distance: float) -> Selection:
    """`seed` and everything that can be reached from it in steps of at most `distance` from centre to centre, across
    layers.

    >>> from smalti.scene import connected, demo_scene, index
    >>> sum(connected(index("chair", [0]), 100.0).counts(demo_scene()).values())
    20
    """
    if not distance > 0:
        raise ValueError(f"connected: distance should be positive, got {distance}")

    def recipe(scene: Scene) -> Masks:
        masks = seed.masks(scene)
        start = torch.cat([mask.cpu() for mask in masks.values()]) if masks else torch.zeros(0, dtype=torch.bool)
        return _by_layer(scene, reached(_all_positions(scene), start, distance))

    return Selection(recipe, f"connected({seed.words}, {distance})")


def flood(seed: Selection, tolerance: float, distance: float) -> Selection:
    """`seed` and everything of its colours that can be reached from it in steps of at most `distance` from centre to
    centre, across layers. A colour (0..1, seen from everywhere) is one of the seed's where no channel differs by more
    than `tolerance` from that of one of its primitives. Families without colours have nothing selected.

    >>> from smalti.scene import demo_scene, flood, index
    >>> flood(index("chair", [0]), 1.0, 100.0).counts(demo_scene())
    {'chair': 8, 'cloud': 12}
    >>> flood(index("chair", [0]), 0.01, 100.0).counts(demo_scene())
    {'chair': 1, 'cloud': 0}
    """
    if not distance > 0 or not tolerance >= 0:
        raise ValueError(f"flood: distance {distance} should be positive and tolerance {tolerance} not negative")

    def recipe(scene: Scene) -> Masks:
        masks = seed.masks(scene)
        start = torch.cat([mask.cpu() for mask in masks.values()]) if masks else torch.zeros(0, dtype=torch.bool)
        points, colors = _all_positions(scene), _all_colors(scene)
        alike = start | _alike(colors, torch.unique(colors[start], dim=0), tolerance)
        rows = torch.nonzero(alike).squeeze(1)
        found = torch.zeros_like(start)
        found[rows] = reached(points[rows], start[rows], distance)
        return _by_layer(scene, found)

    return Selection(recipe, f"flood({seed.words}, {tolerance}, {distance})")


def _alike(colors: Float[Tensor, "n 3"], wanted: Float[Tensor, "m 3"], tolerance: float) -> Bool[Tensor, "n"]:
    """Where no channel differs by more from one of those wanted; NaN is like nothing."""
    found = torch.zeros(len(colors), dtype=torch.bool)
    rows = max(1, PAIRS // max(len(wanted), 1))
    for first in range(0, len(colors), rows) if len(wanted) else ():
        part = colors[first : first + rows]
        apart = torch.cdist(part, wanted, p=torch.inf)
        found[first : first + rows] = (apart <= tolerance).any(dim=1)
    return found


def _all_colors(scene: Scene) -> Float[Tensor, "n 3"]:
    """NaN for families that have none."""
    parts: list[Tensor] = []
    for held in scene:
        try:
            parts.append(held.family.base_colors().detach().cpu().float())
        except FamilyError:
            parts.append(torch.full((len(held.family), 3), torch.nan))
    return torch.cat(parts) if parts else torch.zeros(0, 3)


def reached(points: Float[Tensor, "n 3"], start: Bool[Tensor, "n"], distance: float) -> Bool[Tensor, "n"]:
    """Points that steps of at most `distance` lead to from those in `start`: exact, on a hashed grid of that width.

    >>> import torch
    >>> from smalti.scene.nearby import reached
    >>> points = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [1.9, 0, 0], [4.0, 0, 0]])
    >>> reached(points, torch.tensor([True, False, False, False]), 1.0).tolist()
    [True, True, True, False]
    """
    found = start.clone()
    usable = torch.nonzero(torch.isfinite(points).all(dim=1)).squeeze(1)
    cells = torch.floor(points / distance).nan_to_num().clamp(-(2.0**60), 2.0**60).long()
    keys, order = _hashed(cells[usable]).sort()
    rows = usable[order]
    steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
    frontier, stale = usable[start[usable]], len(rows)
    while len(frontier):
        # Little at once, among what is not found yet: in a dense cloud the first steps find what all others would.
        if 8 * stale > len(rows):
            left = ~found[rows]
            rows, keys, stale = rows[left], keys[left], 0
        near = _hashed(cells[frontier[:BATCH]][:, None, :] + steps)
        first, last = torch.searchsorted(keys, near), torch.searchsorted(keys, near, right=True)
        taken = max(int(((last - first).sum(dim=1).cumsum(0) <= PAIRS).sum()), 1)
        batch, frontier = frontier[:taken], frontier[taken:]
        fresh: list[Tensor] = []
        for own, other in _pairs(first[:taken], last[:taken]):
            candidates = rows[other]
            # Twice the same pair, from two cells with one hash, costs nothing but time.
            pair = ~found[candidates]
            own, candidates = batch[own[pair]], candidates[pair]
            close = (points[own] - points[candidates]).norm(dim=1) <= distance
            new = torch.unique(candidates[close])
            found[new] = True
            fresh.append(new)
            stale += len(new)
        frontier = torch.cat([*fresh, frontier])  # the newest first: they are farthest out
    return found


def _hashed(cells: Int[Tensor, "*n 3"]) -> Int[Tensor, "*n"]:
    x, y, z = cells.unbind(-1)
    return (x * HASH[0]) ^ (y * HASH[1]) ^ (z * HASH[2])


def _pairs(first: Int[Tensor, "n c"], last: Int[Tensor, "n c"]) -> Iterator[tuple[Tensor, Tensor]]:
    """(row of `first`, number in the range first..last), a bounded number of them at once."""
    counts = last - first
    blocks = torch.div(counts.sum(dim=1).cumsum(0), PAIRS, rounding_mode="floor")
    for block in torch.unique(blocks).tolist():
        part = torch.nonzero(blocks == block).squeeze(1)
        lengths = counts[part].reshape(-1)
        begin = first[part].reshape(-1).repeat_interleave(lengths)
        offset = torch.arange(len(begin)) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        yield part.repeat_interleave(counts[part].sum(dim=1)), begin + offset


def _all_positions(scene: Scene) -> Float[Tensor, "n 3"]:
    parts = [positions(layer).cpu() for layer in scene]
    return torch.cat(parts) if parts else torch.zeros(0, 3, dtype=torch.float64)


def _by_layer(scene: Scene, mask: Bool[Tensor, "n"]) -> Masks:
    parts = mask.split([len(layer.family) for layer in scene])
    return {layer.name: part.to(layer.family.device) for layer, part in zip(scene, parts, strict=True)}
