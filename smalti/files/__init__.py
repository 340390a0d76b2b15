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
    """A scene file format and where its reader and its writer live.

    `reader(path) -> Splats`; `writer(path, splats, transform) -> tuple[str, ...] | None`: sentences on what the format
    did not hold.
    """

    title: str
    module: str
    reader: str | None
    writer: str | None


SOG_FOLDER = "meta.json"
"""What makes a folder one of SOG's."""
FORMATS: dict[str, SceneFormat] = {
    ".ply": SceneFormat("3DGS PLY", "smalti.files.ply", "read_ply", "write_ply"),
    ".compressed.ply": SceneFormat(
        "compressed PLY", "smalti.files.ply_compressed", "read_compressed_ply", "write_compressed_ply"
    ),
    ".splat": SceneFormat("splat", "smalti.files.splat", "read_splat", "write_splat"),
    ".ksplat": SceneFormat("ksplat", "smalti.files.ksplat", "read_ksplat", None),
    ".spz": SceneFormat("SPZ", "smalti.files.spz", "read_spz", "write_spz"),
    ".sog": SceneFormat("SOG", "smalti.files.sog", "read_sog", "write_sog"),
    SOG_FOLDER: SceneFormat("SOG folder", "smalti.files.sog", "read_sog", None),
    ".glb": SceneFormat("glTF with splats", "smalti.files.splats_glb", "read_splats_glb", "write_splats_glb"),
    ".pt": SceneFormat(
        "gsplat checkpoint", "smalti.files.gsplat_checkpoint", "read_gsplat_checkpoint", "write_gsplat_checkpoint"
    ),
}
"""Extension (or a whole name, where there is no dot before it) -> format; of several extensions that fit the longest
counts. A new format is one module and one row; nothing else names it."""


def extension_of(path: Path | str) -> str | None:
    """The row of FORMATS that a file's name asks for: `.compressed.ply` before `.ply`; None where none fits."""
    name = Path(path).name.lower()
    fitting = [key for key in FORMATS if (name.endswith(key) and name != key if key[0] == "." else name == key)]
    return max(fitting, key=len, default=None)


def read_scene_file(path: Path | str) -> Splats:
    """Read a scene file by its extension, or a SOG folder (`--init-from`). FileFormatError for unknown and damaged
    ones.
    """
    return _function(Path(path), "reader")(path)


def write_scene_file(
    path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None
) -> tuple[str, ...]:
    """Write a scene file by its extension (`smalti export`); `transform` is applied chunk by chunk on the way out.

    Its folder is made where there is none. Returns sentences on what the format did not hold. Raises FileFormatError
    for an extension that nothing writes.
    """
    writer = _function(Path(path), "writer")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return tuple(writer(path, splats, transform) or ())


def _function(path: Path, role: str) -> Callable[..., Any]:
    from smalti.files.splats import FileFormatError

    extension = extension_of(path)
    if role == "reader" and path.is_dir() and extension is None:
        if not (path / SOG_FOLDER).is_file():
            remedy = "Give the file itself; of a training run: smalti export RUN FILE"
            raise FileFormatError(path, f"is a folder that holds no scene.json and no {SOG_FOLDER}", remedy)
        extension = SOG_FOLDER
    entry = FORMATS[extension] if extension else None
    name = getattr(entry, role) if entry else None
    if entry is None or name is None:
        known = ", ".join(extension for extension, row in FORMATS.items() if getattr(row, role))
        problem = f"no {role} for the extension `{extension or path.suffix}`"
        raise FileFormatError(path, problem, f"Formats with a {role}: {known}")
    return getattr(import_module(entry.module), name)
