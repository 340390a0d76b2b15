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
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from smalti.scene.folder import read_scene_folder, save_scene
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


def write_checkpoint(root: Path, step: int, scene: Scene, state: TrainerState, keep: int, anew: bool = False) -> Path:
    """Save everything; returns the folder. Older checkpoints beyond `keep` are removed afterwards.

    A whole checkpoint of the same step is left as it is: the state is a function of the step. With `anew`, because the
    scene was edited by hand, it is replaced; a kill between the two renames leaves the one before it as the latest.
    CheckpointError where it cannot be written; those that are there stay.
    """
    from safetensors import SafetensorError

    folder = root / "checkpoints"
    final, draft = folder / f"{step:06d}", folder / f".writing-{step:06d}"
    outdated = folder / f".writing-{step:06d}-outdated"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if anew or not final.exists():
            _write_folder(draft, step, scene, state)
            if final.exists():
                final.rename(outdated)
            draft.rename(final)
            _flush(folder)
            shutil.rmtree(outdated, ignore_errors=True)
        _point_at(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{final}: cannot be written: {error}. Make room there, then continue with: smalti train --resume {root}"
        ) from error
    for old in [each for each in checkpoint_steps(root) if each < step][: -(keep - 1) or None]:
        shutil.rmtree(folder / f"{old:06d}", ignore_errors=True)
    return final


def _write_folder(draft: Path, step: int, scene: Scene, state: TrainerState) -> None:
    from safetensors.torch import save_file

    draft.mkdir()
    save_scene(scene, draft)
    save_file(_portable(state.tensors), draft / "trainer.safetensors")
    _write_json(draft / "state.json", {"version": CHECKPOINT_VERSION, "step": step, **state.plain})
    _write_json(draft / "clock.json", state.clock)
    for entry in draft.iterdir():
        _flush(entry)
    _flush(draft)


def _point_at(final: Path) -> None:
    """Let `latest` name the folder."""
    folder = final.parent
    pointer = folder / ".latest-new"
    pointer.write_text(final.name, encoding="utf-8")
    _flush(pointer)
    pointer.replace(folder / "latest")
    _flush(folder)


def read_scene(folder: Path) -> Scene:
    """The scene of a checkpoint folder."""
    with reading(folder):
        return read_scene_folder(folder)


def read_state(folder: Path) -> TrainerState:
    """Everything else of a checkpoint folder."""
    from safetensors.torch import load_file

    with reading(folder):
        plain = _read_json(folder / "state.json")
        if plain["version"] > CHECKPOINT_VERSION:
            raise CheckpointError(
                f"{folder}: version {plain['version']} is newer than this program reads; update smalti"
            )
        return TrainerState(load_file(folder / "trainer.safetensors"), plain, _read_json(folder / "clock.json"))


@contextmanager
def reading(folder: Path) -> Generator[None, None, None]:
    """Within: whatever is wrong with a checkpoint's content becomes a CheckpointError that names the folder and the
    remedy.
    """
    from safetensors import SafetensorError

    try:
        yield
    except CheckpointError:
        raise
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the checkpoint is damaged ({type(error).__name__}: {error}); "
            "remove this folder to fall back on the one before"
        ) from error
    except ValueError as error:  # from a newer program, or of a family that is not installed: it says so
        raise CheckpointError(f"{folder}: {error}") from error


def _portable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
