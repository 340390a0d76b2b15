"""The front: who may enter, what may pass, what nonsense does, and what it costs to leave."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import viser
import websockets.exceptions
import websockets.sync.client
from page_client import PageClient

from smalti.scene import demo_scene
from smalti.viewer.front import LARGEST_MESSAGE, MOST_CLIENTS, Door, finite, listen
from smalti.viewer.messages import judged
from smalti.viewer.server import Viewer
from smalti.viewer.stage import Stage


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with Viewer(Stage(demo_scene(), title="two layers"), port=0) as viewer:
        yield viewer


@pytest.fixture(scope="module")
def guarded() -> Iterator[Viewer]:
    with Viewer(Stage(demo_scene()), host="0.0.0.0", port=0) as viewer:
        yield viewer


def get(viewer: Viewer, path: str, **headers: str) -> tuple[int, bytes, Message]:
    """(status, body, headers) of an address, also of a refusal."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{viewer.port}{path}", headers=named)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def raw(viewer: Viewer, words: bytes) -> bytes:
    """The first line of the answer to whatever is sent."""
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=10) as bare:
        bare.sendall(words)
        return bare.makefile("rb").readline()


def refused(viewer: Viewer, **headers: str) -> int:
    """The status that a websocket is refused with."""
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        PageClient(f"http://127.0.0.1:{viewer.port}/", headers={k.replace("_", "-"): v for k, v in headers.items()})
    return caught.value.response.status_code


def quiet(viewer: Viewer) -> None:
    """Waits until the clients of earlier tests are gone."""
    end = time.monotonic() + 10
    while viewer.views():
        assert time.monotonic() < end, "somebody is still here"
        time.sleep(0.02)


def ended(client: PageClient) -> bool:
    """Whether the server closes the connection soon."""
    try:
        while True:
            client.receive(5)
    except websockets.exceptions.ConnectionClosed:
        return True
    except TimeoutError:
        return False


# -- what is told ------------------------------------------------------------------------------------------------------
def test_health_and_state(viewer: Viewer) -> None:
    status, body, _ = get(viewer, "/health")
    assert status == 200
    assert json.loads(body)["status"] == "ok"
    assert json.loads(body)["uptime"] >= 0
    state = json.loads(get(viewer, "/state")[1])
    assert (state["title"], state["revision"], state["training"], state["clients"]) == ("two layers", 0, None, [])
    scene = state["scene"]
    assert [(layer["name"], layer["count"]) for layer in scene["layers"]] == [("chair", 8), ("cloud", 12)]
    assert scene["bytes"] == sum(layer["bytes"] for layer in scene["layers"]) > 0
    assert scene["order"] == "ray"
    assert scene["history"] == {"done": [], "undone": [], "bytes": 0}


def test_what_json_has_no_number_for_is_null() -> None:
    told = finite({"loss": float("nan"), 3: [float("inf"), 1.5, True, None, np.float64("nan")], "where": Path("a")})
    assert told == {"loss": None, "3": [None, 1.5, True, None, None], "where": "a"}
    json.dumps(told, allow_nan=False)


def test_the_page_comes_with_a_policy(viewer: Viewer) -> None:
    status, body, headers = get(viewer, "/")
    assert status == 200
    assert b"<!doctype html>" in body[:100].lower()
    assert "gzip" not in headers.get("Content-Encoding", "")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not any(word in policy for word in ("*", "https:", "http:")), "something outside could be loaded"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    zipped = get(viewer, "/", Accept_Encoding="gzip")
    assert zipped[2]["Content-Encoding"] == "gzip"
    assert zipped[1][:2] == b"\x1f\x8b"


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/nothing", "/..%5c..%5cx"])
def test_only_the_page_is_served(viewer: Viewer, path: str) -> None:
    assert get(viewer, path)[0] == 404


