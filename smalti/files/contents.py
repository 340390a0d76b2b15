"""What a file holds, told by its content where its name does not say: splats, triangle meshes, an assembly."""

from __future__ import annotations

from pathlib import Path

from smalti.files import FORMATS, extension_of
from smalti.files.checked import COPY_AGAIN
from smalti.files.glb import Glb
from smalti.files.splats import FileFormatError

SPLATS, MESHES, ASSEMBLY = "splats", "meshes", "assembly"
TITLES = {".glb": "glTF", ".obj": "Wavefront OBJ", ".ply": "PLY mesh", ".json": "primitive assembly"}
"""Formats that hold more than splats."""
_HEAD = 1 << 16


def contents_of(path: Path | str) -> frozenset[str]:
    """Which of `splats`, `meshes` and `assembly` are in a file; both of the first two may be in a .glb. Raises
    FileFormatError for an extension that nothing reads and a damaged beginning.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension == ".obj":
        return frozenset({MESHES})
    if extension == ".json" and extension_of(path) is None:
        return frozenset({ASSEMBLY})
    if extension == ".glb":
        return _of_glb(path)
    if extension == ".ply" and _has_faces(path):
        return frozenset({MESHES})
    if extension_of(path) is None and extension != ".ply":
        known = ", ".join([*(key for key, row in FORMATS.items() if row.reader), ".obj", ".json"])
        raise FileFormatError(path, f"no reader for the extension `{extension}`", f"Formats with a reader: {known}")
    return frozenset({SPLATS})


def _has_faces(path: Path) -> bool:
    """Whether a PLY's header announces faces: a list property, in an element that is not empty."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD).split(b"end_header")[0]
    rows = b"0"
    for line in head.splitlines():
        words = line.split()
        if words[:1] == [b"element"]:
            rows = words[-1]
        elif words[:2] == [b"property", b"list"] and rows.strip(b"0"):
            return True
    return False


def _of_glb(path: Path) -> frozenset[str]:
    from smalti.files.splats_glb import EXTENSION

    found: set[str] = set()
    with path.open("rb") as stream:
        glb = Glb.open(stream, path)
        for mesh, _ in glb.placed_meshes():
            primitives = mesh.get("primitives")
            if not isinstance(primitives, list):
                raise FileFormatError(path, "a mesh has no list `primitives`", COPY_AGAIN)
            for plain in primitives:
                extensions = plain.get("extensions") if isinstance(plain, dict) else None
                if isinstance(extensions, dict) and EXTENSION in extensions:
                    found.add(SPLATS)
                elif isinstance(plain, dict) and plain.get("mode", 4) in (4, 5, 6):
                    found.add(MESHES)
    if not found:
        raise FileFormatError(path, "holds neither splats nor triangles", "Does it hold plain points or lines only?")
    return frozenset(found)
