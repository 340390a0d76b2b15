"""gsplat's parameter dictionaries and checkpoints, to the family `gaussians` and back, bit for bit.

What `gsplat/examples/simple_trainer.py` optimises: `means` [n, 3], `scales` [n, 3] (logarithms), `quats` [n, 4] (w, x,
y, z), `opacities` [n] (logits), `sh0` [n, 1, 3], `shN` [n, k, 3]; the same numbers as ours, under other names. The
package itself is not needed. Its rasteriser is a back end of ours: `smalti.render(..., backend="gsplat")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.files.gsplat_checkpoint import (
    parameters_of,
    read_gsplat_checkpoint,
    splats_of,
    write_gsplat_checkpoint,
)
from smalti.files.splats import SplatMetadata, Splats
from smalti.primitives.gaussians import Gaussians


def from_splats(
    splats: Mapping[str, Tensor], *, eps2d: float = 0.3, rasterize_mode: str = "classic", sh_degree: int | None = None
) -> Gaussians:
    """A family with the numbers of gsplat's dictionary (a `ParameterDict` or a plain one), copied, on their device.

    `eps2d` and `rasterize_mode` are those that the splats were trained with; `sh_degree` is the degree in use, by
    default all there is. Raises ValueError for other names, shapes, modes, and harmonics beyond degree 3.

    >>> import torch
    >>> splats = {"means": torch.zeros(2, 3), "scales": torch.zeros(2, 3), "quats": torch.ones(2, 4)}
    >>> splats |= {"opacities": torch.zeros(2), "sh0": torch.zeros(2, 1, 3), "shN": torch.zeros(2, 15, 3)}
    >>> family = from_splats(splats)
    >>> len(family), family.held_degree, sorted(to_splats(family)) == sorted(splats)
    (2, 3, True)
    """
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(f"from_splats: rasterize_mode is classic or antialiased, got {rasterize_mode!r}")
    parameters = parameters_of(splats)
    held = int((parameters["sh_rest"].shape[1] + 1) ** 0.5) - 1
    degree = held if sh_degree is None else sh_degree
    if not 0 <= degree <= held:
        raise ValueError(f"from_splats: sh_degree is 0 to {held} in these splats, got {degree}")
    filtered = {"filter_variance": float(eps2d), "compensated": rasterize_mode == "antialiased"}
    return Gaussians(parameters, {"sh_degree": held, "active_sh_degree": degree, **filtered})


def to_splats(family: Gaussians) -> dict[str, Tensor]:
    """gsplat's dictionary with the family's numbers, copied; `torch.nn.ParameterDict(to_splats(family))` trains."""
    return {name: value.detach().clone() for name, value in splats_of(family.parameters).items()}


def load_checkpoint(path: Path | str) -> Gaussians:
    """The Gaussians of a checkpoint of gsplat's trainer, all ranks of its step together.

    The file holds a pickle; it is read by torch's allow-list reader, which runs nothing
    (`smalti.files.gsplat_checkpoint`, which raises FileFormatError). `smalti convert` and `--init-from` take it, too.
    """
    splats = read_gsplat_checkpoint(path)
    degrees = {"sh_degree": splats.held_degree, "active_sh_degree": splats.sh_degree}
    return Gaussians(splats.to_parameters(), degrees)


def save_checkpoint(path: Path | str, family: Gaussians) -> tuple[str, ...]:
    """Write a checkpoint that gsplat's examples load; returns sentences on what it does not say."""
    looks = {name: family.metadata[name] for name in ("filter_variance", "compensated")}
    return write_gsplat_checkpoint(path, Splats.from_parameters(family.parameters, SplatMetadata(**looks)))


def from_views(viewmats: Float[Tensor, "c 4 4"], Ks: Float[Tensor, "c 3 3"], width: int, height: int) -> list[Camera]:
    """Our cameras, of gsplat's poses (world to camera, the same axes) and matrices of intrinsics. Differentiable.

    Raises ValueError for a K with skew and for bottom rows that are not those of a pose and a pinhole.

    >>> import torch
    >>> K = torch.tensor([[50.0, 0.0, 32.0], [0.0, 55.0, 24.0], [0.0, 0.0, 1.0]])
    >>> (camera,) = from_views(torch.eye(4)[None], K[None], 64, 48)
    >>> camera.intrinsics.tolist()
    [50.0, 55.0, 32.0, 24.0]
    """
    made: list[Camera] = []
    for number, (pose, K) in enumerate(zip(viewmats.cpu(), Ks.cpu(), strict=True)):
        others = torch.stack([K[0, 1], K[1, 0], *K[2] - K.new_tensor([0.0, 0.0, 1.0])])
        bottom = pose[3] - pose.new_tensor([0.0, 0.0, 0.0, 1.0])
        if float(others.detach().abs().max()) > 1e-6 or float(bottom.detach().abs().max()) > 1e-6:
            raise ValueError(f"from_views: view {number} is no pinhole without skew at a rigid pose")
        intrinsics = torch.stack([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
        made.append(Camera(pose[:3, :3], pose[:3, 3], intrinsics.to(pose.dtype), width, height))
    return made


def rasterization_arguments(family: Gaussians, camera: Camera) -> dict[str, Any]:
    """Keyword arguments of `gsplat.rasterization` for the picture that `smalti.render` makes of this family (thresholds
    aside: `smalti.renderers.gsplat_backend`). Gradients reach the family's parameters and the camera's pose.
    """
    values, drawn = family.parameters, family.drawn()
    used = (int(drawn["sh_degree"]) + 1) ** 2 - 1
    like = values["means"]
    pose = torch.eye(4, dtype=like.dtype, device=like.device)
    pose[:3] = torch.cat([camera.rotation, camera.translation[:, None]], dim=1).to(like)
    return {
        "means": like,
        "quats": values["quaternions"],
        "scales": drawn["scales"],
        "opacities": family.opacities(),
        "colors": torch.cat([values["sh_dc"][:, None], values["sh_rest"][:, :used]], dim=1),
        "sh_degree": int(drawn["sh_degree"]),
        "viewmats": pose[None],
        "Ks": camera.matrix.to(like)[None],
        "width": camera.width,
        "height": camera.height,
        "eps2d": float(family.metadata["filter_variance"]),
        "rasterize_mode": "antialiased" if family.metadata["compensated"] else "classic",
    }
