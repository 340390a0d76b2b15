"""The parts of the page, one file each. Each client has its own; what they change in the scene all clients see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from smalti.viewer.client import ClientView


class Panel(Protocol):
    """One folder of controls on one client's page.

    Made with the client's view, within which it adds its controls (`view.client.gui`). Callbacks run in threads of
    their own: they take `view.stage.reading()` or `.changing()`, and hand errors to `view.say`.
    """

    name: str
    """The key of its `state` at /state."""

    def __init__(self, view: ClientView) -> None: ...

    def refresh(self) -> None:
        """The scene or the training changed, by whomever: show what is true now. Called a few times a second at most,
        while nobody reads or writes.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Plain values, for /state and for tests."""
        ...

    def close(self) -> None:
        """The client is gone: stop threads, drop what is held."""
        ...
