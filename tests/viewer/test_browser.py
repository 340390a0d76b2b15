"""The viewer in a real browser: what the page shows is what the renderer draws, and what is done there is done."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import numpy as np
import pytest
import torch

from smalti.cameras.camera import Camera
from smalti.scene import demo_scene
from smalti.scene.scene import Scene
from smalti.viewer.server import Viewer
from smalti.viewer.stage import Stage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "there is a browser")

PICTURES = os.environ.get("SMALTI_TEST_PICTURES", "")
PANEL = 360
"""Pixels at the right edge that viser's panel may cover, with its shadow."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


@dataclass
class Shown:
    """A page and the viewer behind it."""

    page: Page
    heard: chromium.Heard
    viewer: Viewer

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.viewer.port}/state", timeout=10) as answer:
            return json.load(answer)

    def client(self) -> dict[str, Any]:
        """The state of the newest client."""
        return self.state()["clients"][-1]

    def until(self, done: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        """The state, as soon as it is `done`; fails where that takes too long."""
        end = time.monotonic() + seconds
        while True:
            state = self.state()
            if done(state):
                return state
            assert time.monotonic() < end, json.dumps(state, indent=1)
            self.page.wait_for_timeout(50)

    def at_rest(self) -> dict[str, Any]:
        """The newest client's state once its picture is lossless and of what is looked at now."""

        def rests(state: dict[str, Any]) -> bool:
            picture = state["clients"][-1]["picture"] if state["clients"] else None
            return picture is not None and picture["lossless"] and picture["current"]

        found = self.until(rests)["clients"][-1]
        while True:  # the page lets a drag glide to its end, and shows a picture somewhat after it came
            self.page.wait_for_timeout(500)
            before, found = found, self.until(rests)["clients"][-1]
            if found["camera"] == before["camera"]:
                return found

    def look(self, name: str = "") -> np.ndarray[Any, Any]:
        """[h, w, 3] uint8: what the page shows; kept as a picture where the tests were asked for some."""
        import imageio.v3 as iio

        png = self.page.screenshot()
        if PICTURES and name:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            (Path(PICTURES) / f"{name}.png").write_bytes(png)
        return np.asarray(iio.imread(io.BytesIO(png)))[..., :3]

    def agrees_with(self, truth: np.ndarray[Any, Any], name: str, seconds: float = 10.0) -> bool:
        """Whether the page comes to show the picture, to 1/255, where nothing lies over it: a busy browser paints it
        some time after it came.
        """
        end = time.monotonic() + seconds
        while True:
            seen = self.look(name)
            assert seen.shape == truth.shape
            free = slice(120, seen.shape[0] - 120), slice(10, seen.shape[1] - PANEL)
            assert truth[free].std() > 5  # there is something to compare
            if int(np.abs(seen[free].astype(int) - truth[free]).max()) <= 1:
                return True
            if time.monotonic() > end:
                return False
            self.page.wait_for_timeout(100)


@contextmanager
def shown(browser: Browser, stage: Stage) -> Generator[Shown, None, None]:
    # Software WebGL is slow: the page would coarsen its canvas while it moves.
    with Viewer(stage, port=0) as viewer, chromium.opened(browser, f"{viewer.url}?fixedDpr=1") as (page, heard):
        found = Shown(page, heard, viewer)
        found.until(lambda state: len(state["clients"]) == 1)
        page.get_by_role("button", name="close").or_(page.locator(".mantine-Notification-closeButton")).first.click()
        yield found


def drawn(scene: Scene, camera: dict[str, Any]) -> np.ndarray[Any, Any]:
    """What the renderer gives for a camera of /state, rounded to bytes."""
    given = Camera(
        torch.tensor(
            camera["rotation"],
        ),
        torch.tensor(
            camera["translation"],
        ),
        torch.tensor(
            camera["intrinsics"],
        ),
        camera["width"],
        camera["height"],
    )
    return (255 * scene.render(given).color.clamp(0, 1)).round().to(torch.uint8).numpy()


def test_the_page_needs_nothing_from_outside_and_shows_what_the_renderer_draws(browser: Browser) -> None:
    stage = Stage(demo_scene())
    with shown(browser, stage) as page:
        client = page.at_rest()
        camera, picture = client["camera"], client["picture"]
        assert (picture["width"], picture["height"]) == (camera["width"], camera["height"])
        assert page.agrees_with(drawn(stage.scene, camera), "page")
        assert not page.heard.outside
        assert not page.heard.errors
        assert not page.heard.policy


def test_dragging_moves_the_camera_and_the_picture_comes_to_rest(browser: Browser) -> None:
    with shown(browser, Stage(demo_scene())) as page:
        before = page.at_rest()
        mouse = page.page.mouse
        mouse.move(300, 300)
        mouse.down()
        for step in range(1, 21):
            mouse.move(300 + 8 * step, 300 + 2 * step)
            page.page.wait_for_timeout(20)
        mouse.up()
        page.until(lambda state: state["clients"][0]["camera"] != before["camera"])
        start = time.monotonic()
        after = page.at_rest()
        assert time.monotonic() - start < 10
        assert after["pictures"] > before["pictures"] + 1
        assert after["camera"]["translation"] != before["camera"]["translation"]
        assert page.agrees_with(drawn(page.viewer.stage.scene, after["camera"]), "dragged")


def test_two_pages_have_their_own_cameras(browser: Browser) -> None:
    with shown(browser, Stage(demo_scene())) as page, chromium.opened(browser, page.viewer.url) as (other, _):
        page.until(lambda state: len(state["clients"]) == 2)
        page.at_rest()
        first = page.state()["clients"][0]["camera"]
        other.mouse.move(300, 300)
        other.mouse.down()
        other.mouse.move(400, 320, steps=10)
        other.mouse.up()
        moved = page.until(lambda state: state["clients"][1]["camera"]["rotation"] != first["rotation"])
        assert moved["clients"][0]["camera"] == first


def test_the_last_line_stays_on_a_page_whose_viewer_is_gone(browser: Browser) -> None:
    with shown(browser, Stage(demo_scene())) as page:
        page.until(lambda state: bool(state["clients"]))
        page.viewer.say_farewell("The training has ended")
        page.viewer.stop()
        page.page.wait_for_timeout(1500)
        assert page.page.get_by_text("The training has ended").first.is_visible()


def test_pages_that_go_leave_nothing_behind(browser: Browser) -> None:
    def resident() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        return 0

    with Viewer(Stage(demo_scene()), port=0) as viewer:

        def visit() -> None:
            with chromium.opened(browser, viewer.url, 500, 400) as (page, heard):
                Shown(page, heard, viewer).at_rest()
            end = time.monotonic() + 15
            while viewer.views():
                assert time.monotonic() < end, "a page that is closed is still served"
                time.sleep(0.05)

        for _ in range(2):  # what is made once: pools, caches
            visit()
        threads, bytes_before = threading.active_count(), resident()
        for _ in range(6):
            visit()
        assert threading.active_count() <= threads
        assert resident() - bytes_before < 24e6
