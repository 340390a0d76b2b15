"""For what is held beside a scene's layers and has to follow edits: chosen rows, optimiser moments, statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.scene.changes import LayerChange, TensorChange, left_over
from smalti.scene.history import Step

if TYPE_CHECKING:
    from smalti.primitives.family import Family
    from smalti.scene.scene import Scene


class Follower:
    """Collects the steps of a scene's history, edits as well as their undoing, until they are asked for.

    >>> from smalti.scene import delete, demo_scene, index
    >>> from smalti.scene.following import Follower
    >>> scene = demo_scene()
    >>> follower = Follower(scene)
    >>> gone = delete(scene, index("chair", [0]))
    >>> [(type(step).__name__, forwards) for step, forwards in follower.taken()], follower.taken()
    ([('Changed', True)], [])
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.moves: list[tuple[Step, bool]] = []
        """(step, made or taken back), oldest first."""
        scene.history.listeners.append(self._note)

    def _note(self, step: Step, forwards: bool) -> None:
        if self.moves and self.moves[-1][0] is step and self.moves[-1][1] != forwards:
            self.moves.pop()  # there and back again: whoever follows need not go
        else:
            self.moves.append((step, forwards))

    def taken(self) -> list[tuple[Step, bool]]:
        """The steps since the last time."""
        moves, self.moves = self.moves, []
        return moves

    def close(self) -> None:
        """Follow no longer."""
        if self._note in self.scene.history.listeners:
            self.scene.history.listeners.remove(self._note)


def carried(rows: Tensor, change: TensorChange, forwards: bool, clear_changed: bool) -> Tensor | None:
    """What belongs to the rows of a tensor, after the tensor's change; new rows are 0, and with `clear_changed` those
    that the change wrote to. None where there are not as many as the tensor had.
    """
    stay = left_over(change.rows, change.removed)
    kept = change.rows - len(change.removed)
    if len(rows) != (change.rows if forwards else kept + len(change.appended)):
        return None
    base = rows[stay.to(rows.device)] if forwards else rows[:kept].clone()
    if clear_changed:
        base[change.changed.to(rows.device)] = 0
    if forwards:
        return torch.cat([base, base.new_zeros(len(change.appended), *base.shape[1:])])
    before = base.new_zeros(change.rows, *base.shape[1:])
    before[stay.to(rows.device)] = base
    return before


def change_of_primitives(family: Family, change: LayerChange) -> TensorChange | None:
    """The change of a tensor that has a row for each primitive of the layer; None where none of them changed.

    Constants come first: a mesh's faces are its primitives, and it may happen to have as many vertices.
    """
    constants = [f"constants/{name}" for name, value in family.constants.items() if len(value) == len(family)]
    names = [*constants, *(name for name, value in family.parameters.items() if len(value) == len(family))]
    if constants:
        names = constants
    return next((change.tensors[name] for name in names if name in change.tensors), None)
