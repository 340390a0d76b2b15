"""The selection in the viewer's pictures: tinted where it is seen, faintly where it is behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flat import FAR_COLOR, WIDTH, camera, square, two_walls

from smalti.scene import index, layer, nearest
from smalti.viewer.highlight import HIDDEN, SEEN, TINT
from smalti.viewer.look import MODES, Look
from smalti.viewer.modes import draw, paint
from smalti.viewer.stage import Stage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scene"))
from mixed import LAYERS, a_camera, a_scene


def look(**values: object) -> Look:
    return Look(camera(), **values)  # type: ignore[arg-type]


def test_what_is_selected_is_tinted_in_front_and_faintly_behind() -> None:
    scene = two_walls()
    scene.add("behind", square(-9.0, 0.0, 3.0, FAR_COLOR))
    stage = Stage(scene)
    plain = draw(stage, look()).astype(float) / 255
    for name, share in (("near", SEEN), ("behind", HIDDEN)):
        got = draw(stage, look(), layer(name)).astype(float) / 255
        wanted = (1 - share) * plain + share * np.array(TINT)
        inner = np.s_[2:-2, 2 : WIDTH // 2 - 2]
        assert np.abs(got[inner] - wanted[inner]).max() < 0.01
        assert np.array_equal(got[:, WIDTH // 2 + 1 :], plain[:, WIDTH // 2 + 1 :])


@pytest.mark.parametrize("name", LAYERS)
def test_a_selection_shows_in_every_family(name: str) -> None:
    scene, view = a_scene(name), a_camera()
    stage = Stage(scene)
    plain = draw(stage, Look(view)).astype(int)
    alone = scene.render(view).alpha.detach().numpy()
    tinted = draw(stage, Look(view), layer(name)).astype(int)
    changed = np.abs(tinted - plain).max(axis=-1)
    assert (changed[alone > 0.5] > 0).mean() > 0.9
    assert not changed[alone == 0].any()
    # One primitive alone changes a part of that.
    one = np.abs(draw(stage, Look(view), index(name, [0])).astype(int) - plain).max(axis=-1)
    assert (one > 0).sum() <= (changed > 0).sum()


def test_a_selection_follows_the_scene() -> None:
    scene = two_walls()
    stage = Stage(scene)
    chosen = index("near", [0, 1])
    before = draw(stage, look(), chosen)
    with stage.changing():
        scene["near"].visible = False
    assert np.array_equal(draw(stage, look(), chosen), draw(stage, look()))
    with stage.changing():
        scene.undo()
    assert np.array_equal(draw(stage, look(), chosen), before)
    with stage.changing():
        scene.layers["near"].family.prune(torch.tensor([True, False]))
    picture = paint(stage, look(), chosen)
    assert "selection" in picture.legend["problem"]
    assert np.array_equal(picture.pixels, draw(stage, look()))


def test_nothing_selected_changes_nothing() -> None:
    stage, view = Stage(a_scene("gaussians", "boxes")), a_camera()
    for mode in MODES:
        nothing = draw(stage, Look(view, mode=mode), nearest([0, 0, 0], 1) & ~layer("gaussians") & ~layer("boxes"))
        assert np.array_equal(nothing, draw(stage, Look(view, mode=mode)))
