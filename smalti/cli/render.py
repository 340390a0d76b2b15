"""`smalti render RUN|SCENE|FILE`: a video along a camera path, a folder of its frames, or one picture of one view."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported
from smalti.cli.render_parts import alone, render_exploded, render_flat, turntable_of
from smalti.cli.runs import OpenedRun, add_run_arguments, find_view, open_drawn, resized

if TYPE_CHECKING:
    from smalti.cameras.camera import Camera


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="smalti render",
        description="Render pictures or a video of a trained run, or of a scene along a camera path.",
    )
    add_run_arguments(result, scenes=True)
    what = result.add_mutually_exclusive_group()
    what.add_argument(
        "--trajectory",
        metavar="orbit|spiral|turntable|FILE",
        help="camera path: orbit (default), spiral, turntable (a circle about the separate parts of the scene, such as "
        "blocks; needs no run), or a file: nerfstudio's camera_path.json, or what the viewer or "
        "smalti.cameras.trajectory_files.save_trajectory saved",
    )
    what.add_argument("--view", metavar="NAME", help="one picture, from this view of the data set")
    what.add_argument(
        "--exploded",
        metavar="AMOUNT",
        type=float,
        help="the separate parts moved apart, alone: 1 until their boxes do not overlap; a picture, or a video of how "
        "they move (--out NAME.mp4)",
    )
    result.add_argument(
        "--flat",
        action="store_true",
        help="a sheet: photograph, render, and the separate parts in flat colours over the photograph, of --view NAME "
        "or of some training views",
    )
    result.add_argument(
        "--parts", action="store_true", help="the separate parts alone, on light grey, along a path or --view"
    )
    result.add_argument(
        "--out",
        type=Path,
        help="video (.mp4 ...), .png for --view, --exploded and --flat, or a folder for PNG frames (default: in RUN)",
    )
    result.add_argument("--frames", type=int, default=120, help="frames of orbit, spiral and turntable (default: 120)")
    result.add_argument("--fps", type=float, default=30.0, help="frames per second of the video (default: 30)")
    result.add_argument(
        "--channels",
        choices=("color", "depth", "alpha"),
        default="color",
        help="what to show (default: color); depth is drawn in colours, near red to far blue",
    )
    result.add_argument("--width", type=int, help="pixels; the height follows (default: as in training)")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Renders and says where the result is. Returns 0, or 2 where something is missing."""
    from smalti.trainers.pictures import require_video

    arguments = parser().parse_args(argv)
    if arguments.frames < 1 or not arguments.fps > 0:
        raise UsageError("--frames and --fps must be positive")
    if arguments.flat and (arguments.trajectory or arguments.exploded is not None or arguments.parts):
        raise UsageError("--flat shows photographs: it goes with --view alone")
    if arguments.parts and arguments.exploded is not None:
        raise UsageError("--exploded shows the parts alone as it is; leave out --parts")
    if (arguments.flat or arguments.exploded is not None) and (arguments.width or arguments.channels != "color"):
        raise UsageError("--width and --channels are for camera paths and --view")
    place = Path(arguments.run)
    out = arguments.out or (place if (place / "config.yaml").is_file() else place.parent) / _default_name(arguments)
    still = arguments.view is not None or arguments.flat or (arguments.exploded is not None and out.suffix == ".png")
    if not still and not _is_folder(out):
        require_video(out)  # before anything is loaded
    opened = open_drawn(arguments)
    if arguments.parts:
        opened = alone(opened)
    if arguments.flat:
        print(render_flat(opened, arguments, out / "flat.png" if _is_folder(out) else out))
    elif arguments.exploded is not None:
        print(render_exploded(opened, arguments, out))
    elif arguments.view is not None:
        print(_render_view(opened, arguments, out))
    else:
        print(_render_path(opened, arguments, out))
    return 0


def _default_name(arguments: argparse.Namespace) -> str:
    if arguments.flat or arguments.exploded is not None:
        return "flat.png" if arguments.flat else "exploded.png"
    suffix = "_parts" if arguments.parts else ""
    suffix += "" if arguments.channels == "color" else f"_{arguments.channels}"
    if arguments.view is not None:
        return f"{Path(arguments.view).stem}{suffix}.png"
    return f"{Path(arguments.trajectory or 'orbit').stem}{suffix}.mp4"


def _is_folder(out: Path) -> bool:
    return out.is_dir() or out.suffix == ""


def _render_view(opened: OpenedRun, arguments: argparse.Namespace, out: Path) -> str:
    from smalti.trainers.pictures import render_path, write_png

    dataset, images = opened.pictures()
    row = find_view(dataset, arguments.view)
    camera = resized(images.camera(row), arguments.width)
    if _is_folder(out):
        out.mkdir(parents=True, exist_ok=True)
        out = out / _default_name(arguments)
    elif out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: one picture is written as .png (or into a folder)")
    out.parent.mkdir(parents=True, exist_ok=True)
    background = opened.background()
    (pixels,) = render_path(opened.scene, [camera], background, channel=arguments.channels, backend=opened.backend)
    write_png(out, pixels)
    return f"{out}: {arguments.channels} of {dataset.views[row].camera.name}, {camera.width} x {camera.height}"


def _render_path(opened: OpenedRun, arguments: argparse.Namespace, out: Path) -> str:
    from smalti.cli.progress import track
    from smalti.trainers.pictures import render_path, write_frames, write_video

    cameras = [resized(camera, arguments.width) for camera in _cameras(opened, arguments)]
    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) > 1 and not _is_folder(out):
        raise UsageError(f"--trajectory {arguments.trajectory}: its cameras differ in size; give a folder as --out")
    with track("frames", len(cameras)) as advance:

        def counted():
            background = opened.background()
            for pixels in render_path(
                opened.scene, cameras, background, channel=arguments.channels, backend=opened.backend
            ):
                advance()
                yield pixels

        if _is_folder(out):
            count, what = write_frames(out, counted()), "PNG frames"
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(out.parent, os.W_OK):  # the encoder's own words for it are many and dark
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(out.parent))
            count, what = write_video(out, counted(), arguments.fps), f"frames at {arguments.fps:g} per second"
    width, height = next(iter(sizes))
    return f"{out}: {count} {what}, {width} x {height}, {arguments.channels}"


def _cameras(opened: OpenedRun, arguments: argparse.Namespace) -> list[Camera]:
    from smalti.cameras.trajectories import from_file
    from smalti.datasets.images import pinhole_camera
    from smalti.trainers.pictures import path_cameras

    name = arguments.trajectory or "orbit"
    if name == "turntable":
        return turntable_of(opened, arguments.frames)
    if name in ("orbit", "spiral"):
        dataset, images = opened.pictures()
        train, _ = opened.of_run().split(dataset)
        return path_cameras([images.camera(row) for row in train], name, arguments.frames)
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--trajectory {name}: neither orbit, spiral nor turntable, and there is no such file")
    try:
        cameras = from_file(path)
    except ValueError as error:
        raise UsageError(f"--trajectory {error}") from error
    if not cameras:
        raise UsageError(f"--trajectory {name}: the file holds no camera")
    return [pinhole_camera(camera) for camera in cameras]
