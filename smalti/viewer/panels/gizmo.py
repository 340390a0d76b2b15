"""Handles on what is selected, on the canvas: dragged, a box shows where it goes; released, it is one edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from smalti.cameras.rotations import matrix_from_quaternion
from smalti.cameras.similarity import Similarity
from smalti.viewer.panels.controls import telling

if TYPE_CHECKING:
    import viser
    from jaxtyping import Float
    from torch import Tensor

    from smalti.cameras.camera import Camera
    from smalti.viewer.client import ClientView

NODE = "/smalti/selected"
SHARE = 0.16
"""Of the picture's height, that an arrow takes."""
COLOR = (255, 170, 30)
UPRIGHT = (1.0, 0.0, 0.0, 0.0)
CORNERS = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]


class Gizmo:
    """Shown at a pivot; calls `moved` with the motion (`scene_from_scene`) when it is released."""

    def __init__(self, view: ClientView, moved: Callable[[Similarity], None]) -> None:
        self._view, self._client, self._moved = view, view.client, moved
        self._handle: viser.TransformControlsHandle | None = None
        self._box: Any = None
        self._pivot: Float[Tensor, "3"] | None = None
        self._half = torch.zeros(3, dtype=torch.float64)
        self.dragging = False

    @property
    def pivot(self) -> list[float] | None:
        """Where it stands, None where it is not shown."""
        return None if self._pivot is None else self._pivot.tolist()

    @property
    def size(self) -> float:
        """Length of its arrows, 0 where it is not shown."""
        return 0.0 if self._handle is None else float(self._handle.scale)

    def show(self, low: Float[Tensor, "3"], high: Float[Tensor, "3"], camera: Camera) -> None:
        """At the middle of a box, with its edges; where it is shown already, it goes there. Not while it is dragged."""
        if self.dragging:
            return
        pivot, half = 0.5 * (low + high), 0.5 * (high - low)
        if self._pivot is not None and torch.equal(pivot, self._pivot) and torch.equal(half, self._half):
            return
        resized = self._box is None or not torch.equal(half, self._half)
        self._pivot, self._half = pivot, half
        with self._client.atomic():
            if self._handle is None:
                self._handle = self._client.scene.add_transform_controls(
                    NODE, scale=_size(pivot, camera), depth_test=False, line_width=3.5, position=_three(pivot)
                )
                self._handle.on_update(self._updated)
            self._reset()
            if resized:
                corners = np.array(CORNERS, dtype=np.float32) * half.numpy().astype(np.float32)
                points = np.stack([corners[[a, b]] for a, b in EDGES])
                self._box = self._client.scene.add_line_segments(
                    f"{NODE}/box", points, COLOR, thickness=1.5, thickness_units="screen"
                )

    def hide(self) -> None:
        """Not shown."""
        if self._handle is not None:
            self._handle.remove()  # the box with it
        self._handle, self._box, self._pivot, self.dragging = None, None, None, False

    def _reset(self) -> None:
        """Upright, at the pivot."""
        if self._handle is not None and self._pivot is not None:
            self._handle.position = _three(self._pivot)
            self._handle.wxyz = UPRIGHT

    def _updated(self, event: viser.TransformControlsEvent) -> None:
        if event.phase != "end":
            self.dragging = True
            return
        pivot = self._pivot
        try:
            with telling(self._view, "handles"):
                if pivot is None:
                    return
                self._moved(motion(pivot, event.target.wxyz, event.target.position))
        finally:
            self.dragging = False
            self._reset()


def motion(pivot: Float[Tensor, "3"], wxyz: Any, position: Any) -> Similarity:
    """What takes an upright frame at the pivot to the pose; ValueError for a pose that is none."""
    quaternion = torch.as_tensor(np.asarray(wxyz), dtype=torch.float64)
    place = torch.as_tensor(np.asarray(position), dtype=torch.float64)
    if not bool(torch.isfinite(place).all()) or not 1e-6 < float(quaternion.norm()) < 1e6:
        raise ValueError(f"no pose: quaternion {quaternion.tolist()}, position {place.tolist()}")
    rotation = matrix_from_quaternion(quaternion / quaternion.norm())
    return Similarity(rotation=rotation, translation=place - rotation @ pivot)


def _three(point: Float[Tensor, "3"]) -> tuple[float, float, float]:
    x, y, z = point.tolist()
    return x, y, z


def _size(pivot: Float[Tensor, "3"], camera: Camera) -> float:
    """Length of an arrow that takes `SHARE` of the picture."""
    depth = float((camera.rotation.double()[2] @ pivot) + camera.translation.double()[2])
    return SHARE * max(depth, 1e-3) * camera.height / float(camera.intrinsics[1])
