"""What is seen of several seeds that train at once: a live table on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from smalti.trainers.display import PLAIN_SECONDS
from smalti.trainers.seeds import Seed

BAR = "bar"


class Board(Protocol):
    """Where several runs report to."""

    def update(self, seed: Seed, status: Mapping[str, Any]) -> None:
        """How one of them stands."""

    def finishing(self, seed: Seed, what: str) -> None:
        """Its steps are made; this is what is being done with its scene now."""

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
        self.last: dict[int, str] = {}
        """What is being done after the last step, by seed."""
        self.said: set[str] = set()
        self.shown = time.perf_counter()

    def update(self, seed: Seed, status: Mapping[str, Any]) -> None:
        self.latest[seed.seed] = status

    def finishing(self, seed: Seed, what: str) -> None:
        self.last[seed.seed] = what

    def refresh(self) -> None:
        if time.perf_counter() - self.shown >= self.seconds:
            self.shown = time.perf_counter()
            self.write("; ".join(f"seed {each.seed} {self.short(each)}" for each in self.seeds))

    def state(self, seed: Seed) -> str:
        """In a word."""
        if seed.status != "running":
            return seed.status
        return "finishing" if seed.seed in self.last else "running" if seed.seed in self.latest else "preparing"

    def short(self, seed: Seed) -> str:
        """One seed on a plain line."""
        status, state = self.latest.get(seed.seed), self.state(seed)
        if state == "finishing":
            return f"{state} ({self.last[seed.seed]})"
        if status is None or state != "running":
            return state
        return f"{status['step']}/{status['steps']} loss {status['loss']:.4f} left {status['left']}"

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
        from rich.box import SIMPLE_HEAD
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        result = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("seed", "", BAR, "step", "loss", "view", "primitives", "left"):
            if name == BAR:  # takes what the others leave, so that none of them is cut off
                result.add_column("", min_width=4, max_width=24, ratio=1)
            else:
                result.add_column(name, no_wrap=True)
        for each in self.seeds:
            status = self.latest.get(each.seed)
            if status is None:
                result.add_row(str(each.seed), self.state(each), *[""] * 5, self.last.get(each.seed, ""))
                continue
            preview = "-" if status["preview"] is None else f"{status['preview']:.2f} dB"
            result.add_row(
                str(each.seed), self.state(each), ProgressBar(status["steps"], status["step"]),
                f"{status['step']}/{status['steps']}", f"{status['loss']:.4f}", preview, f"{status['primitives']:,}",
                self.last.get(each.seed, status["left"]) if each.status == "running" else "",
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


def make_board(seeds: Sequence[Seed], title: str) -> Board:
    """Live on a terminal, plain lines elsewhere."""
    return LiveBoard(seeds, title) if sys.stdout.isatty() else PlainBoard(seeds)
