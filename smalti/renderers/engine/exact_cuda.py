"""The general compositor on CUDA: any kinds in exact order, by launches and torch's sorts (exact_cuda.h)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.engine.exact import kind_input
from smalti.renderers.engine.exact_source import TABLES, ExactSource, exact_structures, kind_source
from smalti.renderers.engine.launch import THREADS, Device
from smalti.renderers.engine.library import ERRORS, EngineError
from smalti.renderers.engine.parameters import address
from smalti.renderers.engine.request import CAMERA_GRADIENT, Gradients, Request, Tensors, camera_values
from smalti.renderers.frame import Visibility
from smalti.renderers.outside import drawn_kind

TILE = 16
MOST_SUMS = 192
"""Moments and channels of one primitive (kMostSums)."""
BAND_BYTES = 1 << 30
"""Memory for the events of the tiles that are drawn at once."""


@dataclass(eq=False)
class _Lists:
    start: Tensor
    ids: Tensor
    entries: Tensor
    first_entry: Tensor
    offsets: Tensor
    """[tiles * 256 + 1] events before those of each thread, on the device."""
    bands: list[tuple[int, int, int]]
    """(first tile, tiles, bytes)."""


class ExactKernelEngine:
    """One render (see `request.Engine`); `runner` is a device, or in tests the emulator.

    Sums over tiles differ in the last digits from run to run, unless `torch.use_deterministic_algorithms(True)` is set;
    then textures and voxels are refused, because their gradients are added by atomics.
    """

    def __init__(self, runner: Device) -> None:
        self.runner = runner
        self.band_bytes = BAND_BYTES

    def forward(self, request: Request, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """See `request.Engine`."""
        kinds = tuple(dict.fromkeys(kind_source(drawn_kind(d)) for d in request.drawables))
        self.source = ExactSource(kinds, request.dtype)
        self.c = exact_structures(request.dtype)
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        if self.deterministic and TABLES & {d.kind for d in request.drawables}:
            raise EngineError(
                "gradients of textures and voxels are summed by atomics on CUDA, which is not deterministic; render on "
                "the CPU, or without torch.use_deterministic_algorithms(True)"
            )
        width, height = request.camera.width, request.camera.height
        self.tiles_x, self.tiles_y = -(-width // TILE), -(-height // TILE)
        n, device = request.count, request.device
        new = lambda *shape, dtype=request.dtype: torch.empty(shape, dtype=dtype, device=device)  # noqa: E731
        lengths = torch.tensor([len(d) for d in request.drawables], device=device)
        numbers = torch.arange(len(request.drawables), dtype=torch.int32, device=device)
        self.drawable_of = torch.repeat_interleave(numbers, lengths)
        self.values = new(n, request.channels - int(request.settings.depth))
        self.records = new(0, dtype=torch.uint8)
        self.sizes = self._sizes(request, tensors)
        bytes_of = [len(d) * self.sizes[2 + 3 * k] for k, d in enumerate(request.drawables)]
        self.record_starts = [sum(-(-b // 16) * 16 for b in bytes_of[:k]) for k in range(len(bytes_of))]
        self.records = new(self.record_starts[-1] + bytes_of[-1], dtype=torch.uint8)
        self.lists, request.visibility = self._project_and_list(request, tensors)
        return self._composite(request, tensors)

    # -- what every launch is told
    def _scene(self, request: Request, tensors: Tensors, gradients: list[Tensor | None] | None = None) -> Any:
        """ExactScene and what must outlive the launch (on the structure)."""
        c, at, first = self.c, 0, 0
        table = (c.ExactDevice * len(request.drawables))()
        kept: list[Any] = []
        for k, drawable in enumerate(request.drawables):
            inputs = drawable.inputs()
            count = len(inputs.tensors)
            structure, indices = kind_input(c, drawable, inputs, tensors[at : at + count])
            kept += [structure, *indices]
            table[k].input = structure
            table[k].kind = self.source.kinds.index(kind_source(drawn_kind(drawable)))
            table[k].first = first
            table[k].records = self.record_starts[k] if hasattr(self, "record_starts") else 0
            if gradients is not None:
                for j, tensor in enumerate(gradients[at : at + count]):
                    table[k].gradient.tensors[j] = address(tensor)
                rows = slice(first, first + len(drawable))
                table[k].gradient.screen = address(self.screen[rows])
                table[k].gradient.absolute = None if self.absolute is None else address(self.absolute[rows])
            at, first = at + count, first + len(drawable)
        bytes_ = torch.frombuffer(bytearray(bytes(table)), dtype=torch.uint8).to(request.device)
        s = request.settings
        channels = request.channels - int(s.depth)
        normals = 3 + request.feature_count if s.normals else 0
        additive = request.additive
        # The additive rule marches along the ray, whatever the order.
        switches = [int(s.order == "centre" and not additive), int(s.smooth_cutoff), int(s.absolute_gradient)]
        scene = c.ExactScene(
            *[address(t) for t in (bytes_, self.drawable_of, self.records, self.values)],
            camera_values(c, request, tensors),
            c.ViewOptions(channels, request.feature_count, normals, *switches),
            s.transmittance_min,
            *[request.count, self.tiles_x, self.tiles_y, int(additive), int(s.depth)],
        )
        scene.kept = (bytes_, kept)
        return scene

    def _launch(self, kernel: str, threads: int, parameters: Any) -> None:
        if threads:
            self.runner.launch(self.source, kernel, -(-threads // THREADS), parameters)  # pyright: ignore[reportArgumentType]

    def _sizes(self, request: Request, tensors: Tensors) -> list[int]:
        """Bytes per event and per ray; per drawable bytes per record, moments, and whether channels are constant."""
        count = len(request.drawables)
        sizes = torch.zeros(2 + 3 * count, dtype=torch.int32, device=request.device)
        scene = self._scene(request, tensors)
        self._launch("exact_sizes", count, self.c.ExactSizesParameters(scene, count, address(sizes)))
        return sizes.tolist()

    def _project_and_list(self, request: Request, tensors: Tensors) -> tuple[_Lists, Visibility]:
        n, device = request.count, request.device
        new = lambda *shape, dtype=request.dtype: torch.zeros(shape, dtype=dtype, device=device)  # noqa: E731
        depths, self.keys, radii = new(n), new(n), new(n)
        rects, self.counts = new(n, 4, dtype=torch.int16), new(n, dtype=torch.int32)
        skipped = new(1, dtype=torch.int32)
        scene = self._scene(request, tensors)
        outputs = [address(t) for t in (depths, self.keys, radii, rects, self.counts, skipped)]
        for k, drawable in enumerate(request.drawables):
            self._launch("exact_project", len(drawable), self.c.ExactProjectParameters(scene, k, *outputs))
        order = torch.sort(torch.where(self.counts > 0, self.keys, torch.inf), stable=True).indices
        ends = self.counts[order].cumsum(0)
        total, bad = torch.cat([ends[-1:], skipped.long()]).tolist() if n else (0, 0)
        if total >= 2**31:
            raise EngineError(ERRORS[2])
        integers = lambda size: torch.zeros(size, dtype=torch.int32, device=device)  # noqa: E731
        tiles, ids, first_entry = integers(total), integers(total), integers(n)
        count = self.tiles_x * self.tiles_y
        start = integers(count + 1)
        order = order.to(torch.int32)
        places = [address(t) for t in (rects, order, self.counts, ends, tiles, ids, first_entry)]
        self._launch("exact_emit", n, self.c.ExactEmitParameters(scene, *places))
        # Entries are in the order of their keys (ties by index), so a stable sort by tile orders every list.
        tiles, entries = torch.sort(tiles, stable=True)
        ids, entries = ids[entries], entries.to(torch.int32)
        self._launch("tile_ranges", total + 1, self.c.RangeParameters(address(tiles), address(start), total, count))
        events = integers(count * THREADS)
        listed = self.c.ExactTiles(*[address(t) for t in (start, ids, entries, self.keys)])
        self._launch("exact_count", count * THREADS, self.c.ExactCountParameters(scene, listed, address(events)))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64, device=device), events.cumsum(0, dtype=torch.int64)])
        lists = _Lists(start, ids, entries, first_entry, offsets, list(self._bands(offsets)))
        return lists, Visibility(self.counts > 0, radii, depths, bad, total)

    def _bands(self, offsets: Tensor) -> Iterator[tuple[int, int, int]]:
        """Runs of tiles whose events fit into the memory set aside for them; at least one tile each."""
        ends = offsets[::THREADS].tolist()
        bytes_at = [end * self.sizes[0] + k * THREADS * self.sizes[1] for k, end in enumerate(ends)]
        first = 0
        for tile in range(1, len(ends)):
            last = tile == len(ends) - 1
            if last or bytes_at[tile + 1] - bytes_at[first] > self.band_bytes:
                yield first, tile - first, bytes_at[tile] - bytes_at[first]
                first = tile

    def _run_bands(self, kernel: str, request: Request, make: Any) -> None:
        """Launch `kernel` band by band; `make(tiles)` gives its parameters."""
        most = max((size for _, _, size in self.lists.bands), default=0)
        memory = torch.empty(most, dtype=torch.uint8, device=request.device)
        lists = self.lists
        for first, count, _ in lists.bands:
            places = (lists.start, lists.ids, lists.entries, self.keys, lists.offsets, memory)
            tiles = self.c.ExactTiles(*[address(t) for t in places], *self.sizes[:2], first)
            self._launch(kernel, count * THREADS, make(tiles))

    def _composite(self, request: Request, tensors: Tensors) -> tuple[Tensor, Tensor]:
        height, width, n = request.camera.height, request.camera.width, request.count
        new = lambda *shape, dtype=request.dtype: torch.zeros(shape, dtype=dtype, device=request.device)  # noqa: E731
        picture, alpha, self.transmittance = (
            new(height, width, request.channels),
            new(height, width),
            new(height, width),
        )
        overflown = new(1, dtype=torch.int32)
        if request.settings.statistics:
            ids = {name: new(height, width, dtype=torch.int32) for name in ("first", "median", "dominant")}
            depths = {name: new(height, width) for name in ("depth_first", "depth_median")}
            request.extras |= ids | depths | {"contribution_sum": new(n), "contribution_max": new(n)}
        scene, background = self._scene(request, tensors), tensors[-1]
        extras = {name: address(tensor) for name, tensor in request.extras.items()}

        def make(tiles: Any) -> Any:
            return self.c.ExactForwardParameters(
                *[scene, tiles, address(background), int(background is not None and background.dim() == 3)],
                *[address(t) for t in (picture, alpha, self.transmittance)],
                overflown=address(overflown),
                **extras,
            )

        self._run_bands("exact_forward", request, make)
        self._check(overflown)
        return picture, alpha

    def _check(self, overflown: Tensor) -> None:
        if bool(overflown.any()):
            raise EngineError("a ray met more events than were counted for it; please report what was rendered")

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """See `request.Engine`."""
        new = lambda *shape, dtype=request.dtype: torch.zeros(shape, dtype=dtype, device=request.device)  # noqa: E731
        found: list[Tensor | None] = [None if t is None else torch.zeros_like(t) for t in tensors[:-4]]
        self.screen = new(request.count, 2)
        self.absolute = new(request.count, 2) if request.settings.absolute_gradient else None
        channels = request.channels - int(request.settings.depth)
        widths = [self.sizes[3 + 3 * k] + channels * self.sizes[4 + 3 * k] for k in range(len(request.drawables))]
        stride = max(widths)
        if stride > MOST_SUMS:
            raise EngineError(
                f"{stride} sums per primitive are more than the {MOST_SUMS} of CUDA; render fewer features"
            )
        rows = new(len(self.lists.ids) if self.deterministic else request.count, stride)
        own = {"slots" if self.deterministic else "rows": address(rows)}
        scene, background = self._scene(request, tensors, found), tensors[-1]
        picture, alpha = cotangents
        overflown = new(1, dtype=torch.int32)

        def make(tiles: Any) -> Any:
            per_pixel = int(background is not None and background.dim() == 3)
            return self.c.ExactBackwardParameters(
                *[scene, tiles, address(background), per_pixel, address(picture), address(alpha)],
                **{"stride": stride, "overflown": address(overflown), **own},
            )

        self._run_bands("exact_backward", request, make)
        self._check(overflown)
        camera = new(CAMERA_GRADIENT, dtype=torch.float64)
        for k, drawable in enumerate(request.drawables):
            blocks = new(-(-len(drawable) // THREADS), CAMERA_GRADIENT, dtype=torch.float64) if wanted[0] else None
            places = [address(t) for t in (self.counts, self.lists.first_entry)]
            parameters = self.c.ExactFinishParameters(scene, k, stride, *places, camera_blocks=address(blocks), **own)
            self._launch("exact_finish", len(drawable), parameters)
            if blocks is not None:
                camera += blocks.sum(0)
        gradients = Gradients(found, self.screen, self.absolute, camera if wanted[0] else None, None)
        if wanted[1] and background is not None:
            behind = torch.zeros_like(background)
            if picture is not None:
                behind = self.transmittance[..., None] * picture[..., :3]
                behind = behind if background.dim() == 3 else behind.sum((0, 1), dtype=torch.float64)
            gradients.background = behind.to(background)
        return gradients
