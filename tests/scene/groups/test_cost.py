"""Prices in closed form (section 9 of the specification, 1 and 7), and that a program costs what its group says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from group_scenes import found_in, grid, legs, pair, ring, row, scene_of, shaken, unrelated

from smalti.scene.groups import find_groups
from smalti.scene.groups.boxes import Boxes, joined
from smalti.scene.groups.choosing import total_cost
from smalti.scene.groups.demo import demo_table
from smalti.scene.groups.fit import price, separate_cost
from smalti.scene.groups.program import Tree, cost


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_separate_blocks_cost_15_n_minus_1(count: int) -> None:
    assert separate_cost(count) == 15 * count - 1
    block = {"fn": "Move", "args": [{"fn": "Cuboid", "args": [1, 2, 3]}, 0, 0, 0]}
    assert cost({"fn": "Union", "args": [block] * count}) == 15 * count - 1


@pytest.mark.parametrize(
    ("boxes", "kind", "expected"),
    [
        (pair(), "mirror", 15.5),
        (legs(), "double_mirror", 17.0),
        *[(row(count), "array", 18.0) for count in range(3, 8)],
        (grid(), "grid", 22.0),
        (ring(6), "rotation", 18.0),
    ],
)
def test_groups_cost_what_they_should(boxes: Boxes, kind: str, expected: float) -> None:
    (fit,) = found_in(boxes)
    assert [level.kind for level in fit.model.levels] == [kind]
    assert price(fit.model, len(fit.rows)) == expected
    assert fit.gain == pytest.approx(15 * len(boxes) - 1 - expected, abs=1e-6)
    assert sorted(fit.rows) == list(range(len(boxes)))
    groups = find_groups(scene_of(boxes))
    assert groups.cost == expected == cost(groups.scene.program(groups))


def test_a_missing_copy_costs_a_function_and_its_number() -> None:
    (fit,) = found_in(row(7).take([0, 1, 2, 4, 5, 6]))
    assert price(fit.model, 6) == 19.5


def test_the_error_is_priced_ten_times_its_mean_in_extents() -> None:
    boxes = shaken(row(6), 0.01)
    (fit,) = found_in(boxes)
    assert fit.cost == pytest.approx(18.0 + 10.0 * fit.match.distances.mean() / boxes.extent())
    assert fit.match.distances.mean() > 0


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_row_costs_18_whatever_its_length(count: int) -> None:
    """Also of two, which are not looked for (any two that stand alike are such a row), but may be left of one."""
    scene = scene_of(row(4))
    groups = scene.find_groups()
    groups[0].set(count=count)
    assert groups.cost == 18.0 == cost(scene.program(groups))
    assert groups.separate_cost == 15 * count - 1


@pytest.mark.parametrize(
    ("group", "single"),
    [
        ({"fn": "SymRef", "args": [{}, {"n": [1.0, 0.0, 0.0], "o": 0.0}]}, 15.5),
        ({"fn": "SymTrans", "args": [{}, [1.0, 0.0, 0.0], 3, 1.0]}, 18.0),
    ],
)
def test_gains_in_closed_form(group: Tree, single: float) -> None:
    """A mirrored pair saves 13.5 of 29, a double mirror 42 of 59; programs inside programs add up."""
    block: Tree = {"fn": "Move", "args": [{"fn": "Cuboid", "args": [1, 2, 3]}, 0.5, 0, 0.5]}
    made = {"fn": group["fn"], "args": [block, *group["args"][1:]]}
    assert cost(made) == single
    assert cost({"fn": "SymRef", "args": [made, {"n": [0.0, 0.0, 1.0], "o": 0.0}]}) == single + 1.5
    assert cost({"fn": "Union", "args": [made, block, made]}) == 2 * single + 14 + 2
    assert separate_cost(2) - 15.5 == 13.5
    assert separate_cost(4) - 17.0 == 42.0


def test_unrelated_blocks_are_in_no_group() -> None:
    for seed in range(5):
        assert found_in(unrelated(np.random.default_rng(seed))) == []


def test_nested_groups_add_the_price_of_a_level() -> None:
    posts = pair()
    rows = [posts.mapped(np.eye(3), np.array([0.0, 1.2 * k, 0.3 * k])) for k in range(4)]
    (fit,) = found_in(joined(rows))
    assert sorted(level.kind for level in fit.model.levels) == ["array", "mirror"]
    assert price(fit.model, 8) == 19.5


@pytest.mark.parametrize(
    "made",
    [
        [row(count) for count in range(3, 9)],
        [shaken(row(8), 0.01).take(list(range(count))) for count in range(3, 9)],
        [grid(3, columns) for columns in range(2, 6)],
        [ring(count) for count in range(3, 8)],
        [pair(), legs()],
    ],
    ids=["rows", "shaken rows", "grids", "rings", "mirrors"],
)
def test_adding_a_member_never_raises_the_cost_per_member(made: list[Boxes]) -> None:
    per_member = list[float]()
    for boxes in made:
        (fit,) = found_in(boxes)
        assert len(fit.rows) == len(boxes)
        per_member.append(fit.cost / len(boxes))
    assert all(after < before for before, after in pairwise(per_member))


def test_accepted_groups_never_raise_the_total() -> None:
    for seed in range(4):
        random = np.random.default_rng(seed)
        boxes = joined([shaken(legs(), 0.01, seed), shaken(row(4), 0.01, seed), unrelated(random, 6)])
        fits = found_in(boxes)
        total = total_cost(fits, len(boxes))
        for fit in fits:
            assert total <= total_cost([other for other in fits if other is not fit], len(boxes))
            assert fit.gain > 0
        assert total <= separate_cost(len(boxes))


def test_least_gain_and_kinds_are_kept_to() -> None:
    scene = demo_table()
    assert len(scene.find_groups(min_gain=41.0)) == 1
    assert len(scene.find_groups(min_gain=43.0)) == 0
    mirrors = scene.find_groups(kinds=("mirror",))
    assert [group.kind for group in mirrors] == ["mirror"]
    assert mirrors[0].inner is not None
    sizes = scene.find_groups(kinds=("same_size",))
    assert [group.kind for group in sizes] == ["same_size"]
    assert sizes.cost == 9 * 4 + 6 + 15  # one definition; a call, a place and a union each; the top
    assert mirrors.cost == scene.find_groups().cost < sizes.cost
