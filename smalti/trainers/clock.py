"""The time that a training takes, without what is done beside it."""

from __future__ import annotations

import time


class Clock:
    """Processor and wall seconds of training; what runs inside `excluded` does not count."""

    def __init__(self) -> None:
        self.cpu_before, self.wall_before = 0.0, 0.0
        self.cpu_start, self.wall_start = time.process_time(), time.perf_counter()

    @property
    def cpu(self) -> float:
        """Seconds of all threads, over all sittings of the run."""
        return self.cpu_before + time.process_time() - self.cpu_start

    @property
    def wall(self) -> float:
        """Seconds by the clock, over all sittings of the run."""
        return self.wall_before + self.sitting

    @property
    def sitting(self) -> float:
        """Seconds by the clock since this start."""
        return time.perf_counter() - self.wall_start

    def __enter__(self) -> Clock:
        self._pause = (time.process_time(), time.perf_counter())
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_start += time.process_time() - self._pause[0]
        self.wall_start += time.perf_counter() - self._pause[1]
