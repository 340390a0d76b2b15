"""Blocks of one size that no other regularity holds together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smalti.scene.groups.boxes import compare_sizes
from smalti.scene.groups.fit import Fit, fitted
from smalti.scene.groups.levels import SameSize
from smalti.scene.groups.search import Search


def same_sizes(search: Search, free: Sequence[int]) -> list[Fit]:
    """Boxes of one size that are in no other group, the largest sets first."""
    left, found = list(free), list[Fit]()
    boxes = search.boxes
    while len(left) >= 2:
        pairs = [(i, j) for i in range(len(left)) for j in range(len(left))]
        one, two = (boxes.take([left[pair[side]] for pair in pairs]) for side in (0, 1))
        match = compare_sizes(one, two, search.tolerance)
        close = (match.distances <= search.tolerance).reshape(len(left), len(left))
        spread = np.where(close, match.distances.reshape(close.shape), 0.0).sum(axis=1)
        best = min(range(len(left)), key=lambda row: (-int(close[row].sum()), float(spread[row]), row))
        rows = [left[each] for each in np.flatnonzero(close[best])]
        if len(rows) < 2:
            break
        rows.sort(key=lambda row: row != left[best])
        fit = _same_size(search, rows)
        if fit.worst <= search.tolerance and fit.gain > 0:
            found.append(fit)
        left = [row for row in left if row not in rows]
    return found


def _same_size(search: Search, rows: list[int]) -> Fit:
    """Copies lie where the members lie, turned as these are: only the size is shared."""
    members = search.boxes.take(rows)
    match = compare_sizes(members.take([0] * len(rows)), members, search.tolerance)
    # The first member's frame, seen from each member's own.
    frames = members.rotations @ match.frames.transpose(0, 2, 1)
    home = members.rotations[0]
    turns = frames @ home.T
    shifts = members.centres - np.einsum("nij,j->ni", turns, members.centres[0])
    numbers = np.concatenate([turns.reshape(-1, 9), shifts], axis=1)
    level = SameSize(tuple(tuple(float(x) for x in line) for line in numbers))
    return fitted((level,), rows, [((number,),) for number in range(len(rows))], search.boxes, search.limits)
