"""What `smalti render` draws of scenes in separate parts: turntables, exploded views, flat colours."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError
from smalti.cli.runs import OpenedRun, find_view

if TYPE_CHECKING:
    from smalti.cameras.camera import Camera
    from smalti.scene.parts import Parts
    from smalti.trainers.part_pictures import Stand


def alone(opened: OpenedRun) -> OpenedRun:
    """The scene with its separate parts alone, on light grey."""
    from smalti.trainers.part_marks import PAPER

    scene = _parts(opened).alone
    scene.background = PAPER
    return replace(opened, scene=scene)


def turntable_of(opened: OpenedRun, frames: int) -> list[Camera]:
    """A circle about the separate parts, on the height of the run's cameras."""
    from smalti.trainers.part_pictures import turntable_cameras

    parts = _parts(opened)
    return turntable_cameras(parts, _stand(opened, parts), frames)


def render_exploded(opened: OpenedRun, arguments: argparse.Namespace, out: Path) -> str:
    """A picture of the parts moved apart, or a video of how they move."""
    from smalti.trainers.part_pictures import draw_exploded, exploding_frames
    from smalti.trainers.pictures import write_frames, write_video

    amount = arguments.exploded
    if not 0 <= amount < math.inf:
        raise UsageError(f"--exploded {amount}: expected 0 or more")
    parts = _parts(opened)
    stand = _stand(opened, parts)
    what = f"{parts.count}, apart by {amount:g}"
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_exploded(out, parts, stand, amount, opened.backend)
        return f"{out}: {what}"
    frames = exploding_frames(parts, stand, amount, opened.backend)
    if out.is_dir() or not out.suffix:
        return f"{out}: {write_frames(out, frames)} PNG frames, {what}"
    out.parent.mkdir(parents=True, exist_ok=True)
    return f"{out}: {write_video(out, frames, arguments.fps)} frames, {what}"


def render_flat(opened: OpenedRun, arguments: argparse.Namespace, out: Path) -> str:
    """The sheet of one view, or of some training views."""
    from smalti.trainers.flat_pictures import chosen_views, draw_flat

    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the sheet is written as .png (or into a folder)")
    if opened.run is None:
        raise UsageError("--flat lies over photographs, and a scene or a file has none; give the run folder")
    parts = _parts(opened)
    dataset, images = opened.pictures()
    train, _ = opened.run.split(dataset)
    rows = chosen_views(train) if arguments.view is None else [find_view(dataset, arguments.view)]
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_flat(out, opened.scene, parts, images, rows, opened.backend)
    names = ", ".join(dataset.views[row].camera.name for row in rows)
    return f"{out}: {parts.count} in flat colours over {names}"


def _parts(opened: OpenedRun) -> Parts:
    from smalti.scene.parts import NoParts, parts_of

    try:
        return parts_of(opened.scene)
    except NoParts as error:
        raise UsageError(str(error)) from error


def _stand(opened: OpenedRun, parts: Parts) -> Stand:
    from smalti.trainers.part_pictures import stand_of

    if opened.run is None:
        return stand_of(parts, [])
    dataset, images = opened.pictures()
    train, _ = opened.run.split(dataset)
    return stand_of(parts, [images.camera(row) for row in train])
