"""The general compositor on the CPU: any kinds in exact order, through the engine's C interface, forward and back."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.drawables import BoxDrawable, Drawable, Inputs
from smalti.renderers.engine.kinds import find_kind
from smalti.renderers.engine.library import check, load, pointer
from smalti.renderers.engine.request import CAMERA_GRADIENT, Gradients, Request, Tensors, camera_values
from smalti.renderers.frame import Visibility


class ExactEngine:
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
        c, lib, ref = self.library, self.library.lib, ctypes.byref
        items, settings, camera, behind = self._structures(request, tensors)
        n, height, width = request.count, request.camera.height, request.camera.width
        summary, wide = c.Summary(), ctypes.c_longlong(0)
        check(lib.smalti_exact_prepare(self.plan, items, len(items), ref(camera), ref(settings), ref(summary)))
        new = lambda *shape, dtype=request.dtype: torch.empty(shape, dtype=dtype)  # noqa: E731
        visible, radii, depths = new(n, dtype=torch.bool), new(n), new(n)
        lib.smalti_visibility(self.plan, *[ctypes.c_void_p(pointer(t)) for t in (visible, radii, depths)])
        picture, alpha = new(height, width, request.channels), new(height, width)
        output = c.ExactOutput(pointer(picture), pointer(alpha))
        if request.settings.statistics:
            ids = {name: new(height, width, dtype=torch.int32) for name in ("first", "median", "dominant")}
            depth = {name: new(height, width) for name in ("depth_first", "depth_median")}
            request.extras |= ids | depth | {"contribution_sum": new(n), "contribution_max": new(n)}
            for name, tensor in request.extras.items():
                setattr(output, name, tensor.data_ptr())
        check(lib.smalti_exact_forward(self.plan, ref(settings), ref(behind), ref(output), ref(wide)))
        share = wide.value / (height * width)
        request.visibility = Visibility(visible, radii, depths, summary.skipped, summary.intersections, fallback=share)
        self._count_bytes(request)
        return picture, alpha

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """See `request.Engine`."""
        c, ref = self.library, ctypes.byref
        items, settings, _, behind = self._structures(request, tensors)
        found: list[Tensor | None] = [None if t is None else torch.zeros_like(t) for t in tensors[:-4]]
        screen = torch.zeros(request.count, 2, dtype=request.dtype)
        absolute = torch.zeros_like(screen) if request.settings.absolute_gradient else None
        outputs = (c.KindGradient * len(items))()
        first = at = 0
        for output, drawable in zip(outputs, request.drawables, strict=True):
            count = len(drawable.inputs().tensors)
            for k, tensor in enumerate(found[at : at + count]):
                output.tensors[k] = pointer(tensor)
            rows = slice(first, first + len(drawable))
            output.screen = pointer(screen[rows])
            output.absolute = None if absolute is None else pointer(absolute[rows])
            at, first = at + count, rows.stop
        camera = torch.zeros(CAMERA_GRADIENT, dtype=torch.float64) if wanted[0] else None
        background = tensors[-1]
        behind_gradient = torch.zeros_like(background) if wanted[1] and background is not None else None
        incoming = c.BackwardInput(*[pointer(t) for t in (*cotangents, behind_gradient)])
        references = [ref(structure) for structure in (settings, behind, incoming)]
        check(c.lib.smalti_exact_backward(self.plan, items, *references, outputs, ctypes.c_void_p(pointer(camera))))
        self._count_bytes(request)
        return Gradients(found, screen, absolute, camera, behind_gradient)

    def _count_bytes(self, request: Request) -> None:
        """Of this render alone, whatever else the process draws: decisions of training hang on it."""
        assert request.visibility is not None
        request.visibility.memory["arena"] = self.library.lib.smalti_plan_bytes(self.plan)

    def _structures(self, request: Request, tensors: Tensors) -> tuple[Any, Any, Any, Any]:
        """(items, settings, camera, background) for the C interface; keep them alive during the call."""
        c, background, at = self.library, tensors[-1], 0
        items = (c.ExactItem * len(request.drawables))()
        items.kept = []
        for item, drawable in zip(items, request.drawables, strict=True):
            inputs = drawable.inputs()
            own = tensors[at : at + len(inputs.tensors)]
            at += len(inputs.tensors)
            structure, indices = kind_input(c, drawable, inputs, own)
            items.kept += [structure, *indices]
            item.kind, item.input = find_kind(drawable.kind, c), ctypes.addressof(structure)
        s = request.settings
        channels = request.channels - int(s.depth)
        normals = 3 + request.feature_count if s.normals else 0
        switches = [int(s.order == "centre"), int(s.smooth_cutoff), int(s.absolute_gradient)]
        additive = all(isinstance(d, BoxDrawable) and d.accumulation == "additive" for d in request.drawables)
        settings = c.ExactSettings(
            *[channels, request.feature_count, normals, *switches, s.transmittance_min, int(additive), int(s.depth)]
        )
        behind = c.Background(pointer(background), int(background is not None and background.dim() == 3))
        return items, settings, camera_values(c, request, tensors), behind


def kind_input(structures: Any, drawable: Drawable, inputs: Inputs, own: Tensors) -> tuple[Any, list[Tensor]]:
    """The C structure KindInput of `drawable`, and the index tensors that must outlive it with `own`."""
    structure = structures.KindInput(count=len(drawable))
    indices: list[Tensor] = []
    for k, tensor in enumerate(own):
        structure.tensors[k] = pointer(tensor)
        structure.sizes[k] = 0 if tensor is None else tensor.numel()
    for k, tensor in enumerate(inputs.indices):
        if tensor is not None:
            indices.append(tensor.to(torch.int32).contiguous())
            structure.indices[k] = pointer(indices[-1])
    for k, number in enumerate(inputs.numbers):
        structure.numbers[k] = number
    for k, number in enumerate(inputs.integers):
        structure.integers[k] = int(number)
    return structure, indices
