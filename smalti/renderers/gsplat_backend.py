"""EWA Gaussians drawn by the package gsplat on CUDA: pictures that mean what ours mean, by another rasteriser.

gsplat is imported at the first render and may then compile its kernels, which takes minutes (where it came without a
wheel for the installed torch). It differs from the engine in two things: its opacities are capped at 0.999 instead of
0.99, and a ray ends before, not after, the event that would bring its transmittance to 1e-4; where something nearly
opaque is seen, two pictures of one scene differ by up to 0.009. It has no gradient to the intrinsics, and sums with
atomics, so no two runs are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.backends import BackendError, choose
from smalti.renderers.drawables import Drawable, GaussianDrawable
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.settings import RenderSettings
from smalti.renderers.spherical_harmonics import gaussian_color

TRANSMITTANCE_MIN = 1e-4
"""At which gsplat's rays end; it has no option for it."""
CHUNK = 32
"""Channels that gsplat rasterises at once; its absolute gradient is that of the last chunk alone."""


def render_gsplat(
    drawables: Sequence[Drawable], camera: Camera, background: Tensor | None, settings: RenderSettings
) -> Frame:
    """See `smalti.renderers.render.render`, whose arguments these are, and the module for what differs.

    Raises BackendError for what gsplat has no counterpart of: other kinds than EWA Gaussians, drawables that differ in
    filter, float64, statistics, smooth cut-off, another `transmittance_min`, gradients to the intrinsics.
    """
    gaussians = require_drawable(drawables, camera, settings)
    rasterization = _rasterization()
    splats = _joined(gaussians)
    usable = _usable(splats)
    rows = None if bool(usable.all()) else usable.nonzero()[:, 0]
    drawn = splats if rows is None else {k: None if v is None else v[rows] for k, v in splats.items()}
    if drawn["means"] is None or not len(drawn["means"]):
        return _nothing(gaussians[0], camera, background, settings, usable)
    filtered, degree = gaussians[0], max(drawable.sh_degree for drawable in gaussians)
    picture, alpha, meta = rasterization(
        **{ours: drawn[name] for ours, name in _NAMES.items()},
        **_appearance(drawn, degree, camera),
        **_view(camera, filtered),
        near_plane=settings.near,
        eps2d=filtered.filter_variance,
        rasterize_mode="antialiased" if filtered.compensated else "classic",
        render_mode="RGB+ED" if settings.depth else "RGB",
        packed=False,
        absgrad=settings.absolute_gradient,
        channel_chunk=CHUNK,
    )
    picture, alpha = picture[0], alpha[0, ..., 0]
    visibility = _visibility(splats, camera, usable, rows, meta)
    _feel(meta["means2d"], visibility, rows, settings.absolute_gradient)
    color = picture[..., :3]
    if background is not None:
        color = color + (1 - alpha)[..., None] * background.to(color)
    return Frame(
        color=color,
        alpha=alpha,
        visibility=visibility,
        features=picture[..., 3 : picture.shape[-1] - int(settings.depth)] if gaussians[0].feature_count else None,
        normal=torch.zeros_like(color) if settings.normals else None,  # as of ours: the kind has none
        depth=picture[..., -1] if settings.depth else None,
    )


def require_drawable(drawables: Sequence[Drawable], camera: Camera, settings: RenderSettings) -> list[GaussianDrawable]:
    """The drawables, if gsplat can draw them with these settings; else a BackendError that says what it cannot do."""
    gaussians = [drawable for drawable in drawables if isinstance(drawable, GaussianDrawable)]
    first = drawables[0]
    looks = {(drawable.filter_variance, drawable.compensated, drawable.feature_count) for drawable in gaussians}
    channels = 3 + first.feature_count + int(settings.depth)
    others = sorted({drawable.kind for drawable in drawables} - {"gaussian"})
    refused = {
        f"EWA Gaussians alone, not the kind {', '.join(map(repr, others))}": bool(others),
        "one filter and one number of features in all drawables": len(looks) > 1,
        f"float32 alone, not {first.dtype}": first.dtype != torch.float32,
        "no ids, median or first-hit depth and no contributions (statistics)": settings.statistics,
        "no smooth cut-off": settings.smooth_cutoff,
        f"rays that end at a transmittance of {TRANSMITTANCE_MIN} alone": settings.transmittance_min
        != TRANSMITTANCE_MIN,
        "no gradient to the camera's intrinsics": camera.intrinsics.requires_grad,
        f"absolute gradients of at most {CHUNK} channels": settings.absolute_gradient and channels > CHUNK,
    }
    for can, is_so in refused.items():
        if is_so:
            remedy = "Choose the back end 'cuda' (or 'cpu'), which draws everything"
            raise BackendError(f"the back end 'gsplat' offers {can}. {remedy}")
    return gaussians


_NAMES = {"means": "means", "quats": "quaternions", "scales": "scales", "opacities": "opacities"}
"""gsplat's word -> ours."""


def _rasterization() -> Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]:
    """gsplat's entry function; BackendError where it cannot be had."""
    try:
        from gsplat import rasterization  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        choose("gsplat", "cuda")  # knows the remedy where the package or CUDA is missing
        raise BackendError(f"the back end 'gsplat' cannot be used: importing it failed ({error})") from error
    return rasterization


