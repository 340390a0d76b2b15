"""The panels as a person meets them: real controls in a real page."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import chromium
from flat import capture

from smalti.cameras.camera import Camera
from smalti.cameras.trajectory_files import from_file
from smalti.scene import demo_scene
from smalti.viewer.client import ClientView
from smalti.viewer.look import Look
from smalti.viewer.modes import draw
from smalti.viewer.server import Viewer
from smalti.viewer.stage import Stage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "there is a browser")

SIZE = (64, 48)
PICTURES = os.environ.get("SMALTI_TEST_PICTURES", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


def around() -> list[Camera]:
    """Three views in front of the demo scene, of another shape than any window."""
    up = torch.tensor([0.05, -1.0, 0.0])
    places = [torch.tensor([x, -1.0, -4.5]) for x in (-1.5, 0.0, 1.5)]
    return [Camera.look_at(place, torch.zeros(3), up, 0.8, SIZE) for place in places]


def keep(page: Page, name: str) -> None:
    """Where tests were asked for pictures of what they saw."""
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(PICTURES) / f"{name}.png")


class Desk:
    """A page with its viewer's side."""

    def __init__(self, page: Page, viewer: Viewer) -> None:
        self.page, self.viewer = page, viewer
        self.until(lambda: viewer.views() and viewer.views()[0].panels, "no client")

    @property
    def view(self) -> ClientView:
        return self.viewer.views()[0]

    def until(self, done: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + 30
        while not (found := done()):
            assert time.monotonic() < end, f"{what}; said: {list(self.view.said)}"
            self.page.wait_for_timeout(50)
        return found

    def panel(self, name: str) -> dict[str, Any]:
        return self.viewer.state()["clients"][0]["panels"][name]

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def tick(self, label: str) -> None:
        self.page.get_by_label(label, exact=True).first.click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).first.click()


def test_a_walk_through_the_panels(browser: Browser, tmp_path: Path) -> None:
    scene = demo_scene()
    photos = [draw(Stage(scene), Look(each)) for each in around()]
    photos[1] = 255 - photos[1]
    stage = Stage(scene, title="walk", views=capture(tmp_path, photos, around(), train=2))
    with Viewer(stage, port=0) as viewer, chromium.opened(browser, f"{viewer.url}?fixedDpr=1", 1000, 900) as opened:
        page, heard = opened
        desk = Desk(page, viewer)
        page.locator(".mantine-Notification-closeButton").first.click()

        desk.choose("Mode", "Depth")
        desk.until(lambda: "near" in desk.panel("picture")["legend"], "no depth")
        desk.choose("Mode", "Colour")
        desk.until(lambda: desk.panel("picture")["legend"] == {"mode": "color"}, "no colour")

        # What the page sends back is the very view: its photograph can lie beside the render.
        desk.press("Next")
        desk.until(lambda: desk.panel("cameras")["at_view"] and desk.panel("cameras")["row"] == 1, "not at the view")
        desk.tick("Photograph")
        desk.until(lambda: desk.panel("picture")["legend"].get("truth") == "001.png", "no photograph")
        keep(page, "truth")
        desk.tick("Photograph")
        desk.until(lambda: "truth" not in desk.panel("picture")["legend"], "a photograph")

        # From behind the cameras; a click on one goes there.
        desk.tick("Show cameras")
        desk.until(lambda: desk.panel("cameras")["frusta"] == 3, "no frusta")
        taken = around()[0]
        sent = desk.view.client.camera
        sent.position, sent.look_at = np.array([0.0, -3.0, -9.0]), np.array([0.0, -0.5, -3.0])
        desk.until(lambda: abs(float(desk.view.look.camera.centre[2]) + 9.0) < 1e-3, "not sent")
        page.wait_for_timeout(1000)
        camera = desk.view.look.camera
        local = camera.rotation @ taken.centre + camera.translation
        fx, fy, cx, cy = camera.intrinsics.tolist()
        page.mouse.click(fx * float(local[0] / local[2]) + cx, fy * float(local[1] / local[2]) + cy)
        desk.until(lambda: desk.panel("cameras")["at_view"] and desk.panel("cameras")["row"] == 0, "no click")
        desk.tick("Show cameras")

        page.get_by_text("Camera path", exact=True).click()
        desk.press("Add key frame here")
        desk.until(lambda: desk.panel("path")["key_frames"] == 1, "no key frame")
        desk.press("Save path")
        link = page.get_by_role("link").or_(page.locator("a[download]")).first
        with page.expect_download(timeout=30_000) as waiting:
            link.click()
        assert waiting.value.suggested_filename == "walk.json"
        saved = tmp_path / "again.json"
        waiting.value.save_as(saved)
        assert len(from_file(saved)) == 1
        desk.press("Clear")
        desk.until(lambda: desk.panel("path")["key_frames"] == 0, "not cleared")
        with page.expect_file_chooser() as chooser:
            desk.press("Load path")
        chooser.value.set_files(saved)
        desk.until(lambda: desk.panel("path")["key_frames"] == 1, "not loaded")

        # A layer is hidden with a click, and back with one step of the history.
        before = draw(stage, desk.view.look)
        desk.tick("Show")
        desk.until(lambda: not scene["chair"].visible, "not hidden")
        keep(page, "panels")
        with stage.changing():
            scene.undo()
        assert np.array_equal(draw(stage, desk.view.look), before)
        desk.until(page.get_by_label("Show", exact=True).first.is_checked, "not ticked")
        assert not heard.outside
        assert not heard.errors
        assert not heard.policy
        assert not [line for line in desk.view.said if line["problem"]]
