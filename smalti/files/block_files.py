"""The family `superquadrics` in mesh files: every block a closed mesh; in .glb with what it was made from.

In .glb a block is a node of its own: its mesh is the block with half extents of 1, the node's translation, rotation and
scale place it, its `extras.smalti` hold family, layer, exponents and the raw parameters. A node that another program
moved, turned or stretched along its own axes is read where it stands now; one left in place gives the very parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smalti.files.checked import COPY_AGAIN
from smalti.files.mesh import MeshFile, MeshPart
from smalti.files.splats import FileFormatError
from smalti.files.strict_json import numbers
from smalti.primitives.block_textures import atlas
from smalti.primitives.family import FamilyError
from smalti.primitives.superquadric_shape import surface_points
from smalti.primitives.superquadrics import DEAD, FLOOR, Superquadrics
from smalti.primitives.texture import logit

RAW = {"translations": 3, "rotations": 6, "raw_scales": 3, "raw_exponents": 2, "logit_opacities": 1}
"""Parameters that the extras hold, and how many numbers each is; textures are pictures."""
MOVED = 1e-6
"""Nodes that differ by more than this, relative to their size and place, were moved by another program."""


def drawn_rows(blocks: Superquadrics) -> list[int]:
    """Rows of the blocks that are drawn."""
    least = 0.5 if blocks.metadata["binary"] else DEAD
    return torch.nonzero(blocks.opacities().detach() > least).squeeze(1).tolist()


def block_parts(layer: str, blocks: Superquadrics, names: Mapping[int, str]) -> tuple[list[MeshPart], tuple[str, ...]]:
    """A part for every drawn block, with extras, called as `names` says of its row; sentences on what is left out."""
    with torch.no_grad():
        unit = surface_points(blocks.shape.directions, blocks.exponents()).cpu().float().numpy()
        textures = (blocks.parameters["raw_textures"].float().sigmoid() * 255).round().byte().cpu().numpy()
        opacities = blocks.opacities().tolist()
    faces, uvs = blocks.shape.faces.numpy(), blocks.shape.uvs.float().numpy()
    matrices, rows, parts = _matrices(blocks), drawn_rows(blocks), list[MeshPart]()
    for row in rows:
        name = names.get(row, f"{blocks.part_noun}-{row:02d}")
        extras = {"family": blocks.name, "layer": layer, "row": row, "metadata": blocks.metadata, **_raw(blocks, row)}
        mesh = MeshFile(unit[row], faces, None, uvs, textures[row])
        opacity = 1.0 if blocks.metadata["binary"] else float(opacities[row])
        parts.append(MeshPart(name, mesh, matrices[row], opacity, True, extras))
    hidden = len(blocks) - len(rows)
    return parts, (f"{hidden} blocks of {layer!r} that are not drawn were left out",) if hidden else ()


def blocks_mesh(blocks: Superquadrics) -> MeshFile:
    """All drawn blocks as one mesh with one texture."""
    rows = drawn_rows(blocks)
    with torch.no_grad():
        vertices = blocks.block_vertices()[rows].cpu().float().numpy()
        textures = blocks.parameters["raw_textures"][rows].float().sigmoid().cpu()
        texture, uvs = atlas(textures, blocks.shape.uvs.float(), blocks.shape.overflow)
        levels = (texture * 255).round().byte().numpy()
    faces = blocks.shape.faces.numpy() + vertices.shape[1] * np.arange(len(rows))[:, None, None]
    return MeshFile(vertices.reshape(-1, 3), faces.reshape(-1, 3), None, uvs.numpy(), levels)


def is_block(part: MeshPart) -> bool:
    """Whether a part of a file says that it is a superquadric."""
    return part.extras is not None and part.extras.get("family") == Superquadrics.name


def blocks_from_parts(path: Path, parts: Sequence[MeshPart]) -> Superquadrics:
    """The blocks that `block_parts` wrote, where their nodes stand now. Raises FileFormatError for damaged extras,
    textures of different sizes, and nodes that shear.
    """
    metadata = parts[0].extras and parts[0].extras.get("metadata")
    if not isinstance(metadata, Mapping):
        raise FileFormatError(path, f"block {parts[0].name!r} has no metadata in its extras", COPY_AGAIN)
    parts = sorted(parts, key=_row)
    found: dict[str, list[np.ndarray]] = {key: [] for key in RAW}
    for part in parts:
        for key, width in RAW.items():
            plain = part.extras[key] if part.extras and key in part.extras else None
            found[key].append(numbers(path, plain, key, width))
    parameters = {key: torch.from_numpy(np.stack(rows).astype(np.float32)) for key, rows in found.items()}
    parameters["logit_opacities"] = parameters["logit_opacities"][:, 0]
    parameters["raw_textures"] = _textures(path, parts)
    if not all(bool(value.isfinite().all()) for value in parameters.values()):
        raise FileFormatError(path, "has blocks with numbers beyond float32", COPY_AGAIN)
    try:
        blocks = Superquadrics(parameters, metadata)
    except FamilyError as error:
        raise FileFormatError(path, f"its blocks have no meaning: {error}", COPY_AGAIN) from error
    _follow(path, blocks, [part.matrix for part in parts])
    return blocks


def _follow(path: Path, blocks: Superquadrics, matrices: Sequence[Float[np.ndarray, "4 4"]]) -> None:
    """Blocks to where their nodes stand; those in place stay as they are to the bit."""
    now, written = np.stack(matrices), np.stack(_matrices(blocks))
    size = np.abs(written).max(axis=(1, 2))
    moved = np.flatnonzero(np.abs(now - written).max(axis=(1, 2)) > MOVED * size)
    if not len(moved):
        return
    translations, sixes = (blocks.parameters[key].detach().clone() for key in ("translations", "rotations"))
    sizes = blocks.sizes().detach().double()
    for row in moved:
        linear = now[row, :3, :3]
        lengths = np.linalg.norm(linear, axis=0)
        if not (lengths > 0).all() or np.abs((linear / lengths).T @ (linear / lengths) - np.eye(3)).max() > 1e-4:
            raise FileFormatError(path, f"node of block {row} shears it or makes it flat", "Apply no scale to a parent")
        turn = linear / lengths
        if np.linalg.det(turn) < 0:  # a mirrored superquadric is one: only its texture turns over
            turn[:, 0] = -turn[:, 0]
        translations[row] = torch.from_numpy(now[row, :3, 3].copy())
        sixes[row] = torch.from_numpy(turn[:, :2].T.reshape(-1).copy())
        sizes[row] = torch.from_numpy(lengths)
    ratio = min(float(blocks.metadata["ratio"]), float(sizes.min()) / (1.5 * FLOOR))
    kept = ratio == blocks.metadata["ratio"]
    raw = blocks.parameters["raw_scales"].detach().clone()
    rows = torch.from_numpy(moved) if kept else torch.arange(len(blocks))
    raw[rows] = (sizes[rows] / ratio - FLOOR).log().to(raw)
    blocks.metadata["ratio"] = ratio
    blocks.replace({**blocks.parameters, "translations": translations, "rotations": sixes, "raw_scales": raw})


def _textures(path: Path, parts: Sequence[MeshPart]) -> Float[Tensor, "n h w 3"]:
    pictures = [part.mesh.texture for part in parts]
    shapes = {picture.shape[:2] for picture in pictures if picture is not None} or {(2, 2)}
    if len(shapes) > 1:
        raise FileFormatError(path, f"has blocks with textures of {len(shapes)} sizes", "Give all the same size")
    (shape,) = shapes
    grey = np.full((*shape, 3), 127.5, np.float32)
    levels = [grey if picture is None else picture[..., :3].astype(np.float32) for picture in pictures]
    if len(levels) * math.prod(shape) > 1 << 26:
        raise FileFormatError(path, "has more texels in its blocks than are read", "Split the file")
    return logit(torch.from_numpy(np.stack(levels)) / 255)


def _raw(blocks: Superquadrics, row: int) -> dict[str, list[float]]:
    values = {key: blocks.parameters[key].detach()[row].reshape(-1).tolist() for key in RAW}
    return {**values, "exponents": blocks.exponents().detach()[row].tolist()}


def _matrices(blocks: Superquadrics) -> list[Float[np.ndarray, "4 4"]]:
    """scene_from_block of all blocks: rotation times half extents, and the centre."""
    with torch.no_grad():
        linear = (blocks.axes().double() * blocks.sizes().double()[:, None, :]).cpu().numpy()
        centres = blocks.positions().detach().double().cpu().numpy()
    found: list[np.ndarray] = []
    for row in range(len(blocks)):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = linear[row], centres[row]
        found.append(matrix)
    return found


def _row(part: MeshPart) -> int:
    row = part.extras.get("row", 0) if part.extras else 0
    return row if type(row) is int else 0
