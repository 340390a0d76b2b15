"""Camera paths: key frames and their spline, played, as a film, as a file that `smalti render` reads."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from pages import Page, opened

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from flat import camera, capture, two_walls

from smalti.cameras.camera import Camera
from smalti.cameras.trajectories import interpolate
from smalti.cameras.trajectory_files import from_file
from smalti.scene import demo_scene
from smalti.viewer import modes
from smalti.viewer.fitting import fitted
from smalti.viewer.key_frames import MOST_LOADED, Cancelled, KeyFrames, film
from smalti.viewer.look import Look
from smalti.viewer.stage import Stage

PLACES = [(0.0, 0.0, -3.0), (0.5, 0.1, -2.5), (1.0, 0.0, -2.0)]


def with_key_frames(page: Page, count: int = 3) -> list[Camera]:
    """Key frames at the places; the cameras that they are."""
    page.until(lambda: page.find("Camera path", "Load path"))
    taken: list[Camera] = []
    for k, place in enumerate(PLACES[:count]):
        page.client.look(position=place)
        page.until(lambda place=place: np.allclose(page.view.look.camera.centre.numpy(), place, atol=1e-6))
        taken.append(page.view.look.camera)
        page.press("Camera path", "Add key frame here")
        page.until(lambda k=k: page.state("path")["key_frames"] == k + 1)
    return taken


def downloaded(page: Page, ending: str) -> bytes:
    """The last file that the page was sent, once all of it is there."""

    def whole() -> bytes | None:
        started = [m for m in page.sent if m["type"] == "FileTransferStartDownload" and m["filename"].endswith(ending)]
        if not started:
            return None
        parts = [
            m["content"]
            for m in page.sent
            if m["type"] == "FileTransferPart" and m["transfer_uuid"] == started[-1]["transfer_uuid"]
        ]
        content = b"".join(base64.b64decode(p) if isinstance(p, str) else bytes(p) for p in parts)
        return content if len(content) == started[-1]["size_bytes"] else None

    return page.until(whole, "no file")


def upload(page: Page, name: str, content: bytes) -> None:
    uuid = page.find("Camera path", "Load path")
    page.client.send(
        "FileTransferStartUpload",
        source_component_uuid=uuid,
        transfer_uuid=f"up-{time.monotonic()}",
        filename=name,
        mime_type="application/json",
        part_count=1,
        size_bytes=len(content),
    )
    started = page.client
    started.send(
        "FileTransferPart", source_component_uuid=uuid, transfer_uuid=_last_upload(page), part_index=0, content=content
    )


def _last_upload(page: Page) -> str:
    transfers = page.until(lambda: list(page.view.client.gui._current_file_upload_states), "no upload")
    return str(transfers[-1])


# -- without a page ----------------------------------------------------------------------------------------------------
def test_the_spline_is_that_of_trajectories() -> None:
    cameras = [camera(shift=x) for x in (0.0, 1.0, 0.5)]
    keys = KeyFrames(cameras, 0.5)
    assert keys.duration == 1.0
    assert keys.count(10.0) == 11
    for got, wanted in zip(keys.frames(11), interpolate(cameras, 11), strict=True):
        assert torch.allclose(got.translation, wanted.translation)
        assert torch.allclose(got.intrinsics, wanted.intrinsics)
    keys.closed = True
    assert (keys.duration, keys.count(10.0)) == (1.5, 15)
    assert torch.allclose(keys.frames(15)[0].translation, cameras[0].translation.double())


def test_one_key_frame_is_a_still_and_none_is_an_error() -> None:
    assert KeyFrames([camera()]).count(30.0) == 1
    assert len(KeyFrames([camera()]).frames(1)) == 1
    assert KeyFrames().count(30.0) == 0
    with pytest.raises(ValueError, match="no key frame yet"):
        KeyFrames().frames(3)


def test_key_frames_of_other_windows_keep_their_pixels_square() -> None:
    frames = KeyFrames([camera(64, 48), camera(20, 60)]).frames(5)
    assert all((each.width, each.height) == (64, 48) for each in frames)
    assert all(float(each.intrinsics[0]) == pytest.approx(float(each.intrinsics[1])) for each in frames)
    assert float(frames[-1].intrinsics[0]) == pytest.approx(float(fitted(camera(20, 60), 64, 48).intrinsics[0]))


def test_a_file_is_one_for_smalti_render_and_comes_back(tmp_path: Path) -> None:
    keys = KeyFrames([camera(shift=0.1 * k) for k in range(4)], 0.7, True)
    path = tmp_path / "path.json"
    path.write_text(keys.to_text(10.0, (64, 48)))
    every = from_file(path)
    assert len(every) == keys.count(10.0) == 28
    assert all((each.width, each.height) == (64, 48) for each in every)
    back = KeyFrames.from_text(path.read_text())
    assert (back.seconds, back.closed, len(back.cameras)) == (0.7, True, 4)
    for got, wanted in zip(back.cameras, keys.cameras, strict=True):
        assert torch.equal(got.rotation, wanted.rotation)
        assert torch.equal(got.translation, wanted.translation)
        assert (got.width, got.height) == (wanted.width, wanted.height)


def test_a_path_without_key_frames_is_thinned(tmp_path: Path) -> None:
    from smalti.cameras.trajectory_files import save_trajectory

    save_trajectory(tmp_path / "long.json", [camera(shift=0.01 * k) for k in range(301)])
    keys = KeyFrames.from_text((tmp_path / "long.json").read_text())
    assert len(keys.cameras) == MOST_LOADED
    assert keys.duration == pytest.approx(10.0)
    assert float(keys.cameras[-1].translation[0]) == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "holds no camera"),
        ('{"format": "smalti-trajectory", "version": 1, "cameras": [{}]}', "rotation"),
        ('{"camera_path": 3}', "neither"),
    ],
)
def test_a_bad_file_names_itself(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        KeyFrames.from_text(text, "../../my.json")
    assert str(error.value).startswith("my.json: ")


def test_bad_seconds_in_a_file() -> None:
    content = json.loads(KeyFrames([camera()]).to_text(10.0))
    for seconds in (-1, "two", float("1e9")):
        content["key_frames"]["seconds"] = seconds
        with pytest.raises(ValueError, match="seconds"):
            KeyFrames.from_text(json.dumps(content))


@pytest.mark.parametrize("mode", ["color", "depth", "family"])
def test_a_film_is_what_the_modes_draw(mode: Any) -> None:
    stage = Stage(two_walls())
    cameras = [camera(shift=x) for x in (0.0, 0.2, 0.4)]
    seen: list[int] = []
    pictures = list(film(stage, Look(camera(), mode=mode, truth_row=7), cameras, lambda k: not seen.append(k)))
    assert seen == [0, 1, 2]
    ranged = (2.0, 4.0) if mode == "depth" else None
    for got, each in zip(pictures, cameras, strict=True):
        wanted = modes.draw(stage, Look(each, mode=mode, depth_range=ranged))
        assert np.abs(got.astype(int) - wanted).max() <= (2 if mode == "depth" else 0)


def test_a_film_of_errors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another mode"):
        next(film(Stage(two_walls()), Look(camera(), mode="error"), [camera()], lambda k: True))


def test_a_film_can_be_cancelled() -> None:
    pictures = film(Stage(two_walls()), Look(camera()), [camera()] * 5, lambda k: k < 2)
    assert next(pictures) is not None
    assert next(pictures) is not None
    with pytest.raises(Cancelled):
        next(pictures)


# -- on the page -------------------------------------------------------------------------------------------------------
def test_key_frames_are_added_chosen_moved_and_removed() -> None:
    with opened(Stage(demo_scene())) as page:
        taken = with_key_frames(page)
        panel = page.panel("path")

        def are(*order: int) -> bool:
            return [camera is taken[k] for camera, k in zip(panel._keys.cameras, order, strict=True)] == [True] * len(
                order
            )

        assert are(0, 1, 2)
        assert "3 key frames · 4.0 s · 121 frames" in page.text("Camera path")
        page.until(lambda: {"/path/0", "/path/1", "/path/2", "/path/line"} <= set(page.nodes))
        page.set("Camera path", "Key frame", to=0)
        page.until(lambda: np.allclose(page.view.client.camera.position, PLACES[0], atol=1e-6))
        page.set("Camera path", "Order", to="Later")
        page.until(lambda: are(1, 0, 2) and page.state("path")["chosen"] == 1)
        page.set("Camera path", "Order", to="Earlier")
        page.until(lambda: are(0, 1, 2) and page.state("path")["chosen"] == 0)
        page.client.look(position=PLACES[2])
        page.until(lambda: np.allclose(page.view.look.camera.centre.numpy(), PLACES[2], atol=1e-6))
        page.set("Camera path", "This one", to="Replace")
        page.until(lambda: panel._keys.cameras[0] is page.view.look.camera)
        page.set("Camera path", "This one", to="Remove")
        page.until(lambda: are(1, 2) if len(panel._keys.cameras) == 2 else False)
        page.set("Camera path", "Seconds between", to=3.0)
        page.set("Camera path", "Closed", to=True)
        page.until(lambda: page.state("path")["duration"] == 6.0)
        page.set("Camera path", "Show path", to=False)
        page.until(lambda: not any(name.startswith("/path/") for name in page.nodes))
        page.set("Camera path", "Order", to="Clear")
        page.until(lambda: page.state("path")["key_frames"] == 0)
        page.until(lambda: not page.controls[page.find("Camera path", "Export film (mp4)")]["visible"])
        assert not page.problems()


def test_the_path_is_previewed_and_played() -> None:
    with opened(Stage(demo_scene())) as page:
        with_key_frames(page)
        page.set("Camera path", "At", to=1.0)
        page.until(lambda: page.panel("path")._at.value == 1.0)
        page.set("Camera path", "At", to=0.0)
        page.until(lambda: np.allclose(page.view.client.camera.position, PLACES[0], atol=1e-4))
        page.set("Camera path", "At", to=0.5)
        page.until(lambda: np.allclose(page.view.client.camera.position, PLACES[1], atol=0.05))
        page.set("Camera path", "Seconds between", to=0.3)
        page.until(lambda: page.state("path")["duration"] == pytest.approx(0.6))
        page.set("Camera path", "Preview", to="Play")
        page.until(lambda: np.allclose(page.view.client.camera.position, PLACES[2], atol=1e-4))
        page.until(lambda: not page.state("path")["playing"])
        page.set("Camera path", "Closed", to=True)
        page.until(lambda: page.state("path")["closed"])
        page.set("Camera path", "Preview", to="Play")
        page.until(lambda: page.state("path")["playing"])
        page.set("Camera path", "Preview", to="Stop")
        page.until(lambda: not page.state("path")["playing"])
        assert not page.problems()


def test_a_film_is_made_and_handed_over(tmp_path: Path) -> None:
    stage = Stage(demo_scene(), title="my / scene")
    with opened(stage) as page:
        taken = with_key_frames(page)
        page.set("Camera path", "Frames per second", to=4.0)
        page.set("Camera path", "Seconds between", to=1.0)
        page.until(lambda: page.state("path")["duration"] == 2.0)
        page.set("Camera path", "Width", to=64)
        page.until(lambda: page.panel("path")._width.value == 64 and page.panel("path")._fps.value == 4.0)
        page.press("Camera path", "Export film (mp4)")
        content = downloaded(page, ".mp4")
        export = page.until(lambda: not page.state("path")["export"]["running"] and page.state("path")["export"])
        assert export["file"] == "my-scene.mp4"
        assert (export["frame"], export["frames"], export["bytes"]) == (9, 9, len(content))
        path = tmp_path / "film.mp4"
        path.write_bytes(content)
        with imageio.get_reader(path) as reader:
            pictures = [np.asarray(frame) for frame in reader]
        assert len(pictures) == 9
        size = (64, round(64 * taken[0].height / taken[0].width))
        wanted = modes.draw(stage, Look(taken[0].scaled_to(*size)))
        assert np.abs(pictures[0][: size[1]].astype(int) - wanted).mean() < 8
        assert not page.problems()
        page.until(lambda: page.controls[page.find("Camera path", "Export film (mp4)")]["visible"])


def test_a_film_is_cancelled_and_another_can_follow() -> None:
    with opened(Stage(demo_scene())) as page:
        with_key_frames(page, 2)
        page.set("Camera path", "Seconds between", to=60.0)
        page.until(lambda: page.state("path")["duration"] == 60.0)
        page.press("Camera path", "Export film (mp4)")
        page.until(lambda: page.state("path")["export"]["frame"] > 2)
        page.press("Camera path", "Export film (mp4)")
        page.until(page.problems)
        assert "already" in page.problems()[0]
        page.press("Camera path", "Cancel")
        page.until(lambda: page.state("path")["export"].get("cancelled"))
        page.until(lambda: not page.state("path")["export"]["running"])
        assert not any(m["type"] == "FileTransferStartDownload" for m in page.sent)
        page.set("Camera path", "Seconds between", to=0.1)
        page.until(lambda: page.state("path")["duration"] == pytest.approx(0.1))
        page.press("Camera path", "Export film (mp4)")
        downloaded(page, ".mp4")


def test_a_film_that_is_too_long_is_refused() -> None:
    with opened(Stage(demo_scene())) as page:
        with_key_frames(page, 2)
        page.set("Camera path", "Seconds between", to=600.0)
        page.set("Camera path", "Frames per second", to=200.0)
        page.until(lambda: page.panel("path")._fps.value == 200.0 and page.state("path")["duration"] == 600.0)
        page.press("Camera path", "Export film (mp4)")
        page.until(page.problems)
        assert "lower" in page.problems()[0]


def test_a_leaving_client_ends_its_film_and_its_player() -> None:

    with opened(Stage(demo_scene())) as page:
        with_key_frames(page, 2)
        page.set("Camera path", "Seconds between", to=60.0)
        page.until(lambda: page.state("path")["duration"] == 60.0)
        page.press("Camera path", "Export film (mp4)")
        page.set("Camera path", "Preview", to="Play")
        page.until(lambda: page.state("path")["export"]["frame"] > 0 and page.state("path")["playing"])
        page.client.close()
        page.until(lambda: not page.viewer.views())
        mine = {"smalti-viewer-film", "smalti-viewer-path", "smalti-viewer-picture", "smalti-viewer-time"}
        page.until(lambda: not [each for each in threading.enumerate() if each.name in mine])


def test_a_path_is_saved_and_loaded(tmp_path: Path) -> None:
    with opened(Stage(demo_scene())) as page:
        taken = with_key_frames(page)
        page.press("Camera path", "Save path")
        content = downloaded(page, ".json")
        (tmp_path / "path.json").write_bytes(content)
        assert len(from_file(tmp_path / "path.json")) == 121
        page.set("Camera path", "Order", to="Clear")
        page.until(lambda: page.state("path")["key_frames"] == 0)
        upload(page, "path.json", content)
        page.until(lambda: page.state("path")["key_frames"] == 3)
        for got, wanted in zip(page.panel("path")._keys.cameras, taken, strict=True):
            assert torch.equal(got.translation, wanted.translation)
        upload(page, "bad.json", b"\xff\xfe nothing")
        page.until(page.problems)
        assert page.problems()[0].startswith("Camera path: bad.json: not a text file")
        assert page.state("path")["key_frames"] == 3


def test_two_quick_clicks_leave_one_player_that_can_be_stopped() -> None:
    def players() -> int:
        return sum(each.name == "smalti-viewer-path" for each in threading.enumerate())

    with opened(Stage(demo_scene())) as page:
        with_key_frames(page)
        page.set("Camera path", "Closed", to=True)
        page.until(lambda: page.state("path")["closed"])
        panel = page.panel("path")
        clicks = [threading.Thread(target=panel._played, args=(True,)) for _ in range(6)]
        for click in clicks:
            click.start()
        for click in clicks:
            click.join()
        page.until(lambda: players() == 1)
        page.set("Camera path", "Preview", to="Stop")
        page.until(lambda: players() == 0)


def test_sizes_and_lengths_that_no_memory_holds_are_refused() -> None:
    """The page's own limits are no limits: a client may send what it likes."""
    with opened(Stage(demo_scene())) as page:
        with_key_frames(page)
        panel = page.panel("path")
        page.set("Camera path", "Width", to=1_000_000_000)
        page.until(lambda: panel._width.value == 1_000_000_000)
        page.press("Camera path", "Export film (mp4)")
        page.until(lambda: any("a side has 8192 at most" in line for line in page.problems()))
        assert not page.state("path")["export"]["running"]
        page.set("Camera path", "Width", to=0)
        page.set("Camera path", "Frames per second", to=1e9)
        page.until(lambda: panel._fps.value == 1e9)
        page.press("Camera path", "Save path")
        page.until(lambda: any("frames are more than" in line for line in page.problems()))


def test_films_show_the_mode_of_the_page(tmp_path: Path) -> None:
    photo = np.full((24, 32, 3), 9, np.uint8)
    stage = Stage(two_walls(), views=capture(tmp_path, [photo], [camera()]))
    with opened(stage) as page:
        with_key_frames(page, 1)
        page.view.change(mode="error")
        page.press("Camera path", "Export film (mp4)")
        page.until(page.problems)
        assert "another mode" in page.problems()[0]
