"""The general compositor on the CPU: any kinds in exact order, through the engine's C interface, forward and back."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.engine.exact_request import kind_input, view_options
from smalti.renderers.engine.fragments import new_values
from smalti.renderers.engine.kinds import find_kind
from smalti.renderers.engine.library import check, load, pointer
from smalti.renderers.engine.request import CAMERA_GRADIENT, Gradients, Request, Tensors, camera_values
from smalti.renderers.frame import Visibility
from smalti.renderers.outside import drawn_kind


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
        summary, counts = c.Summary(), (ctypes.c_longlong * 2)()
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
        check(lib.smalti_exact_forward(self.plan, ref(settings), ref(behind), ref(output), counts))
        share = counts[0] / (height * width)
        seen = (visible, radii, depths, summary.skipped, summary.intersections)
        request.visibility = Visibility(*seen, fallback=share, lookups=counts[1])
        self._count_bytes(request)
        return picture, alpha

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """See `request.Engine`."""
        c, ref = self.library, ctypes.byref
        items, settings, _, behind = self._structures(request, tensors)
        found, outputs = self._gradients(request, tensors, wanted[0])
        background = tensors[-1]
        if wanted[1] and background is not None:
            found.background = torch.zeros_like(background)
        incoming = c.BackwardInput(*[pointer(t) for t in (*cotangents, found.background)])
        references = [ref(structure) for structure in (settings, behind, incoming)]
        camera = ctypes.c_void_p(pointer(found.camera))
        check(c.lib.smalti_exact_backward(self.plan, items, *references, outputs, camera))
        self._count_bytes(request)
        return found

    def fragments(self, request: Request, tensors: Tensors, most: int) -> dict[str, Tensor]:
        """See `fragments.FragmentEngine`."""
        c, lib, ref = self.library, self.library.lib, ctypes.byref
        items, settings, camera, _ = self._structures(request, tensors)
        summary = c.Summary()
        check(lib.smalti_exact_prepare(self.plan, items, len(items), ref(camera), ref(settings), ref(summary)))
        values = new_values(request, most)
        structure = c.FragmentValues(**{name: pointer(tensor) for name, tensor in values.items()})
        check(lib.smalti_exact_fragments(self.plan, most, ref(structure)))
        return values

    def fragments_backward(
        self, request: Request, tensors: Tensors, most: int, cotangents: dict[str, Tensor | None], camera_wanted: bool
    ) -> Gradients:
        """See `fragments.FragmentEngine`."""
        c = self.library
        items = self._structures(request, tensors)[0]
        found, outputs = self._gradients(request, tensors, camera_wanted)
        structure = c.FragmentValues(**{name: pointer(tensor) for name, tensor in cotangents.items()})
        camera = ctypes.c_void_p(pointer(found.camera))
        check(c.lib.smalti_exact_fragments_backward(self.plan, items, most, ctypes.byref(structure), outputs, camera))
        return found

    def _gradients(self, request: Request, tensors: Tensors, camera_wanted: bool) -> tuple[Gradients, Any]:
        """Zeros for the engine to fill, and the array of KindGradient that points at them."""
        found: list[Tensor | None] = [None if t is None else torch.zeros_like(t) for t in tensors[:-4]]
        screen = torch.zeros(request.count, 2, dtype=request.dtype)
        absolute = torch.zeros_like(screen) if request.settings.absolute_gradient else None
        outputs = (self.library.KindGradient * len(request.drawables))()
        first = at = 0
        for output, drawable in zip(outputs, request.drawables, strict=True):
            count = len(drawable.inputs().tensors)
            for k, tensor in enumerate(found[at : at + count]):
                output.tensors[k] = pointer(tensor)
            rows = slice(first, first + len(drawable))
            output.screen = pointer(screen[rows])
            output.absolute = None if absolute is None else pointer(absolute[rows])
            at, first = at + count, rows.stop
        camera = torch.zeros(CAMERA_GRADIENT, dtype=torch.float64) if camera_wanted else None
        return Gradients(found, screen, absolute, camera, None), outputs

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
            item.kind, item.input = find_kind(drawn_kind(drawable), c), ctypes.addressof(structure)
        s = request.settings
        settings = c.ExactSettings(*view_options(request), s.transmittance_min, int(request.additive), int(s.depth))
        behind = c.Background(pointer(background), int(background is not None and background.dim() == 3))
        return items, settings, camera_values(c, request, tensors), behind
