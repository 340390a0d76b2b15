"""Programs and JSON: what they make, that they come back, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from group_scenes import boxes_at, grid, legs, pair, ring, row, scene_of, shaken, unrelated

from smalti.cameras.similarity import Similarity
from smalti.scene import Scene, index, move
from smalti.scene.groups import GroupError, Groups
from smalti.scene.groups.boxes import Boxes, assign, joined
from smalti.scene.groups.demo import demo_table
from smalti.scene.groups.members import read_all
from smalti.scene.groups.program import cost, execute

pytestmark = pytest.mark.usefixtures("one_torch_thread")
BLOCK = {"fn": "Move", "args": [{"fn": "Cuboid", "args": [0.2, 0.4, 0.6]}, 0.5, 0.1, 0.3]}


def test_k_copies_more_and_the_last_at_the_distance() -> None:
    made = execute({"fn": "SymTrans", "args": [BLOCK, [0.0, 0.0, 1.0], 4, 2.0]})
    assert len(made) == 5
    assert np.allclose(made.centres[-1] - made.centres[0], [0.0, 0.0, 2.0])
    assert np.allclose(np.diff(made.centres[:, 2]), 0.5)


def test_two_reflections_make_four() -> None:
    once = {"fn": "SymRef", "args": [BLOCK, {"n": [1.0, 0.0, 0.0], "o": 0.0}]}
    made = execute({"fn": "SymRef", "args": [once, {"n": [0.0, 0.0, 1.0], "o": 0.1}]})
    assert sorted(map(tuple, made.centres.round(9).tolist())) == [
        (-0.5, 0.1, -0.1),
        (-0.5, 0.1, 0.3),
        (0.5, 0.1, -0.1),
        (0.5, 0.1, 0.3),
    ]


def test_the_image_of_a_turned_box_has_the_reflected_corners() -> None:
    """About any plane; a reflection itself is no rotation, and what is made is a box like any other."""
    normal, offset = np.array([2.0, -1.0, 2.0]) / 3.0, 0.4
    turned = {"fn": "Rotate", "args": [BLOCK["args"][0], [0.4, -0.7, 0.2]]}  # type: ignore[index]
    moved = {"fn": "Move", "args": [turned, 0.5, 0.1, 0.3]}
    made = execute({"fn": "SymRef", "args": [moved, {"n": normal.tolist(), "o": offset}]})
    assert len(made) == 2
    assert np.linalg.det(made.rotations[1]) == pytest.approx(1.0)
    corners = made.corners()
    expected = corners[0] - 2.0 * (corners[0] @ normal - offset)[:, None] * normal
    between = np.linalg.norm(expected[:, None] - corners[1][None], axis=2)
    assert max(between.min(axis=1).max(), between.min(axis=0).max()) < 1e-12


def test_turns_and_what_is_left_out() -> None:
    axis = {"axis": [0.0, 1.0, 0.0], "point": [0.0, 0.0, 0.0]}
    ring_of = {"fn": "SymRot", "args": [BLOCK, axis, 3, math.pi / 2]}
    made = execute(ring_of)
    assert len(made) == 4
    assert np.allclose(made.centres[2], [-0.5, 0.1, -0.3])
    assert len(execute({"fn": "Except", "args": [ring_of, [1, 2]]})) == 2
    assert cost(ring_of) == 18
    assert cost({"fn": "Except", "args": [ring_of, [1, 2]]}) == 21


def test_a_scene_from_a_program_stands_in_the_frame_of_its_own() -> None:
    scene = demo_table()
    scene.near, scene.canonical_from_scene = 0.125, Similarity(scale=2.0)
    made = scene.from_program(scene.program())
    assert (made.near, made.order) == (0.125, scene.order)
    assert made.canonical_from_scene is scene.canonical_from_scene


def nested() -> Boxes:
    return joined([pair().mapped(np.eye(3), np.array([0.0, 1.2 * k, 0.3 * k])) for k in range(4)])


def sizes_only() -> Boxes:
    random = np.random.default_rng(3)
    from smalti.scene.groups.levels import rotation

    turns = np.stack([rotation(v) for v in random.normal(size=(4, 3))])
    return boxes_at(random.uniform(-2, 2, (4, 3)), [0.1, 0.2, 0.4], turns)


def near(value: Any) -> Any:
    """Equal but for rounding: directions that come back are made unit ones again."""
    if isinstance(value, tuple):
        return tuple(map(near, value))
    return pytest.approx(value, abs=1e-12) if isinstance(value, float) else value


@pytest.mark.parametrize(
    "boxes",
    [
        pair(),
        legs(),
        row(5),
        grid(),
        ring(6),
        nested(),
        sizes_only(),
        grid(4, 4).take([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 15]),
        joined([legs(), unrelated(np.random.default_rng(0), 3)]),
    ],
    ids=["pair", "legs", "row", "grid", "ring", "nested", "sizes", "holes", "clutter"],
)
def test_programs_make_the_blocks_again_at_the_same_cost(boxes: Boxes) -> None:
    scene = scene_of(boxes)
    groups = scene.find_groups()
    tree = json.loads(json.dumps(scene.program(groups)))
    assert cost(tree) == groups.cost < groups.separate_cost
    made = execute(tree)
    found = assign(boxes, made, 1e-4)
    assert found is not None
    assert len(made) == len(boxes)
    again = scene.from_program(tree)
    assert again.counts() == scene.counts()
    assert cost(again.program()) == cost(tree)
    assert not again.history.done
    # Groups as JSON.
    plain = json.loads(json.dumps(groups.to_plain()))
    back = Groups.from_plain(scene, plain)
    assert back.cost == groups.cost
    for one, two in zip(groups, back, strict=True):
        assert (one.id, one.kind, one.members, one.slots) == (two.id, two.kind, two.members, two.slots)
        first, second = one.parameters, two.parameters
        assert type(first) is type(second)
        assert vars(second) == {name: near(value) for name, value in vars(first).items()}
        assert two.residual[1] < 1e-4


def test_looks_are_those_of_the_blocks_that_a_program_names() -> None:
    scene = demo_table()
    groups = scene.find_groups()
    groups[0].retexture(torch.tensor([0.1, 0.8, 0.3]).expand(4, 4, 3))
    again = scene.from_program(scene.program(groups))
    lines = again.layers["table"].family.base_colors().tolist()
    colors = sorted(tuple(round(value, 3) for value in line) for line in lines)
    assert colors == [(0.1, 0.8, 0.3)] * 4 + [(0.75, 0.55, 0.35)]
    tree = copy.deepcopy(BLOCK)
    tree["args"][0]["part"] = ["table", 9]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"block table:9 is not in this scene"):
        scene.from_program(tree)


CUBOID: dict[str, Any] = {"fn": "Cuboid", "args": [0.2, 0.4, 0.6]}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (None, "expected a tree with fn and args, got None"),
        ({"args": []}, "expected a tree with fn and args"),
        ({"fn": "Sphere", "args": []}, "there is no function 'Sphere'; there are Union, Cuboid"),
        ({"fn": "Union", "args": CUBOID}, "args of Union should be a list"),
        ({"fn": "Union", "args": [CUBOID, 3]}, "expected a tree with fn and args, got 3"),
        ({"fn": "Cuboid", "args": [1, 2]}, "Cuboid takes .*; got 2 arguments"),
        ({"fn": "Cuboid", "args": [1, -2, 3]}, "-2 is not a length above 0"),
        ({"fn": "Cuboid", "args": [1, math.nan, 3]}, "nan is not a length above 0"),
        ({**CUBOID, "exponents": [0.1]}, "exponents of a Cuboid"),
        ({**CUBOID, "part": ["table"]}, r"part of a Cuboid should be \[layer, row\]"),
        ({**CUBOID, "part": ["table", -1]}, r"part of a Cuboid should be \[layer, row\]"),
        ({"fn": "Move", "args": [CUBOID, 1, "2", 3]}, "'2' is not a number"),
        ({"fn": "Move", "args": [[1], 1, 2, 3]}, "expected a tree with fn and args"),
        ({"fn": "Rotate", "args": [CUBOID, [1, 2]]}, "is not three numbers"),
        ({"fn": "SymRef", "args": [CUBOID]}, "SymRef takes a tree, a plane"),
        ({"fn": "SymRef", "args": [CUBOID, {"n": [0, 0, 0], "o": 0}]}, "is not a plane"),
        ({"fn": "SymTrans", "args": [CUBOID, [0, 0, 2], 3, 1.0]}, "is not a direction of length 1"),
        ({"fn": "SymTrans", "args": [CUBOID, [0, 0, 1], 0, 1.0]}, "0 is not a whole number from 1 on"),
        ({"fn": "SymRot", "args": [CUBOID, {"axis": [0, 1, 0]}, 3, 1.0]}, "is not an axis"),
        ({"fn": "SameSize", "args": [CUBOID, [[1, 2, 3]]]}, "is not places of six numbers"),
        ({"fn": "Except", "args": [CUBOID, [-1]]}, "is not numbers of copies"),
    ],
)
def test_what_is_no_program_is_refused_in_words(tree: Any, said: str) -> None:
    for use in (execute, cost, demo_table().from_program):
        with pytest.raises(ValueError, match=f"program: .*{said}"):
            use(tree)


def test_places_of_two_blocks_and_blocks_of_no_look_are_refused() -> None:
    two = {"fn": "Union", "args": [CUBOID, CUBOID]}
    with pytest.raises(ValueError, match="SameSize takes one block in several places, got 2"):
        execute({"fn": "SameSize", "args": [two, [[0.0] * 6]]})
    with pytest.raises(ValueError, match="a Cuboid does not say whose look it has"):
        demo_table().from_program(CUBOID)


def test_a_program_of_nothing_makes_nothing() -> None:
    scene = demo_table()
    scene["table"].remove()
    assert len(execute(scene.program())) == 0
    assert cost(scene.program()) == 0
    assert scene.from_program(scene.program()).counts() == {}


def test_snapped_groups_come_back_with_their_offsets() -> None:
    scene = scene_of(shaken(row(5), 0.004, 1))
    groups = scene.find_groups()
    was = read_all(scene)[1]
    groups[0].apply()
    back = Groups.from_plain(scene, json.loads(json.dumps(groups.to_plain())))
    assert back[0].applied
    back[0].release()
    assert np.allclose(read_all(scene)[1].centres, was.centres, atol=1e-5)


def test_groups_are_saved_beside_their_scene_and_edits_go_on(tmp_path: Path) -> None:
    """Members near the tolerance, snapped, resized and copied: what is read again does to the scene the same bytes."""
    scene = scene_of(shaken(row(5), 0.012, 1), unrelated(np.random.default_rng(4), 2))
    groups = scene.find_groups()
    groups[0].extend(1)
    groups[0].resize([1.0, 4.0, 2.0])
    assert groups[0].residual[1] > groups[0].tolerance
    groups[0].apply()
    scene.save(tmp_path / "scene.smalti")
    groups.save(tmp_path / "groups.json")
    again = Scene.load(tmp_path / "scene.smalti")
    held = Groups.load(again, tmp_path / "groups.json")
    assert repr(held) == repr(groups)
    for one, two in ((groups[0], scene), (held[0], again)):
        one.move([0.1, 0.2, 0.0], 1)
        one.set(count=4, mode="fit")
        one.release()
        two.undo()
        two.redo()
    mine, other = scene.state()[0], again.state()[0]
    assert mine.keys() == other.keys()
    assert all(torch.allclose(mine[key], other[key], atol=1e-6) for key in mine)
    assert len(held[0].members) == 4


def test_members_that_moved_since_are_not_taken_for_a_group(tmp_path: Path) -> None:
    scene = demo_table()
    scene.find_groups().save(tmp_path / "groups.json")
    move(scene, index("table", [2]), [0.5, 0.0, 0.0])
    with pytest.raises(GroupError, match="find the groups again"):
        Groups.load(scene, tmp_path / "groups.json")
    for text in ("{", "{}", "[3]"):
        (tmp_path / "groups.json").write_text(text)
        with pytest.raises(GroupError, match=r"groups\.json: (it is no JSON|expected a list)"):
            Groups.load(scene, tmp_path / "groups.json")


def broken(change: str) -> list[dict[str, Any]]:
    plain = json.loads(json.dumps(demo_table().find_groups().to_plain()))
    line = plain[0]
    match change:
        case "kind":
            line["kind"] = "spiral"
        case "normal":
            line["params"]["planes"][0]["n"] = [1.0, 1.0, 0.0]
        case "angle":
            line["params"]["planes"][1]["n"] = line["params"]["planes"][0]["n"]
        case "params":
            line["params"] = {"plane": {}}
        case "member":
            line["members"][0] = ["table", 17]
        case "twice":
            plain.append({**copy.deepcopy(line), "id": "group-2"})
        case "slot":
            line["slots"][0] = [[7, 7]]
        case "count":
            line["slots"].pop()
        case "residual":
            line["residual_max"] = 2.0 * line["tol"]
        case "parent":
            plain.append({**copy.deepcopy(line), "id": "group-2", "parent": "group-9"})
        case "nan":
            line["tol"] = math.nan
        case "moved":
            line["params"]["planes"][0]["o"] += 0.3
        case "part":
            del line["part"]["axes"]
        case "axes":
            line["part"]["axes"][1] = line["part"]["axes"][0]
        case "offsets":
            line["applied"] = bool(line["exact_offsets"].pop())
        case _:
            line["members"][0] = "table"
    return plain


@pytest.mark.parametrize("plain", ["groups", None, 3, [1], {"id": "group-1"}])
def test_what_is_no_list_of_groups_is_refused(plain: Any) -> None:
    with pytest.raises(GroupError, match="expected a list of groups"):
        Groups.from_plain(demo_table(), plain)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("kind", "no kind 'spiral'"),
        ("normal", "length 1"),
        ("angle", "right angles"),
        ("params", "do not say"),
        ("member", "has 5 primitives"),
        ("twice", "in group 'group-1' already"),
        ("slot", "there is no copy"),
        ("count", "a slot each"),
        ("residual", "above the tolerance"),
        ("parent", "no group 'group-9'"),
        ("nan", "finite"),
        ("moved", "no longer where it says"),
        ("part", "part is not complete"),
        ("axes", "three at right angles"),
        ("offsets", "expected 4 exact_offsets, got 3"),
        ("shape", r"should be \[layer, row\]"),
    ],
)
def test_groups_that_do_not_fit_are_refused(change: str, said: str) -> None:
    with pytest.raises(GroupError, match=said):
        Groups.from_plain(demo_table(), broken(change))
