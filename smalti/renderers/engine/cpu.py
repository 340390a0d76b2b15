"""The CPU backend: drawables in, frame out, through the engine's C interface, with gradients by `torch.autograd.Function`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.engine.library import check, load, pointer
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.settings import RenderSettings

PER_DRAWABLE = 7  # means, quaternions, scales, opacities, sh_dc, sh_rest, features
CAMERA_GRADIENT = 16  # rotation 9, translation 3, fx, fy, cx, cy


class Plan:
    """What the engine keeps of one render until its backward pass; freed with the last reference."""

    def __init__(self, engine: SimpleNamespace) -> None:
        self.engine = engine
        self.handle = ctypes.c_void_p(engine.lib.smalti_plan_new())
        if not self.handle:
            check(1)

    def __del__(self) -> None:
        self.engine.lib.smalti_plan_free(self.handle)


@dataclass(eq=False)
class _Request:
    """One render: what is not a tensor, and what the passes hand to each other."""

    drawables: Sequence[GaussianDrawable]
    camera: Camera
    settings: RenderSettings
    dtype: torch.dtype
    extras: dict[str, Tensor] = field(default_factory=dict)
    visibility: Visibility | None = None
    plan: Plan | None = None


def render_cpu(drawables: Sequence[GaussianDrawable], camera: Camera, background: Tensor | None, settings: RenderSettings) -> Frame:
    """See `smalti.renderers.render.render`, whose arguments these are. Float32, or float64 through the double build."""
    dtype = drawables[0].means.dtype
    request = _Request(drawables, camera, settings, dtype)
    tensors: list[Tensor | None] = []
    for d in drawables:
        tensors += [d.means, d.quaternions, d.scales, d.opacities, d.sh_dc, d.sh_rest, d.features]
    pose = [camera.rotation, camera.translation, camera.intrinsics]
    arguments = [None if t is None else t.to(dtype).contiguous() for t in (*tensors, *pose, background)]
    picture, alpha = _Render.apply(request, *arguments)  # pyright: ignore[reportGeneralTypeIssues]
    return _frame(request, picture, alpha)


def _frame(request: _Request, picture: Tensor, alpha: Tensor) -> Frame:
    """Slice the channels and derive the depths that follow from ids."""
    assert request.visibility is not None
    settings, drawables = request.settings, request.drawables
    features = 0 if drawables[0].features is None else drawables[0].features.shape[1]
    depth = None
    if settings.depth:
        hit = alpha > 0
        depth = torch.where(hit, picture[..., -1] / torch.where(hit, alpha, 1.0), 0.0)
    extras: dict[str, Any] = {}
    if settings.statistics:
        ids = {name: request.extras[name].long() for name in ("first", "median", "dominant")}
        means = torch.cat([d.means for d in drawables])
        z = means @ request.camera.rotation[2].to(means) + request.camera.translation[2].to(means)
        of = lambda index: torch.where(index >= 0, z[index.clamp_min(0)], 0.0) if len(z) else torch.zeros_like(alpha)  # noqa: E731
        extras = {
            "ids": ids,
            "depth_first": of(ids["first"]),
            "depth_median": of(ids["median"]),
            "contribution_sum": request.extras["contribution_sum"],
            "contribution_max": request.extras["contribution_max"],
        }
    return Frame(
        # Sliced only where there is more: the slice's own backward would copy the whole picture.
        color=picture if picture.shape[-1] == 3 else picture[..., :3],
        alpha=alpha,
        visibility=request.visibility,
        features=picture[..., 3 : 3 + features] if features else None,
        depth=depth,
        **extras,
    )


def _structures(engine: SimpleNamespace, request: _Request, tensors: Sequence[Tensor | None]) -> tuple[Any, Any, Any, Any]:
    """(drawables, camera, options, background) as the C interface wants them; keep them alive during the call."""
    settings, camera = request.settings, request.camera
    count = len(request.drawables)
    inputs = []
    for k, d in enumerate(request.drawables):
        own = tensors[PER_DRAWABLE * k : PER_DRAWABLE * (k + 1)]
        rest, features = own[5], own[6]
        inputs.append(
            engine.GaussianInput(
                *[pointer(t) for t in own],
                count=len(d),
                sh_rest_count=0 if rest is None else rest.shape[1],
                sh_degree=d.sh_degree,
                feature_count=0 if features is None else features.shape[1],
                filter_variance=d.filter_variance,
                compensated=d.compensated,
                with_depth=settings.depth,
            )
        )
    drawables = (engine.Drawable * count)(*[engine.Drawable(0, ctypes.addressof(i)) for i in inputs])
    drawables.inputs = inputs
    rotation, translation, intrinsics, background = tensors[PER_DRAWABLE * count :]
    assert rotation is not None and translation is not None and intrinsics is not None
    values = engine.CameraValues(
        (engine.real * 9)(*rotation.detach().flatten().tolist()),
        (engine.real * 3)(*translation.detach().tolist()),
        *intrinsics.detach().tolist(),
        settings.near,
        camera.width,
        camera.height,
    )
    options = engine.Options(settings.transmittance_min, settings.smooth_cutoff, settings.absolute_gradient)
    behind = engine.Background(pointer(background), int(background is not None and background.dim() == 3))
    return drawables, values, options, behind


class _Render(torch.autograd.Function):
    """Picture [h, w, channels] (background behind the colour) and alpha [h, w]."""

    @staticmethod
    def forward(ctx: Any, request: _Request, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        engine = load(request.dtype)
        plan = Plan(engine)
        settings, camera = request.settings, request.camera
        drawables, values, options, behind = _structures(engine, request, tensors)
        count, n = len(request.drawables), sum(len(d) for d in request.drawables)
        summary = engine.Summary()
        lib, ref = engine.lib, ctypes.byref
        check(lib.smalti_prepare(plan.handle, drawables, count, ref(values), ref(options), ref(summary)))
        new = lambda *shape, dtype=request.dtype: torch.empty(shape, dtype=dtype)  # noqa: E731
        visible, radii, depths = new(n, dtype=torch.bool), new(n), new(n)
        lib.smalti_visibility(plan.handle, *[ctypes.c_void_p(pointer(t)) for t in (visible, radii, depths)])
        request.visibility = Visibility(visible, radii, depths, summary.skipped, summary.intersections)
        features = 0 if request.drawables[0].features is None else request.drawables[0].features.shape[1]
        picture = new(camera.height, camera.width, 3 + features + int(settings.depth))
        alpha = new(camera.height, camera.width)
        output = engine.ForwardOutput(pointer(picture), pointer(alpha))
        if settings.statistics:
            for name in ("first", "median", "dominant"):
                request.extras[name] = new(camera.height, camera.width, dtype=torch.int32)
            request.extras["contribution_sum"], request.extras["contribution_max"] = new(n), new(n)
            for name, tensor in request.extras.items():
                setattr(output, name, tensor.data_ptr())
        check(lib.smalti_forward(plan.handle, drawables, count, ref(options), ref(behind), ref(output)))
        ctx.request, ctx.plan = request, plan
        ctx.save_for_backward(*[t for t in tensors if t is not None])
        ctx.present = [t is not None for t in tensors]
        ctx.set_materialize_grads(False)
        return picture, alpha

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        request, plan = ctx.request, ctx.plan
        engine = plan.engine
        saved = iter(ctx.saved_tensors)
        tensors = [next(saved) if there else None for there in ctx.present]
        drawables, values, options, behind = _structures(engine, request, tensors)
        count = len(request.drawables)
        picture, alpha = [None if c is None else c.contiguous() for c in cotangents]
        # Rows of primitives that are not visible are not written by the engine: zero.
        gradients = [None if t is None else torch.zeros_like(t) for t in tensors[: PER_DRAWABLE * count]]
        screen = [torch.zeros(len(d), 2, dtype=request.dtype) for d in request.drawables]
        outputs = (engine.GaussianGradient * count)(
            *[
                engine.GaussianGradient(*[pointer(t) for t in (*gradients[PER_DRAWABLE * k : PER_DRAWABLE * (k + 1)], screen[k])])
                for k in range(count)
            ]
        )
        absolute = torch.zeros(sum(len(d) for d in request.drawables), 2, dtype=request.dtype) if request.settings.absolute_gradient else None
        base = PER_DRAWABLE * count
        wants_camera = any(ctx.needs_input_grad[1 + base : 1 + base + 3])
        camera = torch.zeros(CAMERA_GRADIENT, dtype=torch.float64)
        background = tensors[-1]
        wants_background = background is not None and ctx.needs_input_grad[-1]
        background_gradient = torch.zeros_like(background) if wants_background and background is not None else None
        incoming = engine.BackwardInput(pointer(picture), pointer(alpha), pointer(background_gradient))
        ref = ctypes.byref
        check(
            engine.lib.smalti_backward(
                plan.handle,
                drawables,
                count,
                ref(values),
                ref(options),
                ref(behind),
                ref(incoming),
                outputs,
                ctypes.c_void_p(pointer(absolute)),
                ctypes.c_void_p(pointer(camera) if wants_camera else None),
            )
        )
        felt = request.visibility.screen_gradient
        felt["sum"] = torch.cat(screen)
        if absolute is not None:
            felt["absolute"] = absolute
        pose = [camera[:9].reshape(3, 3), camera[9:12], camera[12:16]] if wants_camera else [None] * 3
        pose = [None if g is None else g.to(request.dtype) for g in pose]
        return (None, *gradients, *pose, background_gradient)
