"""Pictures on disk: finding them, their sizes from the header alone, and gathering them into views of a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from smalti.cameras.camera import Camera
from smalti.datasets.dataset import DatasetError, Notice, View

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
ASPECT_TOLERANCE = 0.05
"""How far the aspect ratios of a camera record and its picture may differ before they cannot belong together."""


@dataclass(frozen=True)
class PictureInfo:
    """What a picture's header says."""

    width: int
    height: int
    alpha: bool


def picture_info(path: Path) -> PictureInfo:
    """Size and presence of alpha, from the header alone; EXIF orientation is not applied. Raises `DatasetError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size == 0:
            raise DatasetError(path, "picture", "the file is empty (0 bytes)", "Copy the picture again or remove it")
        with Image.open(path) as picture:
            alpha = "A" in picture.getbands() or "transparency" in picture.info
            return PictureInfo(picture.width, picture.height, alpha)
    except UnidentifiedImageError as error:
        remedy = "Copy the picture again or remove it"
        raise DatasetError(path, "picture", "this is no picture that can be decoded", remedy) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(path, "picture", f"cannot be read ({error})", "Copy the picture again") from error


def check_name(path: Path) -> None:
    """Raises `DatasetError` where a file's name is not valid UTF-8 (it would break every table that mentions it)."""
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = path.name.encode("utf-8", "backslashreplace").decode()
        folder = str(path.parent).encode("utf-8", "backslashreplace").decode()
        raise DatasetError(folder, f"file {shown}", "the name is not valid UTF-8", "Rename the file") from error


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; hidden files are left out. Raises on names that are not UTF-8."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    for path in found:
        check_name(path)
    return sorted(found, key=lambda path: path.name)


def find_picture(folder: Path, name: str) -> Path | None:
    """The file that `name` means: relative to `folder`, with or without extension or a leading "./"; None if absent."""
    name = name.replace("\\", "/").strip()
    if not name or "\x00" in name:
        return None
    exact = folder / name
    if exact.is_file():
        return exact
    for suffix in SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            for candidate in (
                folder / f"{name}{spelled}",
                exact.with_suffix(spelled) if exact.name not in ("", "..") else exact,
            ):
                if candidate.is_file():
                    return candidate
    if exact.parent.is_dir():  # a broken name next to a missing picture is most likely that picture
        for path in exact.parent.iterdir():
            if path.suffix.lower() in SUFFIXES:
                check_name(path)
    return None


def find_mask(root: Path, image: Path, images: Path) -> Path | None:
    """The mask of a picture in `masks` beside the picture folder (`images_4` -> `masks_4`, then `masks`), or None.

    Named like the picture with any extension, or like COLMAP does: the picture's whole name plus `.png`.
    """
    tail = images.name.removeprefix("images").removeprefix("image")
    relative = image.relative_to(images) if image.is_relative_to(images) else Path(image.name)
    for folder in dict.fromkeys((root / f"masks{tail}", root / f"mask{tail}", root / "masks", root / "mask")):
        if not folder.is_dir():
            continue
        for candidate in (folder / f"{relative}.png", *(folder / relative.with_suffix(suffix) for suffix in SUFFIXES)):
            if candidate.is_file():
                return candidate
    return None


def shown(names: Iterable[str], limit: int = 3) -> str:
    """The first few names for a message."""
    listed = list(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


class Gathering:
    """Collects a reader's views: opens headers, scales cameras to the pictures' sizes, remembers what is missing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.views: list[View] = []
        self.missing: list[str] = []
        self.scaled: list[str] = []
        self.stretched: list[str] = []
        self.alpha = False
        self._sizes: dict[str, tuple[str, str]] = {}

    def add(self, view: View) -> int:
        """Adds a view whose camera may be for another size than its picture; returns its row. Raises `DatasetError`."""
        return self.add_sized(view, picture_info(view.image))

    def add_sized(self, view: View, info: PictureInfo) -> int:
        """The same where the picture's size is known already (the frames of a video)."""
        camera = self._fitted(view.camera, info)
        if view.mask is not None:
            mask = picture_info(view.mask)
            if (mask.width, mask.height) != (info.width, info.height):
                problem = f"the mask is {mask.width} x {mask.height}, its picture {info.width} x {info.height}"
                raise DatasetError(view.mask, f"mask of {camera.name}", problem, "Make masks of the pictures' own size")
        self.alpha |= info.alpha
        self.views.append(replace(view, camera=camera))
        return len(self.views) - 1

    def miss(self, name: str) -> None:
        """Notes a picture that the file names and the disk has not."""
        self.missing.append(name)

    @property
    def background(self) -> tuple[float, float, float] | None:
        """White where a picture has alpha (what published figures use), None where all are opaque."""
        return (1.0, 1.0, 1.0) if self.alpha else None

    def finish(self) -> tuple[tuple[View, ...], tuple[Notice, ...]]:
        """The views and what is to be said about them. Raises `DatasetError` if no view remains."""
        if not self.views:
            if self.missing:
                problem = f"none of its {len(self.missing)} pictures exists ({shown(self.missing)})"
                raise DatasetError(self.file, "pictures", problem, "Put the pictures where the file names them")
            raise DatasetError(self.file, "", "it has no usable view", "Export the cameras again")
        names = [view.camera.name for view in self.views]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DatasetError(self.file, shown(twice), "named more than once", "Keep one record per picture")
        notices = []
        if self.missing:
            total = len(self.missing) + len(names)
            text = f"{len(self.missing)} of {total} pictures are missing and left out: {shown(self.missing)}"
            notices.append(Notice("missing-images", text, len(self.missing)))
        if self.scaled:
            record, actual = self._sizes[self.scaled[0]]
            text = f"{len(self.scaled)} cameras are for {record} and were scaled to their pictures' {actual}"
            notices.append(Notice("scaled-intrinsics", text, len(self.scaled)))
        if self.stretched:
            record, actual = self._sizes[self.stretched[0]]
            text = f"{len(self.stretched)} pictures have not quite their camera's shape ({self.stretched[0]}: {actual} "
            text += f"for {record}): if they were cropped or undistorted since, the cameras are not theirs"
            notices.append(Notice("stretched-pictures", text, len(self.stretched)))
        return tuple(self.views), tuple(notices)

    def _fitted(self, camera: Camera, info: PictureInfo) -> Camera:
        wide, high = info.width / camera.width, info.height / camera.height
        if (wide, high) == (1.0, 1.0):
            return camera
        record, actual = f"{camera.width} x {camera.height}", f"{info.width} x {info.height}"
        rounding = 1.5 / min(info.width, info.height)
        if abs(wide / high - 1.0) > ASPECT_TOLERANCE + rounding:
            problem = (
                f"the camera is for {record}, the picture has {actual}: another shape, so it was cropped or turned"
            )
            remedy = "Use the picture that was calibrated (EXIF orientation is not applied), or the crop's own camera"
            raise DatasetError(self.file, camera.name, problem, remedy)
        self._sizes[camera.name] = (record, actual)
        self.scaled.append(camera.name)
        if abs(wide / high - 1.0) > rounding:
            self.stretched.append(camera.name)
        return camera.scaled_to(info.width, info.height)
