"""Which way is up, as the cameras tell: level horizons, the axis of a ring, or the upper edges of the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from smalti.datasets.world_evidence import Evidence

TURNED = 0.05
"""Mean square of the cosines between the pictures' horizontals and the second direction, from which these horizontals
span a plane (0.05: they fan out by about 13 degrees)."""
FEWEST_CAMERAS = 4
"""Fewer cannot contradict each other."""
ROLL = 12.0
"""Degrees of roll in the median up to which horizons count as level."""
UNSURE = 5.0
"""Degrees of two standard errors from which up is doubtful."""


@dataclass(frozen=True, eq=False)
class Level:
    """An up direction and what speaks for it."""

    up: Float[np.ndarray, "3"]
    """Unit, input's frame."""
    trusted: bool
    """Whether the cameras really say it; else it is a guess that a plane of the points may overrule."""
    text: str
    doubt: str = ""
    """A sentence for a person, where there is one."""


class Horizontal(NamedTuple):
    """The direction to which most of the given ones are perpendicular."""

    direction: Float[np.ndarray, "3"]
    roll: float
    """Median angle in degrees by which they are not."""
    spread: float
    """Mean square along the direction that is next to vanish: small where they are all parallel, and nothing is
    determined."""
    error: float
    """Two standard errors of the direction, in degrees (the robust estimate's: Huber 1967)."""


def up_of_cameras(evidence: Evidence) -> Level:
    """The first of these that the cameras allow: the direction to which all horizons are level, in upright pictures or
    in pictures that lie on their sides (its sign then by where the cameras stand); the axis of a ring; the mean of the
    pictures' upward directions.
    """
    rights, downs = evidence.rotations[:, 0], evidence.rotations[:, 1]
    mean_up = -downs.mean(0)
    upright, lying = _level_direction(rights), _level_direction(downs)
    fits = upright.spread > TURNED and upright.roll < ROLL
    fits_lying = lying.spread > TURNED and lying.roll < ROLL
    if len(rights) < FEWEST_CAMERAS:
        return _of_few(evidence, upright.direction if fits else None, mean_up)
    if fits and not (fits_lying and lying.roll < 0.5 * upright.roll and abs(upright.direction @ mean_up) < 0.3):
        sign = 1.0 if upright.direction @ mean_up >= 0 else -1.0
        text, doubt = f"level horizons of the cameras ({_agreement(upright)})", _unsure(upright)
        return Level(sign * upright.direction, True, text, doubt)
    ring = _ring_axis(evidence.centres)
    if fits_lying:
        axis = lying.direction
        text = f"level horizons of cameras that lie on their sides ({_agreement(lying)})"
    elif ring is not None and np.linalg.norm(mean_up) < 0.7:
        axis, text = ring, "axis of the cameras' ring"
    else:
        return _by_upper_edges(evidence, mean_up)
    return _signed(evidence, axis, mean_up, text)


def _of_few(evidence: Evidence, upright: Float[np.ndarray, "3"] | None, mean_up: Float[np.ndarray, "3"]) -> Level:
    """Two horizons always agree, and three nearly: believed where the pictures' upper edges do not contradict."""
    if upright is None or abs(upright @ mean_up) < 0.7 * np.linalg.norm(mean_up):
        return _by_upper_edges(evidence, mean_up)
    up = upright if upright @ mean_up > 0 else -upright
    count = len(evidence.centres)
    doubt = f"up is a guess by {count} cameras alone; state `up` where the picture of the world is tilted"
    return Level(up, False, f"level horizons of {count} cameras", doubt)


def _agreement(found: Horizontal) -> str:
    return f"median roll {found.roll:.1f} degrees; they agree to {found.error:.1f}"


def _unsure(found: Horizontal) -> str:
    if found.error <= UNSURE:
        return ""
    return (
        f"the cameras' horizons agree about up to {found.error:.0f} degrees only; state `up` where the picture of the "
        "world is tilted"
    )


def _level_direction(horizontals: Float[np.ndarray, "n 3"]) -> Horizontal:
    """By least squares, reweighted by Cauchy's function."""
    weights = np.ones(len(horizontals))
    values, vectors = np.zeros(3), np.eye(3)
    for _ in range(20):
        values, vectors = np.linalg.eigh(np.einsum("n,ni,nj->ij", weights, horizontals, horizontals) / weights.sum())
        roll = np.abs(horizontals @ vectors[:, 0])
        middle = float(np.median(roll))
        if middle < 1e-9:
            break
        weights = 1.0 / (1.0 + (roll / (2.0 * middle)) ** 2)
    roll = np.degrees(np.arcsin(np.clip(np.abs(horizontals @ vectors[:, 0]), 0.0, 1.0)))
    sides = horizontals @ vectors[:, 1:]
    slopes = weights * (2.0 * weights - 1.0)  # the derivative of a residual times its weight
    share = max(float(slopes.sum()), 0.2 * len(slopes)) / float(weights.sum())
    bread = np.linalg.pinv(share * np.einsum("n,ni,nj->ij", weights, sides, sides))
    filling = np.einsum("n,ni,nj->ij", (weights * np.radians(roll)) ** 2, sides, sides)
    variance = float(np.linalg.eigvalsh(bread @ filling @ bread)[-1]) * len(roll) / max(len(roll) - 2, 1)
    error = float(np.degrees(2.0 * np.sqrt(max(variance, 0.0))))
    return Horizontal(vectors[:, 0], float(np.median(roll)), float(values[1]), error)


def _ring_axis(centres: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"] | None:
    """The normal of the plane in which the cameras stand all around something; None where they do not."""
    if len(centres) < 5:
        return None
    offsets = centres - centres.mean(0)
    sizes, axes = np.linalg.svd(offsets, full_matrices=False)[1:]
    return axes[2] if sizes[2] < 0.2 * sizes[1] and sizes[1] > 0.4 * sizes[0] else None


def _signed(evidence: Evidence, axis: Float[np.ndarray, "3"], mean_up: Float[np.ndarray, "3"], text: str) -> Level:
    """The axis with the sign by which cameras stand above what they look at, else by the pictures' upper edges."""
    lifts = (evidence.centres - evidence.focus) @ axis / max(evidence.distance, 1e-300)
    lift = float(np.median(lifts))
    if abs(lift) > 0.05:
        above = f"{text}; up is where the cameras stand"
        return Level(np.sign(lift) * axis, True, above)
    sign = 1.0 if axis @ mean_up >= 0 else -1.0
    doubt = ""
    if abs(axis @ mean_up) < 0.3:
        doubt = (
            "up and down could not be told apart: the cameras stand at the height of what they look at, and their "
            "pictures lie on their sides; look at the picture of the world, and state `up` where it is upside down"
        )
    return Level(sign * axis, not doubt, text, doubt)


def _by_upper_edges(evidence: Evidence, mean_up: Float[np.ndarray, "3"]) -> Level:
    """Where horizons are all parallel (cameras in a row, one camera): what is up in the pictures."""
    length = float(np.linalg.norm(mean_up))
    doubt = (
        "up is a guess: the cameras look in one direction, so their pictures' upper edges alone say it; state `up` "
        "where the picture of the world is tilted"
    )
    if length < 0.3:
        doubt = "up is a guess: the cameras' upper edges point everywhere; state `up` where the picture is tilted"
    up = mean_up / length if length > 1e-6 else -evidence.rotations[0, 1]
    return Level(up, False, f"mean of the pictures' upward directions ({length:.2f} of 1 agree)", doubt)
