"""The order of the training views: epoch shuffles from the run's generator, resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class ViewOrder:
    """Every view once per epoch, each epoch in a new random order."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        if count < 1:
            raise ValueError("ViewOrder: there is no view to train on; check data.split")
        self.count = count
        self.generator = generator
        self.pending: list[int] = []
        self.epoch = 0

    def next(self, batch: int) -> list[int]:
        """The next `batch` views; a view appears twice in a batch only where the batch is larger than the set."""
        chosen: list[int] = []
        while len(chosen) < batch:
            if not self.pending:
                self.pending = torch.randperm(self.count, generator=self.generator).tolist()
                self.epoch += 1
            chosen.append(self.pending.pop())
        return chosen

    def upcoming(self) -> int | None:
        """The view after the present batch, where the epoch goes on; for decoding ahead."""
        return self.pending[-1] if self.pending else None

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"pending": self.pending, "epoch": self.epoch}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.pending, self.epoch = list(state["pending"]), int(state["epoch"])
