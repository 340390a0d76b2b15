"""Times of one render, forward and backward: ours on a device, by kernel, and on the CPU; gsplat's on the same tensors.

`python bench/device_render.py gsplat CASE REPEATS` prints gsplat's as JSON, in a process of its own, because importing
gsplat may start a compiler, which the caller must be able to stop. `... draw DEVICE` runs every kernel once.
"""

from __future__ import annotations

import ctypes
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

import smalti
from smalti.renderers.drawables import BoxDrawable, GaussianDrawable, TriangleDrawable
from smalti.renderers.engine.cuda import KernelEngine
from smalti.renderers.engine.kernel_source import KernelSource
from smalti.renderers.engine.launch import Device
from smalti.renderers.engine.request import Request, render_with

CASES = {"100 k, 800x800": (100_000, 800, 800), "1 M, 1920x1080": (1_000_000, 1920, 1080)}
QUICK = {"2 k, 160x120": (2000, 160, 120)}
"""For a rehearsal."""


@dataclass(frozen=True)
class Case:
    """Tensors on a device, all leaves, and a cotangent for the picture."""

    drawable: GaussianDrawable
    camera: smalti.Camera
    cotangent: Tensor

    def leaves(self) -> dict[str, Tensor]:
        """By name."""
        found = {field.name: getattr(self.drawable, field.name) for field in fields(self.drawable)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def to(self, device: str) -> Case:
        """The same numbers elsewhere, as new leaves."""
        moved = {name: value.detach().to(device).requires_grad_() for name, value in self.leaves().items()}
        return Case(replace(self.drawable, **moved), self.camera, self.cotangent.to(device))


def make_case(count: int, width: int, height: int, device: str) -> Case:
    """A cloud before the camera: half of it clustered, sizes on the screen log-normal around six pixels at 100 k."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    uniform = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    focal = 1.2 * width
    camera = smalti.Camera(
        torch.eye(3), torch.zeros(3), torch.tensor([focal, focal, width / 2, height / 2]), width, height
    )
    size = torch.tensor([float(width), float(height)])
    depth = 3 + 3 * uniform(count)
    centres = size * uniform(max(20, count // 500), 2)
    near = centres[torch.randint(len(centres), (count,), generator=generator)] + 0.075 * width * normal(count, 2)
    pixels = torch.where(uniform(count, 1) < 0.5, near, size * uniform(count, 2))
    means = torch.cat([(pixels - size / 2) / focal, torch.ones(count, 1)], 1) * depth[:, None]
    # Area per primitive as at 100 k on 800 x 800, so that lists stay about as long.
    typical = 6.0 * math.sqrt(width * height / 640_000 * 100_000 / count)
    spread = typical * torch.exp(0.75 * normal(count, 1)) * torch.exp(0.45 * normal(count, 3))
    drawable = GaussianDrawable(
        means=means,
        quaternions=normal(count, 4),
        scales=spread.clamp(0.6, 120) / focal * depth[:, None],
        opacities=torch.sigmoid(1.6 * normal(count) - 1.6).clamp(0.005, 0.999),
        sh_dc=normal(count, 3),
        sh_rest=0.2 * normal(count, 15, 3),
        sh_degree=3,
    )
    return Case(drawable, camera, normal(height, width, 3)).to(device)


def milliseconds(case: Case, draw: Callable[[Case], Tensor], repeats: int) -> dict[str, float]:
    """Median wall-clock milliseconds of forward and backward, the device's queue emptied around each."""
    times: dict[str, list[float]] = defaultdict(list)
    wait = torch.cuda.synchronize if case.cotangent.is_cuda else (lambda: None)
    for repeat in range(repeats + 2):
        for leaf in case.leaves().values():
            leaf.grad = None
        wait()
        start = time.perf_counter()
        picture = draw(case)
        wait()
        middle = time.perf_counter()
        picture.backward(case.cotangent)
        wait()
        if repeat >= 2:  # the first compile, allocate, warm up
            times["forward"].append(1e3 * (middle - start))
            times["backward"].append(1e3 * (time.perf_counter() - middle))
    return {name: statistics.median(values) for name, values in times.items()}


def ours(case: Case) -> Tensor:
    """Our picture, by the backend of the tensors' device."""
    return smalti.render([case.drawable], case.camera).color


class Stopwatch:
    """A device that notes how long each kernel took (see `launch.Device`)."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def launch(self, source: KernelSource, kernel: str, blocks: int, parameters: ctypes.Structure) -> None:
        """Runs the kernel between two events."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        self.device.launch(source, kernel, blocks, parameters)
        end.record()
        self.events.append((kernel, start, end))


def kernel_milliseconds(case: Case, repeats: int) -> dict[str, float]:
    """Median milliseconds of each of our kernels; what is missing to the whole is torch's sorts and memory."""
    from smalti.renderers.engine.launch import cuda_device

    watch = Stopwatch(cuda_device(torch.cuda.current_device()))
    found: dict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats + 1):
        watch.events.clear()
        request = Request([case.drawable], case.camera, smalti.RenderSettings())
        render_with(KernelEngine(watch), request, None).color.backward(case.cotangent)
        torch.cuda.synchronize()
        for kernel, start, end in watch.events if repeat else ():
            found[kernel].append(start.elapsed_time(end))
    return {kernel: statistics.median(values) for kernel, values in found.items()}


