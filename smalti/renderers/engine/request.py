"""What the engine's backends share: a render as tensors, C structures and one autograd function, and its frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import BoxDrawable, Drawable, GaussianDrawable
from smalti.renderers.engine.library import EngineError
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.settings import DEPTH_WEIGHT_MIN, RenderSettings

PER_DRAWABLE = 7  # of a Gaussian: means, quaternions, scales, opacities, sh_dc, sh_rest, features
CAMERA_GRADIENT = 16  # rotation 9, translation 3, fx, fy, cx, cy
MOST_PRIMITIVES = 2**30  # indices and twice them are ints in the kernels
MOST_PIXELS = 16 * (2**15 - 1)  # tile coordinates are shorts

Tensors = Sequence[Tensor | None]
"""Those of each drawable (`Inputs.tensors`), then rotation, translation, intrinsics, background."""


@dataclass(eq=False)
class Request:
    """One render: what is not a tensor, and what the passes hand to each other. EngineError where the engine's counters
    would overflow.
    """

    drawables: Sequence[Drawable]
    camera: Camera
    settings: RenderSettings
    extras: dict[str, Tensor] = field(default_factory=dict)
    """With statistics: first, median, dominant, and in the general compositor depth_first, depth_median [h, w];
    contribution_sum, contribution_max [n]."""
    visibility: Visibility | None = None

    def __post_init__(self) -> None:
        width, height = self.camera.width, self.camera.height
        if self.count > MOST_PRIMITIVES or max(width, height) > MOST_PIXELS:
            raise EngineError(
                f"the engine draws at most {MOST_PRIMITIVES} primitives and {MOST_PIXELS} pixels per side, got "
                f"{self.count} and {width} x {height}; render in parts (`Camera.cropped`)"
            )

    @property
    def additive(self) -> bool:
        """Boxes of the additive accumulation, which `validate` lets nothing else be drawn with."""
        return all(isinstance(d, BoxDrawable) and d.accumulation == "additive" for d in self.drawables)

    @property
    def dtype(self) -> torch.dtype:
        return self.drawables[0].dtype

    @property
    def device(self) -> torch.device:
        return self.drawables[0].device

    def tensors(self, background: Tensor | None) -> list[Tensor | None]:
        """All that gradients may reach, contiguous and of one dtype (`Tensors`)."""
        dtype, camera = self.dtype, self.camera
        tensors = [t for d in self.drawables for t in d.inputs().tensors]
        # The camera stays where it is: its numbers travel in the kernels' parameters.
        pose = [t.to(dtype).contiguous() for t in (camera.rotation, camera.translation, camera.intrinsics)]
        behind = None if background is None else background.to(self.device, dtype).contiguous()
        return [*(None if t is None else t.to(dtype).contiguous() for t in tensors), *pose, behind]

    @property
    def count(self) -> int:
        """Primitives of all drawables."""
        return sum(len(d) for d in self.drawables)

    @property
    def feature_count(self) -> int:
        return max(d.feature_count for d in self.drawables)

    @property
    def channels(self) -> int:
        """Colour, features, normal, depth."""
        return 3 + self.feature_count + 3 * int(self.settings.normals) + int(self.settings.depth)


@dataclass(eq=False)
class Gradients:
    """What a backward pass found."""

    parameters: list[Tensor | None]
    """Of each drawable's tensors."""
    screen: Tensor
    """[n, 2]"""
    absolute: Tensor | None
    camera: Tensor | None
    """[CAMERA_GRADIENT], float64."""
    background: Tensor | None

    def pose(self, tensors: Tensors) -> list[Tensor | None]:
        """Gradients of rotation, translation and intrinsics, shaped as those in `tensors`."""
        if self.camera is None:
            return [None] * 3
        parts = self.camera[:9].reshape(3, 3), self.camera[9:12], self.camera[12:16]
        return [part.to(like) for part, like in zip(parts, tensors[-4:-1], strict=True) if like is not None]


