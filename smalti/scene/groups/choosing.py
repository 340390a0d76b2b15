"""Which of the groups that there might be: those that together make the scene's description shortest.

Greedily by gain, then by exchanges while any helps; then the same among the groups that were chosen. No block is in two
groups. Of equal gains the one that lies closer, then the more compact, so that neither the order of the blocks nor the
scene's position decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smalti.scene.groups.boxes import Boxes
from smalti.scene.groups.candidates import candidates, nested, same_sizes
from smalti.scene.groups.fit import Fit, refit, separate_cost
from smalti.scene.groups.mirrors import Plane
from smalti.scene.groups.search import KINDS, Search, complete

DEPTH = 3
"""Regularities in each other at most."""


def find(search: Search, least_gain: float) -> list[Fit]:
    """The groups, the largest gain first."""
    found, planes = candidates(search)
    chosen = choose([fit for fit in found if fit.gain > least_gain], search.boxes)
    for _ in range(DEPTH - 1):
        more = _nested_once(search, chosen, planes)
        if len(more) == len(chosen):
            break
        chosen = more
    chosen = _finished(search, chosen, least_gain)
    if "same_size" in search.kinds:
        taken = {row for fit in chosen for row in fit.rows}
        free = [row for row in range(len(search.boxes)) if row not in taken]
        chosen += [fit for fit in same_sizes(search, free) if fit.gain > least_gain]
    return sorted(chosen, key=lambda fit: (-round(fit.gain, 6), min(fit.rows)))


def total_cost(fits: Sequence[Fit], blocks: int) -> float:
    """Of the whole scene's program: the groups, the blocks in none, and what joins them."""
    free = blocks - sum(len(fit.rows) for fit in fits)
    things = len(fits) + free
    return sum(fit.cost for fit in fits) + separate_cost(1) * free + max(things - 1, 0)


def choose(found: Sequence[Fit], boxes: Boxes) -> list[Fit]:
    """Of candidates that share members, those with the largest gain together, as nearly as greedy choice and exchange
    find them.
    """
    ranked = sorted(found, key=lambda fit: _rank(fit, boxes))
    offers = [(sum(1 << row for row in fit.rows), fit.gain) for fit in ranked]
    chosen = _greedy(offers, range(len(offers)), 0)
    for _ in range(len(ranked)):
        better = _exchanged(offers, chosen)
        if better is None:
            break
        chosen = better
    return [ranked[row] for row in sorted(chosen)]


Offer = tuple[int, float]
"""Members, a bit each, and the gain."""


def _exchanged(offers: list[Offer], chosen: list[int]) -> list[int] | None:
    """One candidate more, what it collides with less, and then whatever fits; None where nothing helps."""
    now = sum(offers[row][1] for row in chosen)
    inside = set(chosen)
    for row, (members, gain) in enumerate(offers):
        if row in inside:
            continue
        kept = [other for other in chosen if not offers[other][0] & members]
        taken = members
        for other in kept:
            taken |= offers[other][0]
        rest = _greedy(offers, range(len(offers)), taken)
        if gain + sum(offers[other][1] for other in (*kept, *rest)) > now + 1e-6:
            return [*kept, row, *rest]
    return None


def _greedy(offers: list[Offer], rows: Sequence[int], taken: int) -> list[int]:
    found = list[int]()
    for row in rows:
        if not offers[row][0] & taken:
            found.append(row)
            taken |= offers[row][0]
    return found


def _rank(fit: Fit, boxes: Boxes) -> tuple[float, int, float, float, tuple[int, ...]]:
    points = boxes.centres[list(fit.rows)]
    spread = float(np.linalg.norm(points - points.mean(axis=0), axis=1).mean()) / fit.unit
    missing = fit.model.count - len(fit.rows)
    kind = KINDS.index(fit.model.levels[0].kind)
    error = float(fit.match.distances.mean()) / fit.unit
    structure = fit.gain + 10.0 * error
    return (-round(structure, 6), missing, round(error, 4) + 0.01 * kind, round(spread, 4), tuple(sorted(fit.rows)))


def _nested_once(search: Search, chosen: list[Fit], planes: Sequence[Plane]) -> list[Fit]:
    """Groups of groups, where they are cheaper than these side by side."""
    owner = {row: fit for fit in chosen for row in fit.rows}
    gains: list[tuple[float, Fit]] = []
    for fit in nested(search, chosen, planes):
        parts = {id(owner[row]): owner[row] for row in fit.rows}
        more = fit.gain - sum(part.gain for part in parts.values())
        if more > 1e-6:
            gains.append((more, fit))
    result, taken = list[Fit](), set[int]()
    for _, fit in sorted(gains, key=lambda pair: (-round(pair[0], 6), _rank(pair[1], search.boxes))):
        if not taken & set(fit.rows):
            result.append(fit)
            taken |= set(fit.rows)
    return result + [fit for fit in chosen if not taken & set(fit.rows)]


def _finished(search: Search, chosen: list[Fit], least_gain: float) -> list[Fit]:
    """Fitted by least squares and completed; without those that do not hold what they promised."""
    result, taken = list[Fit](), {row for fit in chosen for row in fit.rows}
    for fit in chosen:
        better = refit(fit, search.boxes, search.tolerance)
        fit = better if better.worst <= search.tolerance else fit
        free = [row for row in range(len(search.boxes)) if row not in taken]
        more = complete(search, fit, free)
        if len(more.rows) > len(fit.rows):
            taken |= set(more.rows)
            better = refit(more, search.boxes, search.tolerance)
            fit = better if better.worst <= search.tolerance else more
        if fit.gain > least_gain:
            result.append(fit)
    return result
