"""What is seen of a training: a live panel on a terminal, plain lines elsewhere. Nothing here touches the training."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

PLAIN_SECONDS = 10.0
"""Between two plain lines."""


@dataclass(frozen=True)
class Status:
    """One moment of a run."""

    step: int
    steps: int
    loss: float
    preview_psnr: float | None
    primitives: int
    bytes: int
    """As counted by the program."""
    resident: int
    """Of the process; 0 where the system does not say."""
    problems: int
    """Gradients with NaN or Inf, so far."""
    layers: Mapping[str, int] = field(default_factory=dict)
    """Primitives by layer."""


class Speaker(Protocol):
    """Who passes on what is to be said."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Display(Protocol):
    """Where a run reports to."""

    def update(self, status: Status) -> None:
        """After every step; must be cheap."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *_: object) -> None: ...


class Speed:
    """Steps per second, smoothed, and the time that is left."""

    def __init__(self) -> None:
        self.last: tuple[int, float] | None = None
        self.rate = 0.0

    def update(self, step: int) -> None:
        """Called at each shown step."""
        now = time.perf_counter()
        if self.last is not None and step > self.last[0] and now > self.last[1]:
            present = (step - self.last[0]) / (now - self.last[1])
            self.rate = present if self.rate == 0 else 0.7 * self.rate + 0.3 * present
        self.last = (step, now)

    def left(self, steps: int) -> str:
        """Time to go as h:mm:ss."""
        if self.last is None or self.rate == 0:
            return "-"
        seconds = int((steps - self.last[0]) / self.rate)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class PlainDisplay:
    """A line every ten seconds."""

    def __init__(self, stream: TextIO | None = None, seconds: float = PLAIN_SECONDS) -> None:
        self.stream, self.seconds = stream or sys.stdout, seconds
        self.speed = Speed()
        self.shown = 0.0

    def update(self, status: Status) -> None:
        now = time.perf_counter()
        if now - self.shown < self.seconds and status.step < status.steps:
            return
        self.shown = now
        self.speed.update(status.step)
        self.say("  ".join(f"{name} {value}" for name, value in rows(status, self.speed)))

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class LiveDisplay:
    """A panel with a progress bar, four times a second."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self.title = title
        self.speed = Speed()
        self.console = Console()
        self.live = Live(console=self.console, refresh_per_second=4, transient=False)
        self.shown = 0.0

    def update(self, status: Status) -> None:
        now = time.perf_counter()
        if now - self.shown < 0.25 and status.step < status.steps:
            return
        self.shown = now
        self.speed.update(status.step)
        self.live.update(self._panel(status))

    def _panel(self, status: Status) -> Any:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        cells = [f"[dim]{name}[/dim] {value}" for name, value in rows(status, self.speed)]
        for start in range(0, len(cells), 3):
            table.add_row(*cells[start : start + 3])
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=status.steps, completed=status.step, width=60))
        return Panel(Group(bar, table), title=self.title, expand=False)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> LiveDisplay:
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.__exit__(None, None, None)


def rows(status: Status, speed: Speed) -> list[tuple[str, str]]:
    """What both displays show, as (name, value)."""
    preview = "-" if status.preview_psnr is None else f"{status.preview_psnr:.2f} dB"
    shown = [
        ("step", f"{status.step}/{status.steps}"),
        ("loss", f"{status.loss:.4f}"),
        ("fixed view", preview),
        ("primitives", f"{status.primitives:,}{of_layers(status.layers)}"),
        ("counted", f"{status.bytes / 1e6:.0f} MB"),
        ("resident", f"{status.resident / 1e6:.0f} MB"),
        ("speed", f"{speed.rate:.1f} steps/s"),
        ("left", speed.left(status.steps)),
    ]
    return [*shown, ("bad gradients", str(status.problems))] if status.problems else shown


def of_layers(counts: Mapping[str, int]) -> str:
    """` (mesh 200, gaussians 1,034)`; nothing where there is one layer."""
    return f" ({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if len(counts) > 1 else ""


def make_display(title: str) -> Display:
    """Live on a terminal, plain lines elsewhere."""
    return LiveDisplay(title) if sys.stdout.isatty() else PlainDisplay()


def resident_bytes() -> int:
    """Memory of this process; 0 where /proc is not there."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()
