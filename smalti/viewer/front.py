"""The front: the one public port, before viser's own on the loopback. Who may enter, and what may pass."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import math
import re
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from aiohttp import ClientSession, ClientTimeout, WSMsgType, web

from smalti.viewer.messages import judged
from smalti.viewer.page import SECRET_HEADER

LARGEST_MESSAGE = 8 << 20
"""Bytes of one websocket message from a client; viser sends uploads in smaller pieces."""
MOST_CLIENTS = 32
HEARTBEAT = 20.0
"""Seconds between pings; a client that does not answer one for half of that is gone."""
NONSENSE = 1007
"""The websocket's code for what is not in its protocol."""
BUFFER = 256 << 10
"""Bytes that a socket may hold on their way to a client that does not read."""
_SILENT = logging.getLogger(f"{__name__}.requests")
_SILENT.setLevel(logging.CRITICAL + 1)
_HOST = re.compile(r"\A(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?\Z")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Door:
    """Where the front listens, and who may come in."""

    host: str
    port: int
    token: str | None
    """None: anybody who reaches the port."""
    names: frozenset[str] = frozenset()
    """Further host names that requests may be addressed to, in small letters."""

    @property
    def cookie(self) -> str:
        """Cookies are shared by all ports of a host: each viewer has its own."""
        return f"smalti_{self.port}"

    def addressed(self, host: str) -> bool:
        """Whether a Host header names this machine: a page of another site whose name was made to point here (DNS
        rebinding) has its own name there.
        """
        if not _HOST.match(host):
            return False
        name = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host.rsplit("]", 1)[-1] else host
        name = name.strip("[]").lower().rstrip(".")
        if name in ("localhost", self.host.lower(), *self.names):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not is_loopback(self.host) and name in own_names()
        return address.is_loopback or not is_loopback(self.host)

    def own_origin(self, origin: str | None, host: str) -> bool:
        """Whether a request comes from our own page, or from no page at all."""
        return origin is None or origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())

    def knows(self, given: str | None) -> bool:
        """Whether the token is right; compared in constant time."""
        if self.token is None:
            return True
        # Headers may hold bytes that are no text.
        return given is not None and hmac.compare_digest(given.encode(errors="surrogateescape"), self.token.encode())


@cache
def own_names() -> frozenset[str]:
    """Names of this machine, in small letters. Asked for once: the answer may take a name server seconds, which
    requests would have to wait for.
    """
    return frozenset((socket.gethostname().lower(), socket.getfqdn().lower()))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def policy(host: str) -> str:
    """The Content-Security-Policy: all that viser's page is made of is in the page itself; sockets go to us alone.

    The page unpacks its scripts into itself and its WebAssembly's glue makes functions of text, hence the two `unsafe`;
    what keeps the page from the world is that nothing may be fetched, sent or embedded.
    """
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'unsafe-inline' 'unsafe-eval' blob:",
            "worker-src blob: data:",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "font-src data:",
            f"connect-src 'self' ws://{host} wss://{host} data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        ]
    )


