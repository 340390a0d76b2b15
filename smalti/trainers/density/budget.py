"""The byte budgets, of the run's memory and of the model alone: how many primitives may there be, and what growth was
refused. Never raises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from smalti.cameras.camera import Camera
from smalti.configs.config import TrainConfig
from smalti.primitives.family import Family
from smalti.trainers.density.population import Population


class CardMemory:
    """What a render and its backward pass take on a card at their peak, beyond what lasts (new gradients do, and the
    budget counts them by their exact sizes). The arena there is the allocator's; on the CPU, whose arena is the
    engine's (`Visibility.memory`), nothing is counted.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.counted = device, device.type != "cpu"
        if self.counted:
            torch.accelerator.reset_peak_memory_stats(device)

    def taken(self) -> int:
        """Bytes since this was made; call it when the frame is gone."""
        if not self.counted:
            return 0
        peak, lasting = torch.accelerator.max_memory_allocated, torch.accelerator.memory_allocated
        return max(peak(self.device) - lasting(self.device), 0)


def model_bytes_of_one_more(family: Family) -> int:
    """What the model holds more by one primitive. Where primitives share rows (the vertices of a mesh) it is what one
    may take at most: a cut edge adds one vertex and a face on either side, which is twice the mean of a closed surface;
    thrice, for what is none.
    """
    if not family.constants:
        return max(family.bytes_per_primitive, 1)
    return max(-(-3 * family.bytes // max(len(family), 1)), 1)


@dataclass
class Budget:
    """Plans against parameters, gradients, moments and statistics (by their exact sizes) and the arena (by its share
    per primitive so far, at its largest). The arena's peak is part of the training state, so that a resumed run
    decides alike. Where there is a budget of the model, all is planned against that too.
    """

    total: int
    """Bytes."""
    most: int
    """Primitives of all layers that grow, whatever the bytes."""
    fixed: int = 0
    """Bytes of layers that are not trained."""
    arena_peak: int = 0
    arena_per_primitive: float = 0.0
    refused: int = 0
    """Primitives that were wanted and not granted, over the run."""
    model: int = 0
    """Bytes of the parameters and constants of all layers, trained or not; 0 for no limit."""

    def observe(self, held: int, primitives: int) -> None:
        """Take note of the arena's size in a training render of so many primitives."""
        if held > self.arena_peak:
            self.arena_peak = held
            self.arena_per_primitive = held / max(primitives, 1)

    def used(self, populations: Sequence[Population]) -> int:
        """Bytes in use, as counted by the program."""
        return self.fixed + sum(each.bytes for each in populations) + self.arena_peak

    def model_used(self, populations: Sequence[Population]) -> int:
        """Bytes of the model: what all layers together hold when they are saved."""
        return self.fixed + sum(each.family.bytes for each in populations)

    def room(self, populations: Sequence[Population], population: Population) -> int:
        """How many more primitives `population` may take (negative where the layers together are over)."""
        each = population.bytes_per_primitive + self.arena_per_primitive
        growing = sum(len(other) for other in populations if other.changes)
        rows = sum(len(other) for other in populations)
        planned = self.fixed + sum(other.bytes for other in populations)
        planned += int(max(self.arena_per_primitive * rows, self.arena_peak))
        room = min(int((self.total - planned) // each), self.most - growing)
        if self.model:
            room = min(room, (self.model - self.model_used(populations)) // model_bytes_of_one_more(population.family))
        return min(room, population.most - len(population)) if population.most else room

    def excess(self, populations: Sequence[Population], population: Population) -> int:
        """How many primitives `population` has to give up where the layers together are over: its share by bytes."""
        over = -self.room(populations, population)
        if over <= 0:
            return 0
        return math.ceil(over * population.bytes / sum(each.bytes for each in populations if each.changes))

    def shares(self, populations: Sequence[Population]) -> list[int]:
        """How many primitives each layer that may be thinned keeps, if all shrink by the same share; at least one."""
        growing = [each for each in populations if each.family.grows]
        free = self.total - self.fixed - self.arena_peak
        free -= sum(each.bytes for each in populations if not each.family.grows)
        held, count = sum(each.bytes for each in growing), sum(len(each) for each in growing)
        model_held = sum(each.family.bytes for each in growing)
        model_free = self.model - (self.model_used(populations) - model_held)
        kept = []
        for each in growing:
            number = min(len(each), each.most or len(each))
            if self.model and model_held > model_free:
                number = min(number, len(each) * model_free // model_held)
            if held > free:
                number = min(number, len(each) * free // held)
            if count > self.most:
                number = min(number, len(each) * self.most // count)
            kept.append(max(number, min(len(each), 1)))
        return kept

    def grant(self, populations: Sequence[Population], population: Population, wanted: int) -> int:
        """As many of `wanted` as there is room for; the rest is counted as refused."""
        granted = max(0, min(wanted, self.room(populations, population)))
        self.refused += wanted - granted
        return granted

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"arena_peak": self.arena_peak, "arena_per_primitive": self.arena_per_primitive, "refused": self.refused}

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.arena_peak, self.refused = int(state["arena_peak"]), int(state["refused"])
        self.arena_per_primitive = float(state["arena_per_primitive"])


def most_primitives(config: TrainConfig, cameras: Sequence[Camera]) -> int:
    """The configured number, or what the training pixels support where that is less."""
    density = config.density
    if density.pixels_per_primitive == 0:
        return density.max_primitives
    pixels = sum(camera.width * camera.height for camera in cameras)
    return max(1, min(density.max_primitives, int(pixels / density.pixels_per_primitive)))


def limits_of(config: TrainConfig, cameras: Sequence[Camera], most: int) -> str:
    """What holds the number of primitives down, with the options' names."""
    density, found = config.density, list[str]()
    if most:
        found.append(f"the layer's max_primitives={most:,}")
    if density.pixels_per_primitive:
        found.append(
            f"density.pixels_per_primitive={density.pixels_per_primitive:g} ({most_primitives(config, cameras):,} for "
            "these pictures; 0 lifts it)"
        )
    if density.model:
        found.append(f"density.model={density.model}")
    return ", ".join([*found, f"density.max_primitives={density.max_primitives:,}", f"density.budget={density.budget}"])
