"""Which panels a page has, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smalti.viewer.panels.cameras import Cameras
from smalti.viewer.panels.edit import Edit
from smalti.viewer.panels.layers import Layers
from smalti.viewer.panels.path import CameraPath
from smalti.viewer.panels.picture import PicturePanel
from smalti.viewer.panels.time import Time
from smalti.viewer.panels.training import Training

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView
    from smalti.viewer.panels import Panel

PANELS: tuple[type[Panel], ...] = (Training, Layers, PicturePanel, Time, Cameras, CameraPath, Edit)
"""One that has nothing to show (no training, no views) shows nothing."""


def make_panels(view: ClientView) -> list[Panel]:
    """All panels of a new client; one that cannot be made is told on the page and left out."""
    made: list[Panel] = []
    for panel in PANELS:
        try:
            made.append(panel(view))
        except Exception as error:  # the page is of use without it
            view.say(f"{panel.name}: {error}", problem=True)
    return made
