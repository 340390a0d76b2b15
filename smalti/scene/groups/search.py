"""What a search for groups looks at, and what may be repeated."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from smalti.scene.groups.boxes import Array, Boxes, assign, compare
from smalti.scene.groups.fit import Fit, fitted
from smalti.scene.groups.levels import Level, SameSize, Slot

KINDS = ("mirror", "double_mirror", "array", "grid", "rotation", "same_size")


@dataclass(frozen=True, eq=False)
class Search:
    """What is looked at, and how closely."""

    boxes: Boxes
    tolerance: float
    kinds: tuple[str, ...]
    unit: float
    """The scene's extent."""

    @property
    def limits(self) -> tuple[float, float]:
        """For `fitted`."""
        return self.tolerance, self.unit


@dataclass(frozen=True, eq=False)
class Body:
    """What is repeated: a box, or a group that was found."""

    levels: tuple[Level, ...]
    rows: tuple[int, ...]
    slots: tuple[tuple[Slot, ...], ...]
    centre: Array


def single(boxes: Boxes, row: int) -> Body:
    """One box."""
    return Body((), (row,), ((),), boxes.centres[row])


def grouped(boxes: Boxes, fit: Fit) -> Body:
    """A group."""
    return Body(fit.model.levels, fit.rows, fit.slots, boxes.centres[list(fit.rows)].mean(axis=0))


def compound(search: Search, level: Level, placed: list[tuple[Body, Slot]]) -> Fit | None:
    """A regularity of groups; None where their members do not lie where it says."""
    zero = [body for body, slot in placed if not any(slot)]
    if not zero:
        return None
    base = zero[0]
    rows, slots = list[int](), list[tuple[Slot, ...]]()
    for body, slot in placed:
        matrices, shifts = level.transforms([slot])
        image = search.boxes.take(list(base.rows)).mapped(matrices[0], shifts[0])
        found = assign(image, search.boxes.take(list(body.rows)), 3.0 * search.tolerance)
        if found is None:
            return None
        rows += body.rows
        slots += [(slot, *base.slots[each]) for each in found[0]]
    fit = fitted((level, *base.levels), rows, slots, search.boxes, search.limits)
    return fit if fit.worst <= search.tolerance else None


def complete(search: Search, fit: Fit, free: Collection[int]) -> Fit:
    """With free boxes that lie where copies are missing."""
    product: list[tuple[Slot, ...]] = [()]
    for level in fit.model.levels:
        product = [(*slot, each) for slot in product for each in level.slots()]
    missing = [slot for slot in product if slot not in set(fit.slots)]
    left = sorted(free)
    if not missing or not left or isinstance(fit.model.levels[0], SameSize):
        return fit
    said = fit.model.place(missing)
    rows, slots = list(fit.rows), list(fit.slots)
    for number, slot in enumerate(missing):
        near = [row for row in left if row not in rows]
        if near:
            model = said.take([number] * len(near))
            distances = compare(model, search.boxes.take(near), search.tolerance).distances
            best = int(distances.argmin())
            if distances[best] <= search.tolerance:
                rows.append(near[best])
                slots.append(slot)
    if len(rows) == len(fit.rows):
        return fit
    more = fitted(fit.model.levels, rows, slots, search.boxes, search.limits)
    return more if more.worst <= search.tolerance else fit
