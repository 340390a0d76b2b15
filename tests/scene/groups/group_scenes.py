"""Boxes for the tests of groups."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from smalti.scene import Scene
from smalti.scene.groups.boxes import Array, Boxes, joined
from smalti.scene.groups.choosing import find
from smalti.scene.groups.demo import layer_of
from smalti.scene.groups.levels import rotation
from smalti.scene.groups.search import KINDS, Search


def boxes_at(centres: object, half: object, turns: Array | None = None, exponent: float = 0.1) -> Boxes:
    """One size for all."""
    places = np.array(centres, dtype=np.float64)
    count = len(places)
    rotations = np.tile(np.eye(3), (count, 1, 1)) if turns is None else turns
    return Boxes(
        places, rotations, np.tile(np.array(half, dtype=np.float64), (count, 1)), np.full((count, 2), exponent)
    )


def pair() -> Boxes:
    """Two that are each other's image and nothing else: turned boxes."""
    first = boxes_at([[0.5, 0.2, 0.1]], [0.1, 0.3, 0.2], rotation(np.array([0.2, 0.5, -0.3]))[None])
    return joined([first, first.mapped(np.diag([-1.0, 1.0, 1.0]), np.zeros(3))])


def legs() -> Boxes:
    """Four corners of a rectangle."""
    return boxes_at([[x, 0.0, z] for x in (-1.0, 1.0) for z in (-0.6, 0.6)], [0.1, 0.5, 0.08])


def row(count: int) -> Boxes:
    """In equal steps; not each other's mirror image, so that nothing but an array holds them."""
    turn = np.tile(rotation(np.array([0.3, 0.2, 0.4])), (count, 1, 1))
    return boxes_at([[0.5 * k, 0.1 * k, 0.0] for k in range(count)], [0.05, 0.4, 0.1], turn)


def ring(count: int, radius: float = 1.4) -> Boxes:
    """All around the y axis."""
    turns = np.stack([rotation(np.array([0.0, 2 * math.pi * k / count, 0.0])) for k in range(count)])
    return boxes_at([turn @ np.array([radius, 0.2, 0.0]) for turn in turns], [0.2, 0.05, 0.3], turns)


def grid(rows: int = 3, columns: int = 4) -> Boxes:
    """In a plane."""
    return boxes_at([[0.5 * c, 0.4 * r, 0.0] for r in range(rows) for c in range(columns)], [0.1, 0.08, 0.15])


def unrelated(random: Generator, count: int = 10) -> Boxes:
    """No two of one size."""
    sizes = np.arange(1.0, count + 1)[:, None] * np.array([0.12, 0.07, 0.2])
    turns = np.stack([rotation(random.normal(size=3)) for _ in range(count)])
    return Boxes(random.uniform(-2, 2, (count, 3)), turns, sizes, np.full((count, 2), 0.1))


def shaken(boxes: Boxes, size: float, seed: int = 0) -> Boxes:
    """With noise on centres and half extents."""
    random = np.random.default_rng(seed)
    centres = boxes.centres + size * random.normal(size=boxes.centres.shape)
    halves = boxes.halves + 0.3 * size * random.normal(size=boxes.halves.shape)
    return Boxes(centres, boxes.rotations, halves, boxes.exponents)


def found_in(boxes: Boxes, tolerance: float | None = None, kinds: tuple[str, ...] = KINDS):
    """The fits, the tolerance in shares of the extent (0.02)."""
    unit = boxes.extent()
    return find(Search(boxes, (0.02 if tolerance is None else tolerance) * unit, kinds, unit), 0.0)


def summary(boxes: Boxes, tolerance: float | None = None) -> set[tuple[tuple[str, ...], frozenset[int]]]:
    """(kinds, members) of what is found."""
    fits = found_in(boxes, tolerance)
    return {(tuple(level.kind for level in fit.model.levels), frozenset(fit.rows)) for fit in fits}


def scene_of(*parts: Boxes) -> Scene:
    """One layer of blocks."""
    scene = Scene(order="ray")
    layer_of(scene, "blocks", joined(list(parts)))
    return scene