class Front:
    """The server. `health` and `state` give what is told at these addresses, called in threads of their own."""

    def __init__(
        self,
        door: Door,
        listening: socket.socket,
        inner: tuple[int, str],
        health: Callable[[], dict[str, Any]],
        state: Callable[[], dict[str, Any]],
    ) -> None:
        """`inner` is viser's port and the secret that it asks for."""
        self.door, self._inner_port, self._secret = door, *inner
        self._health, self._state = health, state
        self._sockets: set[web.WebSocketResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._ready, self._problem = threading.Event(), None
        self._done: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._work, args=(listening,), name="smalti-viewer-front", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise self._problem

    def stop(self) -> None:
        """Closes all connections and the port; waits for the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finish)
            self._thread.join()

    def _finish(self) -> None:
        if self._done is not None:
            self._done.set()

    # -- in the thread ------------------------------------------------------------------------------------------------
    def _work(self, listening: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(listening))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            listening.close()
            self._ready.set()

    async def _serve(self, listening: socket.socket) -> None:
        self._done = asyncio.Event()
        async with ClientSession(timeout=ClientTimeout(total=30.0)) as session:
            self._session = session
            application = web.Application(middlewares=[self._guard], client_max_size=64 << 10)
            application.router.add_get("/health", self._tell_health)
            application.router.add_get("/state", self._tell_state)
            application.router.add_get("/{path:.*}", self._pass)
            # Anybody may send what is no request; each would be a traceback between the lines of a training.
            runner = web.AppRunner(
                application, access_log=None, logger=_SILENT, handle_signals=False, shutdown_timeout=0.5
            )
            await runner.setup()
            await web.SockSite(runner, listening).start()
            self._ready.set()
            await self._done.wait()
            closing = [asyncio.ensure_future(client.close(code=1001)) for client in self._sockets]
            if closing:
                await asyncio.wait(closing, timeout=1.0)
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not self.door.addressed(host):
            text = f"This viewer is not at {host!r}. Use its address, or start it with --allow-host NAME.\n"
            return self._refused(421, text)
        if not self.door.own_origin(request.headers.get("Origin"), host):
            return self._refused(403, "Pages of other sites may not speak to the viewer.\n")
        given = request.query.get("token")
        known = self.door.knows(given) or self.door.knows(request.cookies.get(self.door.cookie))
        if not known and request.path != "/health":
            return self._refused(401, "A token is needed: open the address that `smalti view` printed.\n")
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = self._refused(error.status, f"{error.reason}\n")
        except Exception as error:  # told to who asked: nobody reads a log of requests
            response = self._refused(500, f"{type(error).__name__}: {error}\n")
        if not response.prepared:
            self._protect(response, host)
            if given is not None and self.door.token is not None and self.door.knows(given):
                response.set_cookie(self.door.cookie, given, httponly=True, samesite="Strict", path="/")
        return response

    @staticmethod
    def _refused(status: int, text: str) -> web.Response:
        response = web.Response(status=status, text=text)
        response.headers["Cache-Control"] = "no-store"
        return response

    @staticmethod
    def _protect(response: web.StreamResponse, host: str) -> None:
        response.headers.update(
            {
                "Content-Security-Policy": policy(host),
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cache-Control": "no-store",
            }
        )

    async def _tell_health(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(self._health))

    async def _tell_state(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(finite(await asyncio.to_thread(self._state)))

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._pass_socket(request)
        zipped = "gzip" in request.headers.get("Accept-Encoding", "")
        headers = {"Accept-Encoding": "gzip" if zipped else "identity"}
        address = f"http://127.0.0.1:{self._inner_port}{request.path}"
        try:
            async with self._session.get(address, headers=headers, auto_decompress=False) as inner:
                body = await inner.read()
                told = {key: inner.headers[key] for key in ("Content-Type", "Content-Encoding") if key in inner.headers}
                if told.get("Content-Encoding") == "identity":
                    del told["Content-Encoding"]
                return web.Response(status=inner.status, body=body, headers=told)
        except OSError:
            return self._refused(502, "The viewer is stopping.\n")

    async def _pass_socket(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= MOST_CLIENTS:
            return self._refused(503, f"{MOST_CLIENTS} clients are connected already.\n")
        offered = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        spoken = [word for word in offered if word.startswith("viser-v")][:1]
        if not spoken:
            return self._refused(400, "This is not viser's protocol.\n")
        outer = web.WebSocketResponse(
            protocols=spoken, max_msg_size=LARGEST_MESSAGE, heartbeat=HEARTBEAT, compress=False
        )
        if not outer.can_prepare(request):
            return self._refused(400, "This is no websocket's request.\n")
        await outer.prepare(request)
        _bound_buffer(request)
        self._sockets.add(outer)
        try:
            async with self._session.ws_connect(
                f"ws://127.0.0.1:{self._inner_port}/",
                protocols=spoken,
                headers={SECRET_HEADER: self._secret},
                max_msg_size=0,
                compress=0,
            ) as inner:
                ways = [
                    asyncio.ensure_future(self._inward(outer, inner)),
                    asyncio.ensure_future(_outward(inner, outer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                said = await asyncio.gather(*ways, return_exceptions=True)
                if not outer.closed:
                    code = inner.close_code if inner.closed and inner.close_code else 1001
                    code = NONSENSE if NONSENSE in said else code
                    await _close(outer, code)
        except OSError:
            await _close(outer, 1011)
        finally:
            self._sockets.discard(outer)
            bare = request.transport
            if isinstance(bare, asyncio.WriteTransport) and bare.get_write_buffer_size():
                bare.abort()  # a client that reads nothing would keep its connection for good
        return outer

    @staticmethod
    async def _inward(outer: web.WebSocketResponse, inner: Any) -> int | None:
        """What a client says: only what viser's page may say; anything else ends this client's connection, by the
        code that is returned.
        """
        async for message in outer:
            verdict = judged(message.data) if message.type is WSMsgType.BINARY else "close"
            if verdict == "close":
                return NONSENSE
            if verdict == "pass":
                await inner.send_bytes(message.data)
        return None


async def _close(outer: web.WebSocketResponse, code: int) -> None:
    """Politely, but not for long."""
    closing = asyncio.ensure_future(outer.close(code=code))
    await asyncio.wait({closing}, timeout=2.0)
    closing.cancel()


async def _outward(inner: Any, outer: web.WebSocketResponse) -> None:
    """What viser says. A client that does not read makes this wait, and viser with it."""
    async for message in inner:
        if message.type is WSMsgType.BINARY:
            await outer.send_bytes(message.data)


def finite(plain: Any) -> Any:
    """The same plain values with null for what JSON has no number for: a loss may be NaN, a PSNR infinite."""
    if isinstance(plain, dict):
        return {str(key): finite(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [finite(value) for value in plain]
    if isinstance(plain, float):
        return float(plain) if math.isfinite(plain) else None
    return plain if isinstance(plain, str | int | bool | None) else str(plain)


def _bound_buffer(request: web.Request) -> None:
    """Else the system holds megabytes of pictures for a client that sleeps."""
    transport = request.transport
    bare = None if transport is None else transport.get_extra_info("socket")
    if bare is not None:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


def listen(host: str, port: int | None, default: int) -> socket.socket:
    """A listening socket; `port` None: the first free one of 20 from `default` on; 0: any. OSError says what to do."""
    ports = range(default, default + 20) if port is None else [port]
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        text = f"--host {host}: there is no such address; 127.0.0.1 is this machine alone, 0.0.0.0 all its networks"
        raise OSError(text) from None
    family, _, _, _, address = found[0]
    reason = ""
    for tried in ports:
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address[0], tried, *address[2:]))
            opened.listen(64)
            opened.setblocking(False)
            return opened
        except (OSError, OverflowError) as error:
            opened.close()
            reason = getattr(error, "strerror", None) or str(error)
    if port is None:
        raise OSError(f"no port from {ports[0]} to {ports[-1]} is free at {host} ({reason}); choose one with --port")
    raise OSError(f"port {port} at {host} cannot be used ({reason}); choose another with --port, or leave it out")
