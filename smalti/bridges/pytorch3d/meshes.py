"""PyTorch3D's `Meshes` with `TexturesVertex` and `TexturesUV`, to the family `meshes` and back.

Its texture coordinates run up the picture, ours down its rows. With `align_corners` (its default) 0 and 1 are the
centres of the outer texels, else, as here, their outer edges. Colours are held as logits here, within 1e-4 of 0 and 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.bridges import BridgeWarning, package
from smalti.primitives.meshes import Meshes
from smalti.primitives.texture import logit


def from_meshes(meshes: Any, metadata: Mapping[str, Any] | None = None) -> list[Meshes]:
    """One family for each mesh of a batch (`pytorch3d.structures.Meshes`), with its colours or texture; mid grey
    where there is none. `metadata` is the families' (`edges`, `sigma`, ...; see `from_raster_settings`).

    World units and axes stay. Raises ValueError for `TexturesAtlas`. Warns of padding modes that matter.
    """
    values = Meshes.checked_metadata({**(metadata or {}), "texture_size": 0})
    textures = getattr(meshes, "textures", None)
    if textures is not None and not (hasattr(textures, "maps_padded") or hasattr(textures, "verts_features_list")):
        raise ValueError(f"from_meshes: expected TexturesVertex or TexturesUV, got {type(textures).__name__}")
    made: list[Meshes] = []
    for row, (vertices, faces) in enumerate(zip(meshes.verts_list(), meshes.faces_list(), strict=True)):
        parameters, constants = {"vertices": vertices.detach().float()}, {"faces": faces.detach()}
        if textures is None:
            parameters["raw_colors"] = torch.zeros_like(parameters["vertices"])
        elif hasattr(textures, "maps_padded"):
            texture = textures.maps_padded()[row].detach().float()
            parameters["raw_texture"] = logit(texture)
            corners = textures.verts_uvs_list()[row].detach().float()[textures.faces_uvs_list()[row].long()]
            _warn_of_padding(textures, corners)
            constants["uvs"] = _down(corners, texture, bool(textures.align_corners))
        else:
            parameters["raw_colors"] = logit(textures.verts_features_list()[row].detach().float())
        made.append(Meshes(parameters, values, constants))
    return made


def mesh_arguments(family: Meshes) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(arguments of `Meshes` without the textures, the textures' class, its arguments) for a batch of this mesh.

    Differentiable with respect to the family's parameters. Warns of what has no counterpart: opacities, wrapping.
    """
    values = family.parameters
    arguments = {"verts": [values["vertices"]], "faces": [family.faces.long()]}
    if "logit_opacities" in values:
        _warn("the opacities of the faces were left out")
    if "raw_colors" in values:
        return arguments, "TexturesVertex", {"verts_features": [values["raw_colors"].sigmoid()]}
    texture, uvs = values["raw_texture"].sigmoid(), family.constants["uvs"].to(values["vertices"])
    if texture.shape[2] == 4:
        _warn("the opacities of the texels were left out")
    if family.metadata["wrap"] and bool(((uvs[..., 0] < 0) | (uvs[..., 0] > 1)).any()):
        _warn("the texture no longer goes on around in u: PyTorch3D has no such padding")
    corners = torch.stack([uvs[..., 0], 1 - uvs[..., 1]], dim=-1).reshape(-1, 2)
    named = {"maps": texture[None, ..., :3], "verts_uvs": [corners]}
    named["faces_uvs"] = [torch.arange(3 * len(family), device=corners.device).reshape(-1, 3)]
    return arguments, "TexturesUV", {**named, "align_corners": False, "padding_mode": "border"}


def to_meshes(family: Meshes) -> Any:
    """A `pytorch3d.structures.Meshes` of one mesh; join several by its `join_meshes_as_batch`. As `mesh_arguments`.

    Raises BridgeUnavailable where PyTorch3D is not installed.
    """
    remedy = "install it by its INSTALL.md; `mesh_arguments` does without"
    structures, renderer = (package(f"pytorch3d.{part}", remedy) for part in ("structures", "renderer"))
    arguments, kind, textures = mesh_arguments(family)
    return structures.Meshes(**arguments, textures=getattr(renderer, kind)(**textures))


def _down(corners: Float[Tensor, "f 3 2"], texture: Float[Tensor, "h w c"], aligned: bool) -> Float[Tensor, "f 3 2"]:
    """Coordinates that run down the rows, with 0 and 1 at the outer edges of the texture."""
    uvs = torch.stack([corners[..., 0], 1 - corners[..., 1]], dim=-1)
    if not aligned:
        return uvs
    sides = uvs.new_tensor([texture.shape[1], texture.shape[0]])
    return (uvs * (sides - 1) + 0.5) / sides


def _warn_of_padding(textures: Any, corners: Float[Tensor, "f 3 2"]) -> None:
    mode = getattr(textures, "padding_mode", "border")
    if mode != "border" and bool(((corners < 0) | (corners > 1)).any()):
        _warn(f"padding_mode={mode!r}: beyond its edges the texture goes on with its outer texels here")
    if getattr(textures, "sampling_mode", "bilinear") != "bilinear":
        _warn("sampling_mode: textures are looked up bilinearly here")


def _warn(sentence: str) -> None:
    warnings.warn(sentence, BridgeWarning, stacklevel=3)
