"""The CUDA backend: one render as a sequence of kernel launches and torch's sorts, forward and back.

The kernels are those of include/*_cuda.h and include/kinds/*_cuda.h; every buffer is a torch tensor. The
sequence does not know what runs the kernels: a device (launch.py), or in tests the emulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.renderers.drawables import Drawable, GaussianDrawable
from smalti.renderers.engine.exact_cuda import ExactKernelEngine
from smalti.renderers.engine.fragments import draw_fragments
from smalti.renderers.engine.kernel_source import GAUSSIAN, KernelSource, KindSource, variant_for
from smalti.renderers.engine.launch import THREADS, Device
from smalti.renderers.engine.library import ERRORS, EngineError
from smalti.renderers.engine.parameters import address, structures
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

TILE = 16
KINDS: dict[type, KindSource] = {GaussianDrawable: GAUSSIAN}
"""Kind of every class of drawables that can be drawn here."""


def render_cuda(
    drawables: Sequence[Drawable], camera: Camera, background: Tensor | None, settings: RenderSettings
) -> Frame:
    """See `smalti.renderers.render.render`. Float32, or float64 at a fraction of the speed.

    Gradients differ in the last digits from run to run, unless `torch.use_deterministic_algorithms(True)` is set: then
    every (tile, primitive) keeps its own row of gradients, which are summed in a fixed order.
    """
    from smalti.renderers.engine.launch import cuda_device

    with torch.cuda.device(drawables[0].device):
        runner = cuda_device(torch.cuda.current_device())
        return _render(runner, Request(drawables, camera, settings), background)


def _render(runner: Device, request: Request, background: Tensor | None) -> Frame:
    """Gaussians alone need no per-pixel order; everything else goes through the general compositor."""
    engine = KernelEngine if gaussians_alone(request) else ExactKernelEngine
    return render_with(engine(runner), request, background)


def fragments_cuda(drawables: Sequence[Drawable], camera: Camera, most: int, settings: RenderSettings) -> Fragments:
    """See `smalti.renderers.fragments.fragments`, whose arguments these are."""
    from smalti.renderers.engine.launch import cuda_device

    with torch.cuda.device(drawables[0].device):
        runner = cuda_device(torch.cuda.current_device())
        return draw_fragments(ExactKernelEngine(runner), Request(drawables, camera, settings), most)


@dataclass(eq=False)
class _Projected:
    """Primitives on the screen; rows run over all drawables."""

    records: Tensor
    rects: Tensor
    kinds: Tensor | None
    values: Tensor
    depths: Tensor
    radii: Tensor
    counts: Tensor
    """Tiles of each primitive."""
    skipped: Tensor


@dataclass(eq=False)
class _Lists:
    """One depth-ordered list of ids per tile."""

    start: Tensor
    ids: Tensor
    entries: Tensor
    """Position of each entry before it was sorted by tile: the entries of one primitive are neighbours there."""
    first_entry: Tensor
    """By primitive."""


class KernelEngine:
    """One render (see `request.Engine`): what the forward pass leaves for the backward pass, and both sequences."""

    projected: _Projected
    lists: _Lists
    transmittance: Tensor
    stop: Tensor

    def __init__(self, runner: Device) -> None:
        self.runner = runner

    def forward(self, request: Request, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """See `request.Engine`."""
        if request.dtype not in (torch.float32, torch.float64):
            raise EngineError(f"the engine renders float32 and float64, not {request.dtype}; convert the scene")
        kinds = tuple(dict.fromkeys(KINDS[type(d)] for d in request.drawables))
        self.variant = variant_for(request.channels, request.settings.smooth_cutoff)
        self.source = KernelSource(kinds, (self.variant,), request.dtype)
        self.c = structures(request.dtype)
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.tiles_x, self.tiles_y = -(-request.camera.width // TILE), -(-request.camera.height // TILE)
        self.projected = self._project(request, tensors)
        self.lists, skipped = self._bin(request)
        p = self.projected
        entries = len(self.lists.ids)
        request.visibility = Visibility(p.counts > 0, p.radii, p.depths, skipped, entries)
        return self._composite(request, tensors[-1])

    def _launch(self, kernel: str, threads: int, parameters: Any) -> None:
        self.runner.launch(self.source, kernel, -(-threads // THREADS), parameters)

    def _project(self, request: Request, tensors: Tensors) -> _Projected:
        n, device, real = request.count, request.device, request.dtype
        new = lambda *shape, dtype=real: torch.empty(shape, dtype=dtype, device=device)  # noqa: E731
        p = _Projected(
            records=new(n * self.source.record_bytes, dtype=torch.uint8),
            rects=new(n, 4, dtype=torch.int16),
            kinds=self._kinds(request) if len(self.source.kinds) > 1 else None,
            values=new(n, request.channels),
            depths=new(n),
            radii=new(n),
            counts=new(n, dtype=torch.int32),
            skipped=new(1, dtype=torch.int32).zero_(),
        )
        first = 0
        for number, drawable in enumerate(request.drawables):
            parameters = self.c.GaussianProjectParameters(
                input=gaussian_input(self.c, request, tensors, number),
                camera=camera_values(self.c, request, tensors),
                first=first,
                tiles_x=self.tiles_x,
                tiles_y=self.tiles_y,
                channels=request.channels,
                record_bytes=self.source.record_bytes,
                **{
                    name: address(getattr(p, name))
                    for name in ("records", "rects", "values", "depths", "radii", "counts", "skipped")
                },
            )
            self._launch("gaussian_project", len(drawable), parameters)
            first += len(drawable)
        return p

    def _kinds(self, request: Request) -> Tensor:
        """[n] position of each primitive's kind in the source's list."""
        numbers = [self.source.kinds.index(KINDS[type(d)]) for d in request.drawables]
        lengths = torch.tensor([len(d) for d in request.drawables], device=request.device)
        return torch.repeat_interleave(torch.tensor(numbers, dtype=torch.uint8, device=request.device), lengths)

    def _bin(self, request: Request) -> tuple[_Lists, int]:
        """Lists, and the number of skipped primitives. Waits for the device: the entries have to be counted."""
        p, n = self.projected, request.count
        new = lambda size: torch.empty(size, dtype=torch.int32, device=request.device)  # noqa: E731
        depths = torch.where(p.counts > 0, p.depths, torch.inf)
        order = torch.sort(depths, stable=True).indices
        ends = p.counts[order].cumsum(0)
        total, skipped = torch.cat([ends[-1:], p.skipped.long()]).tolist() if n else (0, 0)
        if total >= 2**31:
            raise EngineError(ERRORS[2])
        tiles, ids, first_entry, start = new(total), new(total), new(n), new(self.tiles_x * self.tiles_y + 1)
        order = order.to(torch.int32)
        emit = self.c.EmitParameters(
            primitives=self._table(),
            order=address(order),
            counts=address(p.counts),
            ends=address(ends),
            tiles=address(tiles),
            ids=address(ids),
            first_entry=address(first_entry),
            count=n,
            tiles_x=self.tiles_x,
        )
        self._launch("emit_entries", n, emit)
        # Entries are in depth order (ties by index), so a stable sort by tile orders every list.
        tiles, entries = torch.sort(tiles, stable=True)
        ranges = self.c.RangeParameters(address(tiles), address(start), total, len(start) - 1)
        self._launch("tile_ranges", total + 1, ranges)
        return _Lists(start, ids[entries], entries.to(torch.int32), first_entry), skipped

    def _table(self) -> Any:
        p = self.projected
        return self.c.PrimitiveTable(address(p.records), address(p.kinds), address(p.rects))

    def _shared(self, request: Request, background: Tensor | None, first_channel: int) -> dict[str, Any]:
        """Fields that both tile kernels have."""
        camera, lists = request.camera, self.lists
        shape = self.c.PictureShape(
            camera.width, camera.height, self.tiles_x, request.channels, request.settings.transmittance_min
        )
        listing = self.c.TileList(
            self._table(), *[address(t) for t in (lists.start, lists.ids, lists.entries, self.projected.values)]
        )
        return {
            "shape": shape,
            "list": listing,
            "first_channel": first_channel,
            "background_per_pixel": int(background is not None and background.dim() == 3),
            "background": address(background),
            "transmittance": address(self.transmittance),
            "stop": address(self.stop),
        }

    def _composite(self, request: Request, background: Tensor | None) -> tuple[Tensor, Tensor]:
        height, width, n = request.camera.height, request.camera.width, request.count
        new = lambda *shape, dtype=request.dtype: torch.empty(shape, dtype=dtype, device=request.device)  # noqa: E731
        picture, alpha = new(height, width, request.channels), new(height, width)
        self.transmittance, self.stop = new(height, width), new(height, width, dtype=torch.int32)
        slots = None
        if request.settings.statistics:
            request.extras = {name: new(height, width, dtype=torch.int32) for name in ("first", "median", "dominant")}
            for name in ("contribution_sum", "contribution_max"):
                request.extras[name] = new(n).zero_()
            slots = new(len(self.lists.ids)).zero_() if self.deterministic else None
        for first_channel in range(0, request.channels, self.variant.channels):
            statistics = request.settings.statistics and first_channel == 0
            parameters = self.c.TileForwardParameters(
                **self._shared(request, background, first_channel),
                picture=address(picture),
                alpha=address(alpha),
                slots=address(slots),
                **{name: address(t) for name, t in request.extras.items() if statistics},
            )
            kernel = f"tile_{'statistics' if statistics else 'forward'}_{self.variant.name}"
            self._launch(kernel, THREADS * self.tiles_x * self.tiles_y, parameters)
        if slots is not None:
            sums = self.c.SumParameters(
                *[address(t) for t in (slots, self.projected.counts, self.lists.first_entry)],
                address(request.extras["contribution_sum"]),
                n,
            )
            self._launch("sum_entries", n, sums)
        return picture, alpha

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """See `request.Engine`."""
        picture, alpha = cotangents
        background = tensors[-1]
        moments = self.source.moments(request.settings.absolute_gradient)
        stride = moments + request.channels
        rows = torch.zeros(
            (len(self.lists.ids) if self.deterministic else request.count, stride),
            dtype=request.dtype,
            device=request.device,
        )
        sums = {"slots" if self.deterministic else "rows": address(rows), "moments": moments, "stride": stride}
        for first_channel in range(0, request.channels, self.variant.channels):
            parameters = self.c.TileBackwardParameters(
                **self._shared(request, background, first_channel),
                picture=address(picture),
                alpha=address(alpha),
                **sums,
            )
            stem = "backward_absolute" if request.settings.absolute_gradient else "backward"
            self._launch(f"tile_{stem}_{self.variant.name}", THREADS * self.tiles_x * self.tiles_y, parameters)
        gradients = self._project_back(request, tensors, sums, wanted[0])
        if wanted[1] and background is not None:
            behind = torch.zeros_like(background)
            if picture is not None:
                behind = self.transmittance[..., None] * picture[..., :3]
                behind = behind if background.dim() == 3 else behind.sum((0, 1), dtype=torch.float64)
            gradients.background = behind.to(background)
        return gradients

    def _project_back(self, request: Request, tensors: Tensors, sums: dict[str, Any], wants_camera: bool) -> Gradients:
        p = self.projected
        count = PER_DRAWABLE * len(request.drawables)
        # Rows of primitives that are not drawn are not written: zero.
        found: list[Tensor | None] = [None if t is None else torch.zeros_like(t) for t in tensors[:count]]
        new = lambda *shape, dtype=request.dtype: torch.zeros(shape, dtype=dtype, device=request.device)  # noqa: E731
        screen = new(request.count, 2)
        absolute = new(request.count, 2) if request.settings.absolute_gradient else None
        camera = torch.zeros(CAMERA_GRADIENT, dtype=torch.float64, device=request.device)
        first = 0
        for number, drawable in enumerate(request.drawables):
            n = len(drawable)
            blocks = new(-(-n // THREADS), CAMERA_GRADIENT, dtype=torch.float64) if wants_camera else None
            output = [*own_tensors(found, number), screen[first : first + n]]
            parameters = self.c.GaussianBackwardParameters(
                input=gaussian_input(self.c, request, tensors, number),
                camera=camera_values(self.c, request, tensors),
                first=first,
                channels=request.channels,
                record_bytes=self.source.record_bytes,
                records=address(p.records),
                counts=address(p.counts),
                first_entry=address(self.lists.first_entry),
                output=self.c.GaussianGradient(*[address(t) for t in output]),
                absolute=address(absolute),
                camera_blocks=address(blocks),
                **sums,
            )
            self._launch("gaussian_backward", n, parameters)
            if blocks is not None:
                camera += blocks.sum(0)
            first += n
        return Gradients(found, screen, absolute, camera if wants_camera else None, None)


def render_emulated(
    drawables: Sequence[Drawable], camera: Camera, background: Tensor | None, settings: RenderSettings
) -> Frame:
    """The same sequence over the kernels' emulator, on CPU tensors (tests; see `emulator.Emulator`)."""
    from smalti.renderers.engine.emulator import check_device, selected_emulator

    check_device(drawables[0].device)
    return _render(selected_emulator(), Request(drawables, camera, settings), background)


def fragments_emulated(drawables: Sequence[Drawable], camera: Camera, most: int, settings: RenderSettings) -> Fragments:
    """As `fragments_cuda`, over the emulator."""
    from smalti.renderers.engine.emulator import check_device, selected_emulator

    check_device(drawables[0].device)
    return draw_fragments(ExactKernelEngine(selected_emulator()), Request(drawables, camera, settings), most)
