"""A viewer with one client that is no browser, for tests of panels: viser's handles at one end, wires at the other."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from page_client import PageClient

from smalti.viewer.client import ClientView
from smalti.viewer.server import Viewer
from smalti.viewer.stage import Stage

PATIENCE = 20.0


class Page:
    """What a person at the page can do: read what it shows, set controls, press buttons."""

    def __init__(self, viewer: Viewer, client: PageClient, view: ClientView) -> None:
        self.viewer, self.client, self.view = viewer, client, view
        self.controls: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.sent: list[dict[str, Any]] = []
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                messages = self.client.receive(0.1)
            except TimeoutError:
                continue
            except Exception:
                return
            self.client.messages.clear()
            for message in messages:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind.startswith("Gui") and "props" in message:
            self.controls[message["uuid"]] = {**message, **message["props"]}
        elif kind == "GuiUpdateMessage" and message["uuid"] in self.controls:
            self.controls[message["uuid"]].update(message["updates"])
        elif kind == "GuiRemoveMessage":
            self._remove(message["uuid"])
        elif kind == "RemoveSceneNodeMessage":
            self.nodes.pop(message["name"], None)
        elif kind == "SetSceneNodeVisibilityMessage":
            self.nodes.setdefault(message["name"], {})["visible"] = message["visible"]
        elif "name" in message and "props" in message:
            self.nodes.setdefault(message["name"], {}).update(message)
        self.sent.append(message)

    def _remove(self, uuid: str) -> None:
        self.controls.pop(uuid, None)
        for inner in [key for key, each in self.controls.items() if each["container_uuid"] == uuid]:
            self._remove(inner)

    def panel(self, name: str) -> Any:
        return next(panel for panel in self.view.panels if panel.name == name)

    def state(self, name: str) -> dict[str, Any]:
        return self.viewer.state()["clients"][0]["panels"][name]

    def folder(self, label: str) -> str:
        return next(k for k, c in self.controls.items() if c["type"] == "GuiFolderMessage" and c["label"] == label)

    def find(self, *path: str) -> str:
        """The control by the labels of the folders that it is in, and its own."""
        inside = self.folder(path[0])
        for label in path[1:]:
            inside = next(
                k for k, c in self.controls.items() if c["container_uuid"] == inside and c.get("label") == label
            )
        return inside

    def value(self, *path: str) -> Any:
        return self.controls[self.find(*path)]["value"]

    def text(self, *path: str) -> str:
        """All HTML in a folder."""
        inside = self.find(*path)
        return " ".join(
            c["content"] for c in self.controls.values() if c["container_uuid"] == inside and "content" in c
        )

    def set(self, *path: str, to: Any) -> None:
        """As the page does when a control is moved."""
        uuid = self.find(*path)
        self.controls[uuid]["value"] = to
        self.client.send("GuiUpdateMessage", uuid=uuid, updates={"value": to})

    def press(self, *path: str) -> None:
        self.set(*path, to=True)

    def arrive(self) -> None:
        """The page's camera is where the viewer sent it."""
        camera = self.view.client.camera
        told = {name: [float(x) for x in getattr(camera, name)] for name in ("position", "wxyz", "look_at")}
        up = [float(x) for x in camera.up_direction]
        self.client.look(**told, up_direction=up, fov=float(camera.fov))

    def until(self, done: Callable[[], Any], what: str = "") -> Any:
        """What `done` gives, once it is true."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                found = done()
            except (StopIteration, KeyError, IndexError):
                found = None  # not there yet
            if found:
                return found
            assert time.monotonic() < end, f"{what or 'nothing came'}; said: {list(self.view.said)}"
            time.sleep(0.02)

    def problems(self) -> list[str]:
        return [line["text"] for line in self.view.said if line["problem"]]

    def close(self) -> None:
        self._ended.set()
        self._reader.join()


@contextmanager
def opened(stage: Stage, width: int = 96, height: int = 64, **look: Any) -> Iterator[Page]:
    """A page that has all its panels."""
    with Viewer(stage, port=0) as viewer, PageClient(viewer.url, width, height) as client:
        client.look(**look)
        end = time.monotonic() + PATIENCE
        while not viewer.views():
            assert time.monotonic() < end, "no client"
            time.sleep(0.01)
        page = Page(viewer, client, viewer.views()[0])
        try:
            page.until(lambda: page.view.panels)
            yield page
        finally:
            page.close()
