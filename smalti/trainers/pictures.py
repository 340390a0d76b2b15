"""Frames to files: PNG pictures, folders of them, and videos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.frame import Frame
from smalti.scene.scene import Scene
from smalti.trainers.evaluation import draw

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".mov", ".webm")
CHANNELS = ("color", "depth", "alpha")


class VideoUnavailable(RuntimeError):
    """No video can be written here; the message says what to install or to write instead."""


def frame_pixels(
    frame: Frame, channel: str = "color", depth_range: tuple[float, float] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """One channel of a frame as 8-bit pixels.

    `color`: clamped and rounded. `alpha`: grey, 1 - transmittance. `depth`: the expected camera z, near bright to far
    dark through the colours of turbo, over `depth_range` (by default the frame's own 1st to 99th percentile), black
    where nothing was hit; the frame must have been rendered with depth.
    """
    if channel == "color":
        return _bytes(frame.color)
    if channel == "alpha":
        return _bytes(frame.alpha[..., None].expand(*frame.alpha.shape, 3))
    if channel != "depth":
        raise ValueError(f"frame_pixels: expected one of {', '.join(CHANNELS)}, got {channel!r}")
    if frame.depth is None:
        raise ValueError("frame_pixels: the frame has no depth; render with RenderSettings(depth=True)")
    from matplotlib import colormaps

    near, far = depth_range or depth_limits(frame)
    depth = frame.depth.detach().cpu()
    nearness = ((far - depth) / max(far - near, 1e-12)).clamp(0, 1).numpy()
    pixels = np.rint(colormaps["turbo"](nearness)[..., :3] * 255).astype(np.uint8)
    pixels[(frame.alpha.detach().cpu() < 1 / 255).numpy()] = 0
    return pixels


def depth_limits(frame: Frame) -> tuple[float, float]:
    """1st and 99th percentile of the depth where something was hit; (0, 1) where nothing was."""
    if frame.depth is None:
        raise ValueError("depth_limits: the frame has no depth; render with RenderSettings(depth=True)")
    hit = frame.depth.detach().cpu()[frame.alpha.detach().cpu() >= 0.5].double().numpy()
    if hit.size == 0:
        return 0.0, 1.0
    low, high = np.quantile(hit, [0.01, 0.99])
    return float(low), float(high)


def path_cameras(cameras: Sequence[Camera], name: str, frames: int) -> list[Camera]:
    """The path `name` (orbit or spiral) round what `cameras` look at."""
    from smalti.cameras import trajectories

    if name not in ("orbit", "spiral"):
        raise ValueError(f"path_cameras: expected orbit or spiral, got {name!r}")
    return getattr(trajectories, name)(cameras, frames)


def render_path(
    scene: Scene,
    cameras: Sequence[Camera],
    background: tuple[float, float, float],
    *,
    channel: str = "color",
    backend: str = "auto",
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The pixels of one camera after another, rendered as they are asked for.

    For `depth` one range of colours serves all frames: it is found on up to five of them beforehand.
    """
    color = torch.tensor(background, dtype=torch.float32)
    depth = channel == "depth"

    def frame_of(camera: Camera) -> Frame:
        return draw(scene, camera.to(torch.float32), color, depth=depth, backend=backend)

    limits = None
    if depth:
        sample = [depth_limits(frame_of(camera)) for camera in cameras[:: max(len(cameras) // 5, 1)][:5]]
        limits = min(low for low, _ in sample), max(high for _, high in sample)
    for camera in cameras:
        yield frame_pixels(frame_of(camera), channel, limits)


def write_png(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write one picture; it appears whole or not at all."""
    from PIL import Image

    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(pixels).save(scratch, format="PNG")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_frames(folder: Path, pictures: Iterable[UInt8[np.ndarray, "h w 3"]]) -> int:
    """Write `00000.png`, `00001.png` ... into `folder` (made where absent); returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for count, pixels in enumerate(pictures, start=1):
        write_png(folder / f"{count - 1:05d}.png", pixels)
    return count


def require_video(path: Path) -> None:
    """Raises VideoUnavailable where a video cannot be written to `path`: no encoder, or an unknown extension."""
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        known = ", ".join(VIDEO_EXTENSIONS)
        raise VideoUnavailable(
            f"{path}: no video format has the extension {path.suffix!r}. Use one of {known}, or a folder for PNG frames"
        )
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise VideoUnavailable(
            f"{path}: videos need the package imageio-ffmpeg ({error}). Install it with `pip install 'smalti[video]'`, "
            "or give a folder as --out for PNG frames"
        ) from error


def write_video(path: Path, pictures: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float = 30.0) -> int:
    """Encode pictures (h264; VP9 for webm) one by one; returns how many. The file appears when it is complete.

    h264 in the pixel format that players read needs even sizes: an odd last row or column is repeated once, never
    rescaled. Raises VideoUnavailable where there is no encoder, ValueError without pictures.
    """
    require_video(path)
    import imageio.v2 as imageio

    codec = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
    scratch = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    count = 0
    try:
        options = {"fps": fps, "codec": codec, "quality": 8, "pixelformat": "yuv420p", "macro_block_size": 1}
        writer = imageio.get_writer(scratch, format="FFMPEG", **options)  # pyright: ignore[reportArgumentType]
        with writer:
            for count, pixels in enumerate(pictures, start=1):  # noqa: B007
                writer.append_data(even(pixels))
        if count == 0:
            raise ValueError(f"{path}: there are no pictures to encode")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return count


def even(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture with its last row and column repeated where its size is odd."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _bytes(values: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    rounded = torch.round(values.detach().clamp(0, 1) * 255).to(torch.uint8)
    return np.ascontiguousarray(rounded.cpu().numpy())
