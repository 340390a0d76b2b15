"""A training that only counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class CountedTraining:
    """As much of `stage.Training` as the stream asks for."""

    steps: int = 1000
    step: int = 0
    paused: bool = False

    def pause(self) -> None:
        self.paused = True

    def go_on(self) -> None:
        self.paused = False

    def one_step(self) -> None:
        self.step += 1

    def edited(self, layers: set[str]) -> None:
        pass

    def save(self) -> str:
        return f"step {self.step}"

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "steps": self.steps, "paused": self.paused}
