"""Where a kind's table of functions comes from: the engine's library, or a package that brings a kind of its own."""

from __future__ import annotations

from types import SimpleNamespace

from smalti.renderers.engine.library import EngineError
from smalti.renderers.outside import OutsideError, OutsideKind, find_outside


def find_kind(kind: str | OutsideKind, library: SimpleNamespace) -> int:
    """Address of the kind's `ExactKind` table for `library`. Raises EngineError where there is no such kind.

    A kind from outside is compiled where it was not before; a built-in one never.
    """
    table = library.lib.smalti_exact_kind(kind.encode()) if isinstance(kind, str) else None
    if table:
        return table
    from smalti.renderers.engine.outside import outside_table

    try:
        return outside_table(find_outside(kind) if isinstance(kind, str) else kind, library)
    except OutsideError as error:
        raise EngineError(str(error)) from error
