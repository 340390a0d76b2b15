"""One client's view: its camera and look, its panels, and the stream of pictures to it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from smalti.viewer import page
from smalti.viewer.look import Look
from smalti.viewer.pace import Cost
from smalti.viewer.page_camera import camera_of, move_page, nowhere, same_view, to_plain

if TYPE_CHECKING:
    import viser

    from smalti.cameras.camera import Camera
    from smalti.scene.selection import Selection
    from smalti.viewer.panels import Panel
    from smalti.viewer.stage import Stage

REPEAT_AFTER = 5.0
"""Seconds after which the same line is said again."""


@dataclass(frozen=True)
class Picture:
    """What a client sees."""

    look: Look
    revision: int
    width: int
    height: int
    lossless: bool
    seconds: float
    """From the start of the drawing to the encoded bytes."""
    bytes: int
    """Encoded."""
    legend: dict[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """How to read it (`smalti.viewer.modes.Painted`)."""
    failed: bool = False
    """There is none: the drawing failed, and will not be tried again before something changes."""

    def shows(self, look: Look, revision: int) -> bool:
        """Whether it is of this look and this revision."""
        return self.look == look and self.revision == revision


class ClientView:
    """What panels hold on to. Thread-safe."""

    def __init__(self, client: viser.ClientHandle, stage: Stage, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something new to draw."""
        # A page in the background may have a canvas without extent; it tells another when it is looked at.
        camera = camera_of(client.camera) or nowhere()
        self.client: viser.ClientHandle = client
        self.stage: Stage = stage
        self.panels: list[Panel] = []
        self.look: Look = Look(camera)
        """What is to be seen now."""
        self.selected: Selection | None = None
        """Shown tinted in the picture; None: nothing."""
        self.closed = False
        self.picture: Picture | None = None
        self.settled: Look | None = None
        """The last look of which there was a lossless picture."""
        self.pictures = 0
        """Sent so far."""
        self.spent = 0.0
        """Seconds that all of them took."""
        self.cost = Cost()
        self.moved = time.monotonic()
        """When what is to be seen last changed by this client's doing."""
        self.served = 0.0
        """When its last picture was finished."""
        self.said: deque[dict[str, Any]] = deque(maxlen=20)
        self._wake = wake
        self._lock = threading.Lock()
        page.on_camera(client, self._camera_moved)

    def change(self, **values: Any) -> None:
        """Another look (`mode=`, `order=`, `truth_row=`, ...): the picture is drawn anew. `time=` is the camera's,
        which may move meanwhile.
        """
        with self._lock:
            if "time" in values:
                values["camera"] = replace(self.look.camera, time=values.pop("time"))
            before, self.look = self.look, replace(self.look, **values)
            if self.look == before:
                return
            if (before.mode, before.order) != (self.look.mode, self.look.order):
                self.cost.forget()
            self.moved = time.monotonic()
        self._wake()

    def select(self, selection: Selection | None) -> None:
        """Show another selection."""
        with self._lock:
            if selection is None and self.selected is None:
                return
            self.selected = selection
            self.look = replace(self.look, highlight=self.look.highlight + 1)
            self.moved = time.monotonic()
        self._wake()

    def go_to(self, camera: Camera) -> None:
        """Move the client's camera there (what the page can show of it: it has no distortion and its own aspect)."""
        move_page(self.client, camera)

    def say(self, text: str, problem: bool = False, stays: bool = False) -> None:
        """A line on the client's page, which `stays` or goes by itself; the same line again only after a while."""
        now = time.time()
        with self._lock:
            if self.closed or any(line["text"] == text and now - line["time"] < REPEAT_AFTER for line in self.said):
                return
            self.said.append({"text": text, "problem": problem, "time": now})
        self.client.add_notification(
            "Problem" if problem else "smalti",
            text,
            auto_close_seconds=None if stays else 15.0 if problem else 5.0,
            color="red" if problem else None,
        )

    def state(self) -> dict[str, Any]:
        """For /state."""
        look, picture, selected = self.look, self.picture, self.selected
        shown: dict[str, Any] | None = None
        if picture is not None and not picture.failed:
            names = ("width", "height", "lossless", "revision", "seconds", "bytes", "legend")
            shown = {name: getattr(picture, name) for name in names}
            shown["current"] = picture.shows(look, self.stage.revision)
        plain = {name: getattr(look, name) for name in ("mode", "order", "truth_row", "split", "highlight")}
        return {
            "id": self.client.client_id,
            "camera": to_plain(look.camera),
            "look": {**plain, "selected": None if selected is None else str(selected)},
            "picture": shown,
            "pictures": self.pictures,
            "spent": round(self.spent, 3),
            "said": list(self.said),
            "panels": {panel.name: _state_of(panel) for panel in list(self.panels)},
        }

    def close(self) -> None:
        """The client is gone."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        for panel in self.panels:
            try:
                panel.close()
            except Exception as error:  # a panel of whatever origin must not keep the others open
                print(f"smalti: the viewer's panel {panel.name!r} did not close: {error}")

    def _camera_moved(self, camera: Any) -> None:
        """In viser's loop, message after message: the newest counts."""
        with self._lock:
            new = camera_of(camera, self.look.camera.time)
            if new is None or self.closed or same_view(new, self.look.camera):
                return
            if (new.width, new.height) != (self.look.camera.width, self.look.camera.height):
                self.picture = None  # of another canvas
            self.look = replace(self.look, camera=new)
            self.moved = time.monotonic()
        self._wake()


def _state_of(panel: Panel) -> dict[str, Any]:
    try:
        return panel.state()
    except Exception as error:  # told where it is looked for
        return {"error": f"{type(error).__name__}: {error}"}
