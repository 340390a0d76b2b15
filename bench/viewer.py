"""The viewer, from a client's side: latency, frames per second while orbiting, and what it takes from a training.

`python bench/viewer.py --json`: 100 k Gaussians, a canvas of 800 x 600, two cores; clients are processes of their own
that speak viser's protocol and do not decode the pictures. Targets: 8 frames per second while orbiting; a training
loses at most 3 % with no client or with one at rest, 15 % with one that orbits. Steps are compared by the clock: with a
client that orbits in blocks between two blocks without a viewer, otherwise in short turns of steps that the viewer sees
and steps that it does not (and of the latter against themselves: what the comparison cannot tell). A client at rest is
there in both turns, but gets pictures only of steps that are seen; what it costs besides is in the processor time of
the viewer's threads, which other programs do not disturb.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "viewer"))
WIDTH, HEIGHT = 800, 600
PERIOD = 1 / 30
"""Seconds between two cameras of a client that orbits."""
BURST = 80
"""Steps of one side of a comparison in short turns."""


# -- the clients' side: a process that is told what to do on its standard input ----------------------------------------
def pose(angle: float, radius: float = 4.0) -> dict[str, Any]:
    """A camera on a circle around the origin, looking there; up is -y."""
    from smalti.files.splats import quaternion_of

    forward = np.array([-math.sin(angle), 0.0, math.cos(angle)])
    right = np.array([math.cos(angle), 0.0, math.sin(angle)])
    rotation = np.stack([right, [0.0, 1.0, 0.0], forward], 1)
    return {"position": (-radius * forward).tolist(), "wxyz": quaternion_of(rotation).tolist()}


class Client:
    """Counts the pictures that come."""

    def __init__(self, url: str) -> None:
        from page_client import PageClient

        self.page = PageClient(url, WIDTH, HEIGHT)
        self.arrived = threading.Condition()
        self.pictures: list[tuple[float, str, int]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            for message in self.page.receive(3600.0):
                if message["type"] == "BackgroundImageMessage" and message["rgb_data"] is not None:
                    with self.arrived:
                        data = bytes(message["rgb_data"])
                        width = Image.open(io.BytesIO(data)).width  # of the header alone
                        self.pictures.append((time.perf_counter(), message["format"], width))
                        self.arrived.notify_all()
            self.page.messages.clear()

    def wait(self, since: int, form: str | None = None, timeout: float = 20.0) -> tuple[float, str, int]:
        """The first picture after the `since` first ones, of that format."""
        with self.arrived:
            self.arrived.wait_for(lambda: self._first(since, form) is not None, timeout)
        found = self._first(since, form)
        if found is None:
            raise TimeoutError("no picture came")
        return found

    def _first(self, since: int, form: str | None) -> tuple[float, str, int] | None:
        return next((entry for entry in self.pictures[since:] if form in (None, entry[1])), None)

    def latencies(self, count: int) -> dict[str, list[float]]:
        """Milliseconds from a camera after a rest to the first picture, and to the exact one."""
        first, exact = [], []
        for k in range(count):
            since, start = len(self.pictures), time.perf_counter()
            self.page.look(**pose(0.3 + 0.01 * k))
            first.append(1e3 * (self.wait(since)[0] - start))
            exact.append(1e3 * (self.wait(since, "png")[0] - start))
            time.sleep(0.1)
        return {"first": first, "exact": exact}

    def orbit(self, seconds: float, angle: float = 0.0) -> dict[str, Any]:
        """Pictures per second while cameras come at 30 Hz, and milliseconds between them."""
        since, start = len(self.pictures), time.perf_counter()
        while time.perf_counter() - start < seconds:
            angle += 0.02
            self.page.look(**pose(angle))
            time.sleep(PERIOD)
        came = [moment for moment, _, _ in self.pictures[since:] if moment < start + seconds]
        gaps = [1e3 * (b - a) for a, b in pairwise(came)]
        return {
            "per_second": len(came) / seconds,
            "gap_ms": {"median": median(gaps), "p95": float(np.quantile(gaps, 0.95))} if gaps else {},
            "width": median([width for _, _, width in self.pictures[since:]] or [0]),
        }


def be_client(url: str) -> None:
    """Reads words: `latencies N`, `orbit SECONDS`, `still`; answers each with a line of JSON."""
    client, moving = Client(url), threading.Event()

    def move() -> None:
        angle = 0.0
        while moving.is_set():
            angle += 0.02
            client.page.look(**pose(angle))
            time.sleep(PERIOD)

    client.page.look(**pose(0.0))
    client.wait(0)
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        answer: Any = None
        if word == "latencies":
            answer = client.latencies(int(rest[0]))
        elif word == "orbit":
            answer = client.orbit(float(rest[0]))
        elif word == "start":
            moving.set()
            threading.Thread(target=move, daemon=True).start()
        elif word == "stop":
            moving.clear()
            answer = len(client.pictures)
        print(json.dumps(answer), flush=True)


@contextmanager
def a_client(url: str) -> Any:
    """A client in a process of its own; call it with words."""
    command = [sys.executable, __file__, "--client", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reader, writer = process.stdout, process.stdin
        if reader.readline().strip() != "ready":
            raise RuntimeError("the client did not get a picture")

        def ask(words: str) -> Any:
            writer.write(words + "\n")
            writer.flush()
            return json.loads(reader.readline())

        try:
            yield ask
        finally:
            writer.close()


# -- the viewer's side -------------------------------------------------------------------------------------------------
def watching(count: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Latency and frames per second at `count` Gaussians."""
    import torch
    from raster import cloud

    from smalti.primitives.gaussians import Gaussians
    from smalti.scene.scene import Scene
    from smalti.viewer.server import Viewer
    from smalti.viewer.stage import Stage

    torch.set_num_threads(1)  # as `smalti view` does
    drawable, _ = cloud(count, 800)
    values = {
        "means": drawable.means.detach(),
        "log_scales": drawable.scales.detach().log(),
        "quaternions": drawable.quaternions.detach(),
        "logit_opacities": torch.logit(drawable.opacities.detach()),
        "sh_dc": drawable.sh_dc.detach(),
        "sh_rest": torch.as_tensor(drawable.sh_rest).detach(),
    }
    scene = Scene()
    scene.add("cloud", Gaussians(values, {**Gaussians.default_metadata(), "active_sh_degree": 3}))
    with Viewer(Stage(scene), port=0) as viewer, a_client(viewer.url) as ask:
        ask(f"orbit {min(seconds, 3.0)}")  # sizes settle
        time.sleep(1.0)
        latencies = ask(f"latencies {repeats}")
        orbit = ask(f"orbit {seconds}")
    result: dict[str, Any] = {"gaussians": count, "canvas": [WIDTH, HEIGHT], "orbit": orbit}
    for name, values_ in latencies.items():
        result[f"latency_{name}_ms"] = {"median": median(values_), "p95": float(np.quantile(values_, 0.95))}
    return result


