"""Rows, grids and rings of boxes or of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from smalti.scene.groups.boxes import Array, Boxes, Mask, Rows, compare
from smalti.scene.groups.fit import Fit, fitted
from smalti.scene.groups.levels import Grid, Level, LinearArray, Rotation, Slot
from smalti.scene.groups.search import Body, Search, compound
from smalti.scene.groups.walks import Found, arrays, fit_array, fit_grid, fit_rotation, grids, rings


def repeated(search: Search, bodies: list[Body], alike: Mask, parallel: Mask) -> list[Fit]:
    """Rows, grids and rings of blocks or of groups."""
    found = list[Fit]()
    if not bodies:
        return found
    points = np.stack([body.centre for body in bodies])
    turned = None if bodies[0].levels else partial(_turned, search)
    walks: dict[str, Callable[[], Iterator[Found]]] = {
        "array": lambda: arrays(points, parallel, search.tolerance),
        "grid": lambda: grids(points, parallel, search.tolerance),
        "rotation": lambda: rings(points, alike, search.tolerance, turned),
    }
    for kind, walk in walks.items():
        if kind in search.kinds:
            for level, pairs in walk():
                fit = _trimmed(search, level, pairs, bodies)
                if fit is not None:
                    found.append(fit)
    return found


def _turned(search: Search, first: Rows, second: Rows, matrices: Array) -> Mask:
    """Whether single boxes, turned so about themselves, are like others."""
    one, two = (
        Boxes(np.zeros((len(rows), 3)), boxes.rotations, boxes.halves, boxes.exponents)
        for rows, boxes in ((rows, search.boxes.take(rows)) for rows in (first, second))
    )
    return compare(one.mapped(matrices, np.zeros(3)), two, 3.0 * search.tolerance).distances <= 3.0 * search.tolerance


def _trimmed(search: Search, level: Level, pairs: list[tuple[int, Slot]], bodies: list[Body]) -> Fit | None:
    """Without the bodies that lie too far off, one by one, and with the regularity of those that are left."""
    least = 5 if isinstance(level, Grid) else 3
    pairs = list(pairs)
    while len(pairs) >= least:
        if isinstance(level, Grid) and 4 * len(pairs) < 3 * level.count:
            return None
        if not bodies[pairs[0][0]].levels:
            rows, slots = [bodies[row].rows[0] for row, _ in pairs], [(slot,) for _, slot in pairs]
            fit = fitted((level,), rows, slots, search.boxes, search.limits)
            if fit.worst <= search.tolerance:
                return fit
            if np.sort(fit.match.distances)[len(pairs) // 3] > 3.0 * search.tolerance:
                return None
            worst = int(fit.match.distances.argmax())
        else:
            fit = compound(search, level, [(bodies[row], slot) for row, slot in pairs])
            if fit is not None:
                return fit
            points = np.stack([bodies[row].centre for row, _ in pairs])
            matrices, shifts = level.transforms([slot for _, slot in pairs])
            homed = np.einsum("nji,nj->ni", matrices, points - shifts)
            worst = int(np.linalg.norm(homed - np.median(homed, axis=0), axis=1).argmax())
        del pairs[worst]
        again = _again(level, pairs, np.stack([body.centre for body in bodies]))
        if again is None:
            return None
        level, pairs = again
    return None


def _again(level: Level, pairs: list[tuple[int, Slot]], points: Array) -> Found | None:
    """Fitted to those that are left, slots counted from 0."""
    if len(pairs) < 3:
        return None
    lows = np.array([slot for _, slot in pairs]).min(axis=0)
    moved = [(row, tuple(int(a - b) for a, b in zip(slot, lows, strict=True))) for row, slot in pairs]
    slots, places = [slot for _, slot in moved], points[[row for row, _ in moved]]
    match level:
        case LinearArray():
            new: Level | None = fit_array(slots, places)
        case Grid() if len({slot[0] for slot in slots}) > 1 and len({slot[1] for slot in slots}) > 1:
            new = fit_grid(slots, places)
        case Rotation():
            new = fit_rotation(slots, places, level.number if level.closed and len(slots) + 1 >= level.number else 0)
        case _:
            new = None
    return None if new is None else (new, moved)
