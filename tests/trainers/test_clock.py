"""The clock of a training stands still while something else is done, however deep, and reads the same meanwhile."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from smalti.trainers import clock as module
from smalti.trainers.clock import Clock


def test_what_is_done_beside_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"cpu": 100.0, "wall": 1000.0}

    def passing(cpu: float, wall: float) -> None:
        now["cpu"] += cpu
        now["wall"] += wall

    faked = SimpleNamespace(process_time=lambda: now["cpu"], perf_counter=lambda: now["wall"])
    monkeypatch.setattr(module, "time", faked)
    clock = Clock()
    clock.cpu_before, clock.wall_before = 5.0, 7.0
    passing(2.0, 1.0)
    assert (clock.cpu, clock.wall, clock.sitting) == (7.0, 8.0, 1.0)
    with clock:
        passing(50.0, 30.0)
        assert (clock.cpu, clock.wall, clock.sitting) == (7.0, 8.0, 1.0)
        with clock:
            passing(50.0, 30.0)
        passing(50.0, 30.0)
        assert (clock.cpu, clock.wall, clock.sitting) == (7.0, 8.0, 1.0)
    passing(4.0, 2.0)
    assert (clock.cpu, clock.wall, clock.sitting) == (11.0, 10.0, 3.0)
