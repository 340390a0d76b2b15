"""From what was found to a frame: where front and middle are, how long one unit is, how high the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from smalti.datasets.world import Finding, Wishes, World, similarity_of
from smalti.datasets.world_evidence import FEWEST, Evidence
from smalti.datasets.world_plane import THICKNESS, Plane
from smalti.datasets.world_up import Level

CAMERA_UNIT = 0.85
"""Half the cube's side as a share of the viewed ball's radius, where the cameras alone say it."""
SMALLEST, LARGEST = 0.4, 1.3
"""Where points say it, within these shares of the viewed ball's radius."""
MARGIN = 1.1
"""Of the cube beyond the subject."""
ONE_SIDED = 0.35
"""Mean horizontal direction to the cameras (1: all on one spot) from which that side is the front."""
CELL = 0.15
"""Of the grid by which lonely points are told from the subject's, in radii of the viewed ball."""
WHOLE = 0.7
"""Share of the points in the viewed ball from which those around it are the subject's too: nothing else is there."""
CAMERAS_BELOW = 0.02
"""Share of the cameras under the lowest points from which these stand on nothing."""
STRAY = 0.35
"""The middle of the points is this share of the viewed ball's radius away from where the cameras look, at most."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The points of what was photographed, in turned axes (y up) about the focus."""

    positions: Float[np.ndarray, "n 3"]
    solid: bool
    """Whether it is an object cut out by its silhouettes: its bounds are its bounds."""


