"""The panel of the picture: wishes become looks, and the page says what it shows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pages import opened

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flat import HEIGHT, WIDTH, camera, capture, two_walls

from smalti.scene import demo_scene
from smalti.viewer.look import MODES
from smalti.viewer.panels.picture import LABELS
from smalti.viewer.stage import Stage


def views(folder: Path):
    return capture(folder, [np.full((HEIGHT, WIDTH, 3), 9, np.uint8)], [camera()])


def test_every_mode_can_be_chosen_and_is_drawn(tmp_path: Path) -> None:
    with opened(Stage(two_walls(), views=views(tmp_path)), position=(0, 0, 0)) as page:
        page.until(lambda: page.find("Picture", "Mode"))
        assert page.controls[page.find("Picture", "Mode")]["options"] == [LABELS[mode] for mode in MODES]
        for mode in reversed(MODES):
            page.set("Picture", "Mode", to=LABELS[mode])
            page.until(lambda mode=mode: page.view.look.mode == mode)
            page.until(lambda mode=mode: page.state("picture")["legend"].get("mode") == mode, mode)
        assert not page.problems()


def test_an_error_needs_views() -> None:
    with opened(Stage(two_walls())) as page:
        page.until(lambda: page.find("Picture", "Mode"))
        assert LABELS["error"] not in page.controls[page.find("Picture", "Mode")]["options"]


def test_order_and_background() -> None:
    with opened(Stage(two_walls())) as page:
        page.until(lambda: page.find("Picture", "Colour"))
        for label, order in (("One key each (centre)", "centre"), ("Exact, per pixel (ray)", "ray")):
            page.set("Picture", "Order", to=label)
            page.until(lambda order=order: page.view.look.order == order)
        page.set("Picture", "Order", to="As the scene says")
        page.until(lambda: page.view.look.order is None)
        assert page.controls[page.find("Picture", "Colour")]["visible"] is False
        page.set("Picture", "Backdrop", to=True)
        page.until(lambda: page.view.look.background == (1.0, 1.0, 1.0))
        page.until(lambda: page.controls[page.find("Picture", "Colour")]["visible"])
        page.set("Picture", "Colour", to=[0, 51, 255])
        page.until(lambda: page.state("picture")["background"] == pytest.approx([0.0, 0.2, 1.0]))
        page.set("Picture", "Backdrop", to=False)
        page.until(lambda: page.view.look.background is None)


def test_the_range_of_depths_is_told_held_and_given() -> None:
    with opened(Stage(two_walls()), position=(0, 0, 0)) as page:
        page.until(lambda: page.find("Picture", "Far"))
        page.set("Picture", "Mode", to="Depth")
        legend = page.until(lambda: "near" in page.state("picture")["legend"] and page.state("picture")["legend"])
        page.until(lambda: "near (red) 2 to far (blue) 4" in page.text("Picture"))
        page.set("Picture", "Auto range", to=False)
        page.until(lambda: page.view.look.depth_range is not None)
        assert page.view.look.depth_range == pytest.approx((legend["near"], legend["far"]), abs=1e-3)
        page.set("Picture", "Far", to=10.0)
        page.until(lambda: page.view.look.depth_range and page.view.look.depth_range[1] == 10.0)
        page.set("Picture", "Near", to=11.0)
        page.until(page.problems)
        assert "near to far" in page.problems()[0]
        assert page.view.look.depth_range is not None
        assert page.view.look.depth_range[1] == 10.0
        page.set("Picture", "Depth", to="Median")
        page.set("Picture", "Near", to=0.5)
        page.until(lambda: page.view.look.depth_range == (0.5, 10.0) and page.view.look.depth == "median")
        page.set("Picture", "Auto range", to=True)
        page.until(lambda: page.view.look.depth_range is None)


def test_the_page_says_what_its_picture_is() -> None:
    with opened(Stage(demo_scene())) as page:
        page.until(lambda: "96 × 64" in page.text("Picture") and "exact, lossless" in page.text("Picture"))
        page.set("Picture", "Mode", to="Layers")
        page.until(lambda: "chair" in page.text("Picture") and "cloud" in page.text("Picture"))
        page.view.change(mode="contribution")
        page.panel("picture").refresh()
        page.until(lambda: page.value("Picture", "Mode") == LABELS["contribution"])
        page.until(lambda: "logarithmic" in page.text("Picture"))


def test_names_of_layers_are_no_html() -> None:
    scene = two_walls()
    scene["near"].name = "<script>alert(1)<&script>"
    with opened(Stage(scene)) as page:
        page.until(lambda: page.find("Picture", "Mode"))
        page.set("Picture", "Mode", to="Layers")
        page.until(lambda: "&lt;script&gt;" in page.text("Picture"))
        assert all("<script" not in c["content"] for c in page.controls.values() if "content" in c)


def test_a_choice_that_was_not_looked_at_yet_is_not_taken_back() -> None:
    with opened(Stage(two_walls())) as page:
        page.until(lambda: page.find("Picture", "Mode"))
        panel = page.panel("picture")
        panel._mode._impl.value = LABELS["alpha"]  # as viser does before it calls back
        panel.refresh()
        assert panel._mode.value == LABELS["alpha"]
        page.view.change(mode="normal")
        panel.refresh()
        assert panel._mode.value == LABELS["normal"]
