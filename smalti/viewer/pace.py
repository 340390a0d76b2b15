"""How large a picture may be, and how often one may be drawn: measured, never guessed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

TARGET_SECONDS = 0.08
"""A picture of a moving client should take no longer than this."""
TARGET_BESIDE_TRAINING = 0.03
"""The same while a training runs: small pictures at a bearable rate instead of few large ones."""
SMALLEST = 0.125
"""Least scale of a side."""
MOVING_SHARE, EXACT_SHARE, RESTING_SHARE = 0.06, 0.05, 0.015
"""Of the time, for all clients together, while a training runs: of clients that move, that have just stopped, that
rest.
"""
RESTING_LEAST = 1.0
"""Seconds between a resting client's pictures while a training runs."""


@dataclass
class Cost:
    """Seconds of a picture by its number of pixels, fitted to the last ones: seconds = fixed + slope * pixels."""

    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque[tuple[float, float]](maxlen=12))

    def add(self, pixels: int, seconds: float) -> None:
        """A picture was made."""
        self.samples.append((float(pixels), seconds))

    def forget(self) -> None:
        """What is drawn is something else now."""
        self.samples.clear()

    def fit(self) -> tuple[float, float]:
        """(fixed, slope); both at least 0."""
        if not self.samples:
            return 0.0, 4e-7
        count = len(self.samples)
        mean_n = sum(n for n, _ in self.samples) / count
        mean_t = sum(t for _, t in self.samples) / count
        spread = sum((n - mean_n) ** 2 for n, _ in self.samples)
        slope = mean_t / mean_n
        if spread > (0.1 * mean_n) ** 2 * count:
            slope = sum((n - mean_n) * (t - mean_t) for n, t in self.samples) / spread
        slope = min(max(slope, 0.0), mean_t / mean_n)
        return mean_t - slope * mean_n, slope

    def seconds(self, pixels: int) -> float:
        """Expected for a picture of that size."""
        fixed, slope = self.fit()
        return fixed + slope * pixels

    def scale(self, pixels: int, target: float) -> float:
        """Factor for the sides of a picture of `pixels` that makes it take `target` seconds, from SMALLEST to 1, in
        steps of an eighth of itself so that it does not flicker between sizes.
        """
        fixed, slope = self.fit()
        # Where the fixed part alone is above the target, smaller pictures help little: half of the time is theirs.
        affordable = max(target - fixed, 0.25 * target) / max(slope, 1e-12)
        wanted = (affordable / pixels) ** 0.5
        if wanted >= 1.0:
            return 1.0
        step = 1.0
        while step > max(wanted, SMALLEST):
            step *= 0.88
        return max(step, SMALLEST)
