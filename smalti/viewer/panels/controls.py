"""What the panels share: errors go to the page, values set by us are no wishes, threads end with the client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView


@contextmanager
def telling(view: ClientView, what: str) -> Generator[None]:
    """Whatever fails inside is told on the page; the page and the other panels go on."""
    try:
        yield
    except Exception as error:  # a callback has nobody else to tell
        view.say(f"{what}: {error}", problem=True)


class Quiet:
    """While a panel shows what is true (`with quiet:`), the callbacks of the controls it sets see `if quiet:` and
    return. Of that thread alone: viser calls them at once where values are assigned, and a user's in other threads.
    """

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.discard(threading.get_ident())

    def __bool__(self) -> bool:
        return threading.get_ident() in self._threads


class Ticker:
    """Calls a function in a thread of its own, every `seconds` at best, until it returns False or `stop()`."""

    def __init__(self, name: str, seconds: float, function: Callable[[], bool]) -> None:
        self._stopped = threading.Event()
        self._seconds, self._function = seconds, function
        self._thread = threading.Thread(target=self._work, name=f"smalti-viewer-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether there are calls to come."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def stop(self) -> None:
        """No call begins after this; waits for the one that is under way, except from within it."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10.0)

    def _work(self) -> None:
        following = time.monotonic()
        while not self._stopped.is_set() and self._function():
            following = max(following + self._seconds, time.monotonic())
            self._stopped.wait(max(following - time.monotonic(), 0.001))


def in_words(count: int, unit: str) -> str:
    """`1,234 primitives`, `1 primitive`."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def bytes_in_words(count: int) -> str:
    """`1.2 MB`."""
    size, units = float(count), ("B", "kB", "MB", "GB")
    while size >= 1000.0 and len(units) > 1:
        size, units = size / 1000.0, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.3g} {units[0]}"


def small(*lines: str) -> str:
    """Lines of small type, as HTML; they are taken as HTML themselves (`escape` what others wrote)."""
    inner = "<br>".join(lines)
    return f'<div style="padding:0 1em 0.4em 1em;font-size:0.8em;line-height:1.45;opacity:0.85">{inner}</div>'


def swatch(color: str) -> str:
    """A square of that colour, as HTML."""
    return f'<span style="color:{escape(color)}">&#9632;</span>'
