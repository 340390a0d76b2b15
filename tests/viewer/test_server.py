"""The viewer as a whole: what stays when clients go, and when it stops; panels; where a client begins."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
import urllib.request
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_client import PageClient

from smalti.scene import Scene, demo_scene
from smalti.viewer import server
from smalti.viewer.opening import opening_of
from smalti.viewer.server import Viewer
from smalti.viewer.stage import Stage


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def until(true: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def once(stage: Stage) -> str:
    """A viewer's whole life with two clients, one of which goes without a word."""
    with Viewer(stage, port=0) as viewer:
        one, other = PageClient(viewer.url), PageClient(viewer.url)
        for client in (one, other):
            client.look()
            client.picture_at_rest()
        one.close()
        until(lambda: len(viewer.views()) == 1)
        url = viewer.url
    other.close()
    return url


def test_the_end_leaves_no_thread_and_no_socket() -> None:
    once(Stage(demo_scene()))  # what is made once per process, such as the engine's pool, is there now
    threads, files = threading.active_count(), descriptors()
    url = once(Stage(demo_scene()))
    until(lambda: threading.active_count() <= threads)
    until(lambda: descriptors() <= files)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=2)


def test_stopping_twice_is_stopping_once() -> None:
    viewer = Viewer(Stage(demo_scene()), port=0)
    viewer.stop()
    viewer.stop()


def test_a_client_that_goes_takes_everything_with_it() -> None:
    with Viewer(Stage(demo_scene()), port=0) as viewer:
        seen = []
        for _ in range(3):
            with PageClient(viewer.url) as client:
                client.look()
                client.picture_at_rest()
                seen.append(weakref.ref(viewer.views()[0]))
            until(lambda: not viewer.views())

        def forgotten() -> bool:
            gc.collect()
            return all(reference() is None for reference in seen[:-1])

        until(forgotten)


def test_clients_that_come_and_go_in_a_hurry() -> None:
    with Viewer(Stage(demo_scene()), port=0) as viewer:
        for _ in range(10):
            client = PageClient(viewer.url)
            client.look()
            client.close()
        with PageClient(viewer.url) as client:
            client.look()
            client.picture_at_rest()
            until(lambda: len(viewer.views()) == 1)


class Counting:
    """A panel that counts."""

    name = "counting"

    def __init__(self, view: Any) -> None:
        self.view, self.refreshed, self.closed = view, 0, False

    def refresh(self) -> None:
        self.refreshed += 1

    def state(self) -> dict[str, Any]:
        return {"refreshed": self.refreshed}

    def close(self) -> None:
        self.closed = True


class Broken(Counting):
    """A panel that does nothing right."""

    name = "broken"

    def refresh(self) -> None:
        raise RuntimeError("I am broken")

    def state(self) -> dict[str, Any]:
        raise RuntimeError("so is this")

    def close(self) -> None:
        raise RuntimeError("and this")


def test_panels_are_refreshed_and_closed_and_a_broken_one_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Counting] = []

    def panels(view: Any) -> list[Any]:
        made.extend([Broken(view), Counting(view)])
        return list(made)

    monkeypatch.setattr(server, "make_panels", panels)
    stage = Stage(demo_scene())
    with Viewer(stage, port=0) as viewer:
        with PageClient(viewer.url) as client:
            client.look()
            client.picture_at_rest()
            until(lambda: made[1].refreshed >= 1)
            time.sleep(1.0)
            count = made[1].refreshed
            time.sleep(0.6)
            assert made[1].refreshed == count, "nothing had changed"
            with stage.changing():
                pass
            until(lambda: made[1].refreshed > count)
            told = viewer.state()["clients"][0]
            assert told["panels"]["counting"]["refreshed"] >= 2
            assert "so is this" in told["panels"]["broken"]["error"]
            assert any("I am broken" in line["text"] for line in told["said"])
        until(lambda: made[1].closed)


def test_a_client_begins_before_the_scene_with_all_of_it_in_sight() -> None:
    scene = demo_scene()
    opening = opening_of(Stage(scene))
    from smalti.cameras.camera import Camera

    camera = Camera.look_at(
        torch.tensor(opening.position), torch.tensor(opening.target), torch.tensor(opening.up), opening.fov, (64, 64)
    )
    for layer in scene:
        seen = layer.family.positions() @ camera.rotation.T + camera.translation
        pixels = seen[:, :2] / seen[:, 2:] * camera.intrinsics[:2] + camera.intrinsics[2:]
        assert (seen[:, 2] > 0).all()
        assert ((pixels > 0) & (pixels < 64)).all(dim=1).float().mean() > 0.9


def test_an_empty_scene_is_a_flat_page() -> None:
    with Viewer(Stage(Scene(background=(1.0, 0.5, 0.0))), port=0) as viewer, PageClient(viewer.url) as client:
        client.look()
        np.testing.assert_allclose(client.picture_at_rest()[5, 5].astype(int), [255, 128, 0], atol=1)


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "viewer.md").read_text(encoding="utf-8")


def test_the_page_of_the_manual_runs() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/viewer.md", "exec"), names)
    assert names["viewer"].state()["scene"]["history"]["done"] == ["move"]


def test_the_manual_names_every_field_of_state() -> None:
    with Viewer(Stage(demo_scene()), port=0) as viewer, PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        state = viewer.state()
    told = state["clients"][0]
    fields = [
        *state,
        *state["scene"],
        *state["scene"]["layers"][0],
        *told,
        *told["look"],
        *told["picture"],
        *told["camera"],
    ]
    assert [name for name in fields if f"`{name}`" not in PAGE and f"`.{name}`" not in PAGE] == []
    assert [name for name in viewer.health() if f"`{name}`" not in PAGE] == []
