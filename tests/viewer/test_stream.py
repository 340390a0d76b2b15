"""What a client without a browser is sent: small and quick while it moves, exact at rest, and nothing for nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from flat_training import CountedTraining
from page_client import PageClient

from smalti.scene import demo_scene, layer, move
from smalti.viewer import modes, stream
from smalti.viewer.server import Viewer
from smalti.viewer.stage import Stage


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with Viewer(Stage(demo_scene()), port=0) as viewer:
        yield viewer


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits; fails where it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def drawn(viewer: Viewer, client: int = 0) -> np.ndarray:
    """What the renderer gives for a client's look."""
    camera = viewer.views()[client].look.camera
    return (255 * viewer.stage.scene.render(camera).color.clamp(0, 1)).round().to(torch.uint8).numpy()


def test_at_rest_the_picture_is_the_renderers_soon(viewer: Viewer) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()  # what is imported at first use is there now
        client.look(position=(0.4, 0.6, -2.2))
        start = time.monotonic()
        pixels = client.picture_at_rest()
        assert time.monotonic() - start < 0.5
        assert pixels.shape == (64, 96, 3)
        assert pixels.std() > 10, "an empty picture proves nothing"
        assert np.abs(pixels.astype(int) - drawn(viewer).astype(int)).max() <= 1
        shown = viewer.state()["clients"][0]["picture"]
        assert (shown["width"], shown["height"], shown["lossless"], shown["current"]) == (96, 64, True, True)


def test_nothing_is_drawn_when_nothing_changed(viewer: Viewer) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        before = viewer.views()[0].pictures
        for _ in range(5):
            client.look()  # the page says again where it is
        assert "BackgroundImageMessage" not in client.heard(0.6)
        assert viewer.views()[0].pictures == before


def test_an_edit_draws_anew_for_all(viewer: Viewer) -> None:
    with PageClient(viewer.url) as one, PageClient(viewer.url) as other:
        for client in (one, other):
            client.look()
            client.picture_at_rest()
        with viewer.stage.changing() as scene:
            move(scene, layer("chair"), [0.3, 0.0, 0.0])
        for client in (one, other):
            pixels = client.picture_at_rest()
            assert np.abs(pixels.astype(int) - drawn(viewer).astype(int)).max() <= 1
        assert viewer.state()["scene"]["history"]["done"] == ["move"]


def test_an_edit_that_goes_on_and_on_is_followed(viewer: Viewer) -> None:
    """As when somebody drags a handle: quick pictures meanwhile, and the exact one at the end."""
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        view = viewer.views()[0]
        before = view.pictures
        for _ in range(40):
            with viewer.stage.changing() as scene:
                move(scene, layer("chair"), [0.01, 0.0, 0.0])
            time.sleep(0.05)
        assert view.pictures - before >= 10
        until(lambda: viewer.state()["clients"][0]["picture"]["current"] and view.picture and view.picture.lossless)


def test_two_clients_see_their_own_cameras(viewer: Viewer) -> None:
    with PageClient(viewer.url, 80, 60) as one, PageClient(viewer.url, 120, 50) as other:
        one.look(position=(0.5, 0.5, -2.0))
        other.look(position=(0.5, 0.5, -4.0))
        pixels = [one.picture_at_rest(), other.picture_at_rest()]
        assert [p.shape for p in pixels] == [(60, 80, 3), (50, 120, 3)]
        cameras = [client["camera"] for client in viewer.state()["clients"]]
        assert sorted(round(camera["translation"][2]) for camera in cameras) == [2, 4]


