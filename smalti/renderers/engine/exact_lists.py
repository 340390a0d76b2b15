"""The general compositor on CUDA, first half: a scene's drawables projected and listed per tile, events counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.engine.exact_request import kind_input, view_options
from smalti.renderers.engine.exact_source import FRAGMENTS, ExactSource, drawn_source, exact_structures
from smalti.renderers.engine.launch import THREADS, Device
from smalti.renderers.engine.library import ERRORS, EngineError
from smalti.renderers.engine.parameters import address
from smalti.renderers.engine.request import Gradients, Request, Tensors, camera_values
from smalti.renderers.frame import Visibility

TILE = 16


@dataclass(frozen=True)
class Sizes:
    """What the kernels say of their own layout (exact_sizes); the lists are by drawable."""

    event: int
    fixed: int
    """Bytes of memory per event, and per ray besides."""
    records: list[int]
    """Bytes per primitive."""
    moments: list[int]
    constant_channels: list[int]
    tables: list[int]
    """Bits of the tensors that are looked up bilinearly or trilinearly."""

    def widths(self, channels: int) -> list[int]:
        """Sums per primitive."""
        return [m + channels * c for m, c in zip(self.moments, self.constant_channels, strict=True)]


@dataclass(frozen=True, eq=False)
class DeviceScene:
    """A request's drawables as kernels are told of them (ExactScene), and what launches those kernels."""

    runner: Device
    source: ExactSource
    structures: SimpleNamespace
    tiles_x: int
    tiles_y: int
    drawable_of: Tensor
    values: Tensor
    """[n, channels] of kinds whose channels are constant."""
    records: Tensor
    """Bytes of all projected primitives; empty before their size is known."""
    record_starts: list[int]
    """By drawable."""

    def structure(self, request: Request, tensors: Tensors, out: Gradients | None = None) -> Any:
        """ExactScene, with `out` for gradients to go to. What must outlive the launch hangs on it."""
        c, at, first = self.structures, 0, 0
        table = (c.ExactDevice * len(request.drawables))()
        kept: list[Any] = []
        for k, drawable in enumerate(request.drawables):
            inputs = drawable.inputs()
            count = len(inputs.tensors)
            structure, indices = kind_input(c, drawable, inputs, tensors[at : at + count])
            kept += [structure, *indices]
            table[k].input = structure
            table[k].kind = self.source.kinds.index(drawn_source(drawable))
            table[k].first = first
            table[k].records = self.record_starts[k]
            if out is not None:
                for j, tensor in enumerate(out.parameters[at : at + count]):
                    table[k].gradient.tensors[j] = address(tensor)
                rows = slice(first, first + len(drawable))
                table[k].gradient.screen = address(out.screen[rows])
                table[k].gradient.absolute = None if out.absolute is None else address(out.absolute[rows])
            at, first = at + count, first + len(drawable)
        bytes_ = torch.frombuffer(bytearray(bytes(table)), dtype=torch.uint8).to(request.device)
        settings = request.settings
        scene = c.ExactScene(
            *[address(t) for t in (bytes_, self.drawable_of, self.records, self.values)],
            camera_values(c, request, tensors),
            c.ViewOptions(*view_options(request)),
            settings.transmittance_min,
            *[request.count, self.tiles_x, self.tiles_y, int(request.additive), int(settings.depth)],
        )
        scene.kept = (bytes_, kept)
        return scene

    def launch(self, kernel: str, threads: int, parameters: Any) -> None:
        """Run `kernel` with at least so many threads; with none, do nothing."""
        if threads:
            self.runner.launch(self.source, kernel, -(-threads // THREADS), parameters)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, eq=False)
class TileLists:
    """One list of primitives per tile, by their nearest bound, and the bands of tiles that are drawn at once."""

    scene: DeviceScene
    sizes: Sizes
    counts: Tensor
    """[n] tiles of each primitive."""
    keys: Tensor
    start: Tensor
    ids: Tensor
    entries: Tensor
    """Position of each entry before it was sorted by tile: the entries of one primitive are neighbours there."""
    first_entry: Tensor
    offsets: Tensor
    """[tiles * 256 + 1] events before those of each thread, on the device."""
    events: int
    """Of all rays."""
    bands: list[tuple[int, int, int]]
    """(first tile, tiles, bytes)."""

    def run_bands(self, kernel: str, request: Request, make: Any) -> None:
        """Launch `kernel` band by band; `make(tiles)` gives its parameters."""
        most = max((size for _, _, size in self.bands), default=0)
        memory = torch.empty(most, dtype=torch.uint8, device=request.device)
        places = (self.start, self.ids, self.entries, self.keys, self.offsets, memory)
        for first, count, _ in self.bands:
            tiles = self.scene.structures.ExactTiles(
                *[address(t) for t in places], self.sizes.event, self.sizes.fixed, first
            )
            self.scene.launch(kernel, count * THREADS, make(tiles))


def device_scene(runner: Device, source: ExactSource, request: Request) -> DeviceScene:
    """The scene before anything was launched."""
    device, count = request.device, len(request.drawables)
    lengths = torch.tensor([len(d) for d in request.drawables], device=device)
    numbers = torch.arange(count, dtype=torch.int32, device=device)
    tiles = -(-request.camera.width // TILE), -(-request.camera.height // TILE)
    values = torch.empty((request.count, view_options(request)[0]), dtype=request.dtype, device=device)
    records = torch.empty(0, dtype=torch.uint8, device=device)
    owners = torch.repeat_interleave(numbers, lengths)
    return DeviceScene(runner, source, exact_structures(request.dtype), *tiles, owners, values, records, [0] * count)


def kernel_sizes(scene: DeviceScene, request: Request, tensors: Tensors) -> Sizes:
    """Ask the kernels. Events keep their local coordinates where fragments are drawn."""
    count = len(request.drawables)
    sizes = torch.zeros(2 + 4 * count, dtype=torch.int32, device=request.device)
    told = scene.structure(request, tensors)
    parameters = scene.structures.ExactSizesParameters(
        told, count, int(FRAGMENTS in scene.source.draws), address(sizes)
    )
    scene.launch("exact_sizes", count, parameters)
    found = sizes.tolist()
    return Sizes(*found[:2], *[found[2 + j :: 4] for j in range(4)])


def list_scene(bare: DeviceScene, request: Request, tensors: Tensors, band_bytes: int) -> tuple[TileLists, Visibility]:
    """Project and list a bare scene, and count its events. EngineError where there are too many list entries.

    Waits for the device: the entries have to be counted, and the events of every tile.
    """
    sizes = kernel_sizes(bare, request, tensors)
    bytes_of = [len(d) * size for d, size in zip(request.drawables, sizes.records, strict=True)]
    starts = [sum(-(-b // 16) * 16 for b in bytes_of[:k]) for k in range(len(bytes_of))]
    records = torch.empty(starts[-1] + bytes_of[-1], dtype=torch.uint8, device=request.device)
    scene = replace(bare, records=records, record_starts=starts)
    n, c, device = request.count, scene.structures, request.device
    new = lambda *shape, dtype=request.dtype: torch.zeros(shape, dtype=dtype, device=device)  # noqa: E731
    integers = lambda size: torch.zeros(size, dtype=torch.int32, device=device)  # noqa: E731
    depths, keys, radii = new(n), new(n), new(n)
    rects, counts, skipped = new(n, 4, dtype=torch.int16), integers(n), integers(1)
    told = scene.structure(request, tensors)
    outputs = [address(t) for t in (depths, keys, radii, rects, counts, skipped)]
    for k, drawable in enumerate(request.drawables):
        scene.launch("exact_project", len(drawable), c.ExactProjectParameters(told, k, *outputs))
    order = torch.sort(torch.where(counts > 0, keys, torch.inf), stable=True).indices
    ends = counts[order].cumsum(0)
    total, bad = torch.cat([ends[-1:], skipped.long()]).tolist() if n else (0, 0)
    if total >= 2**31:
        raise EngineError(ERRORS[2])
    tiles, ids, first_entry = integers(total), integers(total), integers(n)
    count = scene.tiles_x * scene.tiles_y
    start = integers(count + 1)
    order = order.to(torch.int32)
    places = [address(t) for t in (rects, order, counts, ends, tiles, ids, first_entry)]
    scene.launch("exact_emit", n, c.ExactEmitParameters(told, *places))
    # Entries are in the order of their keys (ties by index), so a stable sort by tile orders every list.
    tiles, entries = torch.sort(tiles, stable=True)
    ids, entries = ids[entries], entries.to(torch.int32)
    scene.launch("tile_ranges", total + 1, c.RangeParameters(address(tiles), address(start), total, count))
    events = integers(count * THREADS)
    listed = c.ExactTiles(*[address(t) for t in (start, ids, entries, keys)])
    scene.launch("exact_count", count * THREADS, c.ExactCountParameters(told, listed, address(events)))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64, device=device), events.cumsum(0, dtype=torch.int64)])
    before = offsets[::THREADS].tolist()
    bands = list(_bands([e * sizes.event + k * THREADS * sizes.fixed for k, e in enumerate(before)], band_bytes))
    lists = TileLists(scene, sizes, counts, keys, start, ids, entries, first_entry, offsets, before[-1], bands)
    return lists, Visibility(counts > 0, radii, depths, bad, total)


def _bands(bytes_at: list[int], most: int) -> Iterator[tuple[int, int, int]]:
    """Runs of tiles whose events fit into `most` bytes; at least one tile each."""
    first = 0
    for tile in range(1, len(bytes_at)):
        last = tile == len(bytes_at) - 1
        if last or bytes_at[tile + 1] - bytes_at[first] > most:
            yield first, tile - first, bytes_at[tile] - bytes_at[first]
            first = tile
