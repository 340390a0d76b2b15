"""Edits of groups: what follows, what is kept, what is undone to the byte."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from group_scenes import boxes_at, grid, legs, pair, ring, row, scene_of, shaken, unrelated

from smalti.scene import EditError, Scene, delete, duplicate, index, move, rotate
from smalti.scene.groups import DoubleMirror, Grid, Group, LinearArray, Mirror, PartId, Rotation
from smalti.scene.groups.boxes import Boxes, compare, joined
from smalti.scene.groups.demo import demo_table
from smalti.scene.groups.levels import rotation
from smalti.scene.groups.members import read, read_all

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def in_bytes(scene: Scene) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in scene.state()[0].items()}


def first(scene: Scene) -> Group:
    return scene.find_groups()[0]


def noisy(boxes: Boxes) -> Scene:
    return scene_of(shaken(boxes, 0.003, 2), unrelated(np.random.default_rng(4), 2))


# -- following --------------------------------------------------------------------------------------------------------
def test_mirrors_negate_what_goes_across_the_plane() -> None:
    scene = scene_of(legs())
    group = first(scene)
    before = read(scene, group.members)
    done = group.move([0.1, 0.05, -0.02], member=1)
    after = read(scene, group.members)
    moved = after.centres - before.centres
    assert list(done) == group.members
    signs = np.sign(before.centres * before.centres[1])
    expected = np.array([0.1, 0.05, -0.02]) * np.where(np.array([True, False, True]), signs, 1.0)
    assert np.allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize("boxes", [legs(), row(4), grid(), ring(5)], ids=["legs", "row", "grid", "ring"])
def test_members_that_lie_a_little_beside_the_model_keep_doing_so(boxes: Boxes) -> None:
    scene = noisy(boxes)
    group = first(scene)
    there, was = group.residual[0], read(scene, group.members)
    assert there > 1e-3
    group.move([0.0, 0.0, 0.0])
    now = read(scene, group.members)
    assert compare(was, now, 0.1).distances.max() < 1e-6
    group.move([0.2, 0.1, -0.3])
    assert group.residual[0] == pytest.approx(there, rel=1e-3)
    assert np.linalg.norm(read(scene, group.members).centres - was.centres, axis=1) == pytest.approx(
        np.full(len(was), math.sqrt(0.14)), rel=1e-4
    )


def test_one_size_is_given_to_all_along_their_own_axes() -> None:
    turns = np.stack([np.eye(3), rotation(np.array([0.0, math.pi / 2, 0.0]))])
    halves = np.array([[0.1, 0.5, 0.2], [0.2, 0.5, 0.1]])
    # The same block twice, once described with its axes exchanged.
    boxes = Boxes(np.array([[-0.5, 0, 0], [0.5, 0, 0]]), turns, halves, np.full((2, 2), 0.1))
    scene = scene_of(boxes)
    group = first(scene)
    member = group.members.index(PartId("blocks", 0))
    group.resize([0.3, 1.2, 0.5], member)
    halves = read(scene, [PartId("blocks", 0), PartId("blocks", 1)]).halves
    assert np.allclose(halves, [[0.15, 0.6, 0.25], [0.25, 0.6, 0.15]], atol=1e-5)


def test_groups_of_one_size_do_not_move_together() -> None:
    random = np.random.default_rng(3)
    turns = np.stack([rotation(v) for v in random.normal(size=(4, 3))])
    scene = scene_of(boxes_at(random.uniform(-2, 2, (4, 3)), [0.1, 0.2, 0.4], turns))
    group = scene.find_groups(kinds=("same_size",))[0]
    before, bytes_before = read(scene, group.members), in_bytes(scene)
    with pytest.raises(EditError, match=r"nothing ties their places.*group.select\(\).*index\('blocks', \[2\]\)"):
        group.move([0.1, 0.0, 0.0], 2)
    assert in_bytes(scene) == bytes_before
    # What the message says instead; the members' places are their own, so no later edit takes that back.
    move(scene, group.select(), [0.0, 1.0, 0.0])
    move(scene, index("blocks", [2]), [0.1, 0.0, 0.0])
    rotate(scene, index("blocks", [1]), [0.0, 1.0, 0.0], 50.0)
    moved = read(scene, group.members)
    assert np.allclose(moved.centres - before.centres, [0, 1, 0] + np.eye(4)[2][:, None] * [0.1, 0, 0], atol=1e-5)
    for edit in (group.apply, lambda: group.resize([0.3, 0.5, 0.7]), group.release):
        edit()
        now = read(scene, group.members)
        assert np.allclose(now.centres, moved.centres, atol=1e-5)
        assert np.allclose(now.rotations, moved.rotations, atol=1e-5)
    assert np.allclose(read(scene, group.members).halves, [0.15, 0.25, 0.35], atol=1e-5)
    with pytest.raises(EditError, match="nothing: use resize"):
        group.set(count=3)


def test_a_picture_is_given_to_all() -> None:
    scene = demo_table()
    group = first(scene)
    group.retexture(torch.tensor([0.1, 0.8, 0.3]).expand(4, 4, 3))
    colors = scene.layers["table"].family.base_colors()
    rows = [part.row for part in group.members]
    assert torch.allclose(colors[rows], torch.tensor([0.1, 0.8, 0.3]).expand(4, 3), atol=1e-4)
    assert not torch.allclose(colors[0], colors[rows[0]], atol=0.1)


@pytest.mark.parametrize("picture", [torch.zeros(3), torch.zeros(4, 4), torch.full((2, 2, 3), math.nan)])
def test_what_is_no_picture_is_refused(picture: torch.Tensor) -> None:
    scene = demo_table()
    before = in_bytes(scene)
    with pytest.raises(ValueError, match="retexture: expected a finite picture"):
        first(scene).retexture(picture)
    assert in_bytes(scene) == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_blocks_that_are_no_numbers_hide_no_group(value: float) -> None:
    for name in ("translations", "raw_scales", "raw_exponents"):
        scene = scene_of(row(5), unrelated(np.random.default_rng(0), 2))
        scene.layers["blocks"].family.parameters[name].data[6] = value
        groups = scene.find_groups()
        if name != "raw_exponents" or math.isnan(value):  # an infinite one is an exponent of 1.9
            assert len(read_all(scene)[0]) == 6
        assert [part.row for part in groups[0].members] == [0, 1, 2, 3, 4]
        groups[0].move([0.1, 0.0, 0.0])


# -- numbers ----------------------------------------------------------------------------------------------------------
def ends(scene: Scene, group: Group) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return read(scene, [group.members[0], group.members[-1]]).centres


@pytest.mark.parametrize("count", [2, 3, 8])
def test_count_keeps_spacing_or_ends(count: int) -> None:
    scene = scene_of(row(5))
    group = first(scene)
    level, held = group.parameters, ends(scene, group)
    assert isinstance(level, LinearArray)
    group.set(count=count)
    after = group.parameters
    assert isinstance(after, LinearArray)
    assert after.spacing == level.spacing
    step = read(scene, group.members).centres
    assert np.allclose(np.linalg.norm(np.diff(step, axis=0), axis=1), level.spacing, atol=1e-5)
    assert np.allclose(step[0], held[0], atol=1e-5)
    scene.undo()
    group.set(count=count, mode="fit")
    assert np.allclose(ends(scene, group), held, atol=1e-5)
    assert len(group.members) == count == len(read_all(scene)[0])


@pytest.mark.parametrize("boxes", [row(5), ring(6).take([0, 1, 2, 3]), grid()], ids=["row", "arc", "grid"])
def test_one_copy_has_no_ends_to_keep(boxes: Boxes) -> None:
    scene = scene_of(boxes)
    group = first(scene)
    name = "rows" if isinstance(group.parameters, Grid) else "count"
    one: dict[str, Any] = {name: 1}
    three: dict[str, Any] = {name: 3}
    group.set(**one)
    left = group.parameters
    with pytest.raises(EditError, match="two copies or more, before and after; got 1 and 3"):
        group.set(mode="fit", **three)
    assert group.parameters == left
    group.set(**three)
    assert group.residual[1] < 1e-5
    centres = read(scene, group.members).centres
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    assert apart[~np.eye(len(centres), dtype=bool)].min() > 0.1


def test_spacing_keeps_the_first_copy_or_the_middle() -> None:
    scene = scene_of(row(5))
    group = first(scene)
    held = ends(scene, group)
    group.set(spacing=1.0)
    assert np.allclose(ends(scene, group)[0], held[0], atol=1e-5)
    assert np.linalg.norm(np.diff(ends(scene, group), axis=0)) == pytest.approx(4.0)
    scene.undo()
    group.set(spacing=1.0, anchor="centre")
    assert np.allclose(ends(scene, group).mean(axis=0), held.mean(axis=0), atol=1e-5)


def test_rings_close_again_and_arcs_keep_their_ends() -> None:
    scene = scene_of(ring(6))
    group = first(scene)
    group.set(count=9, mode="fit")
    level = group.parameters
    assert isinstance(level, Rotation)
    assert level.closed
    assert level.number == 9
    assert scene.find_groups()[0].parameters.count == 9
    with pytest.raises(EditError, match="more than a turn"):
        group.set(count=12)
    arc = scene_of(ring(12).take([0, 1, 2, 3, 4]))
    group = first(arc)
    held = ends(arc, group)
    group.set(count=9, mode="fit")
    assert np.allclose(ends(arc, group), held, atol=1e-5)
    group.set(angle=0.1, anchor="centre")
    assert np.cross(ends(arc, group).sum(axis=0), held.sum(axis=0))[1] == pytest.approx(0.0, abs=1e-4)


def test_grids_grow_by_rows_and_columns() -> None:
    scene = scene_of(grid(3, 4))
    group = first(scene)
    level = group.parameters
    assert isinstance(level, Grid)
    group.extend(1, "rows")
    assert len(group.members) == 12 + level.columns
    group.set(columns=2, column_spacing=0.9)
    after = group.parameters
    assert isinstance(after, Grid)
    assert len(group.members) == 2 * (level.rows + 1)
    assert np.linalg.norm(after.column_step) == pytest.approx(0.9)
    with pytest.raises(EditError, match="its rows or its columns, not by 'depth'"):
        group.extend(1, "depth")
    with pytest.raises(EditError, match=r"as many copies as it has$"):
        first(scene_of(pair())).extend(1)


def test_mirrors_are_set_by_their_offsets() -> None:
    scene = scene_of(pair())
    group = first(scene)
    plane = group.parameters
    assert isinstance(plane, Mirror)
    before = read(scene, group.members).centres
    group.set(offset=plane.offset + 0.5)
    shift = read(scene, group.members).centres - before
    assert np.allclose(shift[0], 0.0, atol=1e-5)
    assert np.allclose(shift[1], np.array(plane.normal), atol=1e-5)
    four = first(scene_of(legs()))
    assert isinstance(four.parameters, DoubleMirror)
    four.set(offsets=[0.1, 0.2])
    assert four.parameters.offsets == (0.1, 0.2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 0}, "1 or more"),
        ({"count": 2.5}, "whole number"),
        ({"spacing": -1.0}, "above 0"),
        ({"spacing": math.nan}, "finite"),
        ({"angle": 1.0}, "takes count, spacing"),
        ({}, "got nothing"),
        ({"count": 3, "mode": "stretch"}, "extend or fit"),
        ({"count": 3, "spacing": 1.0, "mode": "fit"}, "leave it out"),
    ],
)
def test_values_that_do_not_fit_change_nothing(values: dict[str, object], said: str) -> None:
    scene = scene_of(row(4))
    before, group = in_bytes(scene), first(scene)
    with pytest.raises(EditError, match=said):
        group.set(**values)  # type: ignore[arg-type]
    assert in_bytes(scene) == before
    assert not scene.history.done


# -- new and missing copies -------------------------------------------------------------------------------------------
def test_new_copies_look_like_their_nearest_neighbour() -> None:
    scene = scene_of(row(4))
    family = scene.layers["blocks"].family
    family.replace({"raw_textures": torch.randn(family.parameters["raw_textures"].shape)})
    group = first(scene)
    last = group.members[-1]
    done = group.extend(1)
    assert len(done.added) == 1
    assert group.synthesised == list(done.added)
    textures = scene.layers["blocks"].family.parameters["raw_textures"]
    assert torch.equal(textures[done.added[0].row], textures[last.row])


def test_missing_copies_are_made() -> None:
    scene = scene_of(ring(8).take([0, 1, 2, 4, 5, 6, 7]))
    group = first(scene)
    assert group.missing == 1
    done = group.complete()
    assert len(done.added) == 1
    assert group.missing == 0
    expected = ring(8).take([3])
    assert compare(expected, read(scene, done.added), 0.1).distances[0] < 1e-5


def test_new_overlaps_are_told_and_old_ones_are_not() -> None:
    scene = scene_of(row(4), boxes_at([[2.1, 0.45, 0.0]], [0.2, 0.2, 0.2]))
    group = first(scene)
    done = group.extend(1)
    assert [{overlap.first, overlap.second} for overlap in done.overlaps] == [{PartId("blocks", 4), done.added[0]}]
    assert 0.05 < done.overlaps[0].share <= 1.0
    assert group.move([0.0, 0.001, 0.0]).overlaps == ()


@pytest.mark.parametrize(("share", "told"), [(0.03, False), (0.07, True)])
def test_overlaps_are_told_from_a_twentieth_of_the_smaller_block(share: float, told: bool) -> None:
    """A wide cuboid, and a row that is extended into it by so much of a member's length."""
    posts = boxes_at([[0.6 * k, 0.0, 0.0] for k in range(4)], [0.1, 0.4, 0.1])
    end = 0.6 * 4 + 0.1 - 0.2 * share  # from where the new member's last part is inside
    scene = scene_of(posts, boxes_at([[end + 1.0, 0.0, 0.0]], [1.0, 2.0, 2.0]))
    group = next(each for each in scene.find_groups() if len(each.members) == 4)
    overlaps = group.extend(1).overlaps
    assert bool(overlaps) == told
    assert not told or overlaps[0].share == pytest.approx(share, abs=0.05)


