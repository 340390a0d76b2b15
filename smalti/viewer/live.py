"""A training on show: it takes its turn for every step, waits where it is told to, and follows edits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from smalti.configs.config import parse_bytes
from smalti.datasets.images import ImageCache
from smalti.trainers.trainer import StepReport, Trainer
from smalti.viewer.curves import Curve, Pace
from smalti.viewer.stage import Stage, Views

POLL_SECONDS = 0.1
"""While waiting, Ctrl-C and the wall limit are looked at so often."""
CACHE = "256MB"
"""Of pictures that the viewer shows, at most."""
NOTHING_LEFT = "nothing is left to train: every layer is hidden, locked or empty. Undo the edit, or show a layer"


class Live:
    """`stage.Training` for the viewer and `trainers.watching.Watcher` for the loop: `train(trainer, display, live)`.

    The loop's own thread does everything that changes the training; the viewer's threads set flags, and edit the scene
    while no step is made. With nobody looking a step costs two locks more than without a viewer.
    """

    def __init__(self, trainer: Trainer, title: str = "") -> None:
        self.trainer = trainer
        cache = ImageCache(trainer.dataset, downscale=trainer.config.data.downscale, bytes=parse_bytes(CACHE))
        views = Views(trainer.dataset, cache, list(trainer.train_rows), list(trainer.test_rows))
        self.stage = Stage(trainer.scene, title or trainer.run.path.name, views, self, trainer.backend)
        self.losses, self.psnrs, self.previews = Curve(), Curve(), Curve()
        self.pace = Pace()
        self.ending = ""
        self._changed = threading.Condition()
        self._paused, self._steps_granted, self._waiting = False, 0, False
        self._note, self._primitives = "", len(trainer.scene)

    # -- the viewer's side --------------------------------------------------------------------------------------------
    def pause(self) -> None:
        """Wait before the next step."""
        with self._changed:
            self._paused, self._steps_granted = True, 0

    def go_on(self) -> None:
        """Take up training again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def one_step(self) -> None:
        """One step more, then wait again."""
        with self._changed:
            self._paused = True
            self._steps_granted += 1
            self._changed.notify_all()

    def edited(self, layers: set[str]) -> None:
        """The optimiser's state follows the scene's history, with or without this call. Where the history has nothing
        new, parameters of these layers were set past it: their moments start anew.
        """
        with self.stage.turns.writing():
            if not self.trainer.edited.follower.moves:
                self.trainer.edited.touch(layers)
            self.trainer.edited.follow()
            self._primitives = len(self.trainer.scene)
        with self._changed:
            self._changed.notify_all()

    def save(self) -> str:
        """A checkpoint now; returns its folder. CheckpointError where it cannot be written."""
        with self.stage.turns.writing():
            self.trainer.save()
            return str(self.trainer.run.path / "checkpoints" / f"{self.trainer.step_number:06d}")

    def state(self) -> dict[str, Any]:
        """Plain values; see `stage.Training`."""
        return {
            "step": self.trainer.step_number,
            "steps": self.trainer.config.run.steps,
            "paused": self._paused and not self._steps_granted,
            "waiting": self._waiting,
            "note": self._note,
            "ending": self.ending,
            "steps_per_second": round(self.pace.per_second, 3),
            "primitives": self._primitives,
            "losses": list(self.losses.points),
            "psnrs": list(self.psnrs.points),
            "preview_psnrs": list(self.previews.points),
        }

    # -- the loop's side ----------------------------------------------------------------------------------------------
    @contextmanager
    def step(self, trainer: Trainer, stopped: Callable[[], bool]) -> Generator[bool, None, None]:
        """See `Watcher`."""
        while self._is_wanted(stopped):
            # In one turn, so that no edit comes in between what is asked and the step.
            with self.stage.turns.writing(last=True):
                if trainer.can_step:
                    with self.stage.changing():
                        self._begin(trainer)
                        yield True
                    return
            self._note = NOTHING_LEFT
            self._rest()
        yield False

    def _is_wanted(self, stopped: Callable[[], bool]) -> bool:
        """Waits until a step is; False where it is too late for one."""
        while self._paused and not self._steps_granted:
            if stopped():
                return False
            self._rest()
        return not (self._waiting and stopped())

    def _rest(self) -> None:
        self._waiting = True
        self.pace.rest()
        with self._changed:
            self._changed.wait(POLL_SECONDS)

    def _begin(self, trainer: Trainer) -> None:
        self._waiting, self._note, self.stage.scene = False, "", trainer.scene
        with self._changed:
            self._steps_granted = max(self._steps_granted - 1, 0)

    def reading(self) -> AbstractContextManager[None]:
        """See `Watcher`."""
        return self.stage.turns.reading()

    def after(self, step: int, report: StepReport, preview_psnr: float | None) -> None:
        """See `Watcher`."""
        self._primitives = len(self.trainer.scene)
        self.pace.step()
        self.losses.add(step, report.loss)
        self.psnrs.add(step, report.psnr)
        if preview_psnr is not None:
            self.previews.add(step, preview_psnr)

    def ended(self, ending: str) -> None:
        """See `Watcher`."""
        self.ending = ending
        self.pace.rest()
