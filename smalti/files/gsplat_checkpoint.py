"""Checkpoints of gsplat's example trainer (`ckpt_29999_rank0.pt`): a torch archive of `{"step", "splats": {...}}`.

The archive holds a pickle. It is read by torch's own allow-list reader (`torch.load(weights_only=True)`), which builds
tensors, numbers, strings and their containers and calls nothing else, and only where no entry of the archive is packed
or larger than the file. Ranks of one step that lie side by side are one scene. Positions are in the trainer's
normalised frame, which the checkpoint does not state; nor does it state the screen filter: `eps2d` 0.3, not
antialiased, is assumed.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.files.checked import COPY_AGAIN, BadRows, whole_file, with_notices
from smalti.files.splats import FileFormatError, SplatMetadata, Splats

NAMES = {
    "means": "means",
    "log_scales": "scales",
    "quaternions": "quats",
    "logit_opacities": "opacities",
    "sh_dc": "sh0",
    "sh_rest": "shN",
}
"""Our name -> gsplat's."""
_STATED = SplatMetadata(frame="scene")
"""What a checkpoint without metadata means."""
_TAILS: dict[str, tuple[int, ...]] = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3)}


def parameters_of(splats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """gsplat's dictionary under our names and in our shapes; views, so the bits are the same. ValueError for others."""
    if "sh0" not in splats and {"features", "colors"} & set(splats):
        raise ValueError(
            "these splats were trained with an appearance model (features instead of harmonics), which is not in them; "
            "train without app_opt"
        )
    missing = sorted(set(NAMES.values()) - set(splats) - {"shN"})
    if missing:
        raise ValueError(f"expected {', '.join(NAMES.values())}; {', '.join(missing)} are missing")
    count = len(splats["means"]) if splats["means"].dim() else 0
    for name, tail in _TAILS.items():
        if tuple(splats[name].shape) != (count, *tail):
            raise ValueError(f"{name}: expected the shape {(count, *tail)}, got {tuple(splats[name].shape)}")
    rest = splats["shN"] if "shN" in splats else splats["sh0"][:, :0]
    if rest.dim() != 3 or (rest.shape[0], rest.shape[2]) != (count, 3) or rest.shape[1] not in (0, 3, 8, 15):
        raise ValueError(f"shN: expected ({count}, 0, 3, 8 or 15, 3), got {tuple(rest.shape)}: degrees end at 3 here")
    named = {ours: splats[theirs] for ours, theirs in NAMES.items() if theirs != "shN"}
    return {**named, "sh_dc": splats["sh0"][:, 0], "sh_rest": rest}


def splats_of(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `parameters_of`."""
    named = {theirs: parameters[ours] for ours, theirs in NAMES.items()}
    return {**named, "sh0": parameters["sh_dc"][:, None]}


def read_gsplat_checkpoint(path: Path | str) -> Splats:
    """Read a checkpoint together with those of the other ranks beside it.

    Raises FileFormatError for what is no such checkpoint: older pickles without an archive, packed entries, objects
    beyond the allow-list, other parameters, NaN and Inf.
    """
    path = Path(path)
    ranks = _ranks(path)
    parts = [_shard(shard) for shard in ranks]
    rests = {part.sh_rest.shape[1] for part in parts}
    if len(rests) > 1:
        raise FileFormatError(path, "differs in degree from the other ranks", "Take one of them to a folder of its own")
    whole = parts[0]
    if len(parts) > 1:
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in NAMES}
        whole = with_notices(
            replace(whole, **arrays), f"read together with the other ranks beside it, {len(parts)} files"
        )
    bad = BadRows()
    bad.inspect(whole, 0)
    bad.raise_if_any(path, "The training diverged; take an earlier checkpoint")
    return with_notices(whole, "in gsplat's normalised frame; not antialiased, as far as the checkpoint says")


def write_gsplat_checkpoint(
    path: Path | str, splats: Splats, transform: Callable[[Splats], Splats] | None = None
) -> tuple[str, ...]:
    """Write `{"step": 0, "splats": ...}` as gsplat's viewer and examples load it; held whole in memory. Returns what
    the file does not say.
    """
    path = Path(path)
    splats = transform(splats) if transform else splats
    bad = BadRows()
    bad.inspect(splats, 0)
    bad.raise_if_any(path, "Remove those splats before writing")
    held = {name: value.contiguous() for name, value in splats_of(splats.to_parameters()).items()}
    with whole_file(path) as stream:
        torch.save({"step": 0, "splats": held}, stream)
    variance, compensated = splats.metadata.filter_variance, splats.metadata.compensated
    if (variance, compensated) == (_STATED.filter_variance, _STATED.compensated):
        return ()
    mode = "antialiased" if compensated else "classic"
    return (f"the checkpoint does not say eps2d={variance:g}, rasterize_mode={mode}; give them to gsplat",)


def _ranks(path: Path) -> list[Path]:
    """The checkpoints of all ranks of this one's step, in their order."""
    found = re.fullmatch(r"(.*_rank)(\d+)\.pt", path.name)
    if not found:
        return [path]
    pattern = re.compile(re.escape(found[1]) + r"(\d+)\.pt")
    sisters = [(int(match[1]), each) for each in path.parent.iterdir() if (match := pattern.fullmatch(each.name))]
    return [each for _, each in sorted(sisters)] or [path]


def _shard(path: Path) -> Splats:
    size = path.stat().st_size
    _judge(path, size)
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch promises none in particular: whatever it stumbles over is the file's
        words = str(error).split("\n")[0][:160]
        raise FileFormatError(path, f"cannot be read ({type(error).__name__}: {words})", COPY_AGAIN) from error
    splats = held.get("splats") if isinstance(held, dict) else None
    if not isinstance(splats, dict):
        raise FileFormatError(path, "holds no dictionary `splats`", "Is it a checkpoint of gsplat's simple_trainer?")
    tensors: dict[str, Tensor] = {}
    for name, value in splats.items():
        plain = isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided
        if not plain or not value.is_floating_point() or value.numel() * value.element_size() > size:
            raise FileFormatError(path, f"`{str(name)[:40]}` is no tensor of numbers that the file holds", COPY_AGAIN)
        tensors[name] = value.detach().float()
    try:
        parameters = parameters_of(tensors)
    except ValueError as error:
        raise FileFormatError(path, str(error), "Is it a checkpoint of gsplat's simple_trainer?") from error
    return Splats.from_parameters({name: value.contiguous() for name, value in parameters.items()}, _STATED)


def _judge(path: Path, size: int) -> None:
    """Refuse what is no archive of plain entries, before torch takes memory for it."""
    if not zipfile.is_zipfile(path):
        raise FileFormatError(path, "is no torch archive", "Save it again with torch 1.6 or later")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise FileFormatError(path, f"is a damaged archive ({error})", COPY_AGAIN) from error
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise FileFormatError(path, "has packed or oversized entries, which torch does not write", "Save it again")
