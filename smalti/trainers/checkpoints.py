"""Checkpoints: a folder per step, written beside, flushed to disk and renamed, so that a kill at any moment leaves a
whole one.

`scene.safetensors` + `scene.json`: the scene, all that rendering needs. `trainer.safetensors` + `state.json`:
optimiser, density control, random numbers, data order. `clock.json`: times, which no comparison of states includes.
`checkpoints/latest` names the newest folder and is replaced atomically.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.scene.scene import Scene

CHECKPOINT_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete or from a newer program."""


@dataclass(eq=False)
class TrainerState:
    """What training needs beyond the scene: tensors and plain values, keyed by owner (`adam/...`, `density/...`)."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    """Seconds of processor and of wall time, so far."""


def checkpoint_steps(root: Path) -> list[int]:
    """Steps of all whole checkpoints in a run folder, ascending."""
    folder = root / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def checkpoint_path(root: Path, step: int | None = None) -> Path:
    """The folder of `step`, or the one that `latest` names; CheckpointError where there is none."""
    steps = checkpoint_steps(root)
    if step is None:
        latest = root / "checkpoints" / "latest"
        named = latest.read_text(encoding="utf-8").strip() if latest.is_file() else ""
        if named.isdigit() and int(named) in steps:
            return root / "checkpoints" / named
        if not steps:
            raise CheckpointError(
                f"{root}: there is no checkpoint yet; the run stopped before the first one was written"
            )
        step = steps[-1]
    if step not in steps:
        raise CheckpointError(f"{root}: no checkpoint of step {step}; there are {steps or 'none'}")
    return root / "checkpoints" / f"{step:06d}"


def write_checkpoint(root: Path, step: int, scene: Scene, state: TrainerState, keep: int) -> Path:
    """Save everything; returns the folder. Older checkpoints beyond `keep` are removed afterwards.

    A whole checkpoint of the same step is left as it is: the state is a function of the step.
    """
    from safetensors.torch import save_file

    folder = root / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    final, draft = folder / f"{step:06d}", folder / f".writing-{step:06d}"
    if final.exists():
        return final
    draft.mkdir()
    tensors, plain = scene.state()
    save_file(_portable(tensors), draft / "scene.safetensors")
    save_file(_portable(state.tensors), draft / "trainer.safetensors")
    _write_json(draft / "scene.json", plain)
    _write_json(draft / "state.json", {"version": CHECKPOINT_VERSION, "step": step, **state.plain})
    _write_json(draft / "clock.json", state.clock)
    for entry in draft.iterdir():
        _flush(entry)
    _flush(draft)
    draft.rename(final)
    _flush(folder)
    pointer = folder / ".latest-new"
    pointer.write_text(final.name, encoding="utf-8")
    _flush(pointer)
    pointer.replace(folder / "latest")
    _flush(folder)
    for old in [each for each in checkpoint_steps(root) if each < step][: -(keep - 1) or None]:
        shutil.rmtree(folder / f"{old:06d}", ignore_errors=True)
    return final


def read_scene(folder: Path) -> Scene:
    """The scene of a checkpoint folder."""
    from safetensors.torch import load_file

    return Scene.from_state(load_file(folder / "scene.safetensors"), _read_json(folder / "scene.json"))


def read_state(folder: Path) -> TrainerState:
    """Everything else of a checkpoint folder."""
    from safetensors.torch import load_file

    plain = _read_json(folder / "state.json")
    if plain["version"] > CHECKPOINT_VERSION:
        raise CheckpointError(f"{folder}: version {plain['version']} is newer than this program reads; update smalti")
    return TrainerState(load_file(folder / "trainer.safetensors"), plain, _read_json(folder / "clock.json"))


def _portable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; the checkpoint is not whole, remove its folder to fall back on the one before"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
