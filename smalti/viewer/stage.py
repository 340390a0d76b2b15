"""What is looked at, shared by all clients: the scene, the views it came from, and who may touch it when."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from smalti.scene.scene import Scene

if TYPE_CHECKING:
    from smalti.datasets.dataset import Dataset
    from smalti.datasets.images import ImageCache


class Training(Protocol):
    """What the viewer may ask of a training in progress. Called from the viewer's threads."""

    def pause(self) -> None:
        """Wait before the next step."""
        ...

    def go_on(self) -> None:
        """Take up training again."""
        ...

    def one_step(self) -> None:
        """One step more, then wait again."""
        ...

    def edited(self, layers: set[str]) -> None:
        """The parameters of these layers were changed by hand (called while writing): optimiser state follows."""
        ...

    def save(self) -> str:
        """A checkpoint now; returns where it is."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain values: `step`, `steps`, `paused`, `steps_per_second`, `losses` and `psnrs` as (step, value)."""
        ...


@dataclass(eq=False)
class Views:
    """Calibrated views of the scene, in its frame."""

    dataset: Dataset
    cache: ImageCache
    train_rows: list[int]
    test_rows: list[int]


class Turns:
    """Many readers or one writer, and nobody starves: after a writer, all readers that wait go in at once; readers who
    come while a writer waits let it go first. However many clients ask, a training makes a step between them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers, self._waiting, self._admitted = 0, 0, 0
        self._writers_waiting, self._last_waiting = 0, 0
        self._writer: int | None = None
        self._depth = 0
        self._mine = threading.local()

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """Nobody writes meanwhile. A writer may read, and a reader may read again."""
        inside = self._writer == threading.get_ident() or getattr(self._mine, "reads", False)
        if inside:
            yield
            return
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(self._may_read)
            finally:
                self._waiting -= 1
                self._admitted = min(max(self._admitted - 1, 0), self._waiting)
            self._readers += 1
        self._mine.reads = True
        try:
            yield
        finally:
            self._mine.reads = False
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self, last: bool = False) -> Generator[None, None, None]:
        """Nobody else reads or writes meanwhile. A writer may enter again; a reader must not (it would wait). `last`:
        other writers who wait go first, as whoever comes again and again would never let them in.
        """
        me = threading.get_ident()
        if self._writer == me:
            self._depth += 1
        else:
            with self._changed:
                self._count_writer(last, 1)
                try:
                    self._changed.wait_for(lambda: self._is_free() and not (last and self._writers_waiting))
                finally:
                    self._count_writer(last, -1)
                self._writer = me
        try:
            yield
        finally:
            if self._depth:
                self._depth -= 1
            else:
                with self._changed:
                    self._writer, self._admitted = None, self._waiting
                    self._changed.notify_all()

    def _count_writer(self, last: bool, step: int) -> None:
        self._writers_waiting += 0 if last else step
        self._last_waiting += step if last else 0
        if step < 0:
            self._changed.notify_all()  # one that gave up waiting holds up no reader

    def _may_read(self) -> bool:
        return self._writer is None and (self._admitted > 0 or not (self._writers_waiting or self._last_waiting))

    def _is_free(self) -> bool:
        return self._writer is None and self._readers == 0 and self._admitted == 0


@dataclass(eq=False)
class Stage:
    """A scene on show. Draw within `reading()`; change within `changing()`, which makes every client draw anew."""

    scene: Scene
    title: str = "smalti"
    views: Views | None = None
    training: Training | None = None
    backend: str = "auto"
    revision: int = 0
    """Grows with every change: a picture is of one revision."""
    turns: Turns = field(default_factory=Turns)

    @contextmanager
    def reading(self) -> Generator[Scene, None, None]:
        """The scene, while nobody changes it."""
        with self.turns.reading():
            yield self.scene

    @contextmanager
    def changing(self) -> Generator[Scene, None, None]:
        """The scene, for this thread alone; clients draw anew afterwards, also where the change failed."""
        with self.turns.writing():
            try:
                yield self.scene
            finally:
                self.revision += 1
