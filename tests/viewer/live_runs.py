"""Small trainings for the tests of what is shown of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smalti.configs.resolve import resolve
from smalti.trainers.checkpoints import checkpoint_path
from smalti.trainers.display import PlainDisplay
from smalti.trainers.run import Run
from smalti.trainers.trainer import Trainer

COMMON: dict[str, Any] = {
    "data.path": "demo", "data.downscale": 8, "data.points": "frustum", "data.sampled_points": 200, "run.steps": 24,
    "schedule.batch": 1, "schedule.resolution": [], "density.start": 4, "density.every": 4, "density.stop": 40,
    "run.finish": [], "run.checkpoint_every": 0, "run.preview_every": 10,
}  # fmt: skip
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "mcmc": ("gaussians-mcmc", {"mcmc.growth": 0.2}),
    "gradient": ("gaussians", {"gradient.threshold": 1e-5, "density.max_primitives": 400}),
    "mixed": ("mixed", {"mcmc.growth": 0.2}),
}


class Silent(PlainDisplay):
    """Says nothing."""

    def update(self, status: Any) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def a_trainer(folder: Path, rule: str = "mcmc", **options: Any) -> Trainer:
    preset, extra = RULES[rule]
    run = Run.create(
        folder, resolve(preset, {**COMMON, **extra, **{k.replace("__", "."): v for k, v in options.items()}})
    )
    if rule == "mixed":
        run.config.scene[0].settings["faces"] = 120
        run.config.scene[1].settings["count"] = 80
    return Trainer(run)


def state_bytes(trainer: Trainer) -> dict[str, bytes]:
    """All files of the last checkpoint but the clock."""
    last = checkpoint_path(trainer.run.path)
    return {entry.name: entry.read_bytes() for entry in sorted(last.iterdir()) if entry.name != "clock.json"}


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    assert one.keys() == other.keys()
    assert len(one) == 4
    return [name for name in one if one[name] != other[name]]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class Meanwhile(threading.Thread):
    """Does something beside the training; its errors are the test's."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.work, self.error = work, None
        self.start()

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.error = error

    def done(self) -> None:
        self.join(60.0)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def require_aligned(trainer: Trainer) -> None:
    assert [population.layer for population in trainer.populations] == [
        held for held in trainer.scene if not held.locked and len(held.family)
    ]
    names = {name for population in trainer.populations for name in population.parameters()}
    assert set(trainer.adam.moments) <= names
    assert trainer.adam.moments.keys() == trainer.adam.counts.keys()
    for population in trainer.populations:
        for name, value in population.parameters().items():
            assert value.requires_grad
            assert value.is_leaf
            if name in trainer.adam.moments:
                assert all(each.shape == value.shape for each in trainer.adam.moments[name])
        assert all(len(value) == len(population) for value in population.statistics.values())
