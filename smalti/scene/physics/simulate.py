"""A written scene in MuJoCo: poses over time. Needs the package mujoco (`pip install 'smalti[physics]'`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.scene.physics.export import Exported
from smalti.scene.scene import Scene


@dataclass(frozen=True, eq=False)
class Motion:
    """Poses of the bodies at regular times, in the engine's units."""

    exported: Exported
    times: Float[Tensor, "t"]
    """Seconds."""
    positions: Float[Tensor, "t n 3"]
    """Metres."""
    quaternions: Float[Tensor, "t n 4"]
    """(w, x, y, z)."""
    energy: Float[Tensor, "t"]
    """Potential and kinetic, joules; the potential of a height 0 is 0."""

    def __len__(self) -> int:
        return len(self.times)

    def scene(self, frame: int) -> Scene:
        """The scene at that time, to be rendered."""
        return self.exported.posed(self.positions[frame], self.quaternions[frame])


def simulate(
    exported: Exported,
    seconds: float,
    frames_per_second: float = 30.0,
    *,
    speeds: Sequence[Sequence[float]] | None = None,
    timestep: float = 0.001,
    untangle: bool = False,
) -> Motion:
    """Let go of what `to_mjcf` wrote and follow it. The first frame is the start.

    `speeds`: six numbers per body, m/s in the scene's axes and rad/s in the body's; by default all rest. `untangle`:
    bodies that begin inside each other, as trained blocks do, are first moved apart, without gravity and without
    momentum, where they would otherwise burst; the first frame is then what that leaves. ImportError where MuJoCo is
    missing.

    >>> from smalti.scene.physics import simulate
    >>> simulate(None, 0.0)
    Traceback (most recent call last):
    ...
    ValueError: simulate: seconds, frames_per_second and timestep must be positive
    """
    if not (seconds > 0 and frames_per_second > 0 and timestep > 0):
        raise ValueError("simulate: seconds, frames_per_second and timestep must be positive")
    mujoco = _mujoco()
    model: Any = mujoco.MjModel.from_xml_path(str(exported.path))
    model.opt.timestep = timestep
    data: Any = mujoco.MjData(model)
    probe: Any = mujoco.MjData(model)
    if untangle:
        _untangle(mujoco, model, data)
    if speeds is not None:
        data.qvel[:] = torch.tensor(speeds, dtype=torch.float64).reshape(-1).numpy()
    frames = round(seconds * frames_per_second) + 1
    times = torch.arange(frames, dtype=torch.float64) / frames_per_second
    poses, energy = torch.zeros(frames, len(exported.names), 7, dtype=torch.float64), torch.zeros(frames).double()
    done = 0
    for frame in range(frames):
        while done < round(float(times[frame]) / timestep):
            mujoco.mj_step(model, data)
            done += 1
        poses[frame] = torch.from_numpy(data.qpos.copy()).reshape(-1, 7)
        # After a step the engine's positions are one step ahead of what it derives from them: asked apart.
        probe.qpos[:], probe.qvel[:] = data.qpos, data.qvel
        mujoco.mj_forward(model, probe)
        energy[frame] = float(probe.energy.sum())
    return Motion(exported, times, poses[..., :3].clone(), poses[..., 3:].clone(), energy)


UNTANGLING_STEPS, UNTANGLING_TIMESTEP = 1000, 0.005
UNTANGLED = 0.005
"""Bodies are apart where they reach into each other by less than this share of the model's extent."""


def _untangle(mujoco: Any, model: Any, data: Any) -> None:
    """Steps whose velocities are forgotten: what contacts push apart moves, nothing else does."""
    timestep, gravity = float(model.opt.timestep), model.opt.gravity.copy()
    model.opt.timestep, model.opt.gravity[:] = UNTANGLING_TIMESTEP, 0.0
    for _ in range(UNTANGLING_STEPS):
        mujoco.mj_step(model, data)
        data.qvel[:] = 0.0
        if data.ncon == 0 or float(data.contact.dist.min()) > -UNTANGLED * float(model.stat.extent):
            break
    model.opt.timestep, model.opt.gravity[:] = timestep, gravity
    data.time = 0.0


def _mujoco() -> Any:
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(
            f"simulate: this needs the package mujoco ({error}). Install it with `pip install 'smalti[physics]'`"
        ) from error
    return mujoco
