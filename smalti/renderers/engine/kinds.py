"""Where a kind's table of functions comes from: the engine's library."""

from __future__ import annotations

from types import SimpleNamespace

from smalti.renderers.engine.library import EngineError


def find_kind(name: str, library: SimpleNamespace) -> int:
    """Address of the kind's `ExactKind` table for `library`. Raises EngineError where there is no such kind."""
    table = library.lib.smalti_exact_kind(name.encode())
    if not table:
        raise EngineError(f"the engine has no kind {name!r}; is the package that brings it installed?")
    return table
