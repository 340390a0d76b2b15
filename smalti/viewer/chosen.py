"""What a client has selected: rows, held fast when they are selected, that follow the edits of everybody."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from smalti.scene.following import Follower, carried, change_of_primitives
from smalti.scene.history import Added, Changed, Removed, Renamed, Step
from smalti.scene.scene import Layer, Scene
from smalti.scene.selection import Selection

How = Literal["replace", "add", "remove", "intersect"]
HOWS: tuple[How, ...] = ("replace", "add", "remove", "intersect")


class Chosen:
    """A boolean per primitive, by layer. A recipe such as a rectangle of the screen would select other things after
    every edit; this selects the same primitives, also after others were deleted, copied or brought back. All calls
    within a turn at the scene.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.masks: dict[Layer, Tensor] = {}
        self.lost: list[str] = []
        """Layers whose primitives were changed past the history (by training), so that it is not known any more which
        were selected; whoever tells it clears it."""
        self._follower = Follower(scene)
        self._names = dict(scene.layers)

    def choose(self, selection: Selection, how: How = "replace") -> None:
        """Take what a selection gives now."""
        self.follow()
        found = selection.masks(self.scene)
        for held in self.scene:
            new = found[held.name].clone()
            old = self.masks.get(held, torch.zeros_like(new))
            rules = {"replace": new, "add": old | new, "remove": old & ~new, "intersect": old & new}
            self.masks[held] = rules[how]
        self._tidy()

    def follow(self) -> bool:
        """Take edits since the last time into account; whether there were any, or something was lost."""
        moves = self._follower.taken()
        for step, forwards in moves:
            self._follow_step(step, forwards)
        self._names = dict(self.scene.layers)
        return self._tidy() or bool(moves)

    def _follow_step(self, step: Step, forwards: bool) -> None:
        names = self._names
        match step:
            case Changed(change) if change.layer in names and names[change.layer] in self.masks:
                held = names[change.layer]
                part = change_of_primitives(held.family, change)
                mask = None if part is None else carried(self.masks[held], part, forwards, False)
                if mask is not None:
                    self.masks[held] = mask
            case Renamed(before, after):
                old, new = (before, after) if forwards else (after, before)
                if old in names:
                    names[new] = names.pop(old)
            case Added(layer) | Removed(layer):
                if isinstance(step, Added) == forwards:
                    names[layer.name] = layer
                else:
                    names.pop(layer.name, None)
            case _:
                pass

    def _tidy(self) -> bool:
        """Forget layers that are gone, and those whose rows are not what they were."""
        before = len(self.masks)
        there = [held for held in self.masks if self.scene.layers.get(held.name) is held]
        fit = [held for held in there if len(self.masks[held]) == len(held.family)]
        self.lost += [held.name for held in there if held not in fit and bool(self.masks[held].any())]
        self.masks = {held: self.masks[held] for held in fit}
        return len(self.masks) != before

    def counts(self) -> dict[str, int]:
        """Selected primitives by layer, of those that have some."""
        counts = {held.name: int(mask.sum()) for held, mask in self.masks.items()}
        return {name: count for name, count in counts.items() if count}

    def selection(self) -> Selection | None:
        """For edits and for the picture; None where nothing is selected."""
        masks = {held: mask for held, mask in self.masks.items() if bool(mask.any())}
        if not masks:
            return None

        def recipe(scene: Scene) -> dict[str, Tensor]:
            return {
                held.name: mask
                for held, mask in masks.items()
                if scene.layers.get(held.name) is held and len(mask) == len(held.family)
            }

        words = ", ".join(f"{int(mask.sum())} of {held.name!r}" for held, mask in masks.items())
        return Selection(recipe, f"chosen({words})")

    def close(self) -> None:
        """Follow no longer."""
        self._follower.close()
        self.masks.clear()