def _joined(gaussians: Sequence[GaussianDrawable]) -> dict[str, Tensor | None]:
    """All rows in the order given; harmonics of degree 0 and up, zero beyond each drawable's own degree."""
    most = (max(drawable.sh_degree for drawable in gaussians) + 1) ** 2
    harmonics: list[Tensor] = []
    for drawable in gaussians:
        used = (drawable.sh_degree + 1) ** 2 - 1
        parts = [drawable.sh_dc[:, None]] + ([] if drawable.sh_rest is None else [drawable.sh_rest[:, :used]])
        held = torch.cat(parts, dim=1)
        harmonics.append(torch.nn.functional.pad(held, (0, 0, 0, most - held.shape[1])))
    features = [drawable.features for drawable in gaussians if drawable.features is not None]
    rows = {name: torch.cat([getattr(drawable, name) for drawable in gaussians]) for name in _NAMES.values()}
    return {**rows, "harmonics": torch.cat(harmonics), "features": torch.cat(features) if features else None}


@torch.no_grad()
def _usable(splats: dict[str, Tensor | None]) -> Bool[Tensor, "n"]:
    """False where a number is NaN or Inf, a quaternion is zero or a scale is not positive (kinds' page)."""
    present = {name: value for name, value in splats.items() if value is not None}
    turned = present["quaternions"].square().sum(1)
    usable = (turned >= 1e-24) & turned.isfinite() & (present["scales"] > 0).all(1)
    for value in present.values():
        usable &= value.isfinite() if value.dim() == 1 else value.isfinite().flatten(1).all(1)
    return usable


def _appearance(drawn: dict[str, Tensor | None], degree: int, camera: Camera) -> dict[str, Any]:
    """Harmonics for gsplat to evaluate; beside features, or where the pose is learned, colours (its gradient to a free
    rotation matrix goes through the inverse, ours through the transpose).
    """
    harmonics, features, means = drawn["harmonics"], drawn["features"], drawn["means"]
    assert harmonics is not None
    assert means is not None
    if features is None and not camera.rotation.requires_grad:
        return {"colors": harmonics, "sh_degree": degree}
    directions = torch.nn.functional.normalize(means - camera.centre.to(means), dim=1)
    colors = gaussian_color(harmonics[:, 0], harmonics[:, 1:], degree, directions).clamp_min(0)
    return {"colors": colors if features is None else torch.cat([colors, features], dim=1), "sh_degree": None}


def _view(camera: Camera, like: GaussianDrawable) -> dict[str, Any]:
    """The camera in gsplat's words: the same axes, the same pixel centres."""
    pose = torch.cat([camera.rotation, camera.translation[:, None]], dim=1)
    pose = torch.cat([pose, pose.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
    pose, intrinsics = (value.to(like.device, like.dtype)[None] for value in (pose, camera.matrix))
    return {"viewmats": pose, "Ks": intrinsics, "width": camera.width, "height": camera.height}


@torch.no_grad()
def _visibility(
    splats: dict[str, Tensor | None], camera: Camera, usable: Tensor, rows: Tensor | None, meta: dict[str, Any]
) -> Visibility:
    means = splats["means"]
    assert means is not None
    pixels = meta["radii"][0].amax(dim=1).to(means) * (meta["radii"][0] > 0).all(dim=1)
    radii = pixels if rows is None else torch.zeros_like(means[:, 0]).index_copy(0, rows, pixels)
    depths = (means * camera.rotation[2].to(means)).sum(1) + camera.translation[2].to(means)
    return Visibility(radii > 0, radii, depths, int((~usable).sum()), int(meta["flatten_ids"].numel()))


def _feel(centres: Tensor, visibility: Visibility, rows: Tensor | None, absolute: bool) -> None:
    """Let the backward pass leave its gradient with respect to the projected centres in `visibility`."""
    if not centres.requires_grad:
        return

    def leave(name: str, gradient: Float[Tensor, "1 n 2"]) -> None:
        found = gradient[0].detach()
        if rows is not None:
            found = found.new_zeros(len(visibility.radii), 2).index_copy(0, rows, found)
        felt = visibility.screen_gradient
        felt[name] = felt[name] + found if name in felt else found.clone()

    def hook(gradient: Tensor) -> None:
        leave("sum", gradient)
        if absolute:
            leave("absolute", centres.absgrad)  # pyright: ignore[reportAttributeAccessIssue]

    centres.register_hook(hook)


def _nothing(
    like: GaussianDrawable, camera: Camera, background: Tensor | None, settings: RenderSettings, usable: Tensor
) -> Frame:
    """The picture of no Gaussian at all, which gsplat's kernels are not asked for."""
    alpha = torch.zeros(camera.height, camera.width, device=like.device, dtype=like.dtype)
    black = torch.zeros(camera.height, camera.width, 3, device=like.device, dtype=like.dtype)
    none = torch.zeros_like(usable, dtype=like.dtype)
    return Frame(
        color=black if background is None else black + background.to(black),
        alpha=alpha,
        visibility=Visibility(torch.zeros_like(usable), none, none, int((~usable).sum()), 0),
        features=alpha[..., None].expand(-1, -1, like.feature_count) if like.feature_count else None,
        normal=torch.zeros_like(black) if settings.normals else None,
        depth=alpha if settings.depth else None,
    )
