"""When a scene is edited while it is trained: moments, statistics and populations follow the scene's history.

Rows that an edit keeps keep their moments; rows that it wrote to, and new ones, start with zero moments, as after a
relocation. What the history does not tell (parameters that were set directly) is found by its size, or named by
`touch`, and starts anew with its step count. Layers that are no longer trained (locked, removed, emptied) lose their
moments: should they come back, they start anew. All this decides the future by the scene alone, so that a run that is
saved after an edit and resumed ends in the same bytes as one that was not interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from smalti.cameras.similarity import Similarity
from smalti.scene.changes import LayerChange
from smalti.scene.following import Follower, carried, change_of_primitives
from smalti.scene.history import Added, Changed, Removed, Renamed, Step
from smalti.scene.scene import Layer, Scene
from smalti.trainers.density.population import Population

if TYPE_CHECKING:
    from smalti.trainers.trainer import Trainer


class EditedState:
    """What of a trainer's state has to follow edits of its scene."""

    unsaved = False
    """Edited since the last checkpoint."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.follower = Follower(trainer.scene)
        self.touched: set[str] = set()
        self.said: list[str] = []
        """What there is to say of edits (`told` takes it)."""
        self.over = 0
        """Bytes beyond the budget of the model, as the last edit left them."""
        self.known = {population.layer.name: population for population in trainer.populations}
        """By the names that layers had when they were last looked at."""

    def touch(self, layers: Iterable[str]) -> None:
        """Values of these layers were set directly, past the history."""
        self.touched |= set(layers)

    def follow(self) -> None:
        """Align everything with the scene as it is; costs nothing where it was not edited."""
        trainer, moves = self.trainer, self.follower.taken()
        if not moves and not self.touched and self._fits():
            return
        self.unsaved, known = True, self.known
        for step, forwards in moves:
            self._follow_step(known, step, forwards)
        for name in self.touched & set(known):
            self._forget(name)
            del known[name]
        self.touched.clear()
        for layer in trained_layers(trainer.scene):
            if not layer.similarity.is_identity:
                self._apply_similarity(layer)
        populations = [self._population(known, layer) for layer in trained_layers(trainer.scene)]
        for name, population in known.items():
            if population not in populations:
                self._forget(name)
        for layer in trainer.scene:
            layer.family.require_gradients(not layer.locked)
        self.known = {population.layer.name: population for population in populations}
        trainer.plan(populations)
        self._say_what_is_over()

    def told(self) -> list[str]:
        """Sentences about edits since the last call."""
        said, self.said = self.said, []
        return said

    def _say_what_is_over(self) -> None:
        """An edit is what a person wants, so the budget of the model does not refuse it, and says that it is over."""
        budget, density, step = self.trainer.budget, self.trainer.config.density, self.trainer.step_number
        held = budget.model_used(self.trainer.populations)
        before, self.over = self.over, max(held - budget.model, 0) if budget.model else 0
        if self.over <= before:
            return
        what = f"density control, which goes by it, ends at step {density.stop}"
        if step >= density.stop:
            what = f"nothing is taken away after step {density.stop} (density.stop)"
        self.said.append(
            f"step {step}: the edited scene takes {held:,} bytes, {self.over:,} more than "
            f"density.model={density.model}; {what}: undo the edit or delete as much where the budget has to hold"
        )

    def _follow_step(self, known: dict[str, Population], step: Step, forwards: bool) -> None:
        """`known` by the names that layers have after the step."""
        match step:
            case Changed(change) if change.layer in known:
                self._follow_rows(known[change.layer], change, forwards)
            case Renamed(before, after):
                old, new = (before, after) if forwards else (after, before)
                if old in known:
                    self._rename(old, new)
                    known[new] = known.pop(old)
            case Removed(layer) | Added(layer) if isinstance(step, Removed) == forwards and layer.name in known:
                self._forget(layer.name)
                del known[layer.name]
            case _:
                pass  # what it did to rows shows by their number

    def _follow_rows(self, population: Population, change: LayerChange, forwards: bool) -> None:
        moments = self.trainer.adam.moments
        for name, part in change.tensors.items():
            full = f"{change.layer}/{name}"
            if full in moments:
                pair = tuple(carried(each, part, forwards, True) for each in moments[full])
                if pair[0] is not None and pair[1] is not None:
                    moments[full] = (pair[0], pair[1])
        part = change_of_primitives(population.family, change)
        if part is not None:
            kept = {key: carried(each, part, forwards, False) for key, each in population.statistics.items()}
            population.statistics = {key: each for key, each in kept.items() if each is not None}

    def _population(self, known: dict[str, Population], layer: Layer) -> Population:
        """The one that there was, with what fits of its state, or a new one."""
        held = known.get(layer.name)
        if held is None or held.layer is not layer or held.family is not layer.family:
            layer.family.to(self.trainer.device)
            return Population(layer, self.trainer.adam)
        for name, parameter in held.parameters().items():
            if name in self.trainer.adam.moments and self.trainer.adam.moments[name][0].shape != parameter.shape:
                self._drop(name)
        rows = len(held)
        held.statistics = {key: value for key, value in held.statistics.items() if len(value) == rows}
        return held

    def _apply_similarity(self, layer: Layer) -> None:
        """Layers with gradients lie in the scene's axes. Past edits are in the layer's own: they cannot be undone."""
        layer.family.transform(layer.similarity)
        layer.similarity = Similarity()
        self.trainer.scene.history.clear()
        for name in layer.family.parameters:
            self._drop(f"{layer.name}/{name}")

    def _fits(self) -> bool:
        """Whether the layers are those that were trained, and everything has the size of what it belongs to."""
        populations, moments = self.trainer.populations, self.trainer.adam.moments
        if [population.layer for population in populations] != trained_layers(self.trainer.scene):
            return False
        return all(
            population.family is population.layer.family
            and population.layer.similarity.is_identity
            and all(len(value) == len(population) for value in population.statistics.values())
            and all(
                moments[name][0].shape == parameter.shape
                for name, parameter in population.parameters().items()
                if name in moments
            )
            for population in populations
        )

    def _rename(self, before: str, after: str) -> None:
        adam = self.trainer.adam
        for held in (adam.moments, adam.counts):
            for name in [each for each in held if each.startswith(f"{before}/")]:
                held[f"{after}/{name.removeprefix(f'{before}/')}"] = held.pop(name)  # type: ignore[assignment]

    def _forget(self, layer: str) -> None:
        for name in [each for each in self.trainer.adam.moments if each.startswith(f"{layer}/")]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self.trainer.adam.moments.pop(name, None)
        self.trainer.adam.counts.pop(name, None)


def trained_layers(scene: Scene) -> list[Layer]:
    """Those that are neither locked nor empty (nothing can grow from nothing)."""
    return [layer for layer in scene if not layer.locked and len(layer.family)]
