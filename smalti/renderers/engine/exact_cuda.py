"""The general compositor on CUDA: any kinds in exact order, by launches and torch's sorts (include/exact_*cuda.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smalti.renderers.engine.exact_lists import TileLists, device_scene, list_scene
from smalti.renderers.engine.exact_request import view_options
from smalti.renderers.engine.exact_source import FRAGMENTS, PICTURES, ExactSource, drawn_source
from smalti.renderers.engine.exact_sums import ADD_FIXED, ADD_FLOATS, MEASURE, FixedTables, FixedVector
from smalti.renderers.engine.fragments import new_values
from smalti.renderers.engine.launch import THREADS, Device
from smalti.renderers.engine.library import KIND_TENSORS, EngineError
from smalti.renderers.engine.parameters import address
from smalti.renderers.engine.request import CAMERA_GRADIENT, Gradients, Request, Tensors

MOST_SUMS = 192
"""Moments and channels of one primitive (kMostSums)."""
BAND_BYTES = 1 << 30
"""Memory for the events of the tiles that are drawn at once."""


class ExactKernelEngine:
    """One render, or the fragments of one (see `request.Engine`, `fragments.FragmentEngine`); `runner` is a device, or
    in tests the emulator.

    Sums over tiles differ in the last digits from run to run, unless `torch.use_deterministic_algorithms(True)` is set
    when the forward pass is drawn. Then every (tile, primitive) keeps a row of its own, and what threads add to
    textures, voxels and contributions is added as integers (`exact_sums.py`); with textures or voxels to differentiate
    the backward pass sweeps twice.
    """

    def __init__(self, runner: Device) -> None:
        self.runner = runner
        self.band_bytes = BAND_BYTES
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self._lists: TileLists | None = None
        self._transmittance: Tensor | None = None

    def forward(self, request: Request, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """See `request.Engine`."""
        lists = self._list(request, tensors, PICTURES)
        height, width, n = request.camera.height, request.camera.width, request.count
        new = lambda *shape, dtype=request.dtype: torch.zeros(shape, dtype=dtype, device=request.device)  # noqa: E731
        picture, alpha = new(height, width, request.channels), new(height, width)
        self._transmittance = new(height, width)
        planes = [address(t) for t in (picture, alpha, self._transmittance)]
        told, c = lists.scene.structure(request, tensors), lists.scene.structures
        background, extras = tensors[-1], {}
        contributions = None
        if request.settings.statistics:
            ids = {name: new(height, width, dtype=torch.int32) for name in ("first", "median", "dominant")}
            depths = {name: new(height, width) for name in ("depth_first", "depth_median")}
            request.extras |= ids | depths | {"contribution_sum": new(n), "contribution_max": new(n)}
            extras = {name: address(tensor) for name, tensor in request.extras.items()}
            del extras["contribution_sum"]
            contributions = FixedVector.over(request.extras["contribution_sum"], lists.events, self.deterministic)
            extras["contributions"] = contributions.structure(c)

        def make(tiles: Any, overflown: int | None) -> Any:
            behind = address(background), int(background is not None and background.dim() == 3)
            return c.ExactForwardParameters(told, tiles, *behind, *planes, overflown=overflown, **extras)

        _run(lists, "exact_forward", request, make)
        if contributions is not None:
            contributions.finish()
        return picture, alpha

    def backward(self, request: Request, tensors: Tensors, cotangents: Tensors, wanted: tuple[bool, bool]) -> Gradients:
        """See `request.Engine`."""
        lists, background = self._listed(), tensors[-1]
        picture, alpha = cotangents
        c = lists.scene.structures

        def make(scene: Any, tiles: Any, sums: Any, overflown: int | None) -> Any:
            behind = address(background), int(background is not None and background.dim() == 3)
            incoming = address(picture), address(alpha)
            return c.ExactBackwardParameters(scene, tiles, *behind, *incoming, sums, overflown)

        gradients = self._back("exact_backward", request, tensors, make, wanted[0])
        if wanted[1] and background is not None:
            behind = torch.zeros_like(background)
            if picture is not None:
                assert self._transmittance is not None
                behind = self._transmittance[..., None] * picture[..., :3]
                behind = behind if background.dim() == 3 else behind.sum((0, 1), dtype=torch.float64)
            gradients.background = behind.to(background)
        return gradients

    def fragments(self, request: Request, tensors: Tensors, most: int) -> dict[str, Tensor]:
        """See `fragments.FragmentEngine`."""
        lists = self._list(request, tensors, FRAGMENTS)
        values = new_values(request, most)
        told, c = lists.scene.structure(request, tensors), lists.scene.structures
        out = c.FragmentValues(**{name: address(tensor) for name, tensor in values.items()})

        def make(tiles: Any, overflown: int | None) -> Any:
            return c.ExactFragmentsParameters(told, tiles, out, most, overflown)

        _run(lists, "exact_fragments", request, make)
        return values

    def fragments_backward(
        self, request: Request, tensors: Tensors, most: int, cotangents: dict[str, Tensor | None], camera_wanted: bool
    ) -> Gradients:
        """See `fragments.FragmentEngine`."""
        c = self._listed().scene.structures
        incoming = c.FragmentValues(**{name: address(tensor) for name, tensor in cotangents.items()})

        def make(scene: Any, tiles: Any, sums: Any, overflown: int | None) -> Any:
            return c.ExactFragmentsBackParameters(scene, tiles, incoming, sums, most, overflown)

        return self._back("exact_fragments_back", request, tensors, make, camera_wanted)

    def _list(self, request: Request, tensors: Tensors, draws: str) -> TileLists:
        """Make the lists, which are kept for the way back."""
        kinds = tuple(dict.fromkeys(drawn_source(d) for d in request.drawables))
        bare = device_scene(self.runner, ExactSource(kinds, request.dtype, (draws,)), request)
        self._lists, request.visibility = list_scene(bare, request, tensors, self.band_bytes)
        return self._lists

    def _listed(self) -> TileLists:
        assert self._lists is not None, "backward before forward"
        return self._lists

    def _back(
        self, kernel: str, request: Request, tensors: Tensors, make: Callable[..., Any], camera_wanted: bool
    ) -> Gradients:
        """Run `kernel` and what follows; `make(scene, tiles, sums, overflown)` gives its parameters."""
        lists = self._listed()
        scene, c = lists.scene, lists.scene.structures
        stride = max(lists.sizes.widths(view_options(request)[0]))
        if stride > MOST_SUMS:
            raise EngineError(
                f"{stride} sums per primitive are more than the {MOST_SUMS} of CUDA; render fewer features"
            )
        gradients, tables = self._gradients(request, tensors)
        told = scene.structure(request, tensors, gradients)
        count = len(lists.ids) if self.deterministic else request.count
        rows = torch.zeros((count, stride), dtype=request.dtype, device=request.device)
        own = {"slots" if self.deterministic else "rows": address(rows), "stride": stride}

        def sweep(added: Any) -> None:
            sums = c.ExactSums(tables=added, **own)
            _run(lists, kernel, request, lambda tiles, overflown: make(told, tiles, sums, overflown))

        if tables is None:
            sweep(c.ExactTables(pass_number=ADD_FLOATS))
        else:
            sweep(tables.structure(c, MEASURE))
            tables.choose_units()
            sweep(tables.structure(c, ADD_FIXED))
            tables.finish()
        gradients.camera = self._finish(request, told, own, camera_wanted)
        return gradients

    def _gradients(self, request: Request, tensors: Tensors) -> tuple[Gradients, FixedTables | None]:
        """Zeros to add to, none for textures and voxels that nobody differentiates; and how tables are added to, if
        not as floats.
        """
        found: list[Tensor | None] = []
        tables: dict[int, Tensor] = {}
        lists = self._listed()
        for number, (drawable, bits) in enumerate(zip(request.drawables, lists.sizes.tables, strict=True)):
            for k in range(len(drawable.inputs().tensors)):
                tensor, table = tensors[len(found)], bool(bits >> k & 1)
                wanted = tensor is not None and (tensor.requires_grad or not table)
                found.append(torch.zeros_like(tensor) if tensor is not None and wanted else None)
                gradient = found[-1]
                if table and gradient is not None and gradient.numel():
                    tables[number * KIND_TENSORS + k] = gradient
        screen = torch.zeros((request.count, 2), dtype=request.dtype, device=request.device)
        absolute = torch.zeros_like(screen) if request.settings.absolute_gradient else None
        fixed = FixedTables(tables, len(request.drawables), lists.events) if tables and self.deterministic else None
        return Gradients(found, screen, absolute, None, None), fixed

    def _finish(self, request: Request, told: Any, own: dict[str, Any], camera_wanted: bool) -> Tensor | None:
        """From sums to gradients of parameters; the camera's is returned."""
        lists = self._listed()
        places = [address(t) for t in (lists.counts, lists.first_entry)]
        new = lambda *shape: torch.zeros(shape, dtype=torch.float64, device=request.device)  # noqa: E731
        camera = new(CAMERA_GRADIENT) if camera_wanted else None
        for k, drawable in enumerate(request.drawables):
            blocks = new(-(-len(drawable) // THREADS), CAMERA_GRADIENT) if camera is not None else None
            sums = own.get("rows"), own.get("slots"), address(blocks)
            parameters = lists.scene.structures.ExactFinishParameters(told, k, own["stride"], *places, *sums)
            lists.scene.launch("exact_finish", len(drawable), parameters)
            if camera is not None and blocks is not None:
                camera += blocks.sum(0)
        return camera


def _run(lists: TileLists, kernel: str, request: Request, make: Callable[..., Any]) -> None:
    """Launch `kernel` band by band; `make(tiles, overflown)` gives its parameters. EngineError for a wrong count."""
    overflown = torch.zeros(1, dtype=torch.int32, device=request.device)
    lists.run_bands(kernel, request, lambda tiles: make(tiles, address(overflown)))
    if bool(overflown.any()):
        raise EngineError("a ray met more events than were counted for it; please report what was rendered")
