"""A camera path by key frames: its spline, its file, its film."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from smalti.cameras.camera import Camera
from smalti.cameras.trajectories import interpolate
from smalti.cameras.trajectory_files import from_file, save_trajectory
from smalti.datasets.images import pinhole_camera
from smalti.viewer.fitting import fitted
from smalti.viewer.look import Look
from smalti.viewer.modes import paint
from smalti.viewer.stage import Stage

MOST_LOADED = 60
"""Key frames that a file without any is thinned to."""
FOREIGN_FPS = 30.0
"""Frames per second that such a file is taken to be made for."""
KEYS = "key_frames"
"""In the file, beside the trajectory itself: what `smalti render` does not need and we do."""


@dataclass
class KeyFrames:
    """Cameras to fly through, at equal times."""

    cameras: list[Camera] = field(default_factory=list)
    """Pinholes; the first one's shape is the film's."""
    seconds: float = 2.0
    """Between neighbours."""
    closed: bool = False
    """Back to the first at the end."""

    @property
    def duration(self) -> float:
        """Seconds of the whole path."""
        return self.seconds * max(len(self.cameras) if self.closed else len(self.cameras) - 1, 0)

    def count(self, fps: float) -> int:
        """Frames of the film; an open path has both ends, a closed one stops short of its beginning."""
        if not self.cameras:
            return 0
        return max(round(self.duration * fps), 1) + (0 if self.closed or self.duration == 0 else 1)

    def frames(self, count: int, size: tuple[int, int] | None = None) -> list[Camera]:
        """`count` cameras along the spline (`smalti.cameras.trajectories.interpolate`); `size` is (width, height), by
        default the first key frame's. ValueError where there is no key frame.
        """
        if not self.cameras:
            raise ValueError("the path has no key frame yet; add one where the camera is now")
        width, height = size or (self.cameras[0].width, self.cameras[0].height)
        # Windows change their shape between key frames; a film does not.
        alike = [fitted(camera, width, height) for camera in self.cameras]
        return interpolate(alike, count, closed=self.closed)

    # -- file -----------------------------------------------------------------------------------------------------
    def to_text(self, fps: float, size: tuple[int, int] | None = None) -> str:
        """A trajectory file as `smalti render --trajectory FILE` reads it, a camera per frame, and the key frames."""
        with tempfile.TemporaryDirectory() as folder:
            every, keys = Path(folder) / "every.json", Path(folder) / "keys.json"
            save_trajectory(every, self.frames(self.count(fps), size))
            save_trajectory(keys, self.cameras)
            content = json.loads(every.read_text(encoding="utf-8"))
            records = json.loads(keys.read_text(encoding="utf-8"))["cameras"]
        content[KEYS] = {"cameras": records, "seconds": self.seconds, "closed": self.closed}
        return json.dumps(content, indent=1, allow_nan=False)

    @staticmethod
    def from_text(text: str, name: str = "path.json") -> KeyFrames:
        """What `to_text` wrote; of any other trajectory file (ours, nerfstudio's) some of its cameras as key frames.
        ValueError names the file and what is wrong with it.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / (Path(name).name or "path.json")

            def cameras(text: str) -> list[Camera]:
                path.write_text(text, encoding="utf-8")
                try:
                    return [pinhole_camera(camera).to(torch.float32) for camera in from_file(path)]
                except ValueError as error:
                    raise ValueError(str(error).replace(str(path), path.name)) from error

            every = cameras(text)
            if not every:
                raise ValueError(f"{path.name}: the file holds no camera")
            held = json.loads(text).get(KEYS) if text.lstrip().startswith("{") else None
            if isinstance(held, dict) and isinstance(held.get("cameras"), list) and held["cameras"]:
                seconds, closed = _checked(held, path.name)
                return KeyFrames(cameras(json.dumps(held["cameras"])), seconds, closed)
        picked = np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST_LOADED)).round().astype(int))
        duration = (len(every) - 1) / FOREIGN_FPS
        return KeyFrames([every[k] for k in picked], max(duration / max(len(picked) - 1, 1), 1e-3))


def _checked(held: dict[str, Any], name: str) -> tuple[float, bool]:
    seconds = held.get("seconds", 2.0)
    if not isinstance(seconds, int | float) or not 0 < seconds < 1e6:
        raise ValueError(f"{name}: {KEYS}.seconds is {seconds!r}, not a positive number of seconds")
    return float(seconds), bool(held.get("closed", False))


def film(
    stage: Stage, look: Look, cameras: list[Camera], advance: Callable[[int], bool]
) -> Generator[UInt8[np.ndarray, "h w 3"]]:
    """The pictures of these cameras in the look's mode, one after the other; between two the scene may change.

    `advance` is told the number of each picture before it is drawn; where it returns False, `Cancelled` is raised.
    ValueError for the mode `error`, which has cameras of its own. Depth has one range in all pictures.
    """
    if look.mode == "error":
        raise ValueError("errors are drawn at the training views' own cameras; choose another mode for a film")
    look = replace(look, truth_row=None)
    if look.mode == "depth" and look.depth_range is None:
        look = replace(look, depth_range=_depth_range(stage, look, cameras[:: max(len(cameras) // 5, 1)][:5]))
    for number, camera in enumerate(cameras):
        if not advance(number):
            raise Cancelled
        with stage.reading():
            pixels = paint(stage, replace(look, camera=camera.to(torch.float32))).pixels
        yield pixels


class Cancelled(Exception):
    """The film is not wanted any longer."""


def _depth_range(stage: Stage, look: Look, cameras: list[Camera]) -> tuple[float, float]:
    ranges: list[tuple[float, float]] = []
    for camera in cameras:
        with stage.reading():
            legend = paint(stage, replace(look, camera=camera.to(torch.float32))).legend
        if "near" in legend:
            ranges.append((legend["near"], legend["far"]))
    return (min(near for near, _ in ranges), max(far for _, far in ranges)) if ranges else (0.0, 1.0)
