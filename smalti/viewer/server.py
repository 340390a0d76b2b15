"""The viewer: a stage on show at one address."""

from __future__ import annotations

import atexit
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from smalti.viewer import page
from smalti.viewer.client import ClientView
from smalti.viewer.front import Door, Front, is_loopback, listen
from smalti.viewer.opening import opening_of
from smalti.viewer.panels.all import make_panels
from smalti.viewer.stage import Stage
from smalti.viewer.stream import Stream

if TYPE_CHECKING:
    import viser

DEFAULT_PORT = 8080
REFRESH = 0.4
"""Seconds between two looks of the panels at what has changed."""
PATIENCE = 5.0
"""Seconds that the end waits for a panel that does not close."""
FAREWELL = 0.3
"""Seconds for a last line to reach the pages."""


class Viewer:
    """Shows a stage until `stop()`, or until the end of the `with` block.

    >>> from smalti.scene import demo_scene
    >>> with Viewer(Stage(demo_scene()), port=0) as viewer:
    ...     viewer.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        stage: Stage,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str | None = None,
        allow_hosts: tuple[str, ...] = (),
        listening: socket.socket | None = None,
    ) -> None:
        """Opens the port. Without one, the first free from 8080 on; 0 is any free one.

        On an address that other machines reach, a `token` is needed to enter; one is made up where none is given.
        `allow_hosts` are further names by which requests may call this machine. OSError where the port cannot be had.
        `listening` is a socket of `smalti.viewer.front.listen(host, ...)`, instead of a port.
        """
        listening = listening or listen(host, port, DEFAULT_PORT)
        if token is None and not is_loopback(host):
            token = secrets.token_urlsafe(24)
        self.stage = stage
        self.host, self.port = host, int(listening.getsockname()[1])
        self._began = time.monotonic()
        self._views: dict[int, ClientView] = {}
        self._gone: set[int] = set()
        self._closing: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._visited = threading.Event()
        secret = secrets.token_urlsafe(24)
        self._page = page.start(stage.title, secret)
        page.place(self._page, opening_of(stage))
        self._stream = Stream(stage)
        self._page.on_client_connect(self._welcome)
        self._page.on_client_disconnect(self._farewell)
        self._refresher = threading.Thread(target=self._refresh, name="smalti-viewer-panels", daemon=True)
        self._refresher.start()
        names = frozenset(name.lower() for name in allow_hosts)
        door = Door(host, self.port, token, names)
        try:
            self._front = Front(door, listening, (self._page.get_port(), secret), self.health, self.state)
        except BaseException:
            self._close_inner()
            raise
        self.token = token
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        """To open in a browser."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def views(self) -> list[ClientView]:
        """Of the clients that are connected."""
        with self._lock:
            return list(self._views.values())

    def health(self) -> dict[str, Any]:
        """What /health tells, also without the token."""
        from smalti import __version__

        return {"status": "ok", "version": __version__, "uptime": round(time.monotonic() - self._began, 3)}

    def state(self) -> dict[str, Any]:
        """What /state tells: plain values (docs/viewer.md names them)."""
        stage = self.stage
        with stage.reading() as scene:
            layers = [
                {
                    "name": layer.name,
                    "family": layer.family.name,
                    "count": len(layer.family),
                    "bytes": layer.family.bytes,
                    "visible": layer.visible,
                    "locked": layer.locked,
                }
                for layer in scene
            ]
            history = scene.history
            told = {
                "layers": layers,
                "order": scene.order,
                "count": len(scene),
                "bytes": sum(layer.family.bytes for layer in scene),
                "history": {
                    "done": [edit.name for edit in history.done],
                    "undone": [edit.name for edit in history.undone],
                    "bytes": history.bytes,
                },
            }
            revision = stage.revision
        training = stage.training
        return {
            "title": stage.title,
            "revision": revision,
            "scene": told,
            "training": None if training is None else training.state(),
            "clients": [view.state() for view in self.views()],
        }

    def say_farewell(self, text: str) -> None:
        """A line that stays on every page; returns once it was sent, or after a moment. Then `stop`."""
        views = self.views()
        for view in views:
            view.say(text, stays=True)
            view.client.flush()
        if views:
            time.sleep(FAREWELL)

    def stop(self) -> None:
        """Closes the port and ends all threads."""
        if self._stopping.is_set():
            return
        atexit.unregister(self.stop)
        self._front.stop()
        self._close_inner()

    def _close_inner(self) -> None:
        self._stopping.set()
        self._visited.set()
        self._stream.stop()
        self._refresher.join()
        for view in self.views():
            view.close()
        page.stop(self._page)
        for thread in self._closing:
            thread.join(PATIENCE)
        with self._lock:
            self._views.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- clients, in viser's threads ----------------------------------------------------------------------------------
    def _welcome(self, client: viser.ClientHandle) -> None:
        view = ClientView(client, self.stage, self._stream.wake)
        view.panels.extend(make_panels(view))
        with self._lock:
            late = client.client_id in self._gone or page.is_gone(client) or self._stopping.is_set()
            self._gone.discard(client.client_id)
            if not late:
                self._views[client.client_id] = view
        if late:
            view.close()
            return
        self._stream.add(view)
        self._visited.set()

    async def _farewell(self, client: viser.ClientHandle) -> None:
        """In viser's loop, which also runs when its pool has ended."""
        with self._lock:
            view = self._views.pop(client.client_id, None)
            if view is None:
                self._gone.add(client.client_id)
                return
        self._stream.remove(view)
        # Panels may wait for threads of theirs, which viser's loop must not.
        closing = threading.Thread(target=view.close, name="smalti-viewer-closing", daemon=True)
        with self._lock:
            self._closing = [thread for thread in self._closing if thread.is_alive()] + [closing]
        closing.start()

    # -- panels -------------------------------------------------------------------------------------------------------
    def _refresh(self) -> None:
        """Shows panels what has changed, a few times a second at most; without clients it sleeps."""
        seen: dict[ClientView, int] = {}
        while not self._stopping.is_set():
            views = self.views()
            if not views:
                seen.clear()
                self._visited.clear()
                if not self.views() and not self._stopping.is_set():  # both are set before the event
                    self._visited.wait()
                continue
            seen = {view: seen[view] for view in views if view in seen}
            for view in views:
                revision = self.stage.revision
                if seen.get(view) == revision and self.stage.training is None:
                    continue
                seen[view] = revision
                for panel in list(view.panels):
                    self._refresh_one(view, panel)
            self._stopping.wait(REFRESH)

    @staticmethod
    def _refresh_one(view: ClientView, panel: Any) -> None:
        try:
            if not view.closed:
                panel.refresh()
        except Exception as error:  # told on the page; the other panels go on
            view.say(f"{panel.name}: {error}", problem=True)
