"""The page that viser serves: every use of viser beyond its public face is in this file (viser 1.1)."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import viser

    from smalti.viewer.opening import Opening

SECRET_HEADER = "X-Smalti-Front"
"""What the front says to viser's internal port, so that a page of another site that finds the port gets nothing."""
TOO_LITTLE = 1008
"""The websocket's code for a refusal by rule."""


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """viser prints a panel with its internal address, which would only mislead."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def start(title: str, secret: str) -> viser.ViserServer:
    """A viser server on a free port of the loopback, where only who knows the secret can open a websocket."""
    import viser

    # Panels may still speak to a client that is just going; that nobody hears it is as it should be.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    with _quiet():
        server = viser.ViserServer(host="127.0.0.1", port=0, label=title, verbose=False)
    inner = server._websock_server
    # A new server says to all clients that there is no picture; said late, that would wipe out a client's first one.
    inner._broadcast_buffer.remove_from_buffer(_is_picture)

    async def require_secret(connection: Any) -> None:
        socket = inner._live_connections[connection.client_id]
        request = socket.request
        if request is None or request.headers.get(SECRET_HEADER) != secret:
            await socket.close(TOO_LITTLE, "not by the front")

    inner.on_client_connect(require_secret)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    return server


def place(server: viser.ViserServer, opening: Opening) -> None:
    """Where new clients stand, and what is up for them."""
    server.scene.set_up_direction(opening.up)
    camera = server.initial_camera
    camera.position, camera.look_at, camera.up = opening.position, opening.target, opening.up
    camera.fov = opening.fov
    reach = math.dist(opening.position, opening.target)
    camera.near, camera.far = 1e-3 * reach, 1e3 * reach


def stop(server: viser.ViserServer, patience: float = 5.0) -> None:
    """Ends the server and waits for its threads (callbacks that do not end are not waited for beyond `patience`)."""
    with _quiet():
        server.stop()
    executor = server._thread_executor
    executor.shutdown(wait=False, cancel_futures=True)
    until = time.monotonic() + patience
    for thread in list(getattr(executor, "_threads", ())):
        if thread is not threading.current_thread():
            thread.join(max(until - time.monotonic(), 0.0))


def send_picture(client: viser.ClientHandle, form: Literal["jpeg", "png"], data: bytes) -> None:
    """An encoded picture behind the scene's nodes; one that the client has not fetched yet is replaced."""
    from viser._messages import BackgroundImageMessage

    client._websock_connection.queue_message(BackgroundImageMessage(format=form, rgb_data=data, depth_data=None))
    client.flush()


def is_behind(client: viser.ClientHandle) -> bool:
    """Whether messages wait because the client does not read: it sleeps, or its line is slow."""
    buffer = client._websock_connection.get_message_buffer()
    with buffer.buffer_lock:
        return any(map(_is_picture, buffer.message_from_id.values()))


def _is_picture(message: object) -> bool:
    return type(message).__name__ == "BackgroundImageMessage"


def is_gone(client: viser.ClientHandle) -> bool:
    """Whether its connection is closed."""
    return bool(client._websock_connection.get_message_buffer().done)


def on_camera(client: viser.ClientHandle, call: Callable[[Any], None]) -> None:
    """`call(camera)` with every camera message, one after the other, in viser's own loop: it must be quick."""

    async def newest(camera: Any) -> None:
        call(camera)

    handler: Callable[[Any], Awaitable[None]] = newest
    client.camera.on_update(handler)  # pyright: ignore[reportArgumentType]
