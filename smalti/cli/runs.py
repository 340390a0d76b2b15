"""What the commands on a finished run share: its arguments, its scene on a device, its pictures."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError

if TYPE_CHECKING:
    from smalti.cameras.camera import Camera
    from smalti.datasets.dataset import Dataset
    from smalti.datasets.images import ImageCache
    from smalti.scene.scene import Scene
    from smalti.trainers.run import Run


def add_run_arguments(parser: argparse.ArgumentParser, *, drawing: bool = True) -> None:
    """RUN and --step; with `drawing` also --device and --backend."""
    parser.add_argument("run", metavar="RUN", help="run folder that `smalti train` made")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to use (default: the latest)")
    if drawing:
        parser.add_argument("--device", default="cpu", help="where to draw: cpu or cuda (default: cpu)")
        parser.add_argument("--backend", default="auto", help="auto, cpu, cuda, gsplat or oracle (default: auto)")


@dataclass
class OpenedRun:
    """A run whose scene can be drawn."""

    run: Run
    step: int
    scene: Scene
    backend: str

    def pictures(self) -> tuple[Dataset, ImageCache]:
        """The capture as it was trained on, and its pictures at the run's downscale."""
        from smalti.configs.config import parse_bytes
        from smalti.datasets.images import ImageCache

        data = self.run.config.data
        dataset = self.run.dataset()
        return dataset, ImageCache(dataset, downscale=data.downscale, bytes=parse_bytes(data.cache))

    def background(self) -> tuple[float, float, float]:
        """The colour behind the scene."""
        return self.scene.background or (0.0, 0.0, 0.0)


def open_run(arguments: argparse.Namespace) -> OpenedRun:
    """The run and its scene on the asked-for device. The back end is judged first, so that a bad wish fails at once."""
    from smalti.renderers.backends import choose
    from smalti.trainers.run import Run

    kind, _, number = arguments.device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise UsageError(f"--device {arguments.device}: the devices are cpu, cuda, and cuda:1 for the second card")
    backend = choose(arguments.backend, arguments.device)
    run = Run.open(arguments.run)
    step = run.latest_step() if arguments.step is None else arguments.step
    scene = run.load_scene(step)
    for layer in scene:
        layer.family.to(arguments.device)
        layer.family.require_gradients(False)
    return OpenedRun(run, step, scene, backend)


def find_view(dataset: Dataset, name: str) -> int:
    """Row of the view called `name`: in full, by its file name, or by its stem. UsageError names the near misses."""
    from difflib import get_close_matches
    from pathlib import PurePosixPath

    names = [view.camera.name for view in dataset.views]
    for spelled in (str, lambda full: PurePosixPath(full).name, lambda full: PurePosixPath(full).stem):
        rows = [row for row, full in enumerate(names) if spelled(full) == name]
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise UsageError(
                f"--view {name}: {len(rows)} views are called so; give one of {', '.join(names[r] for r in rows)}"
            )
    near = get_close_matches(name, names, 3) or names[:5]
    raise UsageError(f"--view {name}: there is no such view; did you mean {', '.join(near)}?")


def resized(camera: Camera, width: int | None) -> Camera:
    """The camera with another width in pixels, its height in proportion."""
    if width is None:
        return camera
    if width < 1:
        raise UsageError(f"--width {width}: expected a positive number of pixels")
    return camera.scaled_to(width, max(round(camera.height * width / camera.width), 1))
