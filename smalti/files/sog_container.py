"""The parts of a SOG, a bundle (zip) or a folder: found by the names that meta.json gives, bounded, never unpacked to
disk.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import UInt8

from smalti.files.checked import COPY_AGAIN
from smalti.files.splats import FileFormatError

META_LIMIT = 1 << 20
"""Bytes of a meta.json; real ones have 20 kB."""
_ENTRY_LIMIT = 256
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
"""RuntimeError: encrypted; its subclass NotImplementedError: a compression that zipfile does not know."""


class SogParts:
    """Reads the parts of one SOG. `path`: a bundle, its folder, or the meta.json of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._folder: Path | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if path.is_dir():
            self._folder = path
        elif path.name == "meta.json":
            self._folder = path.parent
        else:
            self._open_archive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._archive:
            self._archive.close()

    def _open_archive(self) -> None:
        try:
            self._archive = zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise
        except _ZIP_ERRORS as error:
            raise FileFormatError(self.path, f"is no readable zip archive ({error})", COPY_AGAIN) from error
        members = self._archive.infolist()
        problem = None
        if len(members) > _ENTRY_LIMIT:
            problem = f"holds {len(members)} entries; a SOG has eight"
        for member in members[:_ENTRY_LIMIT]:
            if not _is_inside(member.filename):
                problem = f"holds the entry {member.filename[:80]!r}, a path that leads out of the archive"
            elif member.filename in self._members:
                problem = f"holds the entry {member.filename[:80]!r} twice"
            self._members[member.filename] = member
        if problem:
            self._archive.close()
            raise FileFormatError(self.path, problem, "Do not trust it; export it again")

    def byte_count(self, names: list[str]) -> int:
        """Bytes that these parts take on disk. Raises FileFormatError where one is missing."""
        return sum(self._size(name)[0] for name in names)

    def _size(self, name: str) -> tuple[int, int]:
        """Bytes on disk and bytes when unpacked."""
        if self._archive:
            member = self._members.get(name)
            if member is None:
                raise FileFormatError(self.path, f"holds no `{name}`", COPY_AGAIN)
            return member.compress_size, member.file_size
        assert self._folder is not None
        if not (self._folder / name).is_file():
            raise FileFormatError(self.path, f"there is no `{name}` in {self._folder}", "Copy the whole folder")
        size = (self._folder / name).stat().st_size
        return size, size

    def read(self, name: str, limit: int) -> bytes:
        """One part of at most `limit` bytes, whatever its header says. Raises FileFormatError."""
        size = self._size(name)[1]
        if size > limit:
            raise FileFormatError(self.path, f"`{name}` has {size} bytes, expected at most {limit}", COPY_AGAIN)
        try:
            if self._archive:
                with self._archive.open(self._members[name]) as stream:
                    data = stream.read(limit + 1)
            else:
                assert self._folder is not None
                with (self._folder / name).open("rb") as stream:
                    data = stream.read(limit + 1)
        except _ZIP_ERRORS as error:
            raise FileFormatError(self.path, f"`{name}` cannot be unpacked ({error})", COPY_AGAIN) from error
        if len(data) > limit:
            raise FileFormatError(self.path, f"`{name}` is longer than {limit} bytes", COPY_AGAIN)
        return data

    def image(self, name: str, least: int, most: int, widths: tuple[int, ...] = ()) -> UInt8[np.ndarray, "h w 4"]:
        """An image of `least` to `most` pixels, of one of these widths if any are given.

        Sizes are judged before anything is decoded. Raises FileFormatError.
        """
        from PIL import Image, UnidentifiedImageError

        data = self.read(name, 5 * most + 65536)
        try:
            with Image.open(io.BytesIO(data), formats=("WEBP", "PNG")) as image:
                size = f"{image.width} x {image.height} pixels"
                if not least <= image.width * image.height <= most:
                    raise FileFormatError(self.path, f"`{name}` has {size}, expected {least} to {most}", COPY_AGAIN)
                if widths and image.width not in widths:
                    raise FileFormatError(self.path, f"`{name}` has {size}, expected a width of {widths}", COPY_AGAIN)
                if getattr(image, "n_frames", 1) != 1:
                    raise FileFormatError(self.path, f"`{name}` is animated", COPY_AGAIN)
                return np.asarray(image.convert("RGBA"))
        except FileFormatError:
            raise
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise FileFormatError(self.path, f"`{name}` cannot be decoded ({error})", COPY_AGAIN) from error


def plain_name(path: Path, name: object) -> str:
    """A file name from meta.json that stays beside it. Raises FileFormatError."""
    if not isinstance(name, str) or not _is_inside(name) or name in ("", ".") or "/" in name:
        raise FileFormatError(
            path, f"meta.json names the file {str(name)[:80]!r}, which is not one beside it", COPY_AGAIN
        )
    return name


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not name.startswith("/") and ".." not in parts and not any(mark in name for mark in "\\:\0")
