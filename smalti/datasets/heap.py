"""Memory that C's allocator holds and nobody uses: decoding pictures leaves it behind in pieces."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

PIXELS = 1 << 24
"""How many are decoded before the heap is trimmed: seldom enough to cost little (about 15 ms), often enough that
the float copies of a picture (25 MB for 2 million pixels) do not pile up.
"""


def _allocator() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # glibc alone has it
    except (AttributeError, OSError, TypeError):
        return None


_TRIM = _allocator()


class Trimmer:
    """Counts decoded pixels, of all threads, and has the heap trimmed after every `PIXELS` of them."""

    def __init__(self) -> None:
        self._pixels = 0
        self._lock = threading.Lock()

    def decoded(self, pixels: int) -> None:
        """Called after a picture of so many pixels was decoded, and what it took on the way is free again."""
        with self._lock:
            self._pixels += pixels
            if self._pixels < PIXELS:
                return
            self._pixels = 0
        if _TRIM is not None:
            _TRIM(0)
