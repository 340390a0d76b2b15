"""From files to pixels: pictures and video frames as uint8, EXIF orientation not applied, errors that name the file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from smalti.datasets.dataset import DatasetError, View

if TYPE_CHECKING:
    from PIL.Image import Image

MASK_THRESHOLD = 127
"""Mask pixels above it are foreground: masks that went through JPEG are not binary."""


def eight_bit(picture: Image) -> Image:
    """A loaded 16-bit grey picture reduced to 8 bits, others as they are (Pillow itself would clip at 255)."""
    from PIL import Image

    if picture.mode not in ("I;16", "I;16B", "I;16L", "I"):
        return picture
    grey = np.clip(np.asarray(picture.convert("I"), np.int64), 0, 65535)
    return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))


def decode_picture(path: Path) -> UInt8[np.ndarray, "height width channels"]:
    """RGB, or straight RGBA where the file has alpha; 16-bit pictures are reduced to 8. Raises `DatasetError`."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            alpha = "A" in picture.getbands() or "transparency" in picture.info
            return np.array(eight_bit(picture).convert("RGBA" if alpha else "RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DatasetError(
            path, "picture", f"cannot be decoded ({error})", "Copy the picture again or remove it"
        ) from error


def decode_mask(path: Path) -> UInt8[np.ndarray, "height width"]:
    """A mask as 0 or 255. Raises `DatasetError`."""
    pixels = decode_picture(path)
    values = pixels[..., 3] if pixels.shape[2] == 4 and pixels[..., 3].min() < 255 else pixels[..., 0]
    return np.where(values > MASK_THRESHOLD, np.uint8(255), np.uint8(0))


def decode_view(view: View, videos: Videos | None = None) -> UInt8[np.ndarray, "height width channels"]:
    """The picture of a view at its own size, whether it is a file or a frame of a video. Raises `DatasetError`."""
    pixels = decode_picture(view.image) if view.frame is None else (videos or Videos()).frame(view.image, view.frame)
    if pixels.shape[:2] != (view.camera.height, view.camera.width):
        expected = f"{view.camera.width} x {view.camera.height}"
        problem = f"it has {pixels.shape[1]} x {pixels.shape[0]} pixels, its camera {expected}"
        raise DatasetError(
            view.image, view.camera.name, problem, "The file changed after the data set was opened: open it again"
        )
    return pixels


def _ffmpeg(path: Path) -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise DatasetError(
            path, "video", "reading video needs imageio-ffmpeg", "pip install 'smalti[video]'"
        ) from error
    return imageio_ffmpeg


def video_info(path: Path) -> tuple[int, int, int]:
    """(width, height, number of frames) of a video; the frames are counted, not guessed. Raises `DatasetError`."""
    module = _ffmpeg(path)
    try:
        reader = module.read_frames(str(path))
        width, height = next(reader)["size"]
        reader.close()
        count, _ = module.count_frames_and_secs(str(path))
    except (OSError, RuntimeError, StopIteration) as error:
        raise DatasetError(path, "video", "it cannot be decoded", "Copy or encode the video again") from error
    return width, height, int(count)


class Videos:
    """Reads frames by number, exactly (never by seeking to a time): going forward is cheap, going back starts again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Path, tuple[Iterator[Any], tuple[int, int], int]] = {}

    def frame(self, path: Path, number: int) -> UInt8[np.ndarray, "height width 3"]:
        """Frame `number` of a video. Raises `DatasetError`."""
        with self._lock:
            reader, (width, height), position = self._open.pop(path, (None, (0, 0), 0))
            try:
                if reader is None or position > number:
                    self._stop(reader)
                    reader = _ffmpeg(path).read_frames(str(path), pix_fmt="rgb24")
                    (width, height), position = next(reader)["size"], 0
                raw = b""
                while position <= number:
                    raw, position = next(reader), position + 1
            except (OSError, RuntimeError, StopIteration) as error:
                raise DatasetError(
                    path, f"frame {number}", "the video ends before it, or is damaged", "Encode it again"
                ) from error
            self._open[path] = (reader, (width, height), position)
            return np.frombuffer(raw, np.uint8).reshape(height, width, 3).copy()

    def close(self) -> None:
        """Ends the decoders."""
        with self._lock:
            for reader, _, _ in self._open.values():
                self._stop(reader)
            self._open.clear()

    @staticmethod
    def _stop(reader: Any) -> None:
        if reader is not None:
            reader.close()
