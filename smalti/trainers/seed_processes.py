"""Several seeds at once, a process each: started as there is room, stopped together, and none takes the others down.

A worker process (`smalti.cli.seed_worker`) gets one JSON object on its standard input, which then stays open: its end
asks the worker to finish the step and save, so that workers also stop when this process is killed. It answers with JSON
objects, one a line, of `kind` status, say, finishing, result or ended. It is in a session of its own: Ctrl-C reaches
it through here alone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import smalti
from smalti.trainers.loop import Interrupt, polite_interrupts
from smalti.trainers.seed_board import Board
from smalti.trainers.seeds import Seed, Seeds

COMMAND = (sys.executable, "-u", "-m", "smalti.cli.seed_worker")
ENDINGS = {0: "finished", 1: "lost", 130: "interrupted"}
"""Exit code of a worker -> status; any other is a failure."""
Messages = queue.Queue[tuple[Seed, dict[str, Any] | None]]
"""None: the worker has closed its output."""


def sensible_jobs(count: int, device: str, jobs: int = 0) -> tuple[int, int]:
    """(processes at once, engine threads of each): by default a process per core, because many with one thread each
    get more done than one with many; on a card one, because they would share its memory.
    """
    from smalti.renderers.engine import get_threads

    cores = get_threads()
    at_once = min(jobs or (cores if device == "cpu" else 1), count)
    return at_once, max(cores // at_once, 1)


class Worker:
    """One process."""

    def __init__(self, seeds: Seeds, seed: Seed, threads: int, messages: Messages) -> None:
        self.seed, self.messages = seed, messages
        self.code: int | None = None
        """What the worker says that it ends with."""
        log = seeds.log_path(seed)
        log.parent.mkdir(parents=True, exist_ok=True)
        place = str(Path(smalti.__file__).resolve().parent.parent)  # the same program, from wherever it is called
        paths = os.pathsep.join([place, *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*COMMAND, str(seeds.run_path(seed))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
        assert self.process.stdin is not None
        request = {"config": seeds.config_of(seed).model_dump(mode="json"), "threads": threads}
        with suppress(BrokenPipeError):  # it died already, which its exit code will tell
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.messages.put((self.seed, json.loads(line)))
            except json.JSONDecodeError:
                continue  # cut off by a kill
        self.messages.put((self.seed, None))

    def ask_to_stop(self) -> None:
        """It finishes its step, saves and ends."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def kill(self) -> None:
        """At once."""
        self.process.kill()
        self.process.wait()


class Conductor:
    """Starts workers, listens to them, writes down how they fare."""

    def __init__(self, seeds: Seeds, jobs: int, threads: int, board: Board) -> None:
        self.seeds, self.jobs, self.threads, self.board = seeds, jobs, threads, board
        self.messages: Messages = queue.Queue()
        self.waiting = deque(seed for seed in seeds.seeds if not seed.is_done)
        self.running: dict[int, Worker] = {}
        self.asked = False

    def run(self) -> bool:
        """Until all have ended; True where Ctrl-C stopped them. A second Ctrl-C kills them: KeyboardInterrupt."""
        for seed in self.waiting:
            seed.status, seed.message = "waiting", ""
        try:
            with self.board, polite_interrupts(self.board) as interrupt:
                while self.waiting or self.running:
                    self._turn(interrupt)
        finally:
            for worker in self.running.values():
                worker.kill()
                worker.seed.status = "interrupted"
            self.seeds.write()
        return self.asked

    def _turn(self, interrupt: Interrupt) -> None:
        if interrupt.asked and not self.asked:
            self.asked = True
            self.waiting.clear()
            for worker in self.running.values():
                worker.ask_to_stop()
        while self.waiting and len(self.running) < self.jobs:
            seed = self.waiting.popleft()
            seed.status = "running"
            self.running[seed.seed] = Worker(self.seeds, seed, self.threads, self.messages)
            self.seeds.write()
        if not self.running:
            return
        try:
            seed, message = self.messages.get(timeout=0.25)
        except queue.Empty:
            self.board.refresh()
            return
        if message is None:
            self._ended(self.running.pop(seed.seed))
        else:
            self._heard(self.running[seed.seed], message)
        self.board.refresh()

    def _heard(self, worker: Worker, message: dict[str, Any]) -> None:
        seed = worker.seed
        match message.pop("kind"):
            case "status":
                seed.step = message["step"]
                self.board.update(seed, message)
            case "say":
                self.board.say(message["text"], seed)
            case "finishing":
                self.board.finishing(seed, message["what"])
            case "result":
                for name, value in message.items():
                    setattr(seed, name, value)
            case "ended":
                worker.code = message["code"]
            case kind:
                self.board.say(f"a worker said something that this program does not know: {kind!r}", seed)

    def _ended(self, worker: Worker) -> None:
        seed, code = worker.seed, worker.process.wait()
        told = worker.code is not None and worker.code == code  # a traceback ends with 1, too
        if told and code == 0:
            seed.status = "finished" if seed.step >= self.seeds.config.run.steps else "stopped"
        elif told and code in ENDINGS:
            seed.status = ENDINGS[code]  # type: ignore[assignment]
        else:
            seed.status = "failed"
        seed.message = "" if told and code in (0, 130) else _why(code, self.seeds.log_path(seed))
        if seed.status == "failed":
            self.board.say(f"seed {seed.seed} {'cannot go on' if told else 'died'}: {seed.message}")
        self.seeds.write()


def _why(code: int, log: Path) -> str:
    """The signal that killed it, or the last line that it left."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = " (too little memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
        return f"killed by {name}{memory}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
    return last.removeprefix("smalti: ")
