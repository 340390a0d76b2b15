"""The stream of pictures: one thread draws for all clients, each in turn, and nothing twice."""

from __future__ import annotations

import io
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from smalti.viewer import page
from smalti.viewer.client import ClientView, Picture
from smalti.viewer.modes import paint
from smalti.viewer.pace import (
    EXACT_SHARE,
    MOVING_SHARE,
    RESTING_LEAST,
    RESTING_SHARE,
    TARGET_BESIDE_TRAINING,
    TARGET_SECONDS,
)

if TYPE_CHECKING:
    from smalti.viewer.stage import Stage

REST = 0.15
"""Seconds without a movement after which a client is at rest."""
GLANCE = 0.05
"""Seconds between two looks at whether the scene has changed, while there are clients."""
QUALITY = 80
"""Of the JPEGs of moving clients."""
MOST_CHARGED = 0.25
"""Seconds of the first picture of all that count when the next may come: it warms up what later ones find warm."""


@dataclass(frozen=True)
class Job:
    """A picture to make, not before `at`."""

    view: ClientView
    at: float
    lossless: bool
    scale: float = 1.0


class Stream:
    """Start with clients of none; `add` and `remove` them; `stop` at the end. Without clients it costs nothing."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._views: list[ClientView] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._free_at = 0.0  # while a training runs, no picture before
        self._rest_at = 0.0  # the same for clients at rest
        self._exact_at = 0.0  # and for exact pictures of clients that have just come to rest
        self._warm = False
        self._runs, self._asked = False, 0.0
        self._seen = stage.revision
        self._thread = threading.Thread(target=self._work, name="smalti-viewer-pictures", daemon=True)
        self._thread.start()

    def add(self, view: ClientView) -> None:
        """A client to draw for."""
        with self._changed:
            self._views.append(view)
            self._seen = self.stage.revision
            self._changed.notify_all()

    def remove(self, view: ClientView) -> None:
        """The client is gone."""
        with self._changed:
            if view in self._views:
                self._views.remove(view)

    def wake(self) -> None:
        """There may be something to draw."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the thread, after the picture that it is at."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    # -- in the thread ------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        while not self._stopping:
            try:
                job = self._next()
                if job is not None:
                    self._do(job)
            except Exception as error:  # without this thread nobody would see anything, nor know why
                print(f"smalti: the viewer's pictures: {type(error).__name__}: {error}", file=sys.stderr)
                with self._changed:
                    self._changed.wait(0.0 if self._stopping else 1.0)

    def _next(self) -> Job | None:
        """Waits until there is a picture to make; None at the end."""
        while True:
            with self._changed:
                if self._stopping:
                    return None
                if not self._views:
                    self._changed.wait()
                    continue
                views = list(self._views)
            running = self._training_runs()
            self._notice_edits(views, running)
            now = time.monotonic()
            jobs = [job for view in views if (job := self._wanted(view, now, running)) is not None]
            due = [job for job in jobs if job.at <= now]
            if due:
                return min(due, key=lambda job: job.view.served)
            with self._changed:
                if not self._stopping:
                    pause = min([job.at - now for job in jobs] + [GLANCE])
                    self._changed.wait(max(pause, 0.001))

    def _training_runs(self) -> bool:
        """Whether there is a training that our drawing takes time from. Asked a few times a second."""
        training = self.stage.training
        if training is None:
            return False
        now = time.monotonic()
        if now - self._asked > 0.25:
            state = training.state()
            self._runs = not state.get("paused", False) and state.get("step", 0) < state.get("steps", 1)
            self._asked = now
        return self._runs

    def _notice_edits(self, views: list[ClientView], running: bool) -> None:
        """A change of the scene by hand is a movement: quick pictures first."""
        if self.stage.revision != self._seen:
            self._seen = self.stage.revision
            if not running:
                for view in views:
                    view.moved = time.monotonic()

    def _wanted(self, view: ClientView, now: float, running: bool) -> Job | None:
        """The next picture for a client, if it needs one."""
        picture, look = view.picture, view.look
        current = picture is not None and picture.shows(look, self.stage.revision)
        if current and picture is not None and (picture.lossless or picture.failed):
            return None
        if page.is_behind(view.client):
            return None  # it has not fetched the last one; asked again in a moment
        rest_at = view.moved + REST
        if running and view.settled == look:
            # The training goes on and this client looks at it: a fresh picture every so often, large but not lossless.
            return None if current else Job(view, max(rest_at, self._rest_at), lossless=False)
        exact_at = max(rest_at, self._exact_at) if running else rest_at
        if current or now >= exact_at:
            return Job(view, exact_at, lossless=True)
        pixels = look.camera.width * look.camera.height
        target = TARGET_BESIDE_TRAINING if running else TARGET_SECONDS
        at = self._free_at if running else now
        return Job(view, at, lossless=False, scale=view.cost.scale(pixels, target))

    def _do(self, job: Job) -> None:
        view, look = job.view, job.view.look
        camera = look.camera
        size = (max(round(camera.width * job.scale), 1), max(round(camera.height * job.scale), 1))
        began = time.perf_counter()
        revision = self.stage.revision
        try:
            with self.stage.reading():
                revision = self.stage.revision
                waited = time.perf_counter() - began
                painted = paint(self.stage, replace(look, camera=camera.scaled_to(*size)), view.selected)
            data = encoded(painted.pixels, lossless=job.lossless)
        except Exception as error:  # whatever fails in drawing is told on the page, and the others' pictures go on
            view.picture = Picture(look, revision, *size, job.lossless, 0.0, 0, {}, failed=True)
            view.served, view.settled = time.monotonic(), look
            view.say(f"The picture could not be drawn: {error}", problem=True)
            return
        seconds = time.perf_counter() - began - waited
        height, width = painted.pixels.shape[:2]
        view.picture = Picture(look, revision, width, height, job.lossless, seconds, len(data), painted.legend)
        view.spent += seconds
        view.pictures += 1  # before it is sent: who has got it finds it at /state
        if not view.closed:
            page.send_picture(view.client, "png" if job.lossless else "jpeg", data)
        if job.lossless:
            view.settled = look
        view.cost.add(width * height, seconds)
        view.served = now = time.monotonic()
        self._charge(now, seconds, job.lossless)

    def _charge(self, now: float, seconds: float, lossless: bool) -> None:
        """When the next may come beside a training. Exact pictures are charged apart: who stops for one may move on."""
        if not self._warm:
            seconds, self._warm = min(seconds, MOST_CHARGED), True
        if lossless:
            self._exact_at = now + seconds * (1.0 / EXACT_SHARE - 1.0)
        else:
            self._free_at = now + seconds * (1.0 / MOVING_SHARE - 1.0)
        self._rest_at = now + max(RESTING_LEAST, seconds / RESTING_SHARE)


def encoded(pixels: UInt8[np.ndarray, "h w 3"], *, lossless: bool) -> bytes:
    """PNG (quick, not small) or JPEG."""
    from PIL import Image

    stream, image = io.BytesIO(), Image.fromarray(np.ascontiguousarray(pixels))
    if lossless:
        image.save(stream, "PNG", compress_level=1)
    else:
        image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
