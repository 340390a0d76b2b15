"""Undo and redo give back the very bytes; histories are bounded and groups are whole."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from mixed import LAYERS, a_family, a_scene, in_bytes

from smalti.cameras.rotations import so3_exp
from smalti.cameras.similarity import Similarity
from smalti.primitives.boxes import Boxes
from smalti.primitives.family import FamilyError
from smalti.scene import (
    EditError,
    Layer,
    Scene,
    Selection,
    add_layer,
    apply_to,
    array,
    box,
    crop,
    delete,
    demo_scene,
    duplicate,
    everything,
    expose,
    fade,
    fill,
    flood,
    hue,
    index,
    layer,
    merge,
    mirror,
    move,
    nearest,
    recolor,
    replace_texture,
    rotate,
    saturate,
    scale,
    set_opacity,
    simplify,
    split,
    tint,
    transform,
    visible,
    where,
)
from smalti.scene.changes import LayerChange, rows_that_differ, shallow
from smalti.scene.history import Added, Changed

pytestmark = pytest.mark.usefixtures("one_torch_thread")
OTHER = a_scene("gaussians", "surfels", "boxes", "meshes")
MOST = 260
"""Primitives that a random scene may grow to."""


def a_selection(scene: Scene, dice: random.Random) -> Selection:
    full = [name for name, count in scene.counts().items() if count]
    name = dice.choice(full)
    count = scene.counts()[name]

    def spot() -> list[float]:
        return [dice.uniform(-1, 1) for _ in range(3)]

    made = dice.choice(
        [
            lambda: layer(name),
            lambda: index(name, [dice.randrange(count) for _ in range(3)]),
            lambda: box([-1, -1, dice.uniform(-0.5, 0)], [1, 1, dice.uniform(0, 0.5)]),
            lambda: nearest(spot(), dice.randrange(1, 6)),
            lambda: where("opacity", "<", dice.uniform(0.2, 0.9)) & layer(name),
            lambda: where("red", ">", 0.4) & ~layer(name),
            lambda: flood(index(name, [dice.randrange(count)]), dice.uniform(0.1, 0.6), 0.5),
            lambda: visible() & box([-2, -2, -2], [dice.uniform(-0.3, 0.5), 2, 2]),
        ]
    )()
    return made


def an_edit(scene: Scene, dice: random.Random) -> None:
    """One of all edits there are."""
    chosen = a_selection(scene, dice)
    name = dice.choice(list(scene.layers))
    axis = [dice.uniform(-1, 1) for _ in range(3)]
    turn = so3_exp(torch.tensor(axis, dtype=torch.float64))
    full = len(scene) > MOST
    edits: list[Callable[[], object]] = [
        lambda: move(scene, chosen, axis),
        lambda: rotate(scene, chosen, [0, 1, 0.1], dice.uniform(-180, 180)),
        lambda: scale(scene, chosen, dice.uniform(0.7, 1.4)),
        lambda: transform(scene, chosen, Similarity(dice.uniform(0.8, 1.2), turn)),
        lambda: mirror(scene, chosen, [1, 0, 0.2], 0.1),
        lambda: tint(scene, chosen, [1.1, 0.9, 1.0]),
        lambda: expose(scene, chosen, dice.uniform(-0.2, 0.2)),
        lambda: recolor(scene, chosen, lambda colors: 1 - colors),
        lambda: set_opacity(scene, chosen, dice.uniform(0.2, 0.9)),
        lambda: fade(scene, chosen, dice.uniform(0.8, 1.1)),
        lambda: delete(scene, chosen & where("x", ">", 0.3)) if len(scene) > 30 else None,
        lambda: crop(scene, ~chosen) if len(scene) > 100 else None,
        lambda: None if full else duplicate(scene, chosen, axis),
        lambda: None if full else array(scene, chosen, 2, axis),
        lambda: split(scene, chosen, f"part{len(scene.history.done)}-{dice.randrange(10**6)}"),
        lambda: merge(scene, [key for key in scene.layers if type_of(scene, key) == type_of(scene, name)]),
        lambda: setattr(scene[name], "visible", not scene[name].visible),
        lambda: setattr(scene[name], "name", f"{name[:12]}{dice.randrange(10**6)}"),
        lambda: add_layer(scene, f"new{dice.randrange(10**6)}", scene[name].family.copy()) if not full else None,
        lambda: scene[name].remove() if len(scene.layers) > 12 else None,
        lambda: setattr(scene[name], "similarity", Similarity(translation=turn[0])),
        lambda: setattr(scene[name], "position", axis),
        lambda: setattr(scene[name], "rotation", turn),
        lambda: setattr(scene[name], "scale", dice.uniform(0.8, 1.25)),
        lambda: hue(scene, chosen, dice.uniform(-90, 90)),
        lambda: saturate(scene, chosen, dice.uniform(0.5, 1.4)),
        lambda: replace_texture(scene, name, torch.rand(5, 7, 3)),
        lambda: simplify(scene, chosen, count=dice.randrange(2, 30)) if len(scene) > 60 else None,
        lambda: simplify(scene, chosen, bytes=dice.randrange(2000, 20000)) if len(scene) > 60 else None,
        lambda: None if full else fill(scene, nearest(axis, 4), OTHER, Similarity(0.9, turn), dice.random() < 0.3),
    ]
    dice.choice(edits)()


def type_of(scene: Scene, name: str) -> str:
    return scene.layers[name].family.name


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_edits_undone_and_redone_give_the_same_bytes(seed: int) -> None:
    scene, dice = a_scene(*LAYERS), random.Random(seed)
    states, refused = [in_bytes(scene)], 0
    while len(scene.history.done) < 200:
        count = len(scene.history.done)
        try:
            if dice.random() < 0.1:
                with scene.edit("group"):
                    an_edit(scene, dice)
                    an_edit(scene, dice)
            else:
                an_edit(scene, dice)
        except (EditError, FamilyError):
            refused += 1
            # What was refused changed nothing, and is not in the history.
            assert len(scene.history.done) == count
            assert in_bytes(scene) == states[-1]
        if len(scene.history.done) > count:
            states.append(in_bytes(scene))
        if dice.random() < 0.05 and count:
            scene.undo()
            assert in_bytes(scene) == states[-2]
            scene.redo()
            assert in_bytes(scene) == states[-1]
    assert len(states) == 201
    assert 0 < refused < 400
    for state in reversed(states[:-1]):
        scene.undo()
        assert in_bytes(scene) == state
    for state in states[1:]:
        scene.redo()
        assert in_bytes(scene) == state
    with pytest.raises(EditError, match="nothing to redo"):
        scene.redo()


def test_what_is_held_is_as_large_as_the_edit() -> None:
    scene = Scene()
    points = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0))
    kind = type(a_family("gaussians"))
    scene.add("many", kind.from_points(points, points, {"sh_degree": 3}))
    one = scene.layers["many"].family.bytes / 20000
    move(scene, index("many", range(10)), [1, 0, 0])
    assert scene.history.bytes < 10 * 2 * (one + 8 * 6) + 100
    set_opacity(scene, index("many", range(100)), 0.5)
    assert scene.history.done[-1].bytes <= 100 * (2 * 4 + 8)
    delete(scene, index("many", range(0, 20000, 1000)))
    assert scene.history.done[-1].bytes <= 20 * (one + 8 * 6)
    duplicate(scene, index("many", [3]))
    assert scene.history.done[-1].bytes <= one


def test_a_hole_in_a_mesh_costs_no_more_than_what_was_in_it() -> None:
    """Though all faces behind it are renumbered."""
    from smalti.primitives.meshes import Meshes

    scene = Scene()
    scene.add("ball", Meshes.sphere(torch.zeros(3), 1.0, {"level": 5}))
    before = in_bytes(scene)
    assert len(scene) == 20480
    assert delete(scene, where("y", ">", 0.99)) < 200
    assert scene.history.bytes < 200 * (12 + 8 + 24 + 16)
    scene.undo()
    assert in_bytes(scene) == before


def test_an_untouched_parameter_keeps_its_tensor() -> None:
    scene = demo_scene()
    family = scene["chair"].family
    held = family.parameters["means"]
    set_opacity(scene, layer("chair"), 0.5)
    assert family.parameters["means"] is held
    assert family.parameters["logit_opacities"].requires_grad
    family.require_gradients(False)
    scene.undo()
    assert not family.parameters["logit_opacities"].requires_grad


def test_a_failed_group_changes_nothing() -> None:
    scene = demo_scene()
    before = in_bytes(scene)

    def fail() -> None:
        with scene.edit("two"):
            delete(scene, layer("cloud"))
            split(scene, index("chair", [0]), "leg")
            scene["leg"].name = "foot"
            raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError):
        fail()
    assert in_bytes(scene) == before
    assert not scene.history.done
    with scene.edit("outer"):
        move(scene, layer("chair"), [1, 0, 0])
        inner = in_bytes(scene)
        with pytest.raises(RuntimeError):
            fail()
        assert in_bytes(scene) == inner
        with pytest.raises(EditError, match="an edit is open"):
            scene.undo()
    assert [edit.name for edit in scene.history.done] == ["outer"]
    scene.undo()
    assert in_bytes(scene) == before


def test_steps_after_one_that_fails_take_the_first_back() -> None:
    scene = demo_scene()
    before = in_bytes(scene)
    family = scene["chair"].family
    changed = shallow(family)
    changed.replace({"means": changed.parameters["means"] + 1})
    good = Changed(LayerChange.between("chair", family, changed))
    bad = Changed(LayerChange.between("no such layer", family, changed))
    new = Added(Layer("new", family.copy()), 0)
    with pytest.raises(KeyError):
        scene.history.perform(scene, "half", [good, new, bad])
    assert in_bytes(scene) == before
    with pytest.raises(ValueError, match="already"):
        scene.history.perform(scene, "twice", [good, new, new])
    assert in_bytes(scene) == before


def test_the_oldest_edits_are_forgotten_first() -> None:
    scene = demo_scene()
    for shift in range(5):
        move(scene, layer("chair"), [shift + 1, 0, 0])
    one = scene.history.done[0].bytes
    scene.history.limit = 3 * one
    fade(scene, index("chair", [0]), 0.9)
    assert [edit.name for edit in scene.history.done] == ["move", "move", "fade"]
    assert scene.history.bytes <= scene.history.limit
    scene.history.limit = 1
    with pytest.warns(UserWarning, match="cannot be undone; raise scene.history.limit"):
        move(scene, layer("chair"), [1, 0, 0])
    with pytest.raises(EditError, match="nothing to undo"):
        scene.undo()


def test_a_new_edit_ends_what_could_be_redone() -> None:
    scene = demo_scene()
    move(scene, layer("chair"), [1, 0, 0])
    scene.undo()
    move(scene, layer("chair"), [2, 0, 0])
    with pytest.raises(EditError, match="nothing to redo"):
        scene.redo()


def test_what_was_changed_behind_the_historys_back_is_noticed() -> None:
    scene = demo_scene()
    move(scene, layer("cloud"), [1, 0, 0])
    delete(scene, layer("chair"))
    scene["chair"].family.clone(torch.zeros(0, dtype=torch.int64))
    scene.layers["chair"].family.replace(
        {key: value.detach()[[0] * 3] for key, value in demo_scene()["chair"].family.parameters.items()}
    )
    before = in_bytes(scene)
    with pytest.raises(EditError, match=r"call scene.history.clear\(\)"):
        scene.undo()
    assert in_bytes(scene) == before
    scene.history.clear()
    assert scene.history.bytes == 0


def test_handles_assign_and_are_undone() -> None:
    scene = demo_scene()
    chair = scene["chair"]
    chair.visible, chair.opacity, chair.name = False, 0.5, "seat"
    assert (chair.visible, chair.name, list(scene.layers)) == (False, "seat", ["seat", "cloud"])
    assert chair.opacity == pytest.approx(0.5)
    assert [edit.name for edit in scene.history.done] == ["visible", "opacity", "rename"]
    chair.visible = False
    assert len(scene.history.done) == 3
    with pytest.raises(ValueError, match="already"):
        chair.name = "cloud"
    with pytest.raises(ValueError, match="must not hold a slash"):
        chair.name = "a/b"
    for _ in range(3):
        scene.undo()
    assert in_bytes(scene) == in_bytes(demo_scene())
    chair.remove()
    with pytest.raises(EditError, match="no longer in the scene"):
        chair.visible = False
    with pytest.raises(EditError, match="there is no layer 'chair'; there are: cloud"):
        scene["chair"]


def test_an_edit_of_nothing_is_no_edit() -> None:
    scene = demo_scene()
    assert move(scene, where("opacity", ">", 2), [1, 0, 0]) == 0
    assert delete(scene, ~everything()) == 0
    assert split(scene, ~everything(), "none") == []
    assert apply_to(scene, everything(), "nothing", lambda held, part: None) == 20
    assert not scene.history.done


def test_numbers_that_are_not_finite_come_back_too() -> None:
    scene = Scene()
    scene.add("boxes", Boxes.from_points(torch.rand(3, 3), torch.rand(3, 3), {"voxels": 2}))
    scene["boxes"].family.parameters["colors"].data[0, 0, 0] = torch.tensor([float("nan"), float("inf"), -0.0])
    before = in_bytes(scene)
    move(scene, index("boxes", [0]), [1, 0, 0])
    assert set(scene.history.done[0].steps[0].change.tensors) >= {"centres"}  # type: ignore[attr-defined]
    delete(scene, index("boxes", [0]))
    scene.undo()
    scene.undo()
    assert in_bytes(scene) == before


def test_rows_are_compared_by_their_bytes() -> None:
    nan = float("nan")
    first = torch.tensor([[0.0, nan], [0.0, 1.0], [1.0, 2.0]])
    second = torch.tensor([[0.0, nan], [-0.0, 1.0], [1.0, 2.0]])
    assert rows_that_differ(first, second).tolist() == [False, True, False]
    assert rows_that_differ(first[:0], second[:0]).tolist() == []
