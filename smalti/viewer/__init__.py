"""The browser viewer: our own renderer's pictures on a page that looks around, edits and steers a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smalti.viewer.look import Look
from smalti.viewer.stage import Stage, Views

if TYPE_CHECKING:
    from smalti.viewer.server import Viewer

__all__ = ["Look", "Stage", "Viewer", "Views"]


def __getattr__(name: str) -> Any:
    if name == "Viewer":  # brings aiohttp and viser, which are an extra
        from smalti.viewer.server import Viewer

        return Viewer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
