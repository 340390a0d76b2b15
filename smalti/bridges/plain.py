"""The exchange value behind the bridges to mesh libraries, `smalti.files.mesh.MeshFile`, made and read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from smalti.bridges import BridgeWarning
from smalti.files.mesh import MeshFile, merged
from smalti.files.mesh_files import family_mesh, goes_around, meshes_of
from smalti.primitives.family import Family, find_family
from smalti.primitives.meshes import Meshes


def family_of(mesh: MeshFile, metadata: Mapping[str, Any] | None = None) -> Meshes:
    """A layer of family `meshes`; mid grey where the mesh has no colours. `metadata` is the family's.

    Vertices of a textured mesh that lie at one place become one, so that a seam of the texture is no silhouette.
    """
    return meshes_of(mesh if mesh.texture is None else merged(mesh), metadata)


def mesh_of(family: Family, repeats: bool = False) -> MeshFile:
    """What a family draws as triangles: with its texture where it has one, else coloured at its vertices.

    Raises ValueError for families that draw none. Warns of opacities, which are left out, and of a texture that goes on
    around; `repeats`: the other side can be told that it does.
    """
    found = family_mesh(family)
    if found is None:
        raise ValueError(
            f"family {family.name!r} draws no triangles; hand it over as points, or convert it to a mesh first "
            "(smalti.scene)"
        )
    if goes_around(family, found) and not repeats:
        warn(
            f"the texture of the {family.name} goes on around in u, which is not handed over: textures end at their "
            "edges there, or repeat both ways, as whatever draws them has it"
        )
    if "logit_opacities" in family.parameters and bool((family.opacities() < 0.99).any()):
        warn(f"the opacities of the {family.name} were left out: triangles are opaque on the other side")
    return found


def points_of(family: Family) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Centres and colours (0..1, of degree 0) of the primitives."""
    return tuple(value.detach().double().cpu().numpy() for value in (family.positions(), family.base_colors()))  # pyright: ignore[reportReturnType]


def family_on_points(
    name: str,
    positions: Float[np.ndarray, "n 3"],
    colors: Float[np.ndarray, "n 3"] | None,
    metadata: Mapping[str, Any] | None,
) -> Family:
    """A family started from coloured points (`Family.from_points`); mid grey where they have no colour."""
    places = torch.from_numpy(np.array(positions, np.float32))
    shades = torch.full_like(places, 0.5) if colors is None else torch.from_numpy(np.array(colors, np.float32))
    return find_family(name).from_points(places, shades, metadata or {})


def warn(sentence: str) -> None:
    """Say what was left out."""
    warnings.warn(sentence, BridgeWarning, stacklevel=3)
