"""The panel of layers: what it shows is true, what is done in it is an edit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from pages import opened

from smalti.scene import Scene, demo_scene, index, set_opacity, split
from smalti.viewer.stage import Stage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scene"))
from mixed import LAYERS, a_scene, in_bytes


def test_every_layer_has_its_controls_and_figures() -> None:
    scene = demo_scene()
    with opened(Stage(scene)) as page:
        page.until(lambda: page.find("cloud", "Name"))
        rows = page.state("layers")["rows"]
        assert [(row["name"], row["family"], row["count"]) for row in rows] == [
            ("chair", "gaussians", 8),
            ("cloud", "surfels", 12),
        ]
        assert [row["bytes"] for row in rows] == [scene["chair"].bytes, scene["cloud"].bytes]
        assert page.state("layers")["bytes"] == scene["chair"].bytes + scene["cloud"].bytes
        assert page.value("chair", "Show") is True
        assert page.value("chair", "Lock") is False
        assert page.value("chair", "Mean opacity") == pytest.approx(0.8, abs=1e-3)
        page.until(lambda: "8 primitives" in page.text("chair"))
        assert "gaussians" in page.text("chair")
        assert "2 layers" in page.text("Layers")
        assert "20 primitives" in page.text("Layers")


def test_hiding_locking_and_opacity_are_edits_that_can_be_undone() -> None:
    scene = demo_scene()
    before = in_bytes(scene)
    stage = Stage(scene)
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        page.set("chair", "Show", to=False)
        page.until(lambda: not scene["chair"].visible)
        page.set("cloud", "Lock", to=True)
        page.until(lambda: scene["cloud"].locked)
        page.set("chair", "Mean opacity", to=0.25)
        page.until(lambda: abs(scene["chair"].opacity - 0.25) < 1e-5)
        assert [edit.name for edit in scene.history.done] == ["visible", "locked", "opacity"]
        page.until(lambda: page.state("layers")["rows"][0]["opacity"] == pytest.approx(0.25, abs=1e-4))
        for _ in range(3):
            with stage.changing():
                scene.undo()
        assert in_bytes(scene) == before
        page.until(lambda: page.value("chair", "Show") is True and page.value("cloud", "Lock") is False)
        page.until(lambda: page.value("chair", "Mean opacity") == pytest.approx(0.8, abs=1e-3))
        # What the panel showed was no wish of anybody's.
        assert not scene.history.done
        assert not page.problems()


def test_the_slider_keeps_what_is_fainter_fainter() -> None:
    """A trained layer has opacities of all sizes: one factor for all, through a whole drag."""
    scene = demo_scene()
    set_opacity(scene, index("chair", [0, 1, 2, 3]), 0.2)
    set_opacity(scene, index("chair", [4, 5, 6, 7]), 0.6)
    family = scene.layers["chair"].family
    with opened(Stage(scene)) as page:
        page.until(lambda: page.find("chair", "Mean opacity"))
        for value in (0.3, 0.1, 0.2):
            page.set("chair", "Mean opacity", to=value)
        page.until(lambda: abs(scene["chair"].opacity - 0.2) < 1e-5)
        wanted = torch.tensor([0.1] * 4 + [0.3] * 4)
        torch.testing.assert_close(family.opacities().detach(), wanted, atol=1e-4, rtol=0.0)


def test_a_drag_of_the_slider_is_one_edit() -> None:
    scene = demo_scene()
    before = in_bytes(scene)
    stage = Stage(scene)
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        for value in (0.7, 0.6, 0.5, 0.4, 0.3):
            page.set("chair", "Mean opacity", to=value)
        page.until(lambda: abs(scene["chair"].opacity - 0.3) < 1e-5)
        page.set("cloud", "Mean opacity", to=0.1)
        page.until(lambda: abs(scene["cloud"].opacity - 0.1) < 1e-5)
        assert [edit.name for edit in scene.history.done] == ["opacity", "opacity"]
        with stage.changing():
            assert (scene.undo(), scene.undo()) == ("opacity", "opacity")
        assert in_bytes(scene) == before


def test_a_layer_is_renamed_and_a_taken_name_is_refused_on_the_page() -> None:
    scene = demo_scene()
    stage = Stage(scene)
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        page.set("chair", "Name", to="  armchair ")
        page.until(lambda: list(scene.layers) == ["armchair", "cloud"])
        page.until(lambda: page.value("armchair", "Name") == "armchair")
        with pytest.raises(StopIteration):
            page.find("chair")
        page.set("armchair", "Name", to="cloud")
        page.until(page.problems)
        assert "there is a layer 'cloud' already" in page.problems()[0]
        page.until(lambda: page.value("armchair", "Name") == "armchair")
        assert list(scene.layers) == ["armchair", "cloud"]
        with stage.changing():
            scene.undo()
        page.until(lambda: page.value("chair", "Name") == "chair")


def test_layers_that_come_and_go_get_and_lose_their_rows() -> None:
    scene = demo_scene()
    stage = Stage(scene)
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        with stage.changing():
            split(scene, index("chair", [0, 1]), "leg")
        page.until(lambda: page.find("leg", "Show"))
        page.until(
            lambda: all(page.value(name, "Mean opacity") == pytest.approx(0.8, abs=1e-3) for name in ("chair", "leg"))
        )
        assert [row["name"] for row in page.state("layers")["rows"]] == ["chair", "leg", "cloud"]
        page.set("leg", "Show", to=False)
        page.until(lambda: not scene["leg"].visible)
        with stage.changing():
            scene.undo()
            scene.undo()
        page.until(lambda: [row["name"] for row in page.state("layers")["rows"]] == ["chair", "cloud"])
        page.until(lambda: not any(each.get("label") == "leg" for each in page.controls.values()))


def test_what_another_client_does_is_shown_and_not_done_twice() -> None:
    stage = Stage(demo_scene())
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        with stage.changing() as scene:
            scene["cloud"].visible = False
        page.until(lambda: page.value("cloud", "Show") is False)
        assert [edit.name for edit in stage.scene.history.done] == ["visible"]


def test_a_tick_that_was_not_looked_at_yet_is_not_taken_back() -> None:
    stage = Stage(demo_scene())
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        panel = page.panel("layers")
        panel._rows["chair"].shown._impl.value = False  # as viser does before it calls back
        with stage.changing() as scene:
            scene["cloud"].locked = True
        page.until(lambda: page.value("cloud", "Lock") is True)
        assert panel._rows["chair"].shown.value is False


def test_what_is_undone_at_once_is_shown_so() -> None:
    stage = Stage(demo_scene())
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        panel = page.panel("layers")
        row = panel._rows["chair"]
        for control, value, before in ((row.shown, False, True), (row.locked, True, False), (row.opacity, 0.2, 0.8)):
            control.value = value  # calls back before it returns
            with stage.changing() as scene:  # and the panel has no time to look in between
                scene.undo()
            page.until(lambda control=control, before=before: control.value == pytest.approx(before, abs=1e-3))
        row.name.value = "armchair"
        with stage.changing() as scene:
            scene.undo()
        page.until(lambda: page.value("chair", "Name") == "chair")
        assert not stage.scene.history.done


class Busy:
    """A training that never ends."""

    def __init__(self) -> None:
        self.told: list[set[str]] = []

    def pause(self) -> None: ...
    def go_on(self) -> None: ...
    def one_step(self) -> None: ...

    def edited(self, layers: set[str]) -> None:
        self.told.append(layers)

    def state(self) -> dict[str, object]:
        return {"step": 1, "steps": 2, "paused": False, "losses": [], "psnrs": [], "steps_per_second": 1.0}


def test_opacities_follow_a_training_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.viewer.panels.layers.OPACITY_SECONDS", 1.0)
    scene, training = demo_scene(), Busy()
    stage = Stage(scene, training=training)
    with opened(stage) as page:
        page.until(lambda: page.find("cloud", "Name"))
        with stage.changing():  # as a step does, past the history
            scene.layers["chair"].family.set_opacities(torch.full((8,), 0.35))
        page.until(lambda: page.value("chair", "Mean opacity") == pytest.approx(0.35, abs=1e-3))
        page.set("cloud", "Mean opacity", to=0.2)
        page.until(lambda: training.told == [{"cloud"}])


@pytest.mark.parametrize("name", LAYERS)
def test_the_opacity_of_every_family(name: str) -> None:
    scene = a_scene(name)
    with opened(Stage(scene)) as page:
        page.until(lambda: page.find(name, "Mean opacity"))
        uuid = page.find(name, "Mean opacity")
        if name == "textured":
            assert page.controls[uuid]["disabled"] == ("logit_opacities" not in scene[name].family.parameters)
        if not page.controls[uuid]["disabled"]:
            page.set(name, "Mean opacity", to=0.5)
            page.until(lambda: abs(scene[name].opacity - 0.5) < 0.02)
        assert not page.problems()


def test_an_opacity_that_a_locked_layer_refuses_goes_back() -> None:
    scene = demo_scene()
    with opened(Stage(scene)) as page:
        page.until(lambda: page.find("cloud", "Name"))
        scene.layers["chair"].locked = True  # behind the panel's back
        page.set("chair", "Mean opacity", to=0.1)
        page.until(page.problems)
        assert "locked" in page.problems()[0]
        page.until(lambda: page.value("chair", "Mean opacity") == pytest.approx(0.8, abs=1e-3))
        assert page.until(lambda: page.controls[page.find("chair", "Mean opacity")]["disabled"])


def test_a_scene_without_layers() -> None:
    with opened(Stage(Scene())) as page:
        page.until(lambda: "empty" in page.text("Layers"))
        assert page.state("layers") == {"rows": [], "count": 0, "bytes": 0}
