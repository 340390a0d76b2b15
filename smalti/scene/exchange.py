"""A scene as a file for other programs: what is visible, in the input's frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from smalti.files import write_scene_file
from smalti.files.splats import SplatMetadata, Splats, similarity_transform
from smalti.scene.scene import Layer, Scene


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    path: Path
    primitives: int
    bytes: int
    metadata: SplatMetadata
    layers: tuple[str, ...]
    notices: tuple[str, ...] = ()
    """What the format did not hold, in sentences."""


def export_scene(scene: Scene, path: Path | str, names: Sequence[str] | None = None) -> Exported:
    """Write the visible layers (those in `names`, by default all) to `path`, by its extension; layer transforms are
    applied, several layers become one. What no file format holds, the scene folder does (`smalti.scene.folder`).

    Colour coefficients beyond the degree in use are written as zeros, so that other programs show the same picture.
    Raises ValueError where nothing is visible, where a layer's family is not Gaussian splats, or where layers differ in
    screen filter; FileFormatError for an unknown extension or numbers that are NaN.
    """
    path = Path(path)
    layers = [layer for layer in scene.visible_layers() if names is None or layer.name in names]
    missing = sorted(set(names or ()) - {layer.name for layer in layers})
    if missing:
        there = ", ".join(layer.name for layer in scene.visible_layers())
        raise ValueError(f"export: there is no visible layer {missing[0]!r} with primitives; there are {there}")
    if not layers:
        raise ValueError("export: there is nothing to write; no visible layer has a primitive")
    _require_splats(layers)
    parts = [_layer_splats(layer, scene.order) for layer in layers]
    if len(layers) == 1:
        splats, transform = parts[0], _transform(layers[0], parts[0])
    else:
        splats = _joined(layers, [_transform(layer, part)(part) for layer, part in zip(layers, parts, strict=True)])
        transform = None
    notices = write_scene_file(path, splats, transform)
    names = tuple(layer.name for layer in layers)
    return Exported(path, len(splats), path.stat().st_size, splats.metadata, names, notices)


def _require_splats(layers: list[Layer]) -> None:
    foreign = [layer for layer in layers if not layer.family.is_splats]
    if not foreign:
        return
    fit = [layer.name for layer in layers if layer.family.is_splats]
    only = f"Splat files can hold the layers {', '.join(fit)} (--layers {','.join(fit)}); " if fit else ""
    raise ValueError(
        f"export: layer {foreign[0].name!r} is of family {foreign[0].family.name!r}, which splat files cannot hold. "
        f"{only}a scene folder holds every layer (give a path without an extension)"
    )


def _layer_splats(layer: Layer, order: str) -> Splats:
    family = layer.family
    held = Splats.from_parameters(family.parameters, SplatMetadata())
    metadata = SplatMetadata(
        filter_variance=float(family.metadata.get("filter_variance", 0.3)),
        compensated=bool(family.metadata.get("compensated", False)),
        sh_degree=min(int(family.metadata.get("active_sh_degree", held.held_degree)), held.held_degree),
        order=order,
        frame="input",
    )
    return replace(held, metadata=metadata)


def _transform(layer: Layer, splats: Splats) -> Callable[[Splats], Splats]:
    """Layer to scene, and silence beyond the degree in use."""
    move = similarity_transform(layer.similarity)
    used = (splats.sh_degree + 1) ** 2 - 1

    def transform(part: Splats) -> Splats:
        if used < part.sh_rest.shape[1] and part.sh_rest[:, used:].any():
            rest = part.sh_rest.copy()
            rest[:, used:] = 0
            part = replace(part, sh_rest=rest)
        return move(part)

    return transform


def _joined(layers: list[Layer], parts: list[Splats]) -> Splats:
    """All rows in layer order; coefficients padded with zeros to the highest degree."""
    looks = {(part.metadata.filter_variance, part.metadata.compensated) for part in parts}
    if len(looks) > 1:
        names = ", ".join(layer.name for layer in layers)
        raise ValueError(
            f"export: the layers {names} differ in screen filter, which one file cannot say. Export them apart"
        )
    rest = max(part.sh_rest.shape[1] for part in parts)
    padded = [np.pad(part.sh_rest, ((0, 0), (0, rest - part.sh_rest.shape[1]), (0, 0))) for part in parts]
    metadata = replace(parts[0].metadata, sh_degree=max(part.sh_degree for part in parts))
    return Splats(
        np.concatenate([part.means for part in parts]),
        np.concatenate([part.log_scales for part in parts]),
        np.concatenate([part.quaternions for part in parts]),
        np.concatenate([part.logit_opacities for part in parts]),
        np.concatenate([part.sh_dc for part in parts]),
        np.concatenate(padded),
        metadata,
    )
