"""One file per exchange format; the table below decides by extension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smalti.files.splats import Splats


@dataclass(frozen=True)
class SceneFormat:
    """A scene file format and where its `reader(path) -> Splats` and `writer(path, splats, transform)` live."""

    title: str
    module: str
    reader: str | None
    writer: str | None


FORMATS: dict[str, SceneFormat] = {
    ".ply": SceneFormat("3DGS PLY", "smalti.files.ply", "read_ply", "write_ply"),
}
"""Extension -> format. A new format is one module and one row; nothing else names it."""


def read_scene_file(path: Path | str) -> Splats:
    """Read a scene file by its extension (`--init-from`). Raises FileFormatError for unknown or damaged files."""
    return _function(Path(path), "reader")(path)


def write_scene_file(path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None) -> None:
    """Write a scene file by its extension (`smalti export`); `transform` is applied chunk by chunk on the way out.

    Its folder is made where there is none. Raises FileFormatError for an extension that nothing writes.
    """
    writer = _function(Path(path), "writer")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    writer(path, splats, transform)


def _function(path: Path, role: str) -> Callable[..., Any]:
    from smalti.files.splats import FileFormatError

    entry = FORMATS.get(path.suffix.lower())
    name = getattr(entry, role) if entry else None
    if entry is None or name is None:
        known = ", ".join(extension for extension, row in FORMATS.items() if getattr(row, role))
        raise FileFormatError(path, f"no {role} for the extension `{path.suffix}`", f"Formats with a {role}: {known}")
    return getattr(import_module(entry.module), name)