@pytest.mark.parametrize(
    "words",
    [
        b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01 a browser that wants TLS\r\n\r\n",
    ],
    ids=range(6),
)
def test_what_is_no_request_is_refused_without_a_word_on_the_screen(
    viewer: Viewer, words: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert b" 400 " in raw(viewer, words)
    assert not caplog.records
    assert "".join(capfd.readouterr()) == ""


def test_a_failure_is_told_to_who_asked(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer._front, "_state", lambda: 1 // 0)
    status, body, _ = get(viewer, "/state")
    assert (status, body) == (500, b"ZeroDivisionError: integer division or modulo by zero\n")


def test_other_methods_are_not_for_us(viewer: Viewer) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{viewer.port}/state", data=b"x" * 1000, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 405


# -- who may enter -----------------------------------------------------------------------------------------------------
def test_on_the_loopback_no_token_is_needed(viewer: Viewer) -> None:
    assert viewer.token is None
    assert viewer.url == f"http://127.0.0.1:{viewer.port}/"


def test_elsewhere_a_token_is(guarded: Viewer) -> None:
    assert guarded.token is not None
    assert len(guarded.token) >= 24
    assert guarded.url.endswith(f"?token={guarded.token}")
    assert get(guarded, "/health")[0] == 200
    for path in ("/", "/state", "/?token=", "/?token=wrong", "/state?token=" + guarded.token[:-1]):
        assert get(guarded, path)[0] == 401, path
    assert get(guarded, "/?token=%ff%fe")[0] == 401
    assert refused(guarded) == 401
    assert refused(guarded, Cookie=f"smalti_{guarded.port}=wrong") == 401
    host = b"Host: 127.0.0.1\r\nConnection: close"
    cookie = b"Cookie: smalti_%d=\xff\xfe" % guarded.port
    assert b" 401 " in raw(guarded, b"GET /state HTTP/1.1\r\n%b\r\n%b\r\n\r\n" % (host, cookie))


def test_the_token_gives_a_cookie_and_the_cookie_lets_in(guarded: Viewer) -> None:
    status, _, headers = get(guarded, f"/?token={guarded.token}")
    cookie = headers["Set-Cookie"]
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
    pair = cookie.split(";")[0]
    assert pair == f"smalti_{guarded.port}={guarded.token}"
    assert get(guarded, "/state", Cookie=pair)[0] == 200
    with PageClient(f"http://127.0.0.1:{guarded.port}/", headers={"Cookie": pair}) as client:
        client.look()
        assert client.picture_at_rest().shape == (64, 96, 3)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "a b", "[::1", "x@localhost"]
)
def test_names_that_were_made_to_point_here_are_refused(viewer: Viewer, host: str) -> None:
    assert get(viewer, "/state", Host=host)[0] in (400, 421)


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "LOCALHOST", "[::1]:80", "127.0.0.1:8080"])
def test_a_tunnel_may_have_another_port(viewer: Viewer, host: str) -> None:
    assert get(viewer, "/state", Host=host)[0] == 200


def test_hosts() -> None:
    inside, outside = Door("127.0.0.1", 80, None), Door("0.0.0.0", 80, "t", frozenset({"gpu.lab"}))
    assert not inside.addressed("192.168.1.7:80")
    assert outside.addressed("192.168.1.7:80")
    assert outside.addressed("GPU.lab:80")
    assert not outside.addressed("gpu.lab.evil.example")
    assert outside.addressed(socket.gethostname())


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1.evil.example"]
)
def test_pages_of_other_sites_are_refused(viewer: Viewer, origin: str) -> None:
    assert get(viewer, "/state", Origin=origin)[0] == 403
    assert refused(viewer, Origin=origin) == 403


def test_our_own_page_is_not(viewer: Viewer) -> None:
    with PageClient(viewer.url, headers={"Origin": viewer.url.rstrip("/")}) as client:
        client.look()
        client.picture_at_rest()


def test_the_inner_port_opens_to_the_front_alone(viewer: Viewer) -> None:
    """A page of any site may try the ports of the loopback."""
    inner = viewer._page.get_port()
    quiet(viewer)
    with websockets.sync.client.connect(
        f"ws://127.0.0.1:{inner}/", subprotocols=[websockets.Subprotocol(f"viser-v{viser.__version__}")]
    ) as bare:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            bare.recv(timeout=5)
        assert bare.close_code == 1008
    assert not viewer.views()


# -- what may pass -----------------------------------------------------------------------------------------------------
NONSENSE: list[Any] = [
    "text",
    b"",
    b"\xc1",
    b"\x93\x01\x02\x03",
    msgspec.msgpack.encode({"type": 7}),
    msgspec.msgpack.encode({"no": "type"}),
    msgspec.msgpack.encode({"type": "RunJavascriptMessage", "source": "x"}),
    msgspec.msgpack.encode({"type": "NoSuchMessage"}),
    b"\x91" * 100_000,
    b"\x00" * (LARGEST_MESSAGE + 1),
]


