"""Blocks with known regularities: fences, tables, shelves, rings of chairs; with noise, clutter and members missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from smalti.scene.groups.boxes import Array, Boxes, joined
from smalti.scene.groups.levels import DoubleMirror, Grid, LinearArray, Rotation, rotation, triple


@dataclass
class Truth:
    """A group that the generator made."""

    rows: list[int]
    """Of the scene's blocks, those that are there."""
    level: LinearArray | Grid | Rotation | DoubleMirror
    slots: list[tuple[int, ...]]
    base: Boxes
    """Without noise."""


@dataclass
class Made:
    """A scene and what is in it."""

    kind: str
    boxes: Boxes
    truths: list[Truth] = field(default_factory=list[Truth])
    clutter: list[int] = field(default_factory=list[int])


def part(centre: list[float], half: list[float]) -> Boxes:
    """A box along the axes."""
    return Boxes(np.array([centre]), np.eye(3)[None], np.array([half]), np.full((1, 2), 0.1))


def fence(random: Generator) -> list[tuple[LinearArray, Boxes]]:
    """Posts in a row, and rails of another number of pieces."""
    count, spacing = int(random.integers(4, 9)), random.uniform(0.35, 0.6)
    height = random.uniform(0.4, 0.7)
    posts = part([0.0, height, 0.0], [random.uniform(0.04, 0.07), height, random.uniform(0.04, 0.07)])
    rails = part([0.5 * spacing, 1.4 * height, 0.15], [0.45 * spacing, 0.05, 0.02])
    return [
        (LinearArray((1.0, 0.0, 0.0), spacing, count), posts),
        (LinearArray((1.0, 0.0, 0.0), spacing, count - 1), rails),
    ]


def table(random: Generator) -> list[tuple[DoubleMirror, Boxes]]:
    """Four legs; the top comes with the clutter."""
    x, z, height = random.uniform(0.6, 1.2), random.uniform(0.3, 0.55), random.uniform(0.3, 0.6)
    leg = part([x, height, z], [random.uniform(0.04, 0.1), height, random.uniform(0.04, 0.1)])
    return [(DoubleMirror(((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)), (0.0, 0.0)), leg)]


def shelf(random: Generator) -> list[tuple[Grid, Boxes]]:
    """Things in rows and columns."""
    rows, columns = int(random.integers(3, 5)), int(random.integers(3, 6))
    up, across = random.uniform(0.35, 0.6), random.uniform(0.3, 0.6)
    thing = part([0.0, 0.0, 0.0], [0.3 * across, 0.3 * up, random.uniform(0.1, 0.25)])
    return [(Grid(rows, columns, (0.0, up, 0.0), (across, 0.0, 0.0)), thing)]


def chairs(random: Generator) -> list[tuple[Rotation, Boxes]]:
    """Seats and backs around a table."""
    count, radius = int(random.integers(5, 9)), random.uniform(0.9, 1.3)
    level = Rotation((0.0, 1.0, 0.0), (0.0, 0.0, 0.0), count, 2.0 * math.pi / count)
    seat = part([radius, 0.45, 0.0], [0.2, 0.04, 0.17])
    back = part([radius + 0.2, 0.75, 0.0], [0.03, 0.3, 0.17])
    return [(level, seat), (level, back)]


MAKERS: dict[str, Callable[[Generator], list[tuple[LinearArray | Grid | Rotation | DoubleMirror, Boxes]]]] = {
    "fence": fence,  # type: ignore[dict-item]
    "table": table,  # type: ignore[dict-item]
    "shelf": shelf,  # type: ignore[dict-item]
    "chairs": chairs,  # type: ignore[dict-item]
}


def make(kind: str, random: Generator, noise: float, clutter: float = 0.2, missing: float = 0.05) -> Made:
    """`noise`: root mean square distance by which corners are off, in shares of the scene's extent, by errors of
    centres, half extents and turns (3 to 3 to 2 of its square). `clutter`: unrelated blocks per block of a group. The
    whole stands anywhere, turned anyhow. At most a third of a group is missing, and at least three members are there.
    """
    clean, truths = list[Boxes](), list[Truth]()
    for level, base in MAKERS[kind](random):
        slots = [slot for slot in level.slots() if random.random() >= missing]
        slots = slots if len(slots) >= max(3, 2 * level.count // 3) else level.slots()
        start = sum(len(each) for each in clean)
        matrices, shifts = level.transforms(slots)
        clean.append(base.take([0] * len(slots)).mapped(matrices, shifts))
        truths.append(Truth(list(range(start, start + len(slots))), level, slots, base))
    count = sum(len(each) for each in clean)
    extra = max(1, round(clutter * count)) if clutter > 0 else 0
    whole = joined(clean)
    low, high = whole.centres.min(axis=0) - 0.2, whole.centres.max(axis=0) + 0.2
    if extra:
        turns = np.stack([rotation(random.normal(size=3)) for _ in range(extra)])
        sizes = random.uniform(0.03, 0.35, (extra, 3))
        places = random.uniform(low, high, (extra, 3))
        whole = joined([whole, Boxes(places, turns, sizes, np.full((extra, 2), 0.1))])
    deviation = noise * whole.extent() / math.sqrt(8.0)
    halves = np.maximum(whole.halves + deviation * random.normal(size=whole.halves.shape), 0.2 * whole.halves)
    tilt = deviation / np.linalg.norm(whole.halves, axis=1)
    wobble = np.stack([rotation(t * random.normal(size=3)) for t in tilt])
    noisy = Boxes(
        whole.centres + deviation * random.normal(size=whole.centres.shape),
        wobble @ whole.rotations,
        halves,
        whole.exponents,
    )
    turn, shift, size = rotation(random.normal(size=3)), random.normal(size=3), float(np.exp(random.normal()))
    carried = noisy.mapped(turn, np.zeros(3))
    order = random.permutation(len(noisy))
    place = {int(old): new for new, old in enumerate(order)}
    boxes = Boxes(carried.centres * size + shift, carried.rotations, carried.halves * size, carried.exponents)
    for truth in truths:
        truth.rows = [place[row] for row in truth.rows]
        truth.level, truth.base = _carried(truth.level, truth.base, turn, shift, size)
    return Made(kind, boxes.take(order.tolist()), truths, [place[row] for row in range(count, count + extra)])


def _carried(
    level: LinearArray | Grid | Rotation | DoubleMirror, base: Boxes, turn: Array, shift: Array, size: float
) -> tuple[LinearArray | Grid | Rotation | DoubleMirror, Boxes]:
    moved = base.mapped(turn, np.zeros(3))
    grown = Boxes(moved.centres * size + shift, moved.rotations, moved.halves * size, moved.exponents)
    match level:
        case LinearArray():
            new = LinearArray(triple(turn @ np.array(level.direction)), level.spacing * size, level.number)
        case Grid():
            steps = [triple(size * turn @ np.array(each)) for each in (level.row_step, level.column_step)]
            new = Grid(level.rows, level.columns, steps[0], steps[1])
        case Rotation():
            point = triple(size * turn @ np.array(level.point) + shift)
            new = Rotation(triple(turn @ np.array(level.axis)), point, level.number, level.angle)
        case DoubleMirror():
            normals = [turn @ np.array(each) for each in level.normals]
            offsets = [size * o + float(n @ shift) for o, n in zip(level.offsets, normals, strict=True)]
            new = DoubleMirror((triple(normals[0]), triple(normals[1])), (offsets[0], offsets[1]))
    return new, grown
