"""How someone may look at a training, hold it up and step in between its steps. The loop knows no more than this."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from smalti.trainers.trainer import StepReport, Trainer


class Watcher(Protocol):
    """Called by the loop, in its thread. None of it may change what is trained, but for edits of the scene."""

    def step(self, trainer: Trainer, stopped: Callable[[], bool]) -> AbstractContextManager[bool]:
        """Around every step. Entering it may take as long as the watcher likes; it gives True when the step may be
        made, False soon after `stopped()` has become true before that. The training's clock does not count what it
        takes to enter, the wall limit does.
        """
        ...

    def reading(self) -> AbstractContextManager[object]:
        """Within: the scene is evaluated or saved, and must not change."""
        ...

    def after(self, step: int, report: StepReport, preview_psnr: float | None) -> None:
        """A step was made; the PSNR of the fixed view where it was measured now."""
        ...

    def ended(self, ending: str) -> None:
        """No further step comes, and everything is saved: "finished", "interrupted" or "out of time"."""
        ...


class Nobody:
    """Watches nothing."""

    def step(self, trainer: Trainer, stopped: Callable[[], bool]) -> AbstractContextManager[bool]:
        """At once."""
        return nullcontext(True)

    def reading(self) -> AbstractContextManager[object]:
        """Nothing."""
        return nullcontext()

    def after(self, step: int, report: StepReport, preview_psnr: float | None) -> None:
        """Nothing."""

    def ended(self, ending: str) -> None:
        """Nothing."""