# -- snapping ---------------------------------------------------------------------------------------------------------
def test_applied_and_released_to_the_byte() -> None:
    scene = noisy(ring(6))
    before, group = in_bytes(scene), first(scene)
    done = group.apply()
    assert group.applied
    assert set(done) == set(group.members)
    assert group.residual[1] < 1e-5 < 1e-3
    assert in_bytes(scene) != before
    group.release()
    assert not group.applied
    assert in_bytes(scene) == before
    with pytest.raises(EditError, match="nothing to release"):
        group.release()


def test_released_after_an_edit_they_lie_as_far_off_as_they_did() -> None:
    scene = noisy(row(4))
    group = first(scene)
    was = read(scene, group.members)
    group.apply()
    group.move([0.4, 0.0, 0.2])
    group.release()
    now = read(scene, group.members)
    assert np.allclose(now.centres - was.centres, [0.4, 0.0, 0.2], atol=1e-5)
    assert np.allclose(now.halves, was.halves, atol=1e-5)
    assert np.allclose(now.rotations, was.rotations, atol=1e-5)


# -- history ----------------------------------------------------------------------------------------------------------
EDITS = {
    "apply": lambda group: group.apply(),
    "move": lambda group: group.move([0.1, 0.2, 0.3], 1),
    "resize": lambda group: group.resize([0.2, 0.3, 0.4]),
    "fewer": lambda group: group.set(count=3),
    "more": lambda group: group.set(count=7, mode="fit"),
    "spacing": lambda group: group.set(spacing=0.7),
    "extend": lambda group: group.extend(2),
    "break_member": lambda group: group.break_member(2),
    "retexture": lambda group: group.retexture(torch.full((4, 4, 3), 0.3)),
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_is_undone_to_the_byte_and_done_again(name: str) -> None:
    scene = noisy(row(5))
    group = first(scene)
    before, state = in_bytes(scene), (group.parameters, group.members, group.slots, group.residual, group.applied)
    EDITS[name](group)
    after, changed = in_bytes(scene), (group.parameters, group.members, group.slots, group.residual, group.applied)
    assert len(scene.history.done) == 1
    scene.undo()
    assert in_bytes(scene) == before
    assert (group.parameters, group.members, group.slots, group.residual, group.applied) == state
    scene.redo()
    assert in_bytes(scene) == after
    assert (group.parameters, group.members, group.slots, group.residual, group.applied) == changed


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whatever_was_done_is_undone_to_the_byte_and_done_again(seed: int) -> None:
    """Edits of two groups among edits of the scene, some of them refused."""
    random = Random(seed)
    scene = scene_of(shaken(row(5), 0.002, seed), ring(6).mapped(np.eye(3), np.array([8.0, 0.0, 0.0])))
    groups = scene.find_groups(tolerance=0.05)
    assert len(groups) == 2

    def looks() -> tuple[object, ...]:
        held = [(each.id, each.parameters, each.members, each.slots, each.applied, each.synthesised) for each in groups]
        return in_bytes(scene), held

    states = [looks()]
    for name in random.choices([*EDITS, "release", "delete", "duplicate"], k=10):
        try:
            chosen = index("blocks", [random.randrange(len(scene["blocks"].family))])
            if name == "delete":
                delete(scene, chosen)
            elif name == "duplicate":
                duplicate(scene, chosen, [3.0, 3.0, 3.0])
            elif name == "release":
                random.choice(groups).release()
            else:
                EDITS[name](random.choice(groups))
        except EditError:
            assert looks() == states[-1]
        if len(scene.history.done) == len(states):  # what changes nothing (the same picture twice) is no edit
            states.append(looks())
    assert len(states) > 6
    for state in reversed(states[:-1]):
        scene.undo()
        assert looks() == state
    for state in states[1:]:
        scene.redo()
        assert looks() == state


def test_a_refused_edit_changes_nothing() -> None:
    scene = noisy(row(5))
    groups = scene.find_groups()
    before = in_bytes(scene)
    scene["blocks"].locked = True
    with pytest.raises(EditError, match="locked"):
        groups[0].set(count=7)
    scene["blocks"].locked = False
    with pytest.raises(ValueError, match="below"):
        groups[0].resize([1e-4, 1e-4, 1e-4])
    assert in_bytes(scene) == before
    assert len(groups[0].members) == 5


def test_members_follow_edits_of_the_scene() -> None:
    scene = scene_of(unrelated(np.random.default_rng(0), 3), row(5))
    group = first(scene)
    assert [part.row for part in group.members] == [3, 4, 5, 6, 7]
    delete(scene, index("blocks", [0, 2, 5]))
    assert [part.row for part in group.members] == [1, 2, 3, 4]
    assert group.missing == 1
    scene["blocks"].name = "fence"
    assert {part.layer for part in group.members} == {"fence"}
    scene.undo()
    scene.undo()
    assert [part.row for part in group.members] == [3, 4, 5, 6, 7]
    scene["blocks"].remove()
    assert group.members == []
    with pytest.raises(EditError, match="none of its members"):
        group.apply()
    scene.undo()
    group.move([0.1, 0.0, 0.0])


def test_members_are_found_again_when_edits_from_before_are_taken_back() -> None:
    scene = scene_of(unrelated(np.random.default_rng(0), 3), row(5))
    delete(scene, index("blocks", [0, 2]))
    group = first(scene)
    assert [part.row for part in group.members] == [1, 2, 3, 4, 5]
    held = read(scene, group.members).centres
    scene.undo()
    assert [part.row for part in group.members] == [3, 4, 5, 6, 7]
    assert np.array_equal(read(scene, group.members).centres, held)
    scene.redo()
    assert [part.row for part in group.members] == [1, 2, 3, 4, 5]


def test_copies_from_before_that_are_taken_back_leave_their_group() -> None:
    scene = scene_of(row(5))
    first(scene).extend(1)
    group = first(scene)
    assert len(group.members) == 6
    scene.undo()
    assert [part.row for part in group.members] == [0, 1, 2, 3, 4]
    assert group.missing == 1
    scene.redo()
    assert len(group.members) == 6


def test_two_groups_of_one_layer_keep_their_members_when_one_shrinks() -> None:
    scene = scene_of(row(5), ring(6).mapped(np.eye(3), np.array([8.0, 0.0, 0.0])))
    rings, rows = scene.find_groups(tolerance=0.05)
    assert (rings.kind, rows.kind) == ("rotation", "array")
    was = read(scene, rings.members)
    rows.set(count=3)
    assert compare(was, read(scene, rings.members), 0.1).distances.max() < 1e-6
    rings.extend(-1)
    assert len(read_all(scene)[0]) == 8


def test_layers_that_are_placed_are_edited_where_they_are() -> None:
    scene = scene_of(legs())
    scene["blocks"].scale, scene["blocks"].position = 2.0, [1.0, 2.0, 3.0]
    scene["blocks"].rotation = [0.8, 0.0, 0.6, 0.0]
    group = first(scene)
    before = read(scene, group.members)
    group.move([0.3, 0.1, 0.0], 2)
    moved = read(scene, group.members).centres - before.centres
    assert np.allclose(moved[2], [0.3, 0.1, 0.0], atol=1e-5)
    assert np.allclose(np.linalg.norm(moved, axis=1), math.sqrt(0.1), atol=1e-5)


def test_members_may_be_in_several_layers() -> None:
    from smalti.scene import split

    scene = scene_of(row(5))
    split(scene, index("blocks", [1, 3]), "others")
    group = first(scene)
    assert {part.layer for part in group.members} == {"blocks", "others"}
    group.set(count=2)
    assert scene.counts() == {"blocks": 1, "others": 1}
    scene.undo()
    assert len(group.members) == 5


# -- groups in groups, parts of groups --------------------------------------------------------------------------------
def nested() -> Scene:
    posts = pair()
    return scene_of(joined([posts.mapped(np.eye(3), np.array([0.0, 1.2 * k, 0.3 * k])) for k in range(4)]))


def test_edits_of_an_inner_group_change_every_copy() -> None:
    scene = nested()
    group = first(scene)
    assert group.inner is not None
    assert group.inner.parent is not None
    assert {group.kind, group.inner.kind} == {"array", "mirror"}
    assert len(group.inner.members) * group.parameters.count == len(group.members) == 8
    array = group if group.kind == "array" else group.inner
    before = len(group.members)
    array.set(count=5)
    assert len(group.members) == before + 2
    was = read(scene, group.members)
    group.inner.move([0.0, 0.0, 0.1], 1)
    moved = np.linalg.norm(read(scene, group.members).centres - was.centres, axis=1)
    assert np.allclose(moved, 0.1, atol=1e-5)


def test_locks_name_both_groups() -> None:
    group = first(nested())
    inner = group.inner
    assert inner is not None
    group.locked = True
    with pytest.raises(EditError, match=rf"{inner.id} \({inner.kind}\).*{group.id} \({group.kind}\) is locked"):
        inner.move([0.1, 0.0, 0.0])
    group.locked = False
    assert len(inner.move([0.1, 0.0, 0.0])) == 8


def test_what_is_locked_is_not_in_the_history() -> None:
    scene = scene_of(row(5))
    group = first(scene)
    group.extend(1)
    group.locked = True
    scene.undo()
    assert group.locked
    delete(scene, index("blocks", [0]))
    group.locked = False
    scene.undo()
    assert not group.locked


def test_a_broken_row_becomes_two() -> None:
    scene = scene_of(row(7))
    groups = scene.find_groups()
    before = in_bytes(scene)
    left, right = groups[0].break_member(3)
    assert in_bytes(scene) == before
    assert (len(left.members), len(right.members), len(groups)) == (3, 3, 2)
    assert groups.free == [PartId("blocks", 3)]
    right.move([0.0, 0.5, 0.0])
    assert np.allclose(read(scene, [left.members[0]]).centres, row(7).centres[0], atol=1e-5)
    scene.undo()
    scene.undo()
    assert (len(groups), len(groups[0].members)) == (1, 7)


def test_what_breaking_leaves_of_others() -> None:
    opened = first(scene_of(ring(6)))
    opened.break_member(2)
    level = opened.parameters
    assert isinstance(level, Rotation)
    assert (level.number, level.closed, opened.missing) == (5, False, 0)
    assert opened.residual[1] < 1e-5
    scene = scene_of(legs())
    corner = first(scene)
    gone, *others = corner.members
    assert corner.break_member(0) == [corner]
    assert (corner.kind, corner.members, corner.missing) == ("double_mirror", others, 1)
    held = read(scene, [gone]).centres
    corner.move([0.1, 0.0, 0.0])
    assert np.array_equal(read(scene, [gone]).centres, held)  # it follows no more
    moved = read(scene, others).centres - legs().centres[[part.row for part in others]]
    assert np.allclose(np.abs(moved), [0.1, 0.0, 0.0], atol=1e-6)
    assert first(scene_of(pair())).break_member(1) == []
    end = first(scene_of(row(4)))
    assert len(end.break_member(0)) == 1
    assert end.parameters.count == 3
