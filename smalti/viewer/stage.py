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
    """Many readers or one writer. Readers go first: they are few and paced, and a training would never let them in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers, self._waiting, self._writers_waiting = 0, 0, 0
        self._writer: int | None = None
        self._depth = 0

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """Nobody writes meanwhile. A writer may read."""
        mine = self._writer == threading.get_ident()
        if not mine:
            with self._changed:
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: self._writer is None)
                finally:
                    self._waiting -= 1
                self._readers += 1
        try:
            yield
        finally:
            if not mine:
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
                self._writers_waiting += not last
                try:
                    self._changed.wait_for(lambda: self._is_free() and not (last and self._writers_waiting))
                finally:
                    self._writers_waiting -= not last
                self._writer = me
        try:
            yield
        finally:
            if self._depth:
                self._depth -= 1
            else:
                with self._changed:
                    self._writer = None
                    self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._writer is None and self._readers == 0 and self._waiting == 0


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
