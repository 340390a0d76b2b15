"""Editing in a real browser: a click selects, a drag of the handles moves, a button takes it back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
import torch
from test_browser import Shown, shown

from smalti.scene import delete, demo_scene, layer, middle
from smalti.viewer.stage import Stage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scene"))
from mixed import in_bytes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "there is a browser")


@pytest.fixture(scope="module")
def a_browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


def edit_state(page: Shown) -> dict[str, Any]:
    return page.client()["panels"]["edit"]


def pixel_of(point: torch.Tensor, camera: dict[str, Any]) -> tuple[float, float]:
    fx, fy, cx, cy = camera["intrinsics"]
    rotation = torch.tensor(camera["rotation"], dtype=torch.float64)
    x, y, z = (rotation @ point + torch.tensor(camera["translation"], dtype=torch.float64)).tolist()
    return fx * x / z + cx, fy * y / z + cy


def choose(page: Shown, label: str, option: str) -> None:
    """An entry of a dropdown, as a person does it."""
    page.page.get_by_label(label, exact=True).first.click()
    page.page.get_by_role("option", name=option, exact=True).click()


def test_click_drag_and_undo(a_browser: Browser) -> None:
    scene = demo_scene()
    delete(scene, layer("cloud"))
    scene.history.clear()
    before = in_bytes(scene)
    with shown(a_browser, Stage(scene)) as page:
        camera = page.at_rest()["camera"]
        for name in ("Layers", "Camera path"):
            page.page.get_by_text(name, exact=True).first.click()
        page.page.get_by_text("Edit", exact=True).first.click()
        choose(page, "Tool", "Click")
        choose(page, "Click takes", "Layer")
        page.until(lambda _: edit_state(page)["tool"] == "click")
        places = [pixel_of(each, camera) for each in scene.layers["chair"].family.positions().detach().double()]
        page.page.mouse.click(*min(places))  # the leftmost: the others may be behind the panel
        page.until(lambda _: edit_state(page)["selected"] == {"chair": 8})
        page.at_rest()
        page.look("edit-selected")
        pivot = torch.tensor(edit_state(page)["gizmo"], dtype=torch.float64)
        torch.testing.assert_close(pivot, middle(scene, layer("chair")))
        # Along the arrow of the x axis, grasped at its shaft.
        arm = torch.tensor([0.6 * edit_state(page)["gizmo_size"], 0.0, 0.0], dtype=torch.float64)
        start, goal = pixel_of(pivot + arm, camera), pixel_of(pivot + 2 * arm, camera)
        page.page.mouse.move(*start)
        page.page.wait_for_timeout(300)
        page.page.mouse.down()
        for share in range(1, 11):
            page.page.mouse.move(*(a + (b - a) * share / 10 for a, b in zip(start, goal, strict=True)))
            page.page.wait_for_timeout(30)
        page.page.mouse.up()
        page.until(lambda state: state["scene"]["history"]["done"] == ["move"])
        moved = middle(scene, layer("chair")) - pivot
        assert float(moved[0]) == pytest.approx(float(arm[0]), rel=0.2)
        assert float(moved[1:].abs().max()) < 1e-6
        page.at_rest()
        page.look("edit-moved")
        button = page.page.get_by_role("button", name="Undo: move")
        button.scroll_into_view_if_needed()
        button.click()
        page.until(lambda state: state["scene"]["history"]["undone"] == ["move"])
        assert in_bytes(scene) == before
        page.at_rest()
        page.look("edit-undone")
        assert not page.heard.errors
