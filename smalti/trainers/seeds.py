"""A folder of runs that differ in their seed alone: `config.yaml` (of all), `seeds.json` (how each fared), `best` (the
folder of the best, a line of text as in `checkpoints/latest`: copies, archives and file systems without links keep it)
and a run folder `seed-N` for each.

The best is the one with the lowest mean rendering loss over all training views, with its final scene. Held-out views
have no say in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from smalti.configs import resolve
from smalti.configs.config import TrainConfig
from smalti.trainers.run_config import read_config

CHOSEN_BY = "lowest mean rendering loss over all training views, with the final scene; no held-out view"
Status = Literal["waiting", "running", "finished", "stopped", "lost", "interrupted", "failed"]
"""`stopped` by the wall-clock limit, `lost`: trained to the end and nothing to see, `failed`: died."""


@dataclass(eq=False)
class Seed:
    """One of the runs."""

    seed: int
    status: Status = "waiting"
    message: str = ""
    """Why it failed."""
    step: int = 0
    primitives: int = 0
    training_loss: float | None = None
    """What the best is chosen by; None before the end."""
    training_psnr: float | None = None
    seconds: float = 0.0
    """By the clock, of training."""
    perceptual: str | None = None
    """Kind of the perceptual term, if any."""
    contents: str = ""
    """What the scene is made of, in words."""

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"seed-{self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to continue."""
        return self.status in ("finished", "lost")

    @property
    def is_eligible(self) -> bool:
        """Whether it may be the best."""
        loss = self.training_loss
        return self.status in ("finished", "stopped") and loss is not None and math.isfinite(loss)


class Seeds:
    """The folder and what is known of its runs."""

    def __init__(self, path: Path, seeds: list[Seed]) -> None:
        self.path, self.seeds = path, seeds

    @cached_property
    def config(self) -> TrainConfig:
        """Of all; read where it is needed, so that runs of other versions can be told of and looked at."""
        return read_config(self.path)

    @staticmethod
    def create(path: str | Path, config: TrainConfig, count: int) -> Seeds:
        """A new folder for `run.seed` and the `count - 1` seeds that follow it. FileExistsError where a run is."""
        from smalti.trainers.run import Run

        Run.create(path, config)
        made = Seeds(Path(path), [Seed(config.run.seed + number) for number in range(count)])
        made.config = config
        made.write()
        return made

    @staticmethod
    def open(path: str | Path) -> Seeds:
        """An existing folder; ValueError where its records cannot be read."""
        path = Path(path)
        try:
            rows = json.loads((path / "seeds.json").read_text(encoding="utf-8"))["seeds"]
            known = {field.name for field in fields(Seed)}
            seeds = [Seed(**{key: value for key, value in row.items() if key in known}) for row in rows]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise resolve.ConfigError(
                f"{path / 'seeds.json'}: cannot be read ({error}); the runs beside it can be used one by one, for "
                f"example smalti train --resume {path / 'seed-0'}"
            ) from None
        return Seeds(path, seeds)

    def write(self) -> None:
        """`seeds.json` and `best` as they are now, each replaced as a whole."""
        best = self.best
        _replace(self.path / "seeds.json", json.dumps(self.to_json(), indent=1, allow_nan=False))
        if best:
            _replace(self.path / "best", best.folder + "\n")

    def to_json(self) -> dict[str, Any]:
        """What `seeds.json` holds."""
        best = self.best
        return {
            "best": best.folder if best else None,
            "chosen_by": CHOSEN_BY,
            "seeds": [{"folder": each.folder, **_plain(asdict(each))} for each in self.seeds],
        }

    @property
    def best(self) -> Seed | None:
        """Of those that came to their end; the lower seed where two are equal. None before one did."""
        return min((each for each in self.seeds if each.is_eligible), key=_rank, default=None)

    @property
    def anything_began(self) -> bool:
        """Whether any of the runs exists on disk."""
        return any((self.run_path(each) / "config.yaml").is_file() for each in self.seeds)

    def run_path(self, seed: Seed) -> Path:
        """Of its run folder."""
        return self.path / seed.folder

    def config_of(self, seed: Seed) -> TrainConfig:
        """The configuration with its seed."""
        run = self.config.run.model_copy(update={"seed": seed.seed})
        return self.config.model_copy(update={"run": run})

    def log_path(self, seed: Seed) -> Path:
        """What it printed."""
        return self.run_path(seed) / "log.txt"

    def remove(self) -> None:
        """Take back a folder in which no run began: its own files, and folders that are empty then."""
        for seed in self.seeds:
            self.log_path(seed).unlink(missing_ok=True)
            _remove_empty(self.run_path(seed))
        for name in ("seeds.json", "best", "config.yaml"):
            (self.path / name).unlink(missing_ok=True)
        _remove_empty(self.path)

    def table(self) -> Iterator[str]:
        """A line for each, the best with an asterisk, and what it was chosen by."""
        width = max(len(str(each.seed)) for each in self.seeds)
        for each in self.seeds:
            mark = "*" if each is self.best else " "
            told = f"{mark} seed {each.seed:<{width}}  {each.status:<11}"
            if each.training_loss is not None and each.training_psnr is not None:
                told += f"  loss {each.training_loss:.5f}  PSNR {each.training_psnr:.2f} dB"
                told += f"  {each.contents or f'{each.primitives:,} primitives'}  {each.seconds / 60:.1f} min"
            yield told + (f"  {each.message}" if each.message else "")
        kinds = sorted({each.perceptual for each in self.seeds if each.perceptual})
        term = f"; perceptual term {', '.join(kinds)}" if kinds else ""
        if self.best is not None:
            yield f"loss and PSNR of training views{term}; best (*): {CHOSEN_BY}"


def is_seeds(path: str | Path) -> bool:
    """Whether a folder holds several seeds."""
    return (Path(path) / "seeds.json").is_file()


def chosen_run(path: str | Path) -> Path:
    """The folder of the best run where `path` holds several seeds, else `path`. FileNotFoundError before one came to
    its end.
    """
    path = Path(path)
    if not is_seeds(path):
        return path
    best = Seeds.open(path).best
    if best is None:
        raise FileNotFoundError(
            f"{path}: none of its seeds has come to its end; continue with: smalti train --resume {path}"
        )
    return path / best.folder


def _rank(seed: Seed) -> tuple[float, int]:
    assert seed.training_loss is not None
    return seed.training_loss, seed.seed


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor Inf."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
