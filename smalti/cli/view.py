"""`smalti view PATH`: a run, a scene, a file or a data set in the browser."""

from __future__ import annotations

import argparse
import math
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.cli.failures import UsageError, reported

if TYPE_CHECKING:
    from smalti.datasets.dataset import Dataset
    from smalti.scene.scene import Scene
    from smalti.viewer.stage import Stage, Views

CACHE_BYTES = 256 << 20
"""Of pictures of a data set that are kept."""
POINT_OPACITY, POINT_SIZE = 0.95, 1.5e-3
"""Of a data set's points; the size (standard deviation) as a share of their spread."""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="smalti view", description="Show a scene in the browser, to look around and to edit."
    )
    result.add_argument(
        "path",
        metavar="RUN|SCENE|FILE|DATA",
        help="run folder, scene folder, scene file of any format that is read, or a data set (its cameras and points)",
    )
    result.add_argument("--step", type=int, metavar="N", help="checkpoint of a run (default: the latest)")
    result.add_argument("--data", metavar="PATH", help="data set whose cameras and pictures go with a scene or a file")
    result.add_argument("--data-format", default="auto", metavar="NAME", help="its format (default: found out)")
    result.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    result.add_argument("--port", type=int, metavar="N", help="port (default: the first free one from 8080 on)")
    result.add_argument(
        "--token", help="word that clients must know (default: made up where --host is not this machine)"
    )
    result.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name that this machine goes by"
    )
    result.add_argument(
        "--open", action="store_true", dest="browser", help="open the address in this machine's browser"
    )
    result.add_argument("--no-browser", action="store_false", dest="browser", help="do not (the default)")
    result.add_argument("--device", default="cpu", help="where to draw: cpu or cuda (default: cpu)")
    result.add_argument("--backend", default="auto", help="auto, cpu, cuda, gsplat or oracle (default: auto)")
    return result


@reported
def main(argv: Sequence[str]) -> int:
    """Shows it until Ctrl-C. Returns 0 then, 2 where it cannot be shown."""
    arguments = parser().parse_args(argv)
    require_viewer()
    import torch

    from smalti.viewer.server import Viewer

    torch.set_num_threads(1)  # as in training (smalti.trainers.threads): the engine has its own
    stage = opened(arguments)
    with Viewer(stage, arguments.host, arguments.port, arguments.token, tuple(arguments.allow_host)) as viewer:
        print(f"{stage.title}: {said(stage)}")
        print(f"look at it at {viewer.url}  (Ctrl-C ends)", flush=True)
        if arguments.browser:
            import webbrowser

            webbrowser.open(viewer.url)
        wait_for_the_end()
    print("\nstopped")
    return 0


def require_viewer() -> None:
    """UsageError where the extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("viser", "aiohttp") if find_spec(name) is None]
    if missing:
        raise UsageError(f"the viewer needs {' and '.join(missing)}: pip install 'smalti[viewer]'")


def wait_for_the_end() -> None:
    """Until Ctrl-C or a polite kill."""
    ended = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, lambda *_: ended.set())
        while not ended.wait(1.0):  # with a limit, so that signals are seen on every system
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def said(stage: Stage) -> str:
    """What is on show, in a line."""
    counts = [f"{name} {count:,}" for name, count in stage.scene.counts().items()]
    views = "" if stage.views is None else f", {len(stage.views.dataset.views)} views"
    return (", ".join(counts) or "no primitives") + views


def opened(arguments: argparse.Namespace) -> Stage:
    """What the path names, by what is there: a run, a scene, a data set, a file."""
    from smalti.renderers.backends import choose

    path = Path(arguments.path)
    if arguments.path != "demo" and not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    kind, _, number = arguments.device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise UsageError(f"--device {arguments.device}: the devices are cpu, cuda, and cuda:1 for the second card")
    backend = choose(arguments.backend, arguments.device)
    stage = _stage(path, arguments)
    stage.backend = "auto" if arguments.backend == "auto" else backend
    for layer in stage.scene:
        layer.family.to(arguments.device)
        layer.family.require_gradients(False)
    return stage


def _stage(path: Path, arguments: argparse.Namespace) -> Stage:
    from smalti.datasets.open import open_dataset
    from smalti.scene.open_file import is_scene, open_scene
    from smalti.viewer.stage import Stage

    if (path / "config.yaml").is_file() and arguments.path != "demo":
        return _of_run(path, arguments.step)
    if arguments.step is not None:
        raise UsageError(f"--step is for run folders; {path} is none")
    title = path.resolve().name
    if arguments.path != "demo" and (is_scene(path) or not _is_data(path, arguments.data_format)):
        found = path / "meta.json" if path.is_dir() and (path / "meta.json").is_file() else path
        if found.is_file() or is_scene(found):
            scene_file = open_scene(found)
            for notice in scene_file.notices:
                print(f"note: {notice}")
            views = None
            if arguments.data:
                views = _views(open_dataset(arguments.data, format=arguments.data_format))
            return Stage(scene_file.scene, title, views)
    dataset = open_dataset(arguments.path, format=arguments.data_format)
    for notice in dataset.notices:
        print(f"note: {notice.text}")
    return Stage(_points(dataset), title, _views(dataset))


def _is_data(path: Path, form: str) -> bool:
    from smalti.datasets.formats import format_names, load_format

    return form != "auto" or any(load_format(name).detect(path) for name in format_names())


def _of_run(path: Path, step: int | None) -> Stage:
    """A run's scene, with its data set where that is still there."""
    from smalti.configs.config import parse_bytes
    from smalti.datasets.dataset import DatasetError
    from smalti.datasets.images import ImageCache
    from smalti.trainers.run import Run
    from smalti.viewer.stage import Stage, Views

    run = Run.open(path)
    shown = run.latest_step() if step is None else step
    place = path.resolve().name if run.path == path else f"{path.resolve().name}/{run.path.name}"  # the best of seeds
    stage = Stage(run.load_scene(shown), f"{place}, step {shown}")
    try:
        dataset = run.dataset()
    except (DatasetError, OSError) as error:
        print(f"note: without the views of its data set: {error}")
        return stage
    data = run.config.data
    cache = ImageCache(dataset, downscale=data.downscale, bytes=min(parse_bytes(data.cache), CACHE_BYTES))
    stage.views = Views(dataset, cache, *run.split(dataset))
    return stage


def _views(dataset: Dataset) -> Views:
    from smalti.datasets.images import ImageCache
    from smalti.viewer.stage import Views

    return Views(dataset, ImageCache(dataset, bytes=CACHE_BYTES), *dataset.split())


def _points(dataset: Dataset) -> Scene:
    """The data set's points as small splats; an empty scene where it has none."""
    import numpy as np
    import torch

    from smalti.primitives.family import find_family
    from smalti.scene.scene import Scene

    scene = Scene(order="centre", background=dataset.background)
    points = dataset.points
    if points is not None and len(points.positions):
        family = find_family("gaussians")
        positions = torch.from_numpy(points.positions).to(torch.float32)
        colors = torch.from_numpy(points.colors).to(torch.float32) / 255.0
        cloud = family.from_points(positions, colors, {"sh_degree": 0})
        low, high = np.quantile(points.positions, (0.05, 0.95), axis=0)  # torch's takes 16 million numbers at most
        size = max(float(np.linalg.norm(high - low)), 1e-6) * POINT_SIZE
        cloud.parameters["log_scales"].data.fill_(math.log(size))
        cloud.set_opacities(torch.full((len(cloud),), POINT_OPACITY))
        scene.add("points", cloud)
    return scene
