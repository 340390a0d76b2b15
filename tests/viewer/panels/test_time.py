"""The time slider: there where the data has time, and what it shows is drawn."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import Page, opened

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flat import HEIGHT, WIDTH, camera, capture, two_walls

from smalti.cameras.camera import Camera
from smalti.primitives.gaussians import Gaussians
from smalti.renderers.drawables import Drawable
from smalti.scene import Scene
from smalti.viewer.stage import Stage, Views

PHOTO = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)


class Fading(Gaussians):
    """Of opacity `time`."""

    def drawables(self, camera: Camera, time: float = 0.0) -> list[Drawable]:
        return [replace(each, opacities=torch.full_like(each.opacities, time)) for each in super().drawables(camera)]


def fading() -> Scene:
    family = Fading.from_points(torch.tensor([[0.0, 0.0, 2.0]]), torch.ones(1, 3), {"initial_scale": 1.0})
    scene = Scene()
    scene.add("spot", family)
    return scene


def at_times(folder: Path, *times: float) -> Views:
    return capture(folder, [PHOTO] * len(times), [replace(camera(), time=each) for each in times])


def brightness(page: Page) -> float:
    """Of the picture at rest, at the time that is to be shown."""
    picture = page.view.picture
    assert picture is not None
    with page.view.stage.reading():
        from smalti.viewer.modes import draw

        return float(draw(page.view.stage, page.view.look)[32, 48].mean()) / 255


def test_it_is_hidden_where_there_is_no_time(tmp_path: Path) -> None:
    for stage in (Stage(two_walls()), Stage(two_walls(), views=at_times(tmp_path, 0.5, 0.5))):
        with opened(stage) as page:
            page.until(lambda: page.find("Time", "At"))
            assert page.controls[page.folder("Time")]["visible"] is False
            assert page.state("time")["visible"] is False
            assert page.view.look.camera.time == 0.0


def test_the_slider_sets_what_is_drawn(tmp_path: Path) -> None:
    stage = Stage(fading(), views=at_times(tmp_path, 0.25, 0.5, 0.75))
    with opened(stage, position=(0, 0, 0)) as page:
        page.until(lambda: page.find("Time", "At"))
        assert page.controls[page.folder("Time")]["visible"] is True
        # The first instant that there is, not the camera's 0.
        page.until(lambda: page.view.look.camera.time == 0.25)
        page.until(lambda: page.view.picture is not None)
        assert brightness(page) == pytest.approx(0.25, abs=0.02)
        page.set("Time", "At", to=0.6)
        page.until(lambda: page.view.look.camera.time == pytest.approx(0.6))
        assert brightness(page) == pytest.approx(0.6, abs=0.02)
        # A moving camera keeps the time.
        page.client.look(position=(0.1, 0.0, 0.0))
        page.until(lambda: float(page.view.look.camera.centre[0]) == pytest.approx(0.1))
        assert page.view.look.camera.time == pytest.approx(0.6)


def test_steps_go_from_instant_to_instant(tmp_path: Path) -> None:
    with opened(Stage(fading(), views=at_times(tmp_path, 0.0, 0.2, 0.9))) as page:
        page.until(lambda: page.find("Time", "At"))
        for button, wanted in (("Next", 0.2), ("Next", 0.9), ("Next", 0.0), ("Previous", 0.9), ("Previous", 0.2)):
            page.set("Time", "Step", to=button)
            page.until(lambda wanted=wanted: page.view.look.camera.time == pytest.approx(wanted), button)
            page.until(lambda wanted=wanted: page.value("Time", "At") == pytest.approx(wanted))


def test_it_plays_and_pauses(tmp_path: Path) -> None:
    with opened(Stage(fading(), views=at_times(tmp_path, 0.0, 1.0))) as page:
        page.until(lambda: page.find("Time", "At"))
        page.set("Time", "Seconds of a turn", to=0.6)
        page.until(lambda: page.panel("time")._seconds.value == 0.6)
        page.set("Time", "Step", to="Play")
        seen: set[float] = set()
        page.until(lambda: seen.add(page.view.look.camera.time) or len(seen) > 6)
        assert page.state("time")["playing"]
        assert all(0.0 <= each <= 1.0 for each in seen)
        page.set("Time", "Step", to="Pause")
        page.until(lambda: not page.state("time")["playing"])
        held = page.view.look.camera.time
        page.until(lambda: page.value("Time", "At") == pytest.approx(held))
        assert page.view.look.camera.time == held


def test_going_to_a_view_goes_to_its_time(tmp_path: Path) -> None:
    with opened(Stage(fading(), views=at_times(tmp_path, 0.0, 0.4, 0.8))) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        page.set("Cameras", "View", to=2)
        page.until(lambda: page.view.look.camera.time == pytest.approx(0.8))
        page.panel("time").refresh()
        page.until(lambda: page.value("Time", "At") == pytest.approx(0.8))
