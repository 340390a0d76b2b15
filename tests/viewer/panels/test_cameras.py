"""The panel of cameras: a view is where it was taken, its photograph beside it, frusta that can be clicked."""

from __future__ import annotations

import math
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
from smalti.datasets.dataset import Points
from smalti.scene import Scene
from smalti.viewer.fitting import Fit, fit, fitted, nearest_view, stands_at
from smalti.viewer.page_camera import rotation_matrix
from smalti.viewer.panels.cameras import MOST_FRUSTA
from smalti.viewer.stage import Stage, Views

PHOTO = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)


def around(count: int) -> list[Camera]:
    """On a circle of radius 3, rolled a little, looking at the middle."""
    cameras: list[Camera] = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        position = torch.tensor([3 * math.cos(angle), 0.2 * k / count, 3 * math.sin(angle)])
        up = torch.tensor([0.1, -1.0, 0.05])
        cameras.append(Camera.look_at(position, torch.zeros(3), up, 1.2, (WIDTH, HEIGHT)))
    return cameras


@pytest.fixture
def views(tmp_path: Path) -> Views:
    return capture(tmp_path, [PHOTO] * 6, around(6), train=4)


def shown_at(page: Page, row: int) -> None:
    """Until the page's camera is where that view was taken."""
    views = page.view.stage.views
    assert views is not None
    taken = views.dataset.views[row].camera
    wanted, sent = taken.centre.numpy(), page.view.client.camera

    def sent_there() -> bool:
        turned = rotation_matrix(sent.wxyz).T
        return np.allclose(sent.position, wanted, atol=1e-5) and np.allclose(turned, taken.rotation.numpy(), atol=1e-4)

    page.until(sent_there, "no move")
    page.arrive()
    page.until(lambda: page.state("cameras")["at_view"] and page.state("cameras")["row"] == row, "not there")


def test_a_client_begins_at_the_view_that_the_panel_names(views: Views) -> None:
    """The first training view, though a held-out one comes before it."""
    held_out = replace(views, train_rows=[1, 2, 4, 5], test_rows=[0, 3])
    with opened(Stage(two_walls(), views=held_out)) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        assert page.value("Cameras", "View") == 1
        assert page.value("Cameras", "Name") == "1 001.png"
        assert page.state("cameras")["row"] == 1
        page.set("Cameras", "Go to", to="Next")
        shown_at(page, 2)


def test_views_are_listed_and_gone_to(views: Views) -> None:
    with opened(Stage(two_walls(), views=views)) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        options = page.controls[page.find("Cameras", "Name")]["options"]
        assert options == ["0 000.png", "1 001.png", "2 002.png", "3 003.png", "4 004.png (test)", "5 005.png (test)"]
        assert "4 views for training" in page.text("Cameras")
        page.set("Cameras", "View", to=3)
        shown_at(page, 3)
        assert page.value("Cameras", "Name") == "3 003.png"
        page.set("Cameras", "Name", to="5 005.png (test)")
        shown_at(page, 5)
        page.until(lambda: page.value("Cameras", "View") == 5)
        page.set("Cameras", "Go to", to="Next")
        shown_at(page, 0)
        page.set("Cameras", "Go to", to="Previous")
        shown_at(page, 5)
        assert page.state("cameras")["view"] == "005.png"
        assert not page.problems()


def test_the_whole_view_is_on_a_canvas_of_any_shape(views: Views) -> None:
    for size in ((40, 200), (200, 40)):
        with opened(Stage(two_walls(), views=views), *size) as page:
            page.until(lambda: page.find("Cameras", "Show axes"))
            page.set("Cameras", "View", to=2)
            shown_at(page, 2)
            seen, taken = page.view.look.camera, views.cache.camera(2)
            place = fit(taken, *size)
            # The page's camera is the view's, with more around it.
            focal = float(seen.intrinsics[0])
            assert focal == pytest.approx(float(taken.intrinsics[0]) * place.width / WIDTH, rel=0.02)
            assert place.width <= size[0]
            assert place.height <= size[1]


def test_the_photograph_is_shown_beside_the_render(views: Views) -> None:
    stage = Stage(two_walls(), views=views)
    with opened(stage, 64, 48) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        page.set("Cameras", "View", to=1)
        shown_at(page, 1)
        page.set("Cameras", "Photograph", to=True)
        page.until(lambda: page.view.look.truth_row == 1)
        page.until(lambda: page.controls[page.find("Cameras", "up to")]["visible"])
        page.set("Cameras", "up to", to=1.0)
        page.until(lambda: page.view.look.split == 1.0)
        page.until(lambda: page.view.picture and page.view.picture.legend.get("truth") == "001.png")
        # It goes along to the next view, and away with the tick.
        page.set("Cameras", "Go to", to="Next")
        page.until(lambda: page.view.look.truth_row == 2)
        shown_at(page, 2)
        page.set("Cameras", "Photograph", to=False)
        page.until(lambda: page.view.look.truth_row is None)
        page.until(lambda: not page.controls[page.find("Cameras", "up to")]["visible"])


def test_asking_for_the_photograph_goes_to_its_view(views: Views) -> None:
    with opened(Stage(two_walls(), views=views)) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        page.set("Cameras", "Photograph", to=True)
        shown_at(page, 0)
        assert page.view.look.truth_row == 0