@pytest.mark.parametrize("words", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_ends_its_own_connection_and_no_other(viewer: Viewer, words: Any) -> None:
    with PageClient(viewer.url) as good, PageClient(viewer.url) as bad:
        good.look()
        good.picture_at_rest()
        bad.look()
        bad.picture_at_rest()
        with suppress(websockets.exceptions.ConnectionClosed):
            bad.socket.send(words)
        assert ended(bad)
        good.look(position=(0.2, 0.5, -2.5))
        good.picture_at_rest()


def test_nonsense_of_a_client_that_reads_nothing_ends_it_too(viewer: Viewer) -> None:
    quiet(viewer)
    with PageClient(viewer.url, 640, 480) as asleep:
        asleep.look()
        asleep.picture_at_rest()
        (view,) = viewer.views()
        for k in range(150):  # until the lines are full
            asleep.look(position=(0.5 + 0.01 * k, 0.5, -2.0))
            time.sleep(0.005)
        asleep.socket.send(b"\xc1")
        end = time.monotonic() + 8
        while view in viewer.views() or viewer._front._sockets:
            assert time.monotonic() < end, "it is served still"
            time.sleep(0.05)
        asleep.socket.socket.close()  # else it waits for an answer


@pytest.mark.parametrize(
    "values",
    [
        {"wxyz": "nonsense"},
        {"wxyz": [0, 0, 0, 0]},
        {"fov": float("nan")},
        {"image_width": -1},
        {"position": [1e400, 0, 0]},
        {"position": {"x": 1}, "look_at": "there"},
    ],
)
def test_cameras_that_are_none_are_overlooked(viewer: Viewer, values: dict[str, Any]) -> None:
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        before = viewer.views()[-1].look
        client.look(**values)
        time.sleep(0.2)
        assert viewer.views()[-1].look == before
        client.look(position=(0.1, 0.4, -2.5))
        client.picture_at_rest()


def test_a_page_that_begins_without_extent_gets_pictures_when_it_has_one(viewer: Viewer) -> None:
    """As a tab that is opened in the background may."""
    with PageClient(viewer.url) as client:
        client.look(image_width=0)
        time.sleep(0.3)
        client.look()
        while client.picture_at_rest().shape != (64, 96, 3):
            pass


def test_no_tunnel_is_asked_for(viewer: Viewer) -> None:
    """viser's share button has another party's server open the viewer to the world."""
    assert judged(msgspec.msgpack.encode({"type": "ShareUrlRequest"})) == "drop"
    with PageClient(viewer.url) as client:
        client.look()
        client.picture_at_rest()
        client.send("ShareUrlRequest")
        assert "ShareUrlUpdated" not in client.heard(0.5)


def test_a_crowd_is_not_let_in_without_end(viewer: Viewer) -> None:
    clients = []
    try:
        for _ in range(MOST_CLIENTS):
            clients.append(PageClient(viewer.url))
        assert refused(viewer) == 503
    finally:
        for client in clients:
            client.close()


# -- ports -------------------------------------------------------------------------------------------------------------
def test_a_port_that_is_taken_is_named_and_the_next_free_one_found() -> None:
    taken = listen("127.0.0.1", 0, 0)
    number = taken.getsockname()[1]
    try:
        with pytest.raises(OSError, match=f"port {number} .*--port"):
            Viewer(Stage(demo_scene()), port=number)
        found = listen("127.0.0.1", None, number)
        assert number < found.getsockname()[1] < number + 20
        found.close()
    finally:
        taken.close()


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_is_none_is_an_error(port: int) -> None:
    with pytest.raises(OSError, match="--port"):
        Viewer(Stage(demo_scene()), port=port)


def test_an_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(OSError, match="cannot be used"):
        Viewer(Stage(demo_scene()), host="192.0.2.1", port=0)
    with pytest.raises(OSError, match="no such address"):
        Viewer(Stage(demo_scene()), host="no.such.host.invalid", port=0)


def test_failures_leave_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="--port"):
        Viewer(Stage(demo_scene()), port=-1)
    assert threading.active_count() == before
