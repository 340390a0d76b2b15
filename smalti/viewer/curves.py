"""Curves of a whole training in bounded memory."""

from __future__ import annotations

import math
import time
from collections import deque

MOST_POINTS = 512
"""Of a curve; then neighbours are averaged, and points are taken half as often."""
SPEED_SECONDS = 3.0
"""Over which steps per second are counted."""


class Curve:
    """(step, mean value since the last point), at most `MOST_POINTS` of them."""

    def __init__(self, most: int = MOST_POINTS) -> None:
        self.most, self.every = most, 1
        self.points: list[tuple[int, float]] = []
        self._sum, self._count = 0.0, 0

    def add(self, step: int, value: float) -> None:
        """One value more; numbers that are not finite are left out."""
        if not math.isfinite(value):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self.every:
            return
        self.points.append((step, self._sum / self._count))
        self._sum, self._count = 0.0, 0
        if len(self.points) >= self.most:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            self.points = [(later[0], 0.5 * (first[1] + later[1])) for first, later in pairs]
            self.every *= 2


class Pace:
    """Steps per second of late."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=1024)

    def step(self) -> None:
        """A step was made now."""
        now = time.perf_counter()
        self._times.append(now)
        while self._times and now - self._times[0] > SPEED_SECONDS and len(self._times) > 2:
            self._times.popleft()

    def rest(self) -> None:
        """Waiting begins: what was before it does not count."""
        self._times.clear()

    @property
    def per_second(self) -> float:
        """0 where there are not two steps to tell by."""
        times = list(self._times)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0
