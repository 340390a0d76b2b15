"""What the settings of PyTorch3D's mesh rasteriser and blending are here: a family's edges, a render's settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from smalti.renderers.settings import RenderSettings

CUT = 1e-4
"""Of the opacity, at which our soft edges end; PyTorch3D's ends at `blur_radius`."""
DEFAULTS: dict[str, Any] = {
    **{"image_size": 256, "blur_radius": 0.0, "faces_per_pixel": 1, "bin_size": None, "max_faces_per_bin": None},
    **{"perspective_correct": None, "clip_barycentric_coords": None, "cull_backfaces": False, "z_clip_value": None},
    **{"cull_to_frustum": False, "sigma": 1e-4, "gamma": 1e-4, "background_color": (1.0, 1.0, 1.0)},
}
"""PyTorch3D's own, of `RasterizationSettings` and `BlendParams`."""


@dataclass(frozen=True)
class SoftRasterizer:
    """A translation: hand `metadata` to the families, the rest to `render`."""

    metadata: dict[str, Any]
    """`edges` and `sigma` of the family `meshes`."""
    settings: RenderSettings
    background: Float[Tensor, "3"]
    size: tuple[int, int]
    """Height and width, for `from_cameras`."""
    notices: tuple[str, ...]
    """What is otherwise here or has no counterpart, in sentences."""


def from_raster_settings(raster: Any, blend: Any = None) -> SoftRasterizer:
    """Ours, of `RasterizationSettings` and `BlendParams` (or anything with their attributes; absent ones have
    PyTorch3D's defaults). Raises ValueError for negative numbers.

    With `blur_radius` the probability of a face falls as sigmoid(-d / sigma) there and as exp(-d / sigma) here, d the
    squared distance from its outline in NDC: the same beyond a few sigma, but 1/2 there and 1 here on the outline, and
    inside 1 here (Liu et al. 2019, Soft Rasterizer, equation 1; docs/kinds.md, section 3). There is no `gamma`: faces
    are composited front to back, in exact order, by their opacities.

    >>> class Raster:
    ...     image_size, blur_radius, faces_per_pixel = (48, 64), 9.21e-4, 50
    >>> found = from_raster_settings(Raster())
    >>> found.metadata, found.size
    ({'edges': 'soft', 'sigma': 0.0001}, (48, 64))
    """
    stated = {name: _of(raster, blend, name) for name in DEFAULTS}
    sigma, blur = float(stated["sigma"]), float(stated["blur_radius"])
    if sigma < 0 or blur < 0:
        raise ValueError(f"from_raster_settings: sigma and blur_radius are not negative, got {sigma} and {blur}")
    soft = blur > 0 and sigma > 0
    near = 0.01 if stated["z_clip_value"] is None else float(stated["z_clip_value"])
    size = stated["image_size"]
    height, width = (int(size), int(size)) if isinstance(size, int) else (int(side) for side in size)
    color: Sequence[float] = torch.as_tensor(stated["background_color"]).tolist()
    return SoftRasterizer(
        metadata={"edges": "soft", "sigma": sigma} if soft else {"edges": "hard"},
        settings=RenderSettings(order="ray", near=near),
        background=torch.tensor(color[:3]),
        size=(height, width),
        notices=tuple(_soft_notices(sigma, blur) if soft else _hard_notices()) + tuple(_notices(stated)),
    )


def _of(raster: Any, blend: Any, name: str) -> Any:
    owner = blend if name in ("sigma", "gamma", "background_color") else raster
    return getattr(owner, name, DEFAULTS[name])


def _soft_notices(sigma: float, blur: float) -> list[str]:
    notices = [
        "blending: on a face's outline its opacity is 1 here and 1/2 there; beyond a few sigma both are the same",
        "gamma: has no counterpart; faces are composited front to back by their opacities",
    ]
    reach = sigma * math.log(1 / CUT)
    if abs(blur - reach) > 0.01 * reach:
        notices.append(f"blur_radius: soft edges end where the opacity is {CUT:g}, at {reach:.4g}, not at {blur:.4g}")
    return notices


def _hard_notices() -> list[str]:
    return ["blur_radius 0: coverage has no gradient, as there; edges='antialiased' has one, without any blur"]


def _notices(stated: dict[str, Any]) -> list[str]:
    """Of what there is no such thing here, where it was asked for."""
    given = {
        "faces_per_pixel: every face that a pixel sees takes part": True,
        "bin_size, max_faces_per_bin: lists grow as needed, nothing overflows": stated["bin_size"] is not None
        or stated["max_faces_per_bin"] is not None,
        "perspective_correct=False: interpolation is always correct in perspective": stated["perspective_correct"]
        is False,
        "clip_barycentric_coords=False: outside of a face they are clamped to it": stated["clip_barycentric_coords"]
        is False,
        "cull_backfaces: faces are drawn from both sides": bool(stated["cull_backfaces"]),
    }
    return [sentence for sentence, said in given.items() if said]
