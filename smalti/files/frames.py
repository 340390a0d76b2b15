"""The axes of files: what each format usually means, and how to say that one means something else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smalti.cameras.similarity import Similarity

FRAMES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "scene": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "gltf": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "spz": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z-up": ((-1, 0, 0), (0, 0, -1), (0, -1, 0)),
}
"""Rows of the rotations that carry a file's axes to the scene's (right, down, forward): `gltf` and `spz` are +Y up, by
half a turn about z and about x.
"""
USUAL = {".glb": "gltf", ".spz": "spz", ".json": "z-up"}
"""Frames of formats; the others have the scene's."""


def frame_of(path: Path | str) -> str:
    """The usual frame of a file's format."""
    return USUAL.get(Path(path).suffix.lower(), "scene")


def reframing(path: Path | str, frame: str | None, writing: bool = False) -> Similarity:
    """What to do with a scene that was read from `path` as usual, if the file's axes were `frame`; or, `writing`, with
    one before it is written as usual. The identity for None and the usual frame. Exact: only signs and places change.
    """
    if frame is not None and frame not in FRAMES:
        raise ValueError(f"frame: expected one of {', '.join(FRAMES)}, got {frame!r}")
    import numpy as np
    import torch

    from smalti.cameras.similarity import Similarity

    usual, meant = np.array(FRAMES[frame_of(path)]), np.array(FRAMES[frame or frame_of(path)])
    turn = usual @ meant.T if writing else meant @ usual.T
    return Similarity(1.0, torch.from_numpy(turn.astype(np.float64)))