def gsplat_draw(case: Case) -> Tensor:
    """gsplat's picture of the same tensors (same filter, same harmonics, its own thresholds)."""
    from gsplat import rasterization  # pyright: ignore[reportMissingImports]

    d, camera = case.drawable, case.camera
    device = d.means.device
    view = torch.eye(4, device=device)
    view[:3, :3], view[:3, 3] = camera.rotation.to(device), camera.translation.to(device)
    assert d.sh_rest is not None
    coefficients = torch.cat([d.sh_dc[:, None], d.sh_rest], 1)
    picture, _, _ = rasterization(
        d.means,
        d.quaternions,
        d.scales,
        d.opacities,
        coefficients,
        view[None],
        camera.matrix.to(device)[None],
        camera.width,
        camera.height,
        sh_degree=d.sh_degree,
        packed=False,
    )
    return picture[0]


def distance(
    case: Case, first: Callable[[Case], Tensor], other: Case, second: Callable[[Case], Tensor]
) -> dict[str, float]:
    """Largest difference of the pictures, and of each gradient relative to its largest value, on the CPU's numbers."""
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for own, draw in ((case, first), (other, second)):
        for leaf in own.leaves().values():
            leaf.grad = None
        picture = draw(own)
        picture.backward(own.cotangent)
        gradients = {name: leaf.grad.cpu() for name, leaf in own.leaves().items() if leaf.grad is not None}
        found.append((picture.detach().cpu(), gradients))
    result = {"picture": float((found[0][0] - found[1][0]).abs().max())}
    for name, value in found[1][1].items():
        result[name] = float((found[0][1][name] - value).abs().max() / value.abs().max())
    return result


def measure(name: str, device: str, repeats: int) -> dict[str, Any]:
    """Everything about one of CASES but gsplat."""
    case = make_case(*{**CASES, **QUICK}[name], device)
    on_device = case.cotangent.is_cuda
    row: dict[str, Any] = {"case": name}
    with torch.no_grad():
        frame = smalti.render([case.drawable], case.camera)
        row["intersections"], row["mean_alpha"] = frame.visibility.intersections, float(frame.alpha.mean())
        del frame
    before = torch.cuda.memory_allocated() if on_device else 0
    if on_device:
        torch.cuda.reset_peak_memory_stats()
    row["ours"] = milliseconds(case, ours, repeats)
    if on_device:
        row["ours_peak_megabytes"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        row["kernels"] = kernel_milliseconds(case, repeats)
        torch.use_deterministic_algorithms(True)
        row["ours_deterministic"] = milliseconds(case, ours, repeats)
        torch.use_deterministic_algorithms(False)
    there = case.to("cpu")
    row["cpu"] = milliseconds(there, ours, 3)
    row["distance_to_cpu"] = distance(case, ours, there, ours)
    return row


def measure_gsplat(name: str, repeats: int) -> dict[str, Any]:
    """Its times, and how far our picture and gradients are from its."""
    case = make_case(*{**CASES, **QUICK}[name], "cuda")
    times = milliseconds(case, gsplat_draw, repeats)
    return {**times, "distance": distance(case, ours, case, gsplat_draw)}


def draw_everything(device: str) -> None:
    """Every kernel once: more channels than one launch holds, statistics, both kinds of sums; for a memory checker."""
    case = make_case(*next(iter(QUICK.values())), device)
    features = torch.randn(len(case.drawable), 9, generator=torch.Generator().manual_seed(1)).to(device)
    drawable = replace(case.drawable, features=features.requires_grad_())
    settings = smalti.RenderSettings(depth=True, statistics=True, absolute_gradient=True)
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        for each in (settings, smalti.RenderSettings()):
            frame = smalti.render([drawable], case.camera, settings=each)
            assert frame.features is not None
            (frame.color * case.cotangent + frame.features.sum(-1, keepdim=True)).sum().backward()
            print("drawn:", float(frame.alpha.detach().mean()))
        draw_mix(case, device)
    torch.use_deterministic_algorithms(False)


def draw_mix(case: Case, device: str) -> None:
    """The general compositor's kernels: pictures and fragments of Gaussians, textured triangles and boxes."""
    generator = torch.Generator().manual_seed(2)
    uniform = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    shift = torch.tensor([0.0, 0.0, 4.0])
    tensors = {
        "corners": 2 * uniform(60, 3, 3) - 1 + shift,
        "uvs": uniform(60, 3, 2),
        "texture": uniform(16, 16, 4),
        "centres": 2 * uniform(6, 3) - 1 + shift,
        "payload": uniform(6, 8, 8, 8, 4),
    }
    leaves = {name: tensor.to(device).requires_grad_() for name, tensor in tensors.items()}
    fixed = [tensor.to(device) for tensor in (uniform(60), uniform(6, 4), 0.2 + 0.3 * uniform(6, 3))]
    drawables = [
        case.drawable,
        TriangleDrawable(leaves["corners"], fixed[0], texture=leaves["texture"], uvs=leaves["uvs"]),
        BoxDrawable(leaves["centres"], *fixed[1:], leaves["payload"], step=0.05),
    ]
    settings = smalti.RenderSettings(order="ray", depth=True, normals=True, statistics=True)
    frame = smalti.render(drawables, case.camera, settings=settings)
    (frame.color * case.cotangent).sum().backward()
    found = smalti.fragments(drawables, case.camera, 8)
    color, alpha = smalti.composite(found, found.colors)
    ((color * case.cotangent).sum() + found.local.square().sum()).backward()
    assert all(leaf.grad is not None and bool(leaf.grad.isfinite().all()) for leaf in leaves.values())
    print("mixed:", float(frame.alpha.detach().mean()), float(alpha.detach().mean()))


if __name__ == "__main__":
    if sys.argv[1] == "draw":
        draw_everything(sys.argv[2])
    else:
        print(json.dumps(measure_gsplat(sys.argv[2], int(sys.argv[3]))))