def test_a_photograph_that_cannot_be_read_is_told(views: Views) -> None:
    views.dataset.views[1].image.write_bytes(b"no picture")
    with opened(Stage(two_walls(), views=views)) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        page.set("Cameras", "View", to=1)
        shown_at(page, 1)
        page.set("Cameras", "Photograph", to=True)
        page.until(page.problems)
        assert "001.png" in page.problems()[0]
        assert page.view.look.truth_row is None
        page.until(lambda: page.value("Cameras", "Photograph") is False)


def test_frusta_stand_where_the_views_do_and_can_be_clicked(views: Views) -> None:
    with opened(Stage(two_walls(), views=views)) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        assert page.state("cameras")["frusta"] == 0
        page.set("Cameras", "Show cameras", to=True)
        page.until(lambda: sum(name.startswith("/views/") for name in page.nodes) == 6)
        panel = page.panel("cameras")
        for row, node in panel._frusta.items():
            taken = views.dataset.views[row].camera
            assert np.allclose(node.position, taken.centre.numpy(), atol=1e-5)
            w, x, y, z = node.wxyz
            forward = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
            assert np.allclose(forward, taken.rotation[2].numpy(), atol=1e-5)
        page.client.send(
            "SceneNodeClickMessage",
            name="/views/4",
            instance_index=None,
            ray_origin=[0.0, 0.0, 0.0],
            ray_direction=[0.0, 0.0, 1.0],
            screen_pos=[0.5, 0.5],
            modifier=None,
            owner=page.nodes["/views/4"]["owner"],
        )
        shown_at(page, 4)
        assert panel._frusta[4].visible is False
        assert panel._frusta[3].visible is True
        page.set("Cameras", "Show cameras", to=False)
        page.until(lambda: page.state("cameras")["shown"] == [])


def test_many_cameras_are_thinned(tmp_path: Path) -> None:
    count = 3 * MOST_FRUSTA
    few = capture(tmp_path, [PHOTO], [camera()])
    taken = tuple(replace(few.dataset.views[0], camera=each) for each in around(count))
    many = replace(few.dataset, views=taken)
    views = Views(many, type(few.cache)(many), list(range(count)), [])
    with opened(Stage(Scene(), views=views)) as page:
        # Nothing to look at but the cameras: they are shown from the start.
        page.until(lambda: page.state("cameras")["frusta"] == MOST_FRUSTA)
        rows = sorted(page.panel("cameras")._frusta)
        assert (rows[0], rows[-1]) == (0, count - 1)
        page.until(lambda: page.controls[page.find("Cameras", "Name")]["visible"] is False)
        page.set("Cameras", "View", to=count - 1)
        shown_at(page, count - 1)


def test_points_and_axes(views: Views) -> None:
    positions = np.random.default_rng(0).normal(size=(50, 3))
    points = Points(positions, np.full((50, 3), 200, np.uint8))
    views = replace(views, dataset=replace(views.dataset, points=points))
    with opened(Stage(two_walls(), views=views)) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        page.set("Cameras", "Show points", to=True)
        page.until(lambda: "/points" in page.nodes)
        got = np.frombuffer(page.nodes["/points"]["props"]["points"], np.float32).reshape(-1, 3)
        assert np.allclose(got, positions, atol=1e-6)
        page.set("Cameras", "Show axes", to=True)
        page.until(lambda: page.state("cameras")["shown"] == ["/points", "/axes"])
        page.set("Cameras", "Show points", to=False)
        page.until(lambda: page.state("cameras")["shown"] == ["/axes"])
        assert not page.problems()


def test_without_views_there_are_only_axes() -> None:
    with opened(Stage(two_walls())) as page:
        page.until(lambda: page.find("Cameras", "Show axes"))
        for label in ("View", "Name", "Photograph", "Show cameras", "Show points"):
            assert page.controls[page.find("Cameras", label)]["visible"] is False
        assert page.state("cameras")["views"] == 0
        page.set("Cameras", "View", to=3)
        page.set("Cameras", "Photograph", to=True)
        page.until(page.problems)
        assert "no calibrated views" in page.problems()[0]
        page.until(lambda: page.value("Cameras", "Photograph") is False)


# -- arithmetic --------------------------------------------------------------------------------------------------------
def test_fitting_keeps_the_shape_and_the_rays() -> None:
    taken = camera()
    assert fit(taken, 64, 48) == Fit(0, 0, 64, 48)
    assert fit(taken, 64, 24) == Fit(16, 0, 32, 24)
    assert fit(taken, 32, 48) == Fit(0, 12, 32, 24)
    assert fit(taken, 1, 1) == Fit(0, 0, 1, 1)
    wide = fitted(taken, 100, 24)
    assert (wide.width, wide.height) == (100, 24)
    # The pixel in the middle of the view sees what it saw.
    assert wide.intrinsics.tolist() == pytest.approx([12.0, 12.0, 34.0 + 16.0, 12.0])


def test_the_nearest_view_is_near_and_looks_the_same_way(tmp_path: Path) -> None:
    back = replace(camera(shift=0.1), rotation=torch.diag(torch.tensor([-1.0, 1.0, -1.0])))
    views = capture(tmp_path, [PHOTO] * 3, [camera(shift=1.0), back, camera(shift=-0.5)])
    assert nearest_view(views, camera(shift=0.1)) == 2
    assert nearest_view(views, camera(shift=0.9)) == 0
    assert stands_at(views, 0, camera(shift=1.0))
    assert not stands_at(views, 0, camera(shift=0.98))
    assert not stands_at(views, 1, camera(shift=0.1))
    views.train_rows.clear()
    assert nearest_view(views, camera()) is None
