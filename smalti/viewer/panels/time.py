"""The instant that is shown, where the views were taken at more than one; hidden where time does nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from smalti.viewer.panels.controls import Quiet, Ticker, telling

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView
    from smalti.viewer.stage import Stage

PLAYED_FPS = 15.0
MOST_INSTANTS = 2000
"""More different times than these are a continuum: the slider has steps of its own."""


def instants(stage: Stage) -> list[float]:
    """The different times of the views, ascending; fewer than two where time does nothing."""
    views = stage.views
    return [] if views is None else sorted({view.camera.time for view in views.dataset.views})


class Time:
    """The panel; see the module."""

    name = "time"

    def __init__(self, view: ClientView) -> None:
        self._view, gui = view, view.client.gui
        self._quiet = Quiet()
        self._instants = instants(view.stage)
        self._player: Ticker | None = None
        self._lock = threading.Lock()
        first, last = (self._instants[0], self._instants[-1]) if len(self._instants) > 1 else (0.0, 1.0)
        self._first, self._last = first, last
        self._known = view.look.camera.time
        steps = min(max(len(self._instants) - 1, 1), MOST_INSTANTS)
        with gui.add_folder("Time", visible=len(self._instants) > 1):
            self._slider = gui.add_slider("At", first, last, (last - first) / max(steps, 100), first)
            self._steps = gui.add_button_group("Step", ["Previous", "Play", "Pause", "Next"])
            self._seconds = gui.add_number("Seconds of a turn", 4.0, min=0.1, max=3600.0, step=0.1)
        self._slider.on_update(lambda _: self._slid())
        self._steps.on_click(lambda _: self._stepped())
        if len(self._instants) > 1:
            self._set(min(max(view.look.camera.time, first), last))

    def refresh(self) -> None:
        """See `Panel`."""
        now = self._view.look.camera.time
        known, self._known = self._known, now
        if known != now:  # else a slider that was moved a moment ago, and is not looked at yet, keeps its value
            with self._quiet:
                self._slider.value = min(max(now, self._first), self._last)

    def state(self) -> dict[str, Any]:
        """See `Panel`."""
        return {
            "visible": len(self._instants) > 1,
            "time": self._view.look.camera.time,
            "first": self._first,
            "last": self._last,
            "instants": len(self._instants),
            "playing": self._player is not None and self._player.alive,
        }

    def close(self) -> None:
        """See `Panel`."""
        if self._player is not None:
            self._player.stop()

    def _slid(self) -> None:
        if not self._quiet:
            with telling(self._view, "Time"):
                self._set(float(self._slider.value))

    def _set(self, instant: float) -> None:
        if self._view.look.camera.time != instant:
            self._view.change(time=instant)
            self._known = instant

    def _stepped(self) -> None:
        with telling(self._view, "Time"), self._lock:  # of two quick clicks one would leave a player that nobody stops
            if self._player is not None:
                self._player.stop()
                self._player = None
            what, now = self._steps.value, self._view.look.camera.time
            if what == "Play":
                self._player = self._playing()
            elif what == "Next":
                self._to(next((each for each in self._instants if each > now + 1e-9), self._first))
            elif what == "Previous":
                self._to(next((each for each in reversed(self._instants) if each < now - 1e-9), self._last))

    def _to(self, instant: float) -> None:
        """There, and the slider with it."""
        with self._quiet:
            self._slider.value = instant
        self._set(instant)

    def _playing(self) -> Ticker:
        turn = max(float(self._seconds.value), 0.1)
        length = self._last - self._first
        began = time.monotonic() - turn * (self._view.look.camera.time - self._first) / length

        def step() -> bool:
            share = ((time.monotonic() - began) / turn) % 1.0
            with telling(self._view, "Time"):
                self._to(self._first + share * length)
            return not self._view.closed

        return Ticker("time", 1.0 / PLAYED_FPS, step)
