"""A run folder: `config.yaml`, `checkpoints/`, `metrics.jsonl`, `log.txt` and what the end of a run makes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smalti.configs import resolve
from smalti.configs.config import TrainConfig
from smalti.datasets.dataset import Dataset
from smalti.scene.scene import Scene
from smalti.trainers import checkpoints
from smalti.trainers.run_config import read_config
from smalti.trainers.seeds import chosen_run


class Run:
    """One training run on disk. Everything is in the input's frame: cameras, scene and exports agree."""

    def __init__(self, path: Path, config: TrainConfig, new: bool = False) -> None:
        self.path = path
        self.config = config
        self._new = new
        self._changed = False

    @staticmethod
    def create(path: str | Path, config: TrainConfig) -> Run:
        """A new folder with its resolved configuration; FileExistsError where a run is already there."""
        run = Run.planned(path, config)
        run.begin()
        return run

    @staticmethod
    def planned(path: str | Path, config: TrainConfig) -> Run:
        """A run of which nothing is on disk yet; FileExistsError where a run, or a file, is already there."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"{path} is a file; choose another --out")
        if (path / "config.yaml").exists():
            raise FileExistsError(
                f"{path} holds a run already; continue it with --resume {path} or choose another --out"
            )
        return Run(path, config, new=True)

    def begin(self) -> None:
        """Make the folder of a planned run and write its configuration; FileExistsError where another was quicker."""
        if not self._new:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            (self.path / "config.yaml").touch(exist_ok=False)  # of two that start at once, one
        except FileExistsError:
            raise FileExistsError(f"{self.path} was taken by another run meanwhile; choose another --out") from None
        resolve.save(self.config, self.path / "config.yaml")
        self._new = False

    @staticmethod
    def open(path: str | Path) -> Run:
        """An existing run; of a folder of several seeds the best. FileNotFoundError where there is none."""
        path = chosen_run(path)
        if not (path / "config.yaml").is_file():
            raise FileNotFoundError(
                f"{path} is not a run folder (it has no config.yaml); start one with `smalti train`"
            )
        return Run(path, read_config(path))

    def extend(self, steps: Any) -> str:
        """Let the run end at another step than it was configured for; returns a sentence on what that means.

        Its schedule stays: until its former end it is the same run to the bit, from there on rates are those of the
        end, and what families do by shares of the run is over. Nothing is written before `keep`. ConfigError where
        that step is behind it already.
        """
        done = self.latest_step() if self.steps() else 0
        if not isinstance(steps, int | float) or steps != int(steps) or steps <= done:
            raise resolve.ConfigError(
                f"--steps {steps}: {self.path} stands at step {done}; give a later one, or start a new run from its "
                f"scene with --init-from {self.path / 'scene'}"
            )
        values = self.config.model_dump()
        before, values["run"]["steps"] = values["run"]["steps"], int(steps)
        length = values["schedule"]["length"] = values["schedule"]["length"] or before
        self.config = resolve.validated(values, "--steps")
        self._changed = True
        beyond = f"; what is at its end, rates among it, holds from step {length} on" if steps > length else ""
        return (
            f"the run goes to step {int(steps)} instead of {before}, by the schedule of {length} steps that it "
            f"has{beyond} (for another schedule: a new run with --init-from)"
        )

    def keep(self) -> None:
        """Write the configuration of a run that was extended, in place of the former one."""
        if self._changed:
            scratch = self.path / ".config.yaml.part"
            resolve.save(self.config, scratch)
            scratch.replace(self.path / "config.yaml")
            self._changed = False

    # -- scene --------------------------------------------------------------------------------------------------------
    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint."""
        return checkpoints.checkpoint_steps(self.path)

    def latest_step(self) -> int:
        """The step that `load_scene()` gives; CheckpointError where there is none."""
        return int(checkpoints.checkpoint_path(self.path).name)

    def load_scene(self, step: int | None = None) -> Scene:
        """The scene at `step` (the latest by default), on the CPU; CheckpointError where there is none."""
        return checkpoints.read_scene(checkpoints.checkpoint_path(self.path, step))

    def refinement(self, step: int | None = None) -> dict[str, Any]:
        """Refined poses and exposures by name of tensor, empty where nothing was refined."""
        state = checkpoints.read_state(checkpoints.checkpoint_path(self.path, step))
        return {key: value for key, value in state.tensors.items() if key.startswith("refine/")}

    def perceptual_kind(self) -> str | None:
        """Of the perceptual term that the run was trained with, as its records say; None without one."""
        return next((each["perceptual"] for each in reversed(list(self.metrics())) if "perceptual" in each), None)

    # -- data ---------------------------------------------------------------------------------------------------------
    def dataset(self) -> Dataset:
        """The capture that is trained on (of one with times, the configured instant; with masks for what the
        configuration says). DatasetError for bad data.
        """
        from smalti.datasets.open import at_time, open_dataset, with_masks

        data = self.config.data
        dataset = with_masks(open_dataset(data.path, format=data.format), data.masks)
        return dataset if data.time is None else at_time(dataset, data.time)

    def split(self, dataset: Dataset | None = None) -> tuple[list[int], list[int]]:
        """(training rows, held-out rows) of `dataset.views`, as configured."""
        return (dataset or self.dataset()).split(self.config.data.split)

    # -- records ------------------------------------------------------------------------------------------------------
    @property
    def metrics_path(self) -> Path:
        """One JSON object per line; `kind` is `train` or `evaluation`, every line has a `step`."""
        return self.path / "metrics.jsonl"

    def metrics(self) -> Iterator[dict[str, Any]]:
        """All whole records so far."""
        if not self.metrics_path.is_file():
            return
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return  # the line that a kill cut off

    def record(self, values: dict[str, Any]) -> None:
        """Append one record. What is NaN or infinite (the PSNR of equal pictures) becomes null: JSON has neither."""
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        try:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain, allow_nan=False) + "\n")
        except OSError as error:
            remedy = f"{error.strerror}. Make room there, then continue with: smalti train --resume {self.path}"
            raise OSError(error.errno, remedy, str(self.metrics_path)) from error

    def forget_after(self, step: int) -> None:
        """Drop records beyond `step`, and a last line that was cut off: a resumed run writes them again."""
        if not self.metrics_path.is_file():
            return
        kept = 0
        with self.metrics_path.open("rb") as file:
            for line in file:
                try:
                    if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                        break
                except (json.JSONDecodeError, KeyError):
                    break
                kept += len(line)
        with self.metrics_path.open("rb+") as file:
            file.truncate(kept)
