"""The time that a training takes, without what is done beside it."""

from __future__ import annotations

import time


class Clock:
    """Processor and wall seconds of training. It stands still while something is done inside `with clock`, which may be
    nested.
    """

    def __init__(self) -> None:
        self.cpu_before, self.wall_before = 0.0, 0.0
        self.cpu_start, self.wall_start = time.process_time(), time.perf_counter()
        self._pauses: list[tuple[float, float]] = []

    @property
    def cpu(self) -> float:
        """Seconds of all threads, over all sittings of the run."""
        return self.cpu_before + self._now()[0] - self.cpu_start

    @property
    def wall(self) -> float:
        """Seconds by the clock, over all sittings of the run."""
        return self.wall_before + self.sitting

    @property
    def sitting(self) -> float:
        """Seconds by the clock since this start."""
        return self._now()[1] - self.wall_start

    def _now(self) -> tuple[float, float]:
        return self._pauses[0] if self._pauses else (time.process_time(), time.perf_counter())

    def __enter__(self) -> Clock:
        self._pauses.append(self._now())
        return self

    def __exit__(self, *_: object) -> None:
        cpu, wall = self._pauses.pop()
        now = self._now()
        self.cpu_start += now[0] - cpu
        self.wall_start += now[1] - wall