def test_slow_pictures_are_small_while_moving_and_whole_at_rest(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = modes.paint

    def slow(stage, look, selected=None):
        time.sleep(1e-5 * look.camera.width * look.camera.height)  # 0.3 s for the whole canvas
        return real(stage, look, selected)

    monkeypatch.setattr(stream, "paint", slow)
    with PageClient(viewer.url, 200, 150) as client:
        client.look()
        client.picture_at_rest()
        sizes, start = [], time.monotonic()
        mover = threading.Thread(
            target=lambda: [(client.look(position=(0.5 + 0.002 * k, 0.5, -2.0)), time.sleep(0.02)) for k in range(100)]
        )
        mover.start()
        while mover.is_alive():
            form, pixels = client.next_picture()
            if mover.is_alive():
                assert form == "jpeg"
                sizes.append(pixels.shape[1])
        frames_per_second = len(sizes) / (time.monotonic() - start)
        assert max(sizes[2:]) < 200
        assert frames_per_second > 5
        assert client.picture_at_rest().shape == (150, 200, 3)


def test_only_the_newest_camera_counts(viewer: Viewer) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        before = viewer.views()[0].pictures
        for k in range(300):
            client.look(position=(0.5 + 0.001 * k, 0.5, -2.0))
        client.picture_at_rest()
        assert viewer.views()[0].look.camera.centre[0] == pytest.approx(0.799, abs=1e-4)
        assert viewer.views()[0].pictures - before < 200


def test_the_last_line_reaches_the_page_before_it_ends(viewer: Viewer) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        viewer.say_farewell("the training has ended")
        viewer.stop()
        assert "NotificationShowMessage" in client.heard(1.0)


def test_an_error_is_a_line_on_the_page_and_the_next_picture_comes(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = modes.paint, threading.Event()

    def sometimes(stage, look, selected=None):
        if broken.is_set():
            raise RuntimeError("the lamp is out")
        return real(stage, look, selected)

    monkeypatch.setattr(stream, "paint", sometimes)
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        broken.set()
        client.look(position=(0.0, 0.5, -2.0))
        until(lambda: viewer.views()[0].said)
        assert "the lamp is out" in viewer.state()["clients"][0]["said"][0]["text"]
        assert "NotificationShowMessage" in client.heard(0.3)
        broken.clear()
        client.look(position=(0.1, 0.5, -2.0))
        assert client.picture_at_rest().std() > 10


def test_a_look_and_a_selection_change_the_picture(viewer: Viewer) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        color = client.picture_at_rest()
        view = viewer.views()[0]
        view.change(mode="alpha")
        alpha = client.picture_at_rest()
        assert (alpha[..., 0] == alpha[..., 1]).all()
        view.change(mode="color")
        np.testing.assert_array_equal(client.picture_at_rest(), color)
        view.select(layer("chair"))
        assert (client.picture_at_rest() != color).any()
        assert viewer.state()["clients"][0]["look"]["selected"] is not None
        view.select(None)
        np.testing.assert_array_equal(client.picture_at_rest(), color)


def test_going_to_a_camera_moves_the_page(viewer: Viewer) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        view = viewer.views()[0]
        wanted = view.look.camera
        view.go_to(wanted)  # nothing to do
        turned = wanted.rotation @ torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
        view.go_to(replace(wanted, rotation=turned, translation=torch.tensor([0.1, 0.2, 5.0])))
        heard = client.heard(0.5)
        assert {"SetCameraPositionMessage", "SetCameraLookAtMessage"} <= set(heard)
        found = [message for message in client.messages if message["type"] == "SetCameraPositionMessage"][-1]
        centre = -turned.T @ torch.tensor([0.1, 0.2, 5.0])
        np.testing.assert_allclose(found["position"], centre.numpy(), atol=1e-5)


def test_beside_a_training_a_client_at_rest_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    training = CountedTraining()
    stage = Stage(demo_scene(), training=training)
    real = modes.paint

    def slow(stage, look, selected=None):
        time.sleep(0.01)
        return real(stage, look, selected)

    monkeypatch.setattr(stream, "paint", slow)
    over = threading.Event()

    def train() -> None:
        while not over.is_set():
            with stage.changing():
                time.sleep(0.002)

    trainer = threading.Thread(target=train)
    with Viewer(stage, port=0) as viewer, PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        trainer.start()
        view = viewer.views()[0]
        time.sleep(0.5)
        before = view.pictures
        kinds = client.heard(3.0)
        resting = view.pictures - before
        assert 1 <= resting <= 4, kinds
        training.paused = True  # the exact picture, now that there is one
        over.set()
        trainer.join()
        client.picture_at_rest(3.0)


def beside_a_training(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Stage:
    """A stage with a training that goes on, where each picture takes so long."""
    real = modes.paint

    def slow(stage, look, selected=None):
        time.sleep(seconds)
        return real(stage, look, selected)

    monkeypatch.setattr(stream, "paint", slow)
    return Stage(demo_scene(), training=CountedTraining())


def test_who_stops_again_and_again_beside_a_training_does_not_get_all_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Viewer(beside_a_training(monkeypatch, 0.1), port=0) as viewer, PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        view = viewer.views()[0]
        before, start = view.spent, time.monotonic()
        for k in range(20):
            client.look(position=(0.5 + 0.01 * k, 0.5, -2.0))
            time.sleep(0.25)
        share = (view.spent - before) / (time.monotonic() - start)
        assert 0.01 < share < 0.2
        assert client.picture_at_rest(5.0).std() > 10


def test_slow_pictures_of_a_client_at_rest_come_seldom_beside_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with Viewer(beside_a_training(monkeypatch, 0.4), port=0) as viewer, PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        before = viewer.views()[0].pictures
        with viewer.stage.changing():
            pass
        client.heard(2.0)
        assert viewer.views()[0].pictures == before, "0.4 s come every 26"


def test_a_failure_between_two_pictures_does_not_end_them(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = beside_a_training(monkeypatch, 0.0)
    with Viewer(stage, port=0) as viewer, PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        monkeypatch.setattr(CountedTraining, "state", lambda self: {}["step"])
        until(lambda: "KeyError" in capfd.readouterr().err)
        monkeypatch.undo()
        client.look(position=(0.3, 0.5, -2.0))
        assert client.picture_at_rest().std() > 10


def test_a_client_that_does_not_read_holds_up_nobody(viewer: Viewer) -> None:
    with PageClient(viewer.url, 640, 480) as asleep, PageClient(viewer.url) as awake:
        for client in (asleep, awake):
            client.look()
            client.picture_at_rest()
        sleeper = next(view for view in viewer.views() if view.look.camera.width == 640)
        for k in range(150):  # its socket is not read any more
            asleep.look(position=(0.5 + 0.01 * k, 0.5, -2.0))
            awake.look(position=(0.5 + 0.01 * k, 0.5, -2.0))
            time.sleep(0.005)
            if k % 50 == 49:
                awake.picture_at_rest()
        awake.look(position=(0.5, 0.5, -3.0))
        assert awake.picture_at_rest(3.0).std() > 5
        assert sleeper in viewer.views()