@dataclass(frozen=True, eq=False)
class Floor:
    """The ground plane in turned axes (y up) about the focus: level, but where another up is stated."""

    normal: Float[np.ndarray, "3"]
    offset: float

    @staticmethod
    def of(plane: Plane, evidence: Evidence, rotation: Float[np.ndarray, "3 3"]) -> Floor:
        """Of a plane in the input's frame."""
        return Floor(rotation @ plane.normal, plane.offset - float(plane.normal @ evidence.focus))

    def height(self, positions: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Its height (y) right under (or over) positions."""
        aside = positions[..., [0, 2]] @ self.normal[[0, 2]]
        return (self.offset - aside) / max(float(self.normal[1]), 0.1)


def framed(evidence: Evidence, level: Level, plane: Plane | None, wishes: Wishes) -> World:
    """The world of what was found and what is stated."""
    findings: dict[str, Finding] = {}
    notices = []
    up = wishes.up
    if up is not None:
        findings["up"] = Finding("stated", "stated")
    elif plane is not None:
        up = plane.normal
        text = f"normal of the ground plane, {plane.angle:.1f} degrees from what the cameras say ({level.text})"
        findings["up"] = Finding("plane", text)
    else:
        up = level.up
        findings["up"] = Finding("cameras" if level.trusted else "guess", level.text)
        notices += [level.doubt] if level.doubt else []
    rotation = upright(up / np.linalg.norm(up), evidence)
    floor = None if plane is None else Floor.of(plane, evidence, rotation)
    subject = _subject(evidence, rotation, floor)
    middle, unit, said = _cube(evidence, subject, floor)
    centre = wishes.centre if wishes.centre is not None else evidence.focus + rotation.T @ middle
    findings["centre"] = Finding("stated", "stated") if wishes.centre is not None else said[0]
    findings["scale"] = Finding("stated", "stated") if wishes.radius is not None else said[1]
    unit = unit if wishes.radius is None else wishes.radius
    if not evidence.converging and (wishes.centre is None or wishes.radius is None):
        notices.append(
            "the cameras' optical axes do not meet, so centre and scale are a guess; look at the picture of the world, "
            "and state `centre` and `radius`"
        )
    ground, findings["ground"] = _ground(evidence, plane, subject, rotation, wishes)
    if ground is not None and wishes.ground is None:
        aside = rotation @ (centre - evidence.focus)
        # A plane that tilts against a stated up is elsewhere at another height.
        ground = ((ground if floor is None else float(floor.height(aside))) - float(aside[1])) / unit
    return World(similarity_of(rotation, centre, unit), ground, findings, tuple(notices))


def upright(up: Float[np.ndarray, "3"], evidence: Evidence) -> Float[np.ndarray, "3 3"]:
    """The rotation (rows: right, up, front) that puts `up` on +y. Where most cameras stand on one side, that side is
    +z; else the other axes are turned as little as may be from the input's own.
    """
    offsets = evidence.centres - evidence.focus
    level = offsets - np.outer(offsets @ up, up)
    lengths = np.linalg.norm(level, axis=1)
    reach = np.linalg.norm(offsets, axis=1).max()
    usable = lengths > 1e-3 * max(float(reach), 1e-300)
    front = (level[usable] / lengths[usable, None]).mean(0) if usable.any() else np.zeros(3)
    if np.linalg.norm(front) < ONE_SIDED:
        return _turned_least(up)
    front = front / np.linalg.norm(front)
    right = np.cross(up, front)
    right = right / np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])


def _turned_least(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """First by quarter turns about the input's axes until +y is next to `up`, then by the least turn."""
    along, sign = int(np.abs(up).argmax()), 1.0 if up[np.abs(up).argmax()] > 0 else -1.0
    quarter = {
        (1, 1.0): [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        (1, -1.0): [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
        (2, 1.0): [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        (2, -1.0): [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        (0, 1.0): [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        (0, -1.0): [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    }[along, sign]
    turn = np.array(quarter, np.float64)
    here = turn @ up
    axis = np.cross(here, [0.0, 1.0, 0.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return (np.eye(3) + cross + cross @ cross / (1.0 + here[1])) @ turn


def _subject(evidence: Evidence, rotation: Float[np.ndarray, "3 3"], floor: Floor | None) -> Subject | None:
    """Points of an object, or those near the focus that stand on the ground; None where they are too few."""
    if not evidence.has_points:
        return None
    positions = (evidence.positions - evidence.focus) @ rotation.T
    if evidence.origin == "hull":
        return Subject(positions, True)
    near = np.linalg.norm(positions, axis=1) <= evidence.viewed
    if near.sum() >= WHOLE * len(near):
        near[:] = True
    if floor is not None:
        beside = np.linalg.norm(positions[:, [0, 2]], axis=1) <= evidence.viewed
        near = beside & (positions @ floor.normal > floor.offset + 3.0 * THICKNESS * evidence.viewed)
    kept = _without_strays(positions[near], CELL * evidence.viewed)
    return Subject(kept, False) if len(kept) >= FEWEST else None


def _without_strays(positions: Float[np.ndarray, "n 3"], cell: float) -> Float[np.ndarray, "m 3"]:
    """Points that have another in their cell of a grid; all, where that would leave out a large part."""
    cells = np.floor(positions / cell).astype(np.int64)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    together = counts[which.reshape(-1)] >= 2
    return positions[together] if together.sum() > 0.6 * len(positions) else positions


def _cube(
    evidence: Evidence, subject: Subject | None, floor: Floor | None
) -> tuple[Float[np.ndarray, "3"], float, tuple[Finding, Finding]]:
    """(middle in turned axes about the focus, half the side, how centre and scale were found)."""
    if subject is None:
        how = "cameras" if evidence.converging else "guess"
        where = "where the optical axes meet" if evidence.converging else "ahead of the cameras"
        text = f"{CAMERA_UNIT:g} of what the median camera sees around it"
        return np.zeros(3), CAMERA_UNIT * evidence.viewed, (Finding(how, where), Finding(how, text))
    share = 0.002 if subject.solid else 0.03
    low, high = np.quantile(subject.positions, [share, 1.0 - share], axis=0)
    if floor is not None:
        low[1] = floor.height(0.5 * (low + high))
    middle = 0.5 * (low + high)
    half = float((0.5 * (high - low)).max()) * MARGIN
    count = f"{len(subject.positions):,} points"
    if subject.solid:
        return (
            middle,
            half,
            (
                Finding("points", f"middle of the visual hull ({count})"),
                Finding("points", f"the visual hull and {MARGIN - 1:.0%} around it"),
            ),
        )
    away = float(np.linalg.norm(middle))
    if away > STRAY * evidence.viewed:
        middle = middle * (STRAY * evidence.viewed / away)
    unit = float(np.clip(half, SMALLEST * evidence.viewed, LARGEST * evidence.viewed))
    moved = f"{np.linalg.norm(middle) / evidence.viewed:.2f} of what the cameras see from where their axes meet"
    return (
        middle,
        unit,
        (
            Finding("points", f"middle of the {count} {'there' if floor is None else 'above the ground'} ({moved})"),
            Finding("points", f"94 % of these points and {MARGIN - 1:.0%} around them"),
        ),
    )


def _ground(
    evidence: Evidence,
    plane: Plane | None,
    subject: Subject | None,
    rotation: Float[np.ndarray, "3 3"],
    wishes: Wishes,
) -> tuple[float | None, Finding]:
    """(height over the focus in input lengths, or the stated one, how it was found)."""
    if wishes.ground == "none":
        return None, Finding("stated", "stated")
    if wishes.ground is not None:
        return float(wishes.ground), Finding("stated", "stated")
    if plane is not None:
        thick = plane.thickness / evidence.viewed
        text = f"{plane.count:,} points ({plane.share:.0%}) lie on it, within {thick:.2%} of the view's radius"
        return plane.offset - float(plane.normal @ evidence.focus), Finding("plane", text)
    if subject is not None:
        lowest = float(np.quantile(subject.positions[:, 1], 0.005 if subject.solid else 0.03))
        if ((evidence.centres - evidence.focus) @ rotation[1] < lowest).mean() > CAMERAS_BELOW:
            return None, Finding("none", "cameras stand lower than all that they look at")
        heights = (evidence.positions - evidence.focus) @ rotation[1]
        if subject.solid or (heights < lowest - 0.1 * evidence.viewed).mean() < 0.05:
            return lowest, Finding("points", "under the lowest points; no plane was found")
        return None, Finding("none", "no plane was found, and the points go on below what the cameras look at")
    return None, Finding("none", "no points tell where it is")
