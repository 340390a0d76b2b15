"""The loop around the steps: records, evaluation, checkpoints, Ctrl-C, the clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import torch

from smalti.datasets.dataset import DatasetError
from smalti.trainers import evaluation, schedules
from smalti.trainers.display import Display, Speaker, Status, resident_bytes
from smalti.trainers.losses import psnr_of
from smalti.trainers.trainer import StepReport, Trainer
from smalti.trainers.watching import Nobody, Watcher

Ending = Literal["finished", "interrupted", "out of time"]


@dataclass(eq=False)
class Interrupt:
    """Raised as a flag by the first Ctrl-C; the second one ends the program at once."""

    asked: bool = False


@contextmanager
def polite_interrupts(display: Speaker) -> Generator[Interrupt, None, None]:
    """Within: the first SIGINT only sets a flag (where this is the main thread)."""
    flag = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(_signal: int, _frame: FrameType | None) -> None:
        flag.asked = True
        signal.signal(signal.SIGINT, before)
        with suppress(RuntimeError):  # a print that was interrupted cannot be entered again; the flag counts
            display.say("interrupted: finishing this step and saving (once more to stop at once, without saving)")

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)


def train(trainer: Trainer, display: Display, watcher: Watcher | None = None) -> Ending:
    """Run to the configured number of steps, to Ctrl-C, or to the wall-clock limit; saved in every case.

    A watcher may hold it up; what is waited does not count as training time, but towards the wall-clock limit.
    """
    return _Loop(trainer, display, watcher or Nobody()).run()


class _Loop:
    def __init__(self, trainer: Trainer, display: Display, watcher: Watcher) -> None:
        self.trainer, self.display, self.watcher = trainer, display, watcher
        self.waited = 0.0
        self.options = trainer.config.run
        self.problems = 0
        self.preview_psnr: float | None = None
        self.marks = [mark for mark in sorted(self.options.eval_at_cpu_seconds) if mark > trainer.clock.cpu_before]
        trainer.run.forget_after(trainer.step_number)

    def run(self) -> Ending:
        trainer, watcher, ending = self.trainer, self.watcher, "finished"
        with self.display, polite_interrupts(self.display) as interrupt:
            while trainer.step_number < self.options.steps:
                report = self._step(lambda waited: interrupt.asked or self._is_late(waited))
                if report is not None:
                    with watcher.reading():
                        self._after(report)
                if interrupt.asked:
                    ending = "interrupted"
                elif self._is_late():
                    ending = "out of time"
                if ending != "finished":
                    break
                every = self.options.checkpoint_every
                if every and trainer.step_number % every == 0:
                    self._save()
            self._save()
        trainer.cache.close()
        watcher.ended(ending)
        return ending

    def _step(self, stopped: Callable[[float], bool]) -> StepReport | None:
        """None where the watcher held it up until it was too late: `stopped` of the seconds that it has so far."""
        start = time.perf_counter()
        with ExitStack() as stack:
            with self.trainer.clock:  # it stands still meanwhile, so that the wait is counted here
                allowed = stack.enter_context(
                    self.watcher.step(self.trainer, lambda: stopped(time.perf_counter() - start))
                )
            self.waited += time.perf_counter() - start
            return self.trainer.step() if allowed else None

    def _is_late(self, waiting: float = 0.0) -> bool:
        limit = 60.0 * self.options.wall_limit
        return bool(limit) and self.trainer.clock.sitting + self.waited + waiting > limit

    def _save(self) -> None:
        with self.watcher.reading():
            self.trainer.save()

    def _after(self, report: StepReport) -> None:
        """Records and displays; none of it changes what is trained."""
        trainer, step = self.trainer, self.trainer.step_number
        for text in trainer.edited.told():
            self.display.say(text)
        for problem in report.problems:
            self.problems += 1
            self.display.say(f"left out of the update: {problem}")
        last = step == self.options.steps
        fresh = None
        if step == 1 or last or step % self.options.preview_every == 0:
            with trainer.clock:
                fresh = self.preview_psnr = self._preview()
        if last or fresh or report.changes or report.problems or step % self.options.log_every == 0:
            trainer.run.record({"kind": "train", "step": step, "preview_psnr": fresh, **self._figures(report)})
        while self.marks and trainer.clock.cpu >= self.marks[0]:
            self._evaluate({"mark_cpu_seconds": self.marks.pop(0)})
        if not last and self.options.eval_every and step % self.options.eval_every == 0:
            self._evaluate({})
        self.watcher.after(step, report, fresh)
        counted = trainer.budget.used(trainer.populations)
        self.display.update(
            Status(
                step, self.options.steps, report.loss, self.preview_psnr, len(trainer.scene), counted,
                resident_bytes(), self.problems, trainer.scene.counts(),
            )
        )  # fmt: skip

    def _figures(self, report: StepReport) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "loss": report.loss,
            "perceptual": trainer.perceptual_kind,
            "psnr": report.psnr,
            "primitives": len(trainer.scene),
            "layers": trainer.scene.counts(),
            "bytes": trainer.budget.used(trainer.populations),
            "model_bytes": trainer.budget.model_used(trainer.populations),
            "reduction": schedules.reduction(trainer.step_number - 1, trainer.config.schedule),
            "cpu_seconds": round(trainer.clock.cpu, 3),
            "wall_seconds": round(trainer.clock.wall, 3),
            "changes": report.changes,
            "refused_growth": trainer.budget.refused,
            "bad_gradients": report.problems,
        }

    @torch.no_grad()
    def _preview(self) -> float:
        """PSNR of the fixed view: the first held-out one, else the first of all."""
        trainer = self.trainer
        row = (trainer.test_rows or trainer.train_rows)[0]
        view = trainer.cache.get(row)
        protocol = evaluation.protocol_for(trainer.config.data, trainer.dataset)
        background = torch.tensor(protocol.background, device=trainer.device)
        color = evaluation.draw(trainer.scene, view.camera, background, backend=trainer.backend).color
        truth, mask = evaluation.target_of(view, background.cpu())
        return psnr_of(color, truth.to(color), None if mask is None else mask.to(color))

    def _evaluate(self, extra: dict[str, Any]) -> None:
        """Measure the held-out views by the function that `smalti eval` uses."""
        trainer = self.trainer
        if not trainer.test_rows:
            return
        with trainer.clock:
            protocol = evaluation.protocol_for(trainer.config.data, trainer.dataset)
            try:
                result = evaluation.evaluate(
                    trainer.scene, trainer.cache, trainer.test_rows, protocol, backend=trainer.backend
                )
            except DatasetError as error:  # no reason to lose the training
                self.display.say(f"step {trainer.step_number}: not evaluated: {error}")
                return
            record = {
                "kind": "evaluation",
                "step": trainer.step_number,
                "cpu_seconds": round(trainer.clock.cpu, 3),
                "wall_seconds": round(trainer.clock.wall, 3),
                "primitives": len(trainer.scene),
                "layers": trainer.scene.counts(),
                "perceptual": trainer.perceptual_kind,
                **result.mean,
                **extra,
            }
            trainer.run.record(record)
            self.display.say(f"step {trainer.step_number}: held-out {evaluation.format_scores(result.mean)}")
