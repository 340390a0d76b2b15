"""One seed of several, in a process of its own; `smalti.trainers.seed_processes` starts it and says how they talk."""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.cli.failures import reported

if TYPE_CHECKING:
    from smalti.trainers.display import Status
    from smalti.trainers.trainer import Trainer

SECONDS = 0.5
"""Between two reports."""


class Channel:
    """To whoever started this process. Nothing is lost where nobody listens any more: the training is to be saved."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def send(self, kind: str, **values: Any) -> None:
        """One message, without a buffer: the handler of an interrupt may send while another message is being sent."""
        rest = json.dumps({"kind": kind, **values}).encode() + b"\n"
        with suppress(OSError):
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]


class ChannelDisplay:
    """A display at the other end of the channel; what is said stands in the log, too."""

    def __init__(self, channel: Channel) -> None:
        from smalti.trainers.display import Speed

        self.channel, self.speed, self.shown = channel, Speed(), 0.0

    def update(self, status: Status) -> None:
        now = time.perf_counter()
        if now - self.shown < SECONDS and status.step < status.steps:
            return
        self.shown = now
        self.speed.update(status.step)
        self.channel.send(
            "status", step=status.step, steps=status.steps, loss=status.loss, preview=status.preview_psnr,
            primitives=status.primitives, left=self.speed.left(status.steps),
        )  # fmt: skip

    def say(self, text: str) -> None:
        os.write(2, f"{text}\n".encode())
        self.channel.send("say", text=text)

    def __enter__(self) -> ChannelDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def main(argv: Sequence[str]) -> int:
    """The run folder is the argument; everything else comes on standard input. Returns what `smalti train` would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the starter had
    channel = Channel(os.dup(1))
    os.dup2(2, 1)  # prints go to the log
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_until_the_end_of_input, daemon=True).start()
    try:
        code = reported(lambda _: _train(Path(argv[0]), request, channel))([])
    except KeyboardInterrupt:
        code = 130
    channel.send("ended", code=code)
    return code


def _until_the_end_of_input() -> None:
    """Whoever started this process wants it to stop, or is gone."""
    while os.read(0, 64):  # unbuffered: nothing holds a lock when the program ends meanwhile
        pass
    _thread.interrupt_main()


def _train(path: Path, request: dict[str, Any], channel: Channel) -> int:
    from smalti.cli.train import conduct
    from smalti.renderers.engine import set_threads
    from smalti.trainers.guard import BadGradientError
    from smalti.trainers.run import Run

    set_threads(request["threads"])
    if (path / "config.yaml").is_file():
        run = Run.open(path)
        resume = bool(run.steps())
    else:
        from smalti.configs.resolve import validated

        run, resume = Run.planned(path, validated(request["config"], str(path))), False

    def at_finish(what: str) -> None:
        channel.send("finishing", what=what)

    def at_end(trainer: Trainer) -> None:
        from smalti.scene.contents import contents
        from smalti.trainers.training_loss import training_loss

        at_finish("training loss")
        with trainer.clock:
            measured = training_loss(trainer)
        channel.send(
            "result", training_loss=measured.loss, training_psnr=measured.psnr, step=trainer.step_number,
            primitives=len(trainer.scene), contents=contents(trainer.scene), seconds=trainer.clock.wall,
            perceptual=trainer.perceptual_kind,
        )  # fmt: skip

    try:
        return conduct(run, resume=resume, display=ChannelDisplay(channel), at_finish=at_finish, at_end=at_end)
    except BadGradientError as error:
        print(f"smalti: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
