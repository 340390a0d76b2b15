"""What one client looks at, and how: plain values that a picture is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smalti.cameras.camera import Camera

Mode = Literal["color", "depth", "normal", "alpha", "family", "contribution", "error"]
MODES: tuple[Mode, ...] = ("color", "depth", "normal", "alpha", "family", "contribution", "error")


@dataclass(frozen=True)
class Look:
    """Two equal looks at one revision of the scene give the same picture."""

    camera: Camera
    """At canvas size, in the scene's frame, with the time that is shown."""
    mode: Mode = "color"
    order: Literal["centre", "ray"] | None = None
    """None: the scene's own."""
    truth_row: int | None = None
    """A view's picture is shown beside the render, from the left up to `split`."""
    split: float = 0.5
    """Share of the width."""
    highlight: int = 0
    """Grows when the selection that is shown in the picture changes (`ClientView.selected`)."""
    depth: Literal["expected", "median"] = "expected"
    """Which depth the mode `depth` shows."""
    depth_range: tuple[float, float] | None = None
    """(near, far), camera z in world units; None: by percentiles of the picture itself."""
    background: tuple[float, float, float] | None = None
    """0..1; None: the scene's own."""
