"""Rows of equal steps, rings of equal angles and grids among points: from two or three neighbours on, each next point
is looked for where those found so far say, and what is known is fitted anew with every point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from itertools import combinations

import numpy as np

from smalti.scene.groups.boxes import Array, Mask, Rows
from smalti.scene.groups.levels import Grid, Level, LinearArray, Rotation, Slot, rotation, triple

Found = tuple[Level, list[tuple[int, Slot]]]
"""A regularity, and which point is which of its copies."""
Turned = Callable[[Rows, Rows, Array], Mask]
MOST_STEPS = 1500
"""Differences that are looked at for steps of grids, the shortest: all those of 55 points."""
NEIGHBOURS = 8
"""Steps are looked for among this many nearest points."""
LEAST_ANGLE = math.radians(8.0)
"""Of a ring: below, a row is as good."""


def fit_array(slots: list[Slot], points: Array) -> LinearArray:
    """By least squares; slots count from 0."""
    numbers = np.array([slot[0] for slot in slots], dtype=np.float64)
    line = np.linalg.lstsq(np.stack([np.ones_like(numbers), numbers], axis=1), points, rcond=None)[0]
    return LinearArray.of(line[1], int(numbers.max()) + 1)


def fit_grid(slots: list[Slot], points: Array) -> Grid:
    """By least squares; slots count from 0."""
    numbers = np.array(slots, dtype=np.float64)
    plane = np.linalg.lstsq(np.column_stack([np.ones(len(slots)), numbers]), points, rcond=None)[0]
    rows, columns = (int(each) + 1 for each in numbers.max(axis=0))
    return Grid(rows, columns, triple(plane[1]), triple(plane[2]))


def fit_rotation(slots: list[Slot], points: Array, number: int = 0) -> Rotation | None:
    """Plane and circle by least squares, then the angle; None for points on a line. `number`: of copies, where they
    are spread over a full turn.
    """
    middle = points.mean(axis=0)
    frame = np.linalg.svd(points - middle, full_matrices=True)[2]
    flat = (points - middle) @ frame[:2].T
    system = np.column_stack([2.0 * flat, np.ones(len(flat))])
    solved, _, rank, _ = np.linalg.lstsq(system, (flat**2).sum(axis=1), rcond=None)
    if rank < 3:
        return None
    spokes = flat - solved[:2]
    order = np.argsort([slot[0] for slot in slots])
    numbers = np.array([slots[row][0] for row in order], dtype=np.float64)
    angles = np.arctan2(spokes[order, 1], spokes[order, 0])
    # Unwrapped with what the first step says, so that a copy that is missing does not lose a turn.
    first = float(np.angle(np.exp(1j * (angles[1] - angles[0])))) / (numbers[1] - numbers[0])
    expected = angles[0] + first * (numbers - numbers[0])
    angles = expected + np.angle(np.exp(1j * (angles - expected)))
    step = float(np.polyfit(numbers, angles, 1)[0])
    axis = np.cross(frame[0], frame[1])
    if step < 0:
        axis, step = -axis, -step
    angle = 2.0 * math.pi / number if number else step
    point = middle + frame[:2].T @ solved[:2]
    return Rotation(triple(axis), triple(point), number or int(numbers.max()) + 1, angle)


def arrays(points: Array, parallel: Mask, tolerance: float) -> Iterator[Found]:
    """Rows of three points or more; `parallel` says which may be copies of which by a shift."""
    seen, walked = set[frozenset[int]](), set[tuple[int, int]]()
    for start, near in _neighbours(points, parallel):
        for other in near:
            if (start, other) in walked or np.linalg.norm(points[other] - points[start]) < 1.5 * tolerance:
                continue
            chain = {0: start, 1: other}
            for forward in (True, False):
                _walk_line(chain, points, parallel[start], tolerance, forward)
            for number in set(chain) & {each - 1 for each in chain}:
                walked |= {(chain[number], chain[number + 1]), (chain[number + 1], chain[number])}
            if len(chain) < 3 or frozenset(chain.values()) in seen:
                continue
            seen.add(frozenset(chain.values()))
            low = min(chain)
            pairs = [(chain[number], (number - low,)) for number in sorted(chain)]
            if 3 * (pairs[-1][1][0] + 1 - len(pairs)) <= len(pairs):
                yield fit_array([slot for _, slot in pairs], points[[row for row, _ in pairs]]), pairs


def _walk_line(chain: dict[int, int], points: Array, allowed: Mask, tolerance: float, forward: bool) -> None:
    gap, step = 0, 1 if forward else -1
    at = (max(chain) if forward else min(chain)) + step
    while gap < 2:
        numbers = np.array(sorted(chain), dtype=np.float64)
        known = points[[chain[int(number)] for number in numbers]]
        line = np.linalg.lstsq(np.stack([np.ones_like(numbers), numbers], axis=1), known, rcond=None)[0]
        reach = min((4.0 if len(chain) == 2 else 3.0) * tolerance, 0.35 * float(np.linalg.norm(line[1])))
        found = _nearest(points, allowed, line[0] + at * line[1], reach, chain.values())
        if found is None:
            gap += 1
        else:
            chain[at], gap = found, 0
        at += step


def rings(points: Array, alike: Mask, tolerance: float, turned: Turned | None = None) -> Iterator[Found]:
    """Three points or more on a circle at equal angles. `turned` says which of the first may become the second by these
    rotations about themselves (matrices).
    """
    seen, walked = set[frozenset[int]](), set[frozenset[int]]()
    for first, middle, last in _bends(points, alike, tolerance, turned):
        if frozenset((first, middle, last)) in walked:
            continue
        chain = {-1: first, 0: middle, 1: last}
        if not _walk_ring(chain, points, alike[middle], tolerance):
            continue
        for number in set(chain) & {each - 1 for each in chain} & {each + 1 for each in chain}:
            walked.add(frozenset(chain[each] for each in (number - 1, number, number + 1)))
        if frozenset(chain.values()) not in seen:
            seen.add(frozenset(chain.values()))
            yield from _rings_of(chain, points)


def _bends(points: Array, alike: Mask, tolerance: float, turned: Turned | None) -> list[tuple[int, int, int]]:
    """Neighbours (first, middle, last) at equal distances with a turn at the middle."""
    triples = [
        (first, middle, last)
        for middle, near in _neighbours(points, alike)
        for first, last in combinations(near, 2)
        if alike[first, last]
    ]
    if not triples:
        return []
    rows = np.array(triples)
    before, after = points[rows[:, 1]] - points[rows[:, 0]], points[rows[:, 2]] - points[rows[:, 1]]
    one, two = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    normals = np.cross(before, after)
    across = np.linalg.norm(normals, axis=1)
    turn = np.arctan2(across, (before * after).sum(axis=1))
    good = (np.minimum(one, two) >= 1.5 * tolerance) & (np.abs(one - two) <= 4.0 * tolerance)
    good &= (turn >= LEAST_ANGLE) & (math.pi - turn >= LEAST_ANGLE)
    rows, normals, across, turn = rows[good], normals[good], across[good], turn[good]
    if turned is not None and len(rows):
        matrices = np.stack([rotation(a * n / c) for a, n, c in zip(turn, normals, across, strict=True)])
        rows = rows[turned(rows[:, 0], rows[:, 1], matrices) & turned(rows[:, 1], rows[:, 2], matrices)]
    return [(int(a), int(b), int(c)) for a, b, c in rows]


def _rings_of(chain: dict[int, int], points: Array) -> Iterator[Found]:
    low = min(chain)
    pairs: list[tuple[int, Slot]] = [(chain[number], (number - low,)) for number in sorted(chain)]
    slots, places = [slot for _, slot in pairs], points[[row for row, _ in pairs]]
    found = fit_rotation(slots, places)
    if found is None:
        return
    number = round(2.0 * math.pi / found.angle)
    if number == found.number or (number > found.number and 4 * (number - len(pairs)) <= number):
        # All around, but for one or two that are missing.
        closed = fit_rotation(slots, places, number)
        if closed is not None:
            yield closed, pairs
    elif number >= found.number and 3 * (found.number - len(pairs)) <= len(pairs):
        yield found, pairs


def _walk_ring(chain: dict[int, int], points: Array, allowed: Mask, tolerance: float) -> bool:
    """Adds what there is on either side; whether the three points say a circle at all."""
    for step in (1, -1):
        gap, at = 0, (max(chain) if step > 0 else min(chain)) + step
        while gap < 2:
            low = min(chain)
            numbers = sorted(chain)
            places = points[[chain[number] for number in numbers]]
            found = fit_rotation([(number - low,) for number in numbers], places)
            if found is None:
                return False
            span = max(max(chain), at) - min(min(chain), at)
            if (span + 0.5) * found.angle > 2.0 * math.pi:
                break
            point = np.array(found.point)
            spoke = places[0] - point
            predicted = point + rotation((at - low) * found.angle * np.array(found.axis)) @ spoke
            chord = 2.0 * float(np.linalg.norm(spoke)) * math.sin(0.5 * min(found.angle, math.pi))
            reach = min((5.0 if len(chain) == 3 else 3.5) * tolerance, 0.35 * chord)
            next_one = _nearest(points, allowed, predicted, reach, chain.values())
            if next_one is None:
                gap += 1
            else:
                chain[at], gap = next_one, 0
            at += step
    return True


def grids(points: Array, parallel: Mask, tolerance: float) -> Iterator[Found]:
    """Two rows and columns or more, of six places or more, three quarters of them taken."""
    seen = set[frozenset[int]]()
    for first, second in combinations(_popular_steps(points, parallel, tolerance), 2):
        lengths = np.linalg.norm(first), np.linalg.norm(second)
        if np.linalg.norm(np.cross(first, second)) < 0.3 * lengths[0] * lengths[1]:
            continue
        for start in range(len(points)):
            reach = min(4.0 * tolerance, 0.35 * float(min(lengths)))
            others = [
                _nearest(points, parallel[start], points[start] + step, reach, [start]) for step in (first, second)
            ]
            if others[0] is None or others[1] is None or others[0] == others[1]:
                continue
            cells: dict[tuple[int, int], int] = {(0, 0): start, (1, 0): others[0], (0, 1): others[1]}
            if any(set(cells.values()) <= known for known in seen):
                continue
            _walk_grid(cells, points, parallel[start], tolerance)
            kept = _rectangle(cells)
            if len(kept) < 5 or frozenset(kept.values()) in seen:
                continue
            seen.add(frozenset(kept.values()))
            slots = sorted(kept)
            rows, columns = (len({slot[side] for slot in slots}) for side in (0, 1))
            if rows >= 2 and columns >= 2 and rows * columns >= 6:
                yield fit_grid(list(slots), points[[kept[slot] for slot in slots]]), [(kept[s], s) for s in slots]


def _popular_steps(points: Array, parallel: Mask, tolerance: float, most: int = 5) -> list[Array]:
    """Differences between points that occur most, up to their sign; of equally many the short ones."""
    one, two = np.nonzero(np.triu(parallel, 1))
    steps = points[two] - points[one]
    if not len(steps):
        return []
    steps = steps[np.argsort(np.linalg.norm(steps, axis=1), kind="stable")[:MOST_STEPS]]
    between = np.minimum(
        np.linalg.norm(steps[:, None] - steps[None], axis=2), np.linalg.norm(steps[:, None] + steps[None], axis=2)
    )
    close = between <= 2.5 * tolerance
    lengths = np.linalg.norm(steps, axis=1)
    ranked = sorted(range(len(steps)), key=lambda row: (-int(close[row].sum()), float(lengths[row])))
    found, covered = list[Array](), np.zeros(len(steps), dtype=np.bool_)
    for row in ranked:
        if not covered[row] and lengths[row] > 1.5 * tolerance and close[row].sum() >= 2 and len(found) < most:
            same = np.where(((steps - steps[row]) ** 2).sum(1) <= ((steps + steps[row]) ** 2).sum(1), 1.0, -1.0)
            found.append((steps * same[:, None])[close[row]].mean(axis=0))
            covered |= close[row]
    return found


def _walk_grid(cells: dict[tuple[int, int], int], points: Array, allowed: Mask, tolerance: float) -> None:
    tried = set[tuple[int, int]]()
    while True:
        slots = sorted(cells)
        numbers = np.column_stack([np.ones(len(slots)), np.array(slots, dtype=np.float64)])
        plane = np.linalg.lstsq(numbers, points[[cells[slot] for slot in slots]], rcond=None)[0]
        reach = min(3.0 * tolerance, 0.35 * float(min(np.linalg.norm(plane[1]), np.linalg.norm(plane[2]))))
        frontier = {(r + dr, c + dc) for r, c in slots for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1), (2, 0), (0, 2))}
        added = False
        for cell in sorted(frontier - set(cells) - tried, key=lambda each: (abs(each[0]) + abs(each[1]), each)):
            predicted = plane[0] + cell[0] * plane[1] + cell[1] * plane[2]
            found = _nearest(points, allowed, predicted, reach, cells.values())
            if found is not None:
                cells[cell] = found
                added = True
            else:
                tried.add(cell)
        if not added:
            return


def _rectangle(cells: dict[tuple[int, int], int]) -> dict[Slot, int]:
    """The cells of a rectangle that is three quarters full, counted from 0; sides that are emptiest go first."""
    kept = dict(cells)
    while kept:
        low = [min(cell[side] for cell in kept) for side in (0, 1)]
        high = [max(cell[side] for cell in kept) for side in (0, 1)]
        shape = [high[0] - low[0] + 1, high[1] - low[1] + 1]
        sides = [(side, end) for side in (0, 1) for end in {low[side], high[side]}]
        fill = {(s, e): sum(cell[s] == e for cell in kept) / shape[1 - s] for s, e in sides}
        worst = min(fill, key=lambda key: (fill[key], key))
        if fill[worst] >= 0.5 and 4 * len(kept) >= 3 * shape[0] * shape[1]:
            return {(cell[0] - low[0], cell[1] - low[1]): row for cell, row in kept.items()}
        kept = {cell: row for cell, row in kept.items() if cell[worst[0]] != worst[1]}
    return {}


def _neighbours(points: Array, allowed: Mask) -> Iterator[tuple[int, list[int]]]:
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    for row in range(len(points)):
        others = np.flatnonzero(allowed[row] & (np.arange(len(points)) != row))
        order = others[np.argsort(between[row, others], kind="stable")]
        yield row, [int(each) for each in order[:NEIGHBOURS]]


def _nearest(points: Array, allowed: Mask, place: Array, reach: float, taken: Collection[int]) -> int | None:
    distances = np.where(allowed, np.linalg.norm(points - place, axis=1), np.inf)
    distances[list(taken)] = np.inf
    found = int(distances.argmin())
    return found if distances[found] <= reach else None
