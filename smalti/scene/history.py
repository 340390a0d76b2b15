"""Undo and redo: edits as lists of reversible steps, in a history of bounded size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from smalti.scene.changes import EditError, LayerChange, install

if TYPE_CHECKING:
    from smalti.scene.scene import Layer, Scene

HISTORY_BYTES = 256 * 2**20


Listener = Callable[["Step", bool], None]
"""Told of every step after it was made (True) or taken back (False). Must not raise."""


class Step(Protocol):
    """A reversible change of a scene. Either way it is made as a whole or raises and changes nothing."""

    @property
    def bytes(self) -> int:
        """Held in memory to make and to undo it."""
        ...

    def apply(self, scene: Scene) -> None:
        """Make the change."""
        ...

    def revert(self, scene: Scene) -> None:
        """Take it back."""
        ...


@dataclass(frozen=True, eq=False)
class Changed:
    """Tensors and metadata of a layer."""

    change: LayerChange

    @property
    def bytes(self) -> int:
        return self.change.bytes

    def apply(self, scene: Scene) -> None:
        family = scene.layers[self.change.layer].family
        install(family, self.change.moved(family, True))

    def revert(self, scene: Scene) -> None:
        family = scene.layers[self.change.layer].family
        install(family, self.change.moved(family, False))


@dataclass(frozen=True, eq=False)
class Added:
    """A new layer at `place` in the order; the step holds the layer itself."""

    layer: Layer
    place: int

    @property
    def bytes(self) -> int:
        return self.layer.family.bytes

    def apply(self, scene: Scene) -> None:
        scene.require_free(self.layer.name)
        items = list(scene.layers.items())
        items.insert(self.place, (self.layer.name, self.layer))
        scene.layers.clear()
        scene.layers.update(items)

    def revert(self, scene: Scene) -> None:
        del scene.layers[self.layer.name]


@dataclass(frozen=True, eq=False)
class Removed:
    """A layer that is gone; the step holds it."""

    layer: Layer
    place: int

    @property
    def bytes(self) -> int:
        return self.layer.family.bytes

    def apply(self, scene: Scene) -> None:
        Added(self.layer, self.place).revert(scene)

    def revert(self, scene: Scene) -> None:
        Added(self.layer, self.place).apply(scene)


@dataclass(frozen=True, eq=False)
class Assigned:
    """An attribute of a layer."""

    layer: str
    attribute: str
    before: Any
    after: Any
    bytes: int = 0

    def apply(self, scene: Scene) -> None:
        setattr(scene.layers[self.layer], self.attribute, self.after)

    def revert(self, scene: Scene) -> None:
        setattr(scene.layers[self.layer], self.attribute, self.before)


@dataclass(frozen=True, eq=False)
class Renamed:
    """A layer's name; its place in the order stays."""

    before: str
    after: str
    bytes: int = 0

    def apply(self, scene: Scene) -> None:
        _rename(scene, self.before, self.after)

    def revert(self, scene: Scene) -> None:
        _rename(scene, self.after, self.before)


def _rename(scene: Scene, before: str, after: str) -> None:
    scene.layers[before].name = after
    items = list(scene.layers.values())
    scene.layers.clear()
    scene.layers.update({layer.name: layer for layer in items})


@dataclass(eq=False)
class Edit:
    """Steps that are undone together."""

    name: str
    steps: list[Step] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Held in memory."""
        return sum(step.bytes for step in self.steps)


@dataclass(eq=False)
class History:
    """What was done to a scene, and can be undone and done again."""

    limit: int = HISTORY_BYTES
    """Bytes that may be held; the oldest edits are forgotten first."""
    done: list[Edit] = field(default_factory=list)
    """Oldest first."""
    undone: list[Edit] = field(default_factory=list)
    """The next to be done again last."""
    listeners: list[Listener] = field(default_factory=list, repr=False)
    """For whoever holds something beside the layers that has to follow (`smalti.scene.following`)."""
    _group: Edit | None = None

    @property
    def bytes(self) -> int:
        """Held in memory."""
        return sum(edit.bytes for edit in (*self.done, *self.undone))

    def perform(self, scene: Scene, name: str, steps: Sequence[Step]) -> None:
        """Make the steps, all or none, and note them: in the open group, else as an edit of their own."""
        with self.group(scene, name):
            for step in steps:
                self._move(scene, step, True)
                assert self._group is not None
                self._group.steps.append(step)

    @contextmanager
    def group(self, scene: Scene, name: str) -> Generator[None]:
        """All edits inside become one; where one of them fails, none was made. A group in a group joins it."""
        outer = self._group
        edit = outer or Edit(name)
        start, self._group = len(edit.steps), edit
        try:
            yield
        except BaseException:
            while len(edit.steps) > start:
                self._move(scene, edit.steps.pop(), False)
            raise
        finally:
            self._group = outer
        if outer is None and edit.steps:
            self.undone.clear()
            self.done.append(edit)
            self._forget()

    def undo(self, scene: Scene) -> str:
        """Take the last edit back; returns its name. EditError where there is none, or inside a group."""
        edit = self._last(self.done, "undo")
        self._all_or_none(scene, edit.steps[::-1], False)
        self.undone.append(self.done.pop())
        return edit.name

    def redo(self, scene: Scene) -> str:
        """Do again what was undone last; returns its name. EditError where there is none, or inside a group."""
        edit = self._last(self.undone, "redo")
        self._all_or_none(scene, edit.steps, True)
        self.done.append(self.undone.pop())
        return edit.name

    def _all_or_none(self, scene: Scene, steps: Sequence[Step], forwards: bool) -> None:
        """One after the other; where one fails, those before it are moved back."""
        moved: list[Step] = []
        try:
            for step in steps:
                self._move(scene, step, forwards)
                moved.append(step)
        except BaseException:
            for step in reversed(moved):
                self._move(scene, step, not forwards)
            raise

    def _move(self, scene: Scene, step: Step, forwards: bool) -> None:
        (step.apply if forwards else step.revert)(scene)
        for listener in self.listeners:
            listener(step, forwards)

    def clear(self) -> None:
        """Forget everything; the scene stays as it is."""
        self.done.clear()
        self.undone.clear()

    def _last(self, edits: list[Edit], what: str) -> Edit:
        if self._group is not None:
            raise EditError(f"{what}: an edit is open ({self._group.name!r}); leave its `with` block first")
        if not edits:
            raise EditError(f"{what}: there is nothing to {what}")
        return edits[-1]

    def _forget(self) -> None:
        held = [edit.bytes for edit in self.done]
        total, first = sum(held), 0
        while total > self.limit and first < len(held):
            total, first = total - held[first], first + 1
        if first and first == len(held):
            warnings.warn(
                f"edit {self.done[-1].name!r} holds {held[-1]} bytes, more than the history may ({self.limit}): it "
                "cannot be undone; raise scene.history.limit",
                stacklevel=4,
            )
        del self.done[:first]
