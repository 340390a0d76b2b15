"""A capture's canonical frame: +y up, the subject about the origin and mostly inside the cube [-1, 1]^3.

Nothing is moved into it: cameras, points and scenes stay in the input's frame. `World` is what methods with lengths and
directions of their own (a ground below, blocks of a certain size) measure by, and says how it was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from smalti.cameras.camera import Camera
from smalti.cameras.similarity import Similarity

if TYPE_CHECKING:
    from smalti.datasets.dataset import Points

STATED_AGREEMENT = 10.0
"""Degrees by which a plane that tells the ground's height may differ from an up direction that is stated."""
PARTS = ("up", "centre", "scale", "ground")
SIGNED_AXES = {
    f"{sign}{name}": np.array([(1.0 if sign != "-" else -1.0) * float(name == other) for other in "xyz"])
    for sign in ("", "+", "-")
    for name in "xyz"
}


@dataclass(frozen=True)
class Finding:
    """How one part of a world was found."""

    how: Literal["stated", "plane", "cameras", "points", "guess", "none"]
    text: str
    """A phrase, with what speaks for it in numbers."""


@dataclass(frozen=True, eq=False)
class Wishes:
    """What a person states instead of having it found; None: to be found. Lengths and directions are the input's."""

    up: Float[np.ndarray, "3"] | None = None
    centre: Float[np.ndarray, "3"] | None = None
    radius: float | None = None
    """Input lengths per canonical unit: half the side of the cube."""
    ground: float | Literal["none"] | None = None
    """Height (y) in the canonical frame, or none at all."""


@dataclass(frozen=True, eq=False)
class World:
    """The canonical frame of a capture, a value. `p_canonical = canonical_from_input.apply(p)`."""

    canonical_from_input: Similarity
    ground: float | None
    """Height (y) of the ground plane in the canonical frame; None where there is none."""
    findings: dict[str, Finding]
    """By part: up, centre, scale, ground."""
    notices: tuple[str, ...] = ()
    """Doubts, in sentences."""
    rivals: dict[str, Float[np.ndarray, "3"]] = field(default_factory=lambda: dict[str, np.ndarray]())
    """Other answers about up, by what says them (cameras, ground plane, far plane): unit vectors in the input's
    frame. The chosen one is `up`."""

    @property
    def input_from_canonical(self) -> Similarity:
        """What carries things that were made in the canonical frame to the cameras."""
        return self.canonical_from_input.inverse

    @property
    def unit(self) -> float:
        """Input lengths per canonical unit: half the side of the cube."""
        return 1.0 / self.canonical_from_input.scale

    @property
    def up(self) -> Float[np.ndarray, "3"]:
        """The canonical +y in the input's frame, of length 1."""
        return self.canonical_from_input.rotation[1].double().numpy().copy()

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """The canonical origin in the input's frame."""
        return self.input_from_canonical.translation.double().numpy().copy()

    def to_plain(self) -> dict[str, Any]:
        """Numbers, lists and texts, for JSON."""
        return {
            "canonical_from_input": self.canonical_from_input.to_plain(),
            "ground": self.ground,
            "up": self.up.tolist(),
            "centre": self.centre.tolist(),
            "unit": self.unit,
            "findings": {name: {"how": each.how, "text": each.text} for name, each in self.findings.items()},
            "notices": list(self.notices),
            "rivals": {name: up.tolist() for name, up in self.rivals.items()},
        }

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> World:
        """The inverse of `to_plain`."""
        findings = {name: Finding(each["how"], each["text"]) for name, each in plain["findings"].items()}
        similarity = Similarity.from_plain(plain["canonical_from_input"])
        rivals = {name: np.array(up, np.float64) for name, up in plain.get("rivals", {}).items()}
        return World(similarity, plain["ground"], findings, tuple(plain["notices"]), rivals)

    def lines(self) -> list[str]:
        """What was found, for people."""
        finest = 10.0 ** round(np.log10(1e-4 * self.unit))  # smaller lengths are noise
        up = ", ".join(f"{round(value, 4) + 0.0:.4g}" for value in self.up)
        centre = ", ".join(f"{round(value / finest) * finest + 0.0:.5g}" for value in self.centre)
        ground = "none" if self.ground is None else f"y = {self.ground:.3f}"
        scale = f"1 is {self.unit:.4g} of the input"
        values = {
            "up": f"({up})",
            "centre": f"({centre})",
            "scale": scale,
            "ground": ground,
        }
        return [f"{name}: {values[name]}, {self.findings[name].text}" for name in PARTS]


def axis_vector(value: str | Sequence[float]) -> Float[np.ndarray, "3"]:
    """A direction of length 1 from a word (`z`, `+x`, `-y`) or three numbers. ValueError for anything else."""
    if isinstance(value, str):
        parts = value.strip().strip("[]()").split(",")
        if len(parts) == 3:
            try:
                return axis_vector([float(part) for part in parts])
            except ValueError:
                pass
        if value.strip().lower() not in SIGNED_AXES:
            raise ValueError(f"{value!r} is no direction; write x, -y, z ... or three numbers, such as [0, -0.4, -0.9]")
        return SIGNED_AXES[value.strip().lower()].copy()
    vector = np.asarray(value, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not np.linalg.norm(vector) > 1e-12:
        raise ValueError(f"{value!r} is no direction; write three numbers that are not all 0, or x, -y, z ...")
    return vector / np.linalg.norm(vector)


def find_world(cameras: Sequence[Camera], points: Points | None = None, wishes: Wishes | None = None) -> World:
    """The canonical frame of a capture, from its cameras and, where they tell something, its points.

    Up is stated, or the normal of a ground plane of the points that agrees with the cameras, or what the cameras' level
    horizons say, or the axis of their ring. The centre is where the cameras look, or the middle of the points there;
    the unit is what the cameras see around it, or the points' spread. Never fails: what is doubtful is in the notices,
    and what else says an up direction in `rivals`.
    ValueError without a camera. Equivariant: the transformed capture gives the transformed world (but for the turn
    about the vertical, which follows the input's axes where cameras stand all around).
    """
    from smalti.datasets.world_doubts import compared, far_plane
    from smalti.datasets.world_evidence import Evidence
    from smalti.datasets.world_frame import framed
    from smalti.datasets.world_plane import AGREEMENT, ground_plane
    from smalti.datasets.world_up import Level, up_of_cameras

    if not cameras:
        raise ValueError("find_world: there is no camera")
    wishes = wishes or Wishes()
    evidence = Evidence.gathered(cameras, points)
    stated = None if wishes.up is None else Level(wishes.up, True, "stated")
    cameras_say = up_of_cameras(evidence)
    level = stated or cameras_say
    plane = far = None
    if evidence.has_scenery and wishes.ground != "none":
        plane = ground_plane(evidence, level, STATED_AGREEMENT if stated else AGREEMENT)
        far = far_plane(evidence, level) if plane is None else None
    return compared(framed(evidence, level, plane, wishes), cameras_say, plane, far)


def similarity_of(rotation: Float[np.ndarray, "3 3"], centre: Float[np.ndarray, "3"], unit: float) -> Similarity:
    """canonical_from_input of a rotation, the canonical origin in the input, and input lengths per unit."""
    turn = torch.from_numpy(np.ascontiguousarray(rotation))
    return Similarity(1.0 / unit, turn, -(turn @ torch.from_numpy(np.asarray(centre, np.float64))) / unit)
