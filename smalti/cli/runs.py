"""What the commands on a finished run share: its arguments, its scene on a device, its pictures."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError

if TYPE_CHECKING:
    from smalti.cameras.camera import Camera
    from smalti.datasets.dataset import Dataset
    from smalti.datasets.images import ImageCache
    from smalti.scene.scene import Scene
    from smalti.trainers.run import Run


def add_run_arguments(parser: argparse.ArgumentParser, *, drawing: bool = True, scenes: bool = False) -> None:
    """RUN and --step; with `drawing` also --device and --backend; with `scenes` for `open_drawn`."""
    more = ", or a scene or any file that `smalti view` shows" if scenes else ""
    parser.add_argument(
        "run", metavar="RUN|SCENE|FILE" if scenes else "RUN", help=f"run folder that `smalti train` made{more}"
    )
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint to use (default: the latest)")
    if drawing:
        parser.add_argument("--device", default="cpu", help="where to draw: cpu or cuda (default: cpu)")
        parser.add_argument("--backend", default="auto", help="auto, cpu, cuda, gsplat or oracle (default: auto)")


@dataclass
class OpenedRun:
    """A run whose scene can be drawn, or a scene that is of no run."""

    run: Run | None
    step: int
    scene: Scene
    backend: str

    def pictures(self) -> tuple[Dataset, ImageCache]:
        """The capture as it was trained on, and its pictures at the run's downscale."""
        from smalti.configs.config import parse_bytes
        from smalti.datasets.images import ImageCache

        run = self.of_run()
        data, dataset = run.config.data, run.dataset()
        return dataset, ImageCache(dataset, downscale=data.downscale, bytes=parse_bytes(data.cache))

    def of_run(self) -> Run:
        """The run; UsageError where the scene is of none."""
        if self.run is None:
            raise UsageError("a scene or a file has no views of its own; give a camera path with --trajectory FILE")
        return self.run

    def background(self) -> tuple[float, float, float]:
        """The colour behind the scene."""
        return self.scene.background or (0.0, 0.0, 0.0)


def open_run(arguments: argparse.Namespace) -> OpenedRun:
    """The run and its scene on the asked-for device. The back end is judged first, so that a bad wish fails at once."""
    from smalti.trainers.run import Run

    backend = _backend(arguments)
    run = Run.open(arguments.run)
    step = run.latest_step() if arguments.step is None else arguments.step
    return OpenedRun(run, step, _placed(run.load_scene(step), arguments.device), backend)


def _backend(arguments: argparse.Namespace) -> str:
    from smalti.renderers.backends import choose

    kind, _, number = arguments.device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise UsageError(f"--device {arguments.device}: the devices are cpu, cuda, and cuda:1 for the second card")
    return choose(arguments.backend, arguments.device)


def _placed(scene: Scene, device: str) -> Scene:
    for layer in scene:
        layer.family.to(device)
        layer.family.require_gradients(False)
    return scene


def _is_scene(path: Path) -> bool:
    from smalti.scene.folder import is_scene

    return is_scene(path) or (path / "meta.json").is_file()


def is_run(path: Path) -> bool:
    """Whether it is to be read as a run folder: a folder that holds no scene, or nothing (which says so then)."""
    return (path.is_dir() and not _is_scene(path)) or not path.exists()


def open_drawn(arguments: argparse.Namespace) -> OpenedRun:
    """A run as `open_run` gives it, or what another folder or file holds that `smalti view` shows as a scene."""
    from smalti.scene.open_file import open_scene

    path = Path(arguments.run)
    if is_run(path):
        return open_run(arguments)
    if arguments.step is not None:
        raise UsageError(f"--step is for run folders; {path} is none")
    backend = _backend(arguments)
    opened = open_scene(path)
    for notice in opened.notices:
        print(f"note: {notice}")
    return OpenedRun(None, 0, _placed(opened.scene, arguments.device), backend)


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
