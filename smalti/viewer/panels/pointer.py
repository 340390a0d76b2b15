"""The mouse on the canvas as a tool: clicks, rectangles, and lassos made of clicks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from smalti.viewer.chosen import How
from smalti.viewer.page_camera import same_view

if TYPE_CHECKING:
    import viser

    from smalti.cameras.camera import Camera
    from smalti.viewer.client import ClientView

Tool = Literal["look around", "click", "box", "lasso"]
TOOLS: tuple[Tool, ...] = ("look around", "click", "box", "lasso")
MODIFIERS: dict[Any, How | None] = {None: None, "shift": "add", "cmd/ctrl": "remove", "cmd/ctrl+shift": "intersect"}
"""What held keys mean; None: as the page says."""
NODE = "/smalti/lasso"
COLOR = (255, 170, 30)


class Pointer:
    """Tells `clicked` and `boxed` of gestures, in pixels of the look's camera, while their tool is chosen."""

    def __init__(
        self,
        view: ClientView,
        clicked: Callable[[Camera, float, float, How | None], None],
        boxed: Callable[[Camera, list[float], How | None], None],
    ) -> None:
        self._view, self._clicked, self._boxed = view, clicked, boxed
        self.tool: Tool = "look around"
        self.corners: list[tuple[float, float]] = []
        """Of the lasso."""
        self._camera: Camera | None = None
        self._line: Any = None
        self._lock = threading.RLock()  # clicks come in threads of their own

    def use(self, tool: Tool) -> None:
        """Another tool; a lasso that was begun is dropped."""
        scene = self._view.client.scene
        self.drop()
        scene.remove_click_callback("all")
        scene.remove_rect_select_callback("all")
        self.tool = tool
        if tool in ("click", "lasso"):
            for modifier, how in MODIFIERS.items():
                scene.on_click(modifier=modifier)(lambda event, how=how: self._click(event, how))
        elif tool == "box":
            for modifier, how in MODIFIERS.items():
                scene.on_rect_select(modifier=modifier)(lambda event, how=how: self._rectangle(event, how))

    def drop(self) -> None:
        """Forget the lasso's corners."""
        with self._lock:
            self.corners, self._camera = [], None
            if self._line is not None:
                self._line.remove()
                self._line = None

    def lasso(self) -> tuple[Camera, list[tuple[float, float]]] | None:
        """The camera and the corners, if they make an outline."""
        with self._lock:
            whole = self._camera is not None and len(self.corners) > 2
            return (self._camera, list(self.corners)) if self._camera is not None and whole else None

    def _click(self, event: viser.SceneClickEvent, how: How | None) -> None:
        camera = self._view.look.camera
        x, y = event.screen_pos[0] * camera.width, event.screen_pos[1] * camera.height
        if self.tool == "click":
            self._clicked(camera, x, y, how)
        elif self.tool == "lasso":
            self._add_corner(camera, x, y)

    def _rectangle(self, event: viser.SceneRectSelectEvent, how: How | None) -> None:
        camera = self._view.look.camera
        scale = (camera.width, camera.height)
        corners = [
            value * size
            for point in (event.screen_min, event.screen_max)
            for value, size in zip(point, scale, strict=True)
        ]
        self._boxed(camera, corners, how)

    def _add_corner(self, camera: Camera, x: float, y: float) -> None:
        with self._lock:
            if self._camera is not None and not same_view(camera, self._camera):
                self.drop()
                self._view.say("the camera has moved: the lasso begins anew")
            self._camera = camera
            self.corners.append((x, y))
            if self._line is not None:
                self._line.remove()
            places = [_place(camera, *corner) for corner in self.corners]
            ends = [*places[1:], places[0]]
            points = np.stack([np.stack(pair) for pair in zip(places, ends, strict=True)])
            self._line = self._view.client.scene.add_line_segments(
                NODE, points, COLOR, thickness=2.0, thickness_units="screen"
            )


def _place(camera: Camera, x: float, y: float) -> np.ndarray:
    """A point one unit before the camera that is seen at the pixel."""
    fx, fy, cx, cy = camera.intrinsics.double().tolist()
    local = torch.tensor([(x - cx) / fx, (y - cy) / fy, 1.0], dtype=torch.float64)
    place = camera.rotation.double().T @ (local - camera.translation.double())
    return place.numpy().astype(np.float32)
