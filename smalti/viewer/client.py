"""One client's view: its camera and look, its panels, and the stream of pictures to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import viser

    from smalti.cameras.camera import Camera
    from smalti.scene.selection import Selection
    from smalti.viewer.look import Look
    from smalti.viewer.panels import Panel
    from smalti.viewer.stage import Stage


class ClientView:
    """What panels hold on to. (VIEWER-CORE fills this in; the names below are the agreement.)"""

    client: viser.ClientHandle
    stage: Stage
    panels: list[Panel]
    look: Look
    """What is to be seen now."""
    selected: Selection | None
    """Shown tinted in the picture; None: nothing."""

    def change(self, **values: Any) -> None:
        """Another look (`mode=`, `order=`, `truth_row=`, ...): the picture is drawn anew."""
        raise NotImplementedError

    def select(self, selection: Selection | None) -> None:
        """Show another selection."""
        raise NotImplementedError

    def go_to(self, camera: Camera) -> None:
        """Move the client's camera there (what the page can show of it: it has no distortion and its own aspect)."""
        raise NotImplementedError

    def say(self, text: str, problem: bool = False) -> None:
        """A line on the client's page."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """For /state."""
        raise NotImplementedError
