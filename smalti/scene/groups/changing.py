"""One change of a group, made in the scene as one edit: what stays follows the new model, what is new gets the look of
its nearest neighbour, what goes is deleted. Undoing gives back the very bytes, of the blocks and of the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smalti.scene.changes import EditError
from smalti.scene.groups.boxes import Array, Boxes
from smalti.scene.groups.fit import Model
from smalti.scene.groups.levels import Slot
from smalti.scene.groups.members import Exact, PartId, chosen, raw_rows, read, read_all, write, write_raw
from smalti.scene.groups.overlaps import Overlap, new_overlaps
from smalti.scene.groups.state import Held, Member, Restated, State, displaced, measured, placed
from smalti.scene.structure import delete, duplicate


@dataclass(frozen=True)
class Edited:
    """What an edit of a group did. As a sequence: the blocks that changed or are new."""

    changed: tuple[PartId, ...]
    added: tuple[PartId, ...] = ()
    removed: int = 0
    overlaps: tuple[Overlap, ...] = ()
    """Blocks that overlap by more than 5 % of the smaller one, and did not before."""

    def __iter__(self) -> Iterator[PartId]:
        return iter((*self.changed, *self.added))

    def __len__(self) -> int:
        return len(self.changed) + len(self.added)


def change(
    held: Held, name: str, model: Model, slots: Sequence[tuple[Slot, ...] | None], new: Sequence[tuple[Slot, ...]] = ()
) -> Edited:
    """Another model; `slots` of the members there are (None: it goes), and of new ones."""
    require_members(held)
    scene, state = held.scene, held.state
    before = read_all(scene)
    is_now = read(scene, state.parts)
    lie = placed(state, is_now)
    kept = [row for row, slot in enumerate(slots) if slot is not None]
    if not kept:
        raise EditError(f"{held.name}: at least one member has to stay")
    sources = [_nearest(model, [slots[row] for row in kept], slot) for slot in new]
    with scene.edit(name):
        gone = [state.members[row].part for row in range(len(slots)) if slots[row] is None]
        if gone:
            delete(scene, chosen(gone))
        # The book has renumbered those that stay.
        stay = [replace(m, slot=_given(slots[row])) for row, m in zip(kept, held.state.members, strict=True)]
        made = [_copied(held, stay[source].part, slot) for source, slot in zip(sources, new, strict=True)]
        rows = [kept[source] for source in sources]
        match, offsets = lie.match.take([*kept, *rows]), lie.offsets[[*kept, *rows]]
        # New copies lie where the model says: the offset of another member is not theirs.
        offsets[len(kept) :] = 0.0
        members = (*stay, *made)
        boxes = displaced(model, [member.slot for member in members], match, offsets)
        shapes = [is_now.exponents[row] for row in kept] + [boxes.exponents[len(kept) + n] for n in range(len(made))]
        boxes = replace(boxes, exponents=np.array(shapes))
        write(scene, name, [member.part for member in members], boxes)
        restate(held, name, replace(state, model=model, members=members))
    old = _names_now(before[0], gone)
    return Edited(
        changed=tuple(_really_changed(before, [m.part for m in stay], boxes, old)),
        added=tuple(m.part for m in made),
        removed=len(gone),
        overlaps=new_overlaps((old, before[1]), read_all(scene)),
    )


def snap(held: Held) -> Edited:
    """Members lie exactly where the model says; how they lay is kept."""
    require_members(held)
    scene, state = held.scene, held.state
    is_now = read(scene, state.parts)
    lie = placed(state, is_now)
    boxes = displaced(state.model, state.slots, lie.match, np.zeros_like(lie.offsets))
    raw = [raw_rows(scene, part) for part in state.parts]
    before = read_all(scene)
    with scene.edit("apply"):
        write(scene, "apply", state.parts, boxes)
        members = [
            replace(member, exact=member.exact or Exact(offset, rows, raw_rows(scene, member.part)))
            for member, offset, rows in zip(state.members, lie.offsets, raw, strict=True)
        ]
        restate(held, "apply", replace(state, members=tuple(members)))
    overlaps = new_overlaps((list(before[0]), before[1]), read_all(scene))
    return Edited(tuple(_really_changed(before, state.parts, boxes, list(before[0]))), overlaps=overlaps)


def unsnap(held: Held) -> Edited:
    """Members lie as they did before `snap`: to the byte where nothing moved them since, else as far off as then."""
    require_members(held)
    scene, state = held.scene, held.state
    rows = [row for row, member in enumerate(state.members) if member.exact is not None]
    if not rows:
        raise EditError(f"{held.name}: it is not applied, so there is nothing to release")
    lie = placed(state, read(scene, state.parts))
    before = read_all(scene)
    with scene.edit("release"):
        moved = list[int]()
        for row in rows:
            member = state.members[row]
            exact, now = member.exact, raw_rows(scene, member.part)
            assert exact is not None
            same = exact.written is not None and all(bool((exact.written[k] == v).all()) for k, v in now.items())
            if same and exact.rows is not None:
                write_raw(scene, "release", member.part, exact.rows)
            else:
                moved.append(row)
        if moved:
            offsets = np.stack([_exact(state.members[row]).offset for row in moved])
            slots = [state.slots[row] for row in moved]
            boxes = displaced(state.model, slots, lie.match.take(moved), offsets)
            write(scene, "release", [state.parts[row] for row in moved], boxes)
        members = tuple(replace(member, exact=None) for member in state.members)
        restate(held, "release", replace(state, members=members))
    overlaps = new_overlaps((list(before[0]), before[1]), read_all(scene))
    return Edited(tuple(state.parts[row] for row in rows), overlaps=overlaps)


def restate(held: Held, name: str, state: State) -> None:
    """Another state of the group, as a step of the open edit or an edit of its own."""
    state = measured(state)(held.scene)
    held.scene.history.perform(held.scene, name, [Restated(held, held.state, state)])


def require_members(held: Held) -> None:
    """EditError where a group has none left. What it says of them is of this moment then."""
    if not held.state.members:
        raise EditError(f"{held.name}: none of its members is in the scene any more; find the groups again")
    held.settle()


def _copied(held: Held, source: PartId, slot: tuple[Slot, ...]) -> Member:
    scene = held.scene
    duplicate(scene, chosen([source]))
    return Member(PartId(source.layer, len(scene.layers[source.layer].family) - 1), slot, synthesised=True)


def _nearest(model: Model, kept: Sequence[tuple[Slot, ...] | None], slot: tuple[Slot, ...]) -> int:
    said = model.place([_given(each) for each in kept]).centres
    return int(np.linalg.norm(said - model.place([slot]).centres, axis=1).argmin())


def _names_now(parts: Sequence[PartId], gone: Sequence[PartId]) -> list[PartId | None]:
    """What parts are called after those in `gone` went."""
    found = list[PartId | None]()
    for part in parts:
        less = sum(other.layer == part.layer and other.row < part.row for other in gone)
        found.append(None if part in gone else replace(part, row=part.row - less))
    return found


def _really_changed(
    before: tuple[list[PartId], Boxes], parts: Sequence[PartId], boxes: Boxes, names: Sequence[PartId | None]
) -> Iterator[PartId]:
    where = {part: row for row, part in enumerate(names) if part is not None}
    for row, part in enumerate(parts):
        old = where.get(part)
        # What is said and what is held differ by the rounding of single precision.
        if old is None or not _same(before[1], old, boxes, row):
            yield part


def _same(one: Boxes, i: int, two: Boxes, j: int) -> bool:
    size = float(np.linalg.norm(one.halves[i]))
    turned = float(np.abs(one.rotations[i] - two.rotations[j]).max())
    shifted = max(_apart(one.centres[i], two.centres[j]), _apart(one.halves[i], two.halves[j]))
    reach = size + float(np.abs(one.centres[i]).max())
    return turned < 1e-6 and shifted < 1e-6 * reach and _apart(one.exponents[i], two.exponents[j]) < 1e-6


def _apart(one: Array, two: Array) -> float:
    return float(np.abs(one - two).max())


def _given(slot: tuple[Slot, ...] | None) -> tuple[Slot, ...]:
    assert slot is not None
    return slot


def _exact(member: Member) -> Exact:
    assert member.exact is not None
    return member.exact
