"""Layers of Gaussians as the one value that splat files hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from smalti.cameras.similarity import Similarity
from smalti.files.splats import SplatMetadata, Splats, similarity_transform
from smalti.scene.scene import Layer


def gathered_splats(
    layers: list[Layer], order: str, move: Similarity
) -> tuple[Splats, Callable[[Splats], Splats] | None]:
    """Layers of Gaussians as one, and what is to be done to them on the way out. Nothing is copied of a single one."""
    parts = [_layer_splats(layer, order) for layer in layers]
    if len(layers) == 1:
        return parts[0], _transform(move @ layers[0].similarity, parts[0])
    placed = [_transform(move @ layer.similarity, part)(part) for layer, part in zip(layers, parts, strict=True)]
    return _joined(layers, placed), None


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


def _transform(file_from_layer: Similarity, splats: Splats) -> Callable[[Splats], Splats]:
    """To the file's place, and silence beyond the degree in use."""
    move = similarity_transform(file_from_layer)
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
