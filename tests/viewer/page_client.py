"""A client without a browser: speaks viser's protocol through the front, as the page does."""

from __future__ import annotations

import io
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import viser
import websockets.exceptions
import websockets.sync.client
import zstandard
from PIL import Image


class PageClient:
    """Connects, tells its camera, and receives. Within `with`, or `close()` at the end."""

    def __init__(self, url: str, width: int = 96, height: int = 64, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.socket = websockets.sync.client.connect(
            f"ws://{parts.netloc}/",
            subprotocols=[websockets.Subprotocol(f"viser-v{viser.__version__}")],
            additional_headers=headers or {},
            max_size=None,
            compression=None,
        )
        self.size = (width, height)
        self.messages: list[dict[str, Any]] = []

    def __enter__(self) -> PageClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """As a tab that is closed."""
        self.socket.close()

    def send(self, kind: str, **values: Any) -> None:
        """Any message."""
        self.socket.send(msgspec.msgpack.encode({"type": kind, **values}))

    def look(self, position: Any = (0.5, 0.5, -2.0), wxyz: Any = (1.0, 0.0, 0.0, 0.0), **values: Any) -> None:
        """The page's camera is there now."""
        width, height = self.size
        told = {
            "wxyz": wxyz,
            "position": position,
            "fov": 0.9,
            "near": 0.01,
            "far": 1000.0,
            "image_height": height,
            "image_width": width,
            "look_at": [0.5, 0.5, 2.0],
            "up_direction": [0.0, -1.0, 0.0],
        }
        self.send("ViewerCameraMessage", **(told | values))

    def receive(self, timeout: float = 10.0) -> list[dict[str, Any]]:
        """The messages of the next window; TimeoutError where none comes."""
        found = decoded(self.socket.recv(timeout=timeout))
        self.messages.extend(found)
        return found

    def next_picture(self, timeout: float = 10.0) -> tuple[str, np.ndarray]:
        """(`png` or `jpeg`, pixels) of the next picture."""
        until = time.monotonic() + timeout
        while True:
            for message in self.receive(until - time.monotonic()):
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"] is not None:
                    return message["format"], np.asarray(Image.open(io.BytesIO(bytes(message["rgb_data"]))))

    def picture_at_rest(self, timeout: float = 10.0) -> np.ndarray:
        """The next lossless picture."""
        until = time.monotonic() + timeout
        while True:
            form, pixels = self.next_picture(until - time.monotonic())
            if form == "png":
                return pixels

    def heard(self, seconds: float) -> list[str]:
        """Types of the messages that come within that time; ends early where the connection does."""
        kinds: list[str] = []
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                kinds += [message["type"] for message in self.receive(left)]
            except (TimeoutError, websockets.exceptions.ConnectionClosed):
                break
        return kinds


def decoded(data: Any) -> list[dict[str, Any]]:
    """The messages of one window (viser 1.1: compressed msgpack, then buffers aligned to 8 bytes)."""
    packed = int.from_bytes(data[8:16], "little")
    plain = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + packed]))
    buffers, at = [], 16 + packed
    for length in plain["binaryBufferLengths"]:
        at += -at % 8
        buffers.append(data[at : at + length])
        at += length
    return [filled(message, buffers) for message in plain["messages"]]


def filled(thing: Any, buffers: list[bytes]) -> Any:
    """With the buffers in the places that name them."""
    if isinstance(thing, dict):
        if "__binary_index" in thing:
            return buffers[thing["__binary_index"]]
        return {key: filled(value, buffers) for key, value in thing.items()}
    return [filled(value, buffers) for value in thing] if isinstance(thing, list) else thing
