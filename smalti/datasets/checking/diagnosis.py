"""What is wrong with a camera that does not fit: tries the usual mistakes and says which one explains the errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from smalti.datasets.checking.geometry import Poses
from smalti.datasets.checking.sightings import Sightings

EXPLAINS = 0.35
"""A change explains an outlier if it brings the error below this share of what it was ..."""
STRETCHES = tuple(np.exp(np.linspace(np.log(0.4), np.log(2.5), 41)))
STRETCH_DOUBT = 0.04
"""Focal lengths nearer than this (of log) to the best are taken as right: good sets were found within 0.022."""
STRETCH_GAIN = 0.7
"""... and so are those where the best would leave more than this share of the error."""
FLIP = np.diag([1.0, -1.0, -1.0])
MISTAKES: tuple[tuple[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]], ...] = (
    ("the rotation fits when transposed", lambda rotation, centre: (rotation.T, centre)),
    # With t = -R C taken as the position: C' = t.
    ("the pose fits as camera-to-world", lambda rotation, centre: (rotation.T, -rotation @ centre)),
    ("the rotation fits when transposed, t kept", lambda rotation, centre: (rotation.T, rotation @ rotation @ centre)),
    (
        "the pose fits with the y and z axes of the camera reversed (OpenGL)",
        lambda rotation, centre: (FLIP @ rotation, centre),
    ),
)


def rotation_about(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation by |vector| radians about the vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    if angle < 1e-12:
        return np.eye(3) + cross
    return np.eye(3) + np.sin(angle) / angle * cross + (1.0 - np.cos(angle)) / angle**2 * (cross @ cross)


def explain(sightings: Sightings, rotation: np.ndarray, centre: np.ndarray, goal: float) -> str:
    """The one change that makes a camera fit, in words; empty where none does. `goal`: a good camera's error, px."""

    def error(changed: tuple[np.ndarray, np.ndarray], stretch: float = 1.0) -> float:
        return float(np.median(sightings.errors(*changed, stretch)))

    before = error((rotation, centre))
    accept = EXPLAINS * before
    if before <= goal:
        return ""
    tried = [(error(mistake(rotation, centre)), words) for words, mistake in MISTAKES]
    least, words = min(tried, key=lambda item: item[0])
    if least < min(accept, 4.0 * goal + 0.5):
        return words
    stretch, stretch_error = best_stretch(lambda value: error((rotation, centre), value))
    vector, turn_error = best_turn(sightings, rotation, centre)
    if min(stretch_error, turn_error) >= accept:
        return ""
    if stretch_error <= 1.2 * turn_error:
        return f"its focal length fits when multiplied by {stretch:.3f}"
    return f"its rotation looks {np.degrees(np.linalg.norm(vector)):.2f} degrees off"


def best_stretch(error: Callable[[float], float]) -> tuple[float, float]:
    """The factor of the focal length with the least error, and that error."""
    values = [error(stretch) for stretch in STRETCHES]
    best = int(np.argmin(values))
    found, least = STRETCHES[best], values[best]
    low, high = STRETCHES[max(best - 1, 0)], STRETCHES[min(best + 1, len(STRETCHES) - 1)]
    for _ in range(3):
        steps = np.linspace(low, high, 9)
        fine = [error(float(step)) for step in steps]
        at = int(np.argmin(fine))
        found, least = float(steps[at]), fine[at]
        low, high = steps[max(at - 1, 0)], steps[min(at + 1, 8)]
    return found, least


def best_turn(sightings: Sightings, rotation: np.ndarray, centre: np.ndarray) -> tuple[Float[np.ndarray, "3"], float]:
    """The rotation vector (camera axes, radians) with the least error, and that error; robust Gauss-Newton."""
    vector = np.zeros(3)
    errors = sightings.errors(rotation, centre)
    best, best_error = vector, float(np.median(errors))
    for _ in range(15):
        base = _around(sightings, rotation, centre, vector)
        weight = 1.0 / np.maximum(np.abs(base), max(0.2 * best_error, 1e-3))
        step = 1e-5
        slopes = np.stack(
            [(_around(sightings, rotation, centre, vector + step * axis) - base) / step for axis in np.eye(3)], axis=1
        )
        normal = slopes.T @ (weight[:, None] * slopes)
        update = -np.linalg.lstsq(normal, slopes.T @ (weight * base), rcond=1e-9)[0]
        length = float(np.linalg.norm(update))
        vector = vector + update * min(1.0, 0.1 / max(length, 1e-12))
        now = float(np.median(_around(sightings, rotation, centre, vector)))
        if now < best_error:
            best, best_error = vector, now
        if length < 1e-7:
            break
    return best, best_error


def _around(
    sightings: Sightings, rotation: np.ndarray, centre: np.ndarray, vector: np.ndarray
) -> Float[np.ndarray, "n"]:
    return sightings.errors(rotation_about(vector) @ rotation, centre)


def explain_all(error: Callable[[Poses, float], float], poses: Poses, goal: float) -> str:
    """The one mistake made in all cameras that explains a set that does not fit; empty where none does."""
    before = error(poses, 1.0)
    least, words = min(((error(changed, 1.0), words) for words, changed in _mistaken(poses)), key=lambda item: item[0])
    if least < min(EXPLAINS * before, 4.0 * goal):
        return f"all cameras: {words}"
    stretch, after = best_stretch(lambda value: error(poses, value))
    if after < EXPLAINS * before:
        return f"all cameras: the focal lengths fit when multiplied by {stretch:.3f}"
    return ""


def focal_doubt(error: Callable[[Poses, float], float], poses: Poses) -> float | None:
    """The factor by which all focal lengths should be multiplied, where that clearly fits better; else None.

    A ring around a small object hides a wrong focal length almost entirely, but its least error is at the right one.
    """
    stretch, after = best_stretch(lambda value: error(poses, value))
    clear = abs(np.log(stretch)) > STRETCH_DOUBT and after < STRETCH_GAIN * error(poses, 1.0)
    return stretch if clear else None


def _mistaken(poses: Poses) -> Iterator[tuple[str, Poses]]:
    for words, mistake in MISTAKES:
        changed = poses
        for row in range(len(poses.centre)):
            changed = changed.changed(row, *mistake(poses.rotation[row], poses.centre[row]))
        yield words, changed