def training(rounds: int, seconds: float, warm: int) -> dict[str, Any]:
    """What one training loses: to a viewer that nobody looks at, to a client at rest, to one that orbits."""
    from smalti.configs.resolve import resolve
    from smalti.trainers.run import Run
    from smalti.trainers.threads import single_torch_thread
    from smalti.trainers.trainer import Trainer
    from smalti.viewer.live import Live
    from smalti.viewer.server import Viewer

    lost: dict[str, list[float]] = {"nobody": [], "nothing": [], "resting": [], "orbiting": []}
    threads: dict[str, list[float]] = {"nobody": [], "resting": [], "orbiting": []}
    pictures: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # Neither resolution nor population change while it is measured.
        config = resolve("demo", {"run.steps": 10**6, "density.stop": warm, "schedule.resolution": [[0, 2]]})
        trainer = Trainer(Run.create(Path(folder) / "run", config))
        stack.enter_context(single_torch_thread(trainer.device))
        for _ in range(warm):
            trainer.step()
        live = Live(trainer)
        viewer = stack.enter_context(Viewer(live.stage, port=0))

        def step(shown: bool) -> None:
            with live.step(trainer, lambda: False) if shown else nullcontext(True):
                report = trainer.step()
            if shown:
                live.after(trainer.step_number, report, None)

        def burst(shown: bool) -> float:
            """Seconds that BURST steps take."""
            began = time.perf_counter()
            for _ in range(BURST):
                step(shown)
            return time.perf_counter() - began

        def bursts(name: str) -> None:
            """Unseen, seen, seen, unseen: what drifts falls on both alike. "nothing" is unseen against itself."""
            outer, inner = burst(False), burst(name != "nothing") + burst(name != "nothing")
            lost[name].append(inner / (outer + burst(False)) - 1)

        def block(name: str = "") -> float:
            """Seconds per step over `seconds`; notes the processor time of the viewer's threads."""
            began, used, count = time.perf_counter(), seconds_of_threads(), 0
            while time.perf_counter() - began < seconds:
                step(bool(name))
                count += 1
            took = time.perf_counter() - began
            if name:
                threads[name].append((seconds_of_threads() - used) / took)
            return took / count

        for _ in range(rounds):
            before = block()
            with a_client(viewer.url) as ask:
                time.sleep(1.0)
                block("resting")
                for _ in range(2):
                    bursts("resting")
                ask("start")
                sent = ask_pictures(viewer)
                orbiting = block("orbiting")
                pictures.append((ask_pictures(viewer) - sent) / seconds)
                ask("stop")
            while viewer.views():
                time.sleep(0.05)
            time.sleep(1.0)
            bare.append((before + block()) / 2)
            lost["orbiting"].append(orbiting / bare[-1] - 1)
            block("nobody")
            for _ in range(2):
                bursts("nobody")
                bursts("nothing")
        primitives = len(trainer.scene)
    return {
        "primitives": primitives,
        "steps_per_second": 1 / median(bare),
        "pictures_per_second_while_orbiting": median(pictures),
        "lost": {name: {"median": median(values), "error": error_of(values)} for name, values in lost.items()},
        "viewer_threads_share_of_a_core": {name: median(shares) for name, shares in threads.items()},
    }


def error_of(values: list[float]) -> float:
    """Standard error of the mean."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def seconds_of_threads() -> float:
    """Processor seconds of the viewer's threads and of its page's (viser's): by the system's clock of each."""
    ours = {t.native_id for t in threading.enumerate() if t.name.startswith(("smalti-viewer", "Thread-"))}
    total = 0.0
    for number in ours:
        with suppress(FileNotFoundError):  # it ended meanwhile
            total += int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) / 1e9
    return total


def ask_pictures(viewer: Any) -> int:
    """Pictures that were sent to the clients that are there."""
    return sum(view.pictures for view in viewer.views())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=40, help="latencies")
    parser.add_argument("--seconds", type=float, default=6.0, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=8, help="of the training's conditions; 0: no training")
    parser.add_argument("--warm", type=int, default=300, help="steps of training before it is measured")
    arguments = parser.parse_args()
    if arguments.client:
        be_client(arguments.client)
        return
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    result: dict[str, Any] = {"cores": len(cores), "load": os.getloadavg()[0]}
    result["watching"] = watching(arguments.gaussians, arguments.repeats, arguments.seconds)
    if arguments.rounds:
        result["training"] = training(arguments.rounds, arguments.seconds, arguments.warm)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
