"""Clocks for benchmarks: process CPU time, repeated and interleaved, because shared machines are noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def cpu_milliseconds(jobs: dict[str, Callable[[], object]], repeats: int = 7) -> dict[str, float]:
    """Median process CPU milliseconds (all threads) of each job; the jobs take turns, after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def best_wall_milliseconds(job: Callable[[], object], repeats: int = 20) -> float:
    """Best wall-clock milliseconds of `repeats` runs."""
    best = float("inf")
    job()
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best
