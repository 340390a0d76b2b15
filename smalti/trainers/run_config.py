"""The configuration that lies in a run folder, and what to do where this program does not know what it says."""

from __future__ import annotations

from pathlib import Path

import smalti
from smalti.configs import resolve
from smalti.configs.config import TrainConfig
from smalti.trainers.checkpoints import checkpoint_steps


def read_config(folder: Path) -> TrainConfig:
    """What `config.yaml` says. ConfigError: of keys and values that this version does not know with the ways out."""
    try:
        return resolve.load(folder / "config.yaml")
    except resolve.UnknownConfig as error:
        raise resolve.UnknownConfig(f"{error}. {_ways_out(folder)}") from None


def _ways_out(folder: Path) -> str:
    others = sorted(each.parent.name for each in folder.glob("seed-*/config.yaml"))
    also = f" (likewise in {', '.join(others)})" if others else ""
    said = (
        f"Another version of Smalti made this run (this is {smalti.__version__}), or somebody changed the file. To go "
        f"on by what this version does, correct it there{also} or take it out"
    )
    steps = checkpoint_steps(folder)
    if not steps:
        return said
    scene = folder / "checkpoints" / f"{steps[-1]:06d}"
    return f"{said}; the scene needs no configuration: smalti view {scene}, or a new run with --init-from {scene}"