class Engine(Protocol):
    """What one backend does of a render; a new object per render, kept until its backward pass is done."""

    def forward(self, request: Request, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Picture [h, w, channels] and alpha [h, w]; fills the request's visibility and extras."""
        ...

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """Take back `cotangents` (of picture and alpha); `wanted` says whether the camera's and background's are."""
        ...


def gaussians_alone(request: Request) -> bool:
    """Whether the compositor for EWA Gaussians alone can draw this: one key each, the same channels in all."""
    gaussians = all(isinstance(d, GaussianDrawable) for d in request.drawables)
    return gaussians and not request.settings.normals and len({d.feature_count for d in request.drawables}) == 1


def render_with(engine: Engine, request: Request, background: Tensor | None) -> Frame:
    """Draw `request` over `background`, differentiably."""
    arguments = request.tensors(background)
    picture, alpha = _Render.apply(engine, request, *arguments)  # pyright: ignore[reportGeneralTypeIssues]
    return frame_of(request, picture, alpha)


class _Render(torch.autograd.Function):
    """Picture [h, w, channels] (background behind the colour) and alpha [h, w]."""

    @staticmethod
    def forward(ctx: Any, engine: Engine, request: Request, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        picture, alpha = engine.forward(request, tensors)
        ctx.engine, ctx.request = engine, request
        ctx.save_for_backward(*[t for t in tensors if t is not None])
        ctx.present = [t is not None for t in tensors]
        ctx.set_materialize_grads(False)
        return picture, alpha

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *cotangents: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        request: Request = ctx.request
        saved = iter(ctx.saved_tensors)
        tensors = [next(saved) if there else None for there in ctx.present]
        needs = ctx.needs_input_grad[2:]
        wanted = any(needs[-4:-1]), bool(needs[-1])
        ready = [None if c is None else c.contiguous() for c in cotangents]
        found = ctx.engine.backward(request, tensors, ready, wanted)
        assert request.visibility is not None
        felt = request.visibility.screen_gradient
        for name, gradient in (("sum", found.screen), ("absolute", found.absolute)):
            if gradient is not None:
                felt[name] = felt[name] + gradient if name in felt else gradient
        return (None, None, *found.parameters, *found.pose(tensors), found.background)


def frame_of(request: Request, picture: Tensor, alpha: Tensor) -> Frame:
    """Slice the channels and derive the depths that follow from ids."""
    assert request.visibility is not None
    settings, features = request.settings, request.feature_count
    depth = None
    if settings.depth:
        hit = alpha > DEPTH_WEIGHT_MIN
        depth = torch.where(hit, picture[..., -1] / torch.where(hit, alpha, 1.0), 0.0)
    start = 3 + features
    return Frame(
        # Sliced only where there is more: the slice's own backward would copy the whole picture.
        color=picture if picture.shape[-1] == 3 else picture[..., :3],
        alpha=alpha,
        visibility=request.visibility,
        features=picture[..., 3:start] if features else None,
        normal=picture[..., start : start + 3] if settings.normals else None,
        depth=depth,
        **(_statistics(request, alpha) if settings.statistics else {}),
    )


def _statistics(request: Request, alpha: Tensor) -> dict[str, Any]:
    """Ids, contributions, and the depths of named events (with Gaussians alone: of their means, differentiably)."""
    assert request.visibility is not None
    ids = {name: request.extras[name].long() for name in ("first", "median", "dominant")}
    depths = {name: request.extras[name] for name in ("depth_first", "depth_median") if name in request.extras}
    if not depths:
        means = torch.cat([d.means for d in request.drawables if isinstance(d, GaussianDrawable)])
        # A mean that is not a number must not meet the camera's gradient, not even times zero.
        means = torch.where(request.visibility.visible[:, None], means, 0.0)
        # Not as a matrix product: cuBLAS refuses those under deterministic algorithms.
        z = (means * request.camera.rotation[2].to(means)).sum(-1) + request.camera.translation[2].to(means)
        of = lambda index: torch.where(index >= 0, z[index.clamp_min(0)], 0.0) if len(z) else torch.zeros_like(alpha)  # noqa: E731
        depths = {"depth_first": of(ids["first"]), "depth_median": of(ids["median"])}
    contributions = {name: request.extras[name] for name in ("contribution_sum", "contribution_max")}
    return {"ids": ids, **depths, **contributions}


def own_tensors(tensors: Tensors, number: int) -> Tensors:
    """Those of one drawable."""
    return tensors[PER_DRAWABLE * number : PER_DRAWABLE * (number + 1)]


def gaussian_input(structures: SimpleNamespace, request: Request, tensors: Tensors, number: int) -> Any:
    """The C structure GaussianInput of drawable `number`; the tensors must outlive it."""
    drawable, own = request.drawables[number], own_tensors(tensors, number)
    assert isinstance(drawable, GaussianDrawable)
    rest, features = own[5], own[6]
    return structures.GaussianInput(
        *[None if t is None or t.numel() == 0 else t.data_ptr() for t in own],
        count=len(drawable),
        sh_rest_count=0 if rest is None else rest.shape[1],
        sh_degree=drawable.sh_degree,
        feature_count=0 if features is None else features.shape[1],
        filter_variance=drawable.filter_variance,
        compensated=drawable.compensated,
        with_depth=request.settings.depth,
    )


def camera_values(structures: SimpleNamespace, request: Request, tensors: Tensors) -> Any:
    """The C structure CameraValues."""
    rotation, translation, intrinsics = tensors[-4:-1]
    assert rotation is not None
    assert translation is not None
    assert intrinsics is not None
    return structures.CameraValues(
        (structures.real * 9)(*rotation.detach().flatten().tolist()),
        (structures.real * 3)(*translation.detach().tolist()),
        *intrinsics.detach().tolist(),
        request.settings.near,
        request.camera.width,
        request.camera.height,
    )
