"""What is found hangs neither on where the scene stands nor on the order of its blocks; noise, tolerance, matching."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from group_scenes import boxes_at, found_in, grid, legs, pair, ring, row, shaken, summary, unrelated

from smalti.scene.groups.boxes import POLAR, SYMMETRIES, Array, Boxes, assign, compare, joined
from smalti.scene.groups.levels import Rotation, reflection, rotation

CLOSE = 0.001
"""Tolerance for `everything`, which is 30 long: a tenth of what single blocks are."""


def everything() -> Boxes:
    """One of each, far apart."""
    other = Boxes(pair().centres + np.array([0.0, 1.0, 0.2]), pair().rotations, 1.7 * pair().halves, pair().exponents)
    parts = [joined([pair(), other]), legs(), row(5), grid(), ring(6)]
    turned = [
        part.mapped(rotation(np.array([0.0, 0.3 * n, 0.0])), np.array([6.0 * n, 0, 0])) for n, part in enumerate(parts)
    ]
    sized = [Boxes(b.centres, b.rotations, b.halves * 1.3**n, b.exponents) for n, b in enumerate(turned)]
    return joined([*sized, unrelated(np.random.default_rng(1), 5)])


def test_symmetries_are_a_group_of_24_and_8() -> None:
    assert len(SYMMETRIES) == 24
    assert int(POLAR.sum()) == 8
    keys = {tuple(each.reshape(-1).astype(int)) for each in SYMMETRIES}
    assert len(keys) == 24
    assert all(tuple((a @ b).reshape(-1).astype(int)) in keys for a in SYMMETRIES for b in SYMMETRIES)
    polar = {tuple(each.reshape(-1).astype(int)) for each in SYMMETRIES[POLAR]}
    assert all(tuple((a @ b).reshape(-1).astype(int)) in polar for a in SYMMETRIES[POLAR] for b in SYMMETRIES[POLAR])


def test_a_box_is_itself_after_each_of_its_rotations() -> None:
    box = boxes_at([[1.0, 2.0, 3.0]], [0.1, 0.2, 0.3], rotation(np.array([0.3, -0.5, 1.0]))[None])
    many = box.take([0] * 24)
    halves = np.abs(np.einsum("sij,ni->sj", SYMMETRIES, box.halves))
    turned = Boxes(many.centres, many.rotations @ SYMMETRIES, halves, many.exponents)
    match = compare(many, turned, 0.01)
    assert match.distances.max() < 1e-12
    # What it says about the member gives the member back.
    assert np.allclose(many.rotations @ match.frames, turned.rotations)
    assert np.allclose(np.take_along_axis(many.halves, match.orders, axis=1), turned.halves)


def test_unlike_exponents_leave_the_rotations_that_keep_the_pole() -> None:
    rotations = rotation(np.array([0.3, -0.5, 1.0]))[None]
    for exponents, allowed in (((0.1, 0.9), POLAR), ((0.9, 0.9), np.ones(24, dtype=bool))):
        box = Boxes(np.zeros((1, 3)), rotations, np.array([[0.1, 0.2, 0.3]]), np.array([exponents])).take([0] * 24)
        halves = np.abs(np.einsum("sij,sj->si", SYMMETRIES.transpose(0, 2, 1), box.halves))
        turned = Boxes(box.centres, box.rotations @ SYMMETRIES, halves, box.exponents)
        assert ((compare(box, turned, 0.01).distances < 1e-9) == allowed).all()


def test_round_parts_may_be_turned_about_their_pole() -> None:
    leg = Boxes(np.zeros((1, 3)), np.eye(3)[None], np.array([[0.1, 0.5, 0.1]]), np.array([[0.1, 1.0]]))
    spun = Boxes(leg.centres, rotation(np.array([0.0, 0.6, 0.0]))[None], leg.halves, leg.exponents)
    match = compare(leg, spun, 0.01)
    assert match.distances[0] < 1e-12
    assert np.allclose(leg.rotations @ match.frames, spun.rotations)  # and keep their own turn
    square = Boxes(spun.centres, spun.rotations, spun.halves, np.full((1, 2), 0.1))
    assert (
        compare(Boxes(leg.centres, leg.rotations, leg.halves, np.full((1, 2), 0.1)), square, 0.01).distances[0] > 0.05
    )


@pytest.mark.parametrize(("exponent", "half", "is_round"), [(0.8, 0.1, True), (0.8, 1.0, False), (1.2, 0.1, True)])
def test_round_is_what_no_turn_moves_by_more_than_the_tolerance(exponent: float, half: float, is_round: bool) -> None:
    """At 45 degrees a superellipse is 2^((1 - e) / 2) half extents wide: 7 % more than along its axes for e = 0.8."""
    post = Boxes(np.zeros((1, 3)), np.eye(3)[None], np.array([[half, 0.5, half]]), np.array([[0.1, exponent]]))
    spun = Boxes(post.centres, rotation(np.array([0.0, 0.7, 0.0]))[None], post.halves, post.exponents)
    assert (compare(post, spun, 0.02).distances[0] < 1e-12) == is_round
    assert compare(post, spun, 0.08).distances[0] < 1e-12
    cube = Boxes(post.centres, post.rotations, np.full((1, 3), 0.02), np.full((1, 2), 0.7))  # of what is no octagon yet
    turned = Boxes(cube.centres, spun.rotations, cube.halves, cube.exponents)
    assert compare(cube, turned, 0.08).distances[0] > 0.01


def test_shapes_have_to_agree() -> None:
    box, ball = boxes_at([[0, 0, 0]], [1, 1, 1]), boxes_at([[0, 0, 0]], [1, 1, 1], exponent=1.0)
    assert compare(box, box, 0.02).distances[0] == 0
    assert compare(box, ball, 0.02).distances[0] == math.inf


def test_comparison_goes_both_ways_and_assignment_does_not_hang_on_order() -> None:
    random = np.random.default_rng(0)
    one = boxes_at(
        random.normal(size=(6, 3)), [0.1, 0.2, 0.3], np.stack([rotation(v) for v in random.normal(size=(6, 3))])
    )
    two = shaken(one, 0.02)
    assert np.allclose(compare(one, two, 0.2).distances, compare(two, one, 0.2).distances)
    order = random.permutation(6)
    straight, mixed = assign(one, two, 0.3), assign(one, two.take(order.tolist()), 0.3)
    assert straight is not None
    assert mixed is not None
    assert straight[0] == list(range(6))
    assert mixed[0] == order.tolist()
    assert straight[1] == pytest.approx(mixed[1])


def test_a_turned_box_has_the_reflected_corners() -> None:
    box = pair().take([0])
    matrix, shift = reflection(tuple(np.array([1.0, 2.0, 2.0]) / 3.0), 0.4)
    image = box.mapped(matrix, shift)
    expected = box.corners()[0] @ matrix.T + shift
    between = np.linalg.norm(expected[:, None] - image.corners()[0][None], axis=2)
    assert between.min(axis=1).max() < 1e-12
    assert np.linalg.det(image.rotations[0]) == pytest.approx(1.0)


def test_exact_regularities_are_all_found() -> None:
    kinds = sorted(kinds for kinds, _ in summary(everything(), CLOSE))
    assert kinds == [("array",), ("double_mirror",), ("grid",), ("mirror",), ("mirror",), ("rotation",)]
    assert sorted(len(rows) for _, rows in summary(everything(), CLOSE)) == [2, 2, 4, 5, 6, 12]


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_hang_on_place_size_or_order(seed: int) -> None:
    boxes, random = everything(), np.random.default_rng(seed)
    turn, size = rotation(random.normal(size=3)), float(np.exp(random.normal()))
    moved = boxes.mapped(turn, np.zeros(3))
    moved = Boxes(size * moved.centres + random.normal(size=3), moved.rotations, size * moved.halves, moved.exponents)
    order = random.permutation(len(boxes))
    mixed = summary(moved.take(order.tolist()), CLOSE)
    assert {(kinds, frozenset(int(order[row]) for row in rows)) for kinds, rows in mixed} == summary(boxes, CLOSE)


def test_without_tolerance_noise_leaves_no_groups() -> None:
    boxes = shaken(everything(), 0.002)
    assert len(summary(boxes, CLOSE)) == 6
    assert summary(boxes, 1e-6) == set()


def test_more_tolerance_never_costs_more() -> None:
    from smalti.scene.groups.choosing import total_cost

    boxes = shaken(joined([legs(), unrelated(np.random.default_rng(0), 5)]), 0.01)
    totals = [total_cost(found_in(boxes, tolerance), len(boxes)) for tolerance in (1e-4, 0.005, 0.01, 0.02, 0.04)]
    assert all(after <= before + 0.05 for before, after in pairwise(totals))
    assert totals[-1] < totals[0] - 30


def test_members_that_are_missing() -> None:
    kinds = {kinds for kinds, _ in summary(grid(4, 4).take([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 15]))}
    assert kinds == {("grid",)}
    (fit,) = found_in(ring(8).take([0, 1, 2, 4, 5, 6, 7]))
    level = fit.model.levels[0]
    assert isinstance(level, Rotation)
    assert level.closed
    assert level.number == 8
    (fit,) = found_in(legs().take([0, 1, 3]))
    assert fit.model.levels[0].kind == "double_mirror"
    assert len(fit.rows) == 3


def test_an_arc_is_no_ring() -> None:
    (fit,) = found_in(ring(12).take([0, 1, 2, 3, 4]))
    level = fit.model.levels[0]
    assert isinstance(level, Rotation)
    assert not level.closed
    assert (level.number, level.angle) == (5, pytest.approx(math.pi / 6))


def test_blocks_of_one_size_that_lie_anyhow() -> None:
    random = np.random.default_rng(3)
    turns = np.stack([rotation(v) for v in random.normal(size=(4, 3))])
    boxes = boxes_at(random.uniform(-2, 2, (4, 3)), [0.05, 0.7, 0.9], turns)
    ((kinds, rows),) = summary(joined([boxes, unrelated(random, 4)]))
    assert kinds == ("same_size",)
    assert rows == frozenset(range(4))


def test_fifty_blocks_take_seconds() -> None:
    boxes = boxes_at(np.random.default_rng(0).uniform(-1, 1, (50, 3)), [0.05, 0.1, 0.15])
    start = time.process_time()
    assert summary(boxes)
    assert time.process_time() - start < 15  # 2 on a quiet core


def test_the_same_boxes_give_the_same_groups() -> None:
    boxes = boxes_at(np.random.default_rng(0).uniform(-1, 1, (20, 3)), [0.05, 0.1, 0.15])
    one, two = ([(fit.rows, fit.slots, fit.gain) for fit in found_in(boxes)] for _ in range(2))
    assert one == two


def errors(count: int, seeds: int) -> tuple[float, float]:
    """Root mean square errors of the size of the part, and of the spacing, of rows."""
    sizes, spacings = list[float](), list[float]()
    clean = row(count)
    for seed in range(seeds):
        (fit,) = found_in(shaken(clean, 0.01, seed), tolerance=0.1 / clean.extent(), kinds=("array",))
        level = fit.model.levels[0]
        assert level.count == count
        sizes.append(float(np.sort(fit.model.base.halves[0])[0] - 0.05))
        spacings.append(float(np.linalg.norm(np.array(level.transforms([(1,)])[1])) - np.linalg.norm([0.5, 0.1, 0.0])))
    return tuple(float(np.sqrt(np.mean(np.square(each)))) for each in (sizes, spacings))  # type: ignore[return-value]


def test_refit_errors_fall_with_the_root_of_the_number_of_members() -> None:
    few, many = errors(4, 40), errors(16, 40)
    assert few[0] / many[0] == pytest.approx(2.0, rel=0.35)  # sqrt(16 / 4)
    # A slope is known better than by the root: its error falls as n^-1.5.
    assert few[1] / many[1] == pytest.approx((16 * (16**2 - 1) / (4 * (4**2 - 1))) ** 0.5, rel=0.35)


def test_refit_is_never_worse_than_what_it_started_from() -> None:
    from smalti.scene.groups.fit import refit
    from smalti.scene.groups.levels import LinearArray

    def squares(of: Array) -> float:
        return float((of**2).sum())

    for clean in (pair(), legs(), row(5), grid(), ring(7)):
        boxes = shaken(clean, 0.01, 5)
        (fit,) = found_in(boxes, tolerance=0.1)
        better = refit(fit, boxes, 0.1 * boxes.extent())
        first, second = (f.model.place(f.slots).centres - boxes.centres[list(f.rows)] for f in (fit, better))
        assert squares(second) <= squares(first) * (1 + 1e-6) + 1e-9
    assert isinstance(found_in(row(5))[0].model.levels[0], LinearArray)
