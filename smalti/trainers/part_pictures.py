"""Pictures of a scene's separate parts: turned about, moved apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.cameras.framing import framed, front, side_view, turntable
from smalti.scene.parts import Parts
from smalti.scene.scene import Scene
from smalti.trainers.part_marks import PAPER, count_of, label, part_numbers, shown, smooth_picture
from smalti.trainers.sheets import new_figure, save_figure

SIZE = (640, 480)
"""Pixels of turntables and exploded views."""
OUT_AND_BACK = 96
"""Frames of the video in which the parts move apart and together again."""


@dataclass(frozen=True, eq=False)
class Stand:
    """From where parts are looked at."""

    direction: Float[Tensor, "3"]
    """From their middle to the camera."""
    up: Float[Tensor, "3"]


def stand_of(parts: Parts, cameras: Sequence[Camera]) -> Stand:
    """From the side that the cameras looked at, upright by the scene's canonical frame or else by the cameras; without
    cameras, from a corner of the front.
    """
    known = parts.scene.canonical_from_scene
    # Without a frame: right, up and front of a scene whose y axis points down.
    axes = torch.diag(torch.tensor([1.0, -1.0, -1.0])) if known is None else known.rotation
    right, up, ahead = axes.double().unbind(0)
    if not cameras:
        return Stand(ahead + 0.5 * right + 0.4 * up, up)
    direction, above = front(cameras, outlines(parts))
    return Stand(direction, above if known is None else up)


def outlines(parts: Parts, amount: float = 0.0) -> Float[Tensor, "q 3"]:
    """Points that hold all parts, moved apart by `amount`."""
    moves = amount * parts.moves()
    return torch.cat([part.outline + move for part, move in zip(parts.parts, moves, strict=True)])


def turntable_cameras(parts: Parts, stand: Stand, frames: int) -> list[Camera]:
    """A circle about the parts, all of them in every picture."""
    return turntable(outlines(parts), frames, stand.up, stand.direction, SIZE)


def exploded_camera(parts: Parts, stand: Stand, amount: float) -> Camera:
    """Shows the parts whole when they are moved apart by `amount` (and on their way there)."""
    points = torch.cat([outlines(parts), outlines(parts, amount)])
    return framed(points, side_view(stand.direction, stand.up), stand.up, SIZE)


def picture_frames(
    scene: Scene, cameras: Sequence[Camera], background: tuple[float, float, float] = PAPER, backend: str = "auto"
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Smooth pictures for a video, drawn as they are asked for."""
    for camera in cameras:
        yield _levels(smooth_picture(scene, camera, background, backend))


def exploding_frames(
    parts: Parts, stand: Stand, amount: float = 1.0, backend: str = "auto"
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The parts move apart, stay a while, and come together again, before one camera."""
    camera, drawn = exploded_camera(parts, stand, amount), dict[float, UInt8[np.ndarray, "h w 3"]]()
    for phase in np.arange(OUT_AND_BACK) / OUT_AND_BACK:
        # Out in the first third, apart for a sixth, back in a third, together for a sixth: a third of it is drawn.
        share = round(float(np.clip(min(3 * phase, 2.5 - 3 * phase), 0, 1)), 6)
        if share not in drawn:
            eased = share * share * (3 - 2 * share)
            drawn[share] = _levels(smooth_picture(parts.exploded(amount * eased), camera, backend=backend))
        yield drawn[share]


def draw_exploded(path: Path, parts: Parts, stand: Stand, amount: float = 1.0, backend: str = "auto") -> None:
    """Write a picture of the parts together and one of them moved apart, with their numbers in their flat colours; of
    one part alone the first.
    """
    panels = [(parts.exploded(0.0), exploded_camera(parts, stand, 0.0), count_of(parts))]
    if len(parts.parts) > 1:
        panels.append((parts.exploded(amount), exploded_camera(parts, stand, amount), "moved apart"))
    width, height = SIZE
    figure = new_figure(len(panels) * width / 100, (height + 40) / 100)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (scene, camera, title) in zip(grid, panels, strict=True):
        shown(axis, smooth_picture(scene, camera, backend=backend), title)
    scene, camera, _ = panels[-1]
    label(grid[-1], parts.parts, part_numbers(parts, scene, camera, backend), (height, width))
    save_figure(figure, path)


def _levels(values: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.rint(255 * values).astype(np.uint8)
