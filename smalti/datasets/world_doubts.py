"""How sure an up direction is: what else says one, and how far these are from what was chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from smalti.datasets.world import Finding, World
from smalti.datasets.world_evidence import Evidence
from smalti.datasets.world_plane import Plane, ground_plane
from smalti.datasets.world_up import Level

AGREED = 5.0
"""Degrees from which two answers about up contradict each other."""
FEWEST_FAR = 20
"""Points of a plane that is no ground to measure by, being far from what the cameras look at, but says what is
level."""


def far_plane(evidence: Evidence, level: Level) -> Plane | None:
    """A plane under all points, near and far, where the points by themselves have none: a floor beyond the table. It is
    only told, since few points are there; None where up is a guess that it could not judge.
    """
    if not level.trusted or len(evidence.around) < FEWEST_FAR:
        return None
    return ground_plane(replace(evidence, positions=evidence.around), level, fewest=FEWEST_FAR)


def compared(world: World, cameras: Level, plane: Plane | None, far: Plane | None) -> World:
    """The world with the answers about up that were not chosen, told in its findings and, where they contradict what
    was chosen, in its notices.
    """
    how, text, notices = world.findings["up"].how, world.findings["up"].text, list(world.notices)
    others: dict[str, tuple[Float[np.ndarray, "3"], str]] = {}
    if how not in ("cameras", "guess"):
        others["cameras"] = cameras.up, f"the cameras' ({cameras.text})"
    if plane is not None and how != "plane":
        others["ground plane"] = plane.normal, "that of the points' ground plane"
    if far is not None:
        others["far plane"] = far.normal, f"that of a plane farther down, of {far.count} points"
    for name, (up, whose) in others.items():
        angle = degrees_apart(up, world.up)
        if how != "plane":  # else it says so already
            text += f"; {angle:.1f} degrees from {whose}"
        if angle > AGREED and how != "stated" and (name != "cameras" or cameras.trusted):
            chosen = "the ground plane's normal" if how == "plane" else "the cameras'"
            written = ",".join(f"{value:.3g}" for value in up)
            notices.append(
                f"cameras and points do not agree about up: {chosen} was chosen, {angle:.1f} degrees from {whose}; "
                f"where the picture of the world is tilted, state up as {written}"
            )
    findings = {**world.findings, "up": Finding(how, text)}
    rivals = {name: up for name, (up, _) in others.items()}
    return replace(world, findings=findings, notices=tuple(notices), rivals=rivals)


def degrees_apart(one: Float[np.ndarray, "3"], other: Float[np.ndarray, "3"]) -> float:
    """Between unit vectors."""
    return float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))
