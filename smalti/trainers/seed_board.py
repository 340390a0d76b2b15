"""What is seen of several seeds that train at once: a live table on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from smalti.trainers.display import PLAIN_SECONDS
from smalti.trainers.seeds import Seed


class Board(Protocol):
    """Where several runs report to."""

    def update(self, seed: Seed, status: Mapping[str, Any]) -> None:
        """How one of them stands."""

    def refresh(self) -> None:
        """Called several times a second."""

    def say(self, text: str, seed: Seed | None = None) -> None:
        """A line that stays; what several say alike is shown once."""

    def __enter__(self) -> Board: ...

    def __exit__(self, *_: object) -> None: ...


class PlainBoard:
    """Lines."""

    def __init__(self, seeds: Sequence[Seed], seconds: float = PLAIN_SECONDS) -> None:
        self.seeds, self.seconds = seeds, seconds
        self.latest: dict[int, Mapping[str, Any]] = {}
        self.said: set[str] = set()
        self.shown = time.perf_counter()

    def update(self, seed: Seed, status: Mapping[str, Any]) -> None:
        self.latest[seed.seed] = status

    def refresh(self) -> None:
        if time.perf_counter() - self.shown >= self.seconds and self.latest:
            self.shown = time.perf_counter()
            self.write("; ".join(f"seed {each.seed} {short(each, self.latest.get(each.seed))}" for each in self.seeds))

    def say(self, text: str, seed: Seed | None = None) -> None:
        if text not in self.said:
            self.said.add(text)
            self.write(text if seed is None else f"seed {seed.seed}: {text}")

    def write(self, text: str) -> None:
        """One line."""
        print(text, flush=True)

    def __enter__(self) -> PlainBoard:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class LiveBoard(PlainBoard):
    """A table with a progress bar for each, four times a second."""

    def __init__(self, seeds: Sequence[Seed], title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(seeds, 0.25)
        self.title, self.console = title, Console()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)

    def refresh(self) -> None:
        if time.perf_counter() - self.shown >= self.seconds:
            self.shown = time.perf_counter()
            self.live.update(self.table())

    def table(self) -> Any:
        """As it stands now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        result = Table(title=self.title, title_justify="left")
        for name in ("seed", "", "", "step", "loss", "fixed view", "primitives", "left"):
            result.add_column(name)
        for each in self.seeds:
            status = self.latest.get(each.seed)
            if status is None:
                result.add_row(str(each.seed), each.status)
                continue
            preview = "-" if status["preview"] is None else f"{status['preview']:.2f} dB"
            result.add_row(
                str(each.seed), state(each, status), ProgressBar(status["steps"], status["step"], width=24),
                f"{status['step']}/{status['steps']}", f"{status['loss']:.4f}", preview, f"{status['primitives']:,}",
                status["left"],
            )  # fmt: skip
        return result

    def write(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> LiveBoard:
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.update(self.table())
        self.live.__exit__(None, None, None)


def state(seed: Seed, status: Mapping[str, Any]) -> str:
    """Of a seed that has begun, in a word."""
    measuring = seed.status == "running" and status["step"] >= status["steps"]
    return "measuring" if measuring else seed.status


def short(seed: Seed, status: Mapping[str, Any] | None) -> str:
    """One seed on a plain line."""
    if status is None or seed.status != "running":
        return seed.status
    return f"{status['step']}/{status['steps']} loss {status['loss']:.4f} left {status['left']}"


def make_board(seeds: Sequence[Seed], title: str) -> Board:
    """Live on a terminal, plain lines elsewhere."""
    return LiveBoard(seeds, title) if sys.stdout.isatty() else PlainBoard(seeds)
