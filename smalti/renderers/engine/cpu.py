"""The CPU backend: one render through the engine's C interface, forward and back."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import Drawable
from smalti.renderers.engine.exact import ExactEngine
from smalti.renderers.engine.fragments import draw_fragments
from smalti.renderers.engine.library import check, load, pointer
from smalti.renderers.engine.request import (
    CAMERA_GRADIENT,
    PER_DRAWABLE,
    Gradients,
    Request,
    Tensors,
    camera_values,
    gaussian_input,
    gaussians_alone,
    own_tensors,
    render_with,
)
from smalti.renderers.fragments import Fragments
from smalti.renderers.frame import Frame, Visibility
from smalti.renderers.settings import RenderSettings


def render_cpu(
    drawables: Sequence[Drawable], camera: Camera, background: Tensor | None, settings: RenderSettings
) -> Frame:
    """See `smalti.renderers.render.render`, whose arguments these are. Float32, or float64 through the double build.

    Gaussians alone need no per-pixel order and go through a compositor of their own (`composite_stage.h`); everything
    else goes through the general one (`exact_stage.h`).
    """
    request = Request(drawables, camera, settings)
    engine = CpuEngine if gaussians_alone(request) else ExactEngine
    return render_with(engine(request.dtype), request, background)


def fragments_cpu(drawables: Sequence[Drawable], camera: Camera, most: int, settings: RenderSettings) -> Fragments:
    """See `smalti.renderers.fragments.fragments`, whose arguments these are."""
    request = Request(drawables, camera, settings)
    return draw_fragments(ExactEngine(request.dtype), request, most)


class CpuEngine:
    """One render (see `request.Engine`); the library's plan of it is freed with the last reference."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.library = load(dtype)
        self.plan = ctypes.c_void_p(self.library.lib.smalti_plan_new())
        if not self.plan:
            check(1)

    def __del__(self) -> None:
        if getattr(self, "plan", None):
            self.library.lib.smalti_plan_free(self.plan)

    def forward(self, request: Request, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """See `request.Engine`."""
        c, lib, ref, settings = self.library, self.library.lib, ctypes.byref, request.settings
        drawables, values, options, behind = _structures(c, request, tensors)
        count, n = len(request.drawables), request.count
        height, width = request.camera.height, request.camera.width
        summary = c.Summary()
        check(lib.smalti_prepare(self.plan, drawables, count, ref(values), ref(options), ref(summary)))
        new = lambda *shape, dtype=request.dtype: torch.empty(shape, dtype=dtype)  # noqa: E731
        visible, radii, depths = new(n, dtype=torch.bool), new(n), new(n)
        lib.smalti_visibility(self.plan, *[ctypes.c_void_p(pointer(t)) for t in (visible, radii, depths)])
        request.visibility = Visibility(visible, radii, depths, summary.skipped, summary.intersections)
        picture, alpha = new(height, width, request.channels), new(height, width)
        output = c.ForwardOutput(pointer(picture), pointer(alpha))
        if settings.statistics:
            for name in ("first", "median", "dominant"):
                request.extras[name] = new(height, width, dtype=torch.int32)
            request.extras["contribution_sum"], request.extras["contribution_max"] = new(n), new(n)
            for name, tensor in request.extras.items():
                setattr(output, name, tensor.data_ptr())
        check(lib.smalti_forward(self.plan, drawables, count, ref(options), ref(behind), ref(output)))
        self._count_bytes(request)
        return picture, alpha

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """See `request.Engine`."""
        c, ref = self.library, ctypes.byref
        drawables, values, options, behind = _structures(c, request, tensors)
        count = len(request.drawables)
        # Rows of primitives that are not visible are not written by the engine: zero.
        found: list[Tensor | None] = [
            None if t is None else torch.zeros_like(t) for t in tensors[: PER_DRAWABLE * count]
        ]
        screen = torch.zeros(request.count, 2, dtype=request.dtype)
        absolute = torch.zeros_like(screen) if request.settings.absolute_gradient else None
        parts = screen.split([len(d) for d in request.drawables])
        outputs = (c.GaussianGradient * count)(
            *[c.GaussianGradient(*[pointer(t) for t in (*own_tensors(found, k), parts[k])]) for k in range(count)]
        )
        camera = torch.zeros(CAMERA_GRADIENT, dtype=torch.float64) if wanted[0] else None
        background = tensors[-1]
        behind_gradient = torch.zeros_like(background) if wanted[1] and background is not None else None
        incoming = c.BackwardInput(*[pointer(t) for t in (*cotangents, behind_gradient)])
        more = [ctypes.c_void_p(pointer(t)) for t in (absolute, camera)]
        references = [ref(structure) for structure in (values, options, behind, incoming)]
        check(c.lib.smalti_backward(self.plan, drawables, count, *references, outputs, *more))
        self._count_bytes(request)
        return Gradients(found, screen, absolute, camera, behind_gradient)

    def _count_bytes(self, request: Request) -> None:
        """Of this render alone, whatever else the process draws: decisions of training hang on it."""
        assert request.visibility is not None
        request.visibility.memory["arena"] = self.library.lib.smalti_plan_bytes(self.plan)


def _structures(library: SimpleNamespace, request: Request, tensors: Tensors) -> tuple[Any, Any, Any, Any]:
    """(drawables, camera, options, background) as the C interface wants them; keep them alive during the call."""
    settings, background = request.settings, tensors[-1]
    inputs = [gaussian_input(library, request, tensors, k) for k in range(len(request.drawables))]
    drawables = (library.Drawable * len(inputs))(*[library.Drawable(0, ctypes.addressof(i)) for i in inputs])
    drawables.inputs = inputs
    values = camera_values(library, request, tensors)
    options = library.Options(settings.transmittance_min, settings.smooth_cutoff, settings.absolute_gradient)
    behind = library.Background(pointer(background), int(background is not None and background.dim() == 3))
    return drawables, values, options, behind
