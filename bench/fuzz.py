"""Hostile numbers in every field of every kind: `python bench/fuzz.py [--scenes N] [--seed S] [--json]`.

Random scenes of one to four drawables of any kinds and modes, drawn and taken back by the CPU engine in either order
(one build in single precision and the double one take turns); every fourth goes through `fragments` too. A twentieth of
all numbers is NaN, Inf, zero, negative, denormal, tiny or huge. Demanded: no crash, a finite picture, finite gradients,
and rows whose place or size is no number are not drawn. `bench/sanitize.py --scenes N` runs this under sanitizers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from smalti import Camera, RenderSettings, render
from smalti.renderers.drawables import (
    BoxDrawable,
    GaussianDrawable,
    NeuralDrawable,
    RayGaussianDrawable,
    SurfelDrawable,
    TriangleDrawable,
)
from smalti.renderers.engine.library import EngineError
from smalti.renderers.fragments import composite, fragments
from smalti.renderers.mipmaps import mipmaps

NAN, INF = float("nan"), float("inf")
SMALL = (NAN, INF, -INF, 0.0, -0.0, 1e-45, -1e-42, 1e-38, 1e-30, 1e-20, 1e-12, -1.0)
PLACES = (*SMALL, 1e4, -1e6, 1e10, 1e20, -1e20, 3e38, -3e38)
VALUES = (*SMALL, 2.0, 1e3, 1e10, -1e10)
"""Of colours, opacities and densities; gradients of huger ones truly overflow single precision."""
SHAPES = (
    "means",
    "quaternions",
    "scales",
    "corners",
    "centres",
    "half_extents",
    "uvs",
    "warp",
    "frequencies",
    "phases",
)
PLACED = ("means", "quaternions", "scales", "corners", "centres", "half_extents")
PLANES = ("color", "alpha", "features", "normal", "depth", "depth_first", "depth_median", "contribution_sum")


class Draws:
    """Random numbers, a part of them hostile."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        # Some scenes are clean but for a few numbers, some are nearly all rubbish.
        self.share = (0.0, 0.01, 0.05, 0.05, 0.3)[self.integer(5)]

    def integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def choice(self, values: Any) -> Any:
        return values[self.integer(len(values))]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def spoiled(self, name: str, value: Tensor) -> Tensor:
        """In this precision, with hostile numbers, as a leaf."""
        kinds = torch.tensor(PLACES if name in SHAPES else VALUES, dtype=torch.float64)
        hostile = kinds[torch.randint(len(kinds), value.shape, generator=self.generator)]
        spoil = self.uniform(*value.shape) < self.share
        return torch.where(spoil, hostile, value).to(self.dtype).requires_grad_()


def _splat(d: Draws, n: int, scales: int) -> dict[str, Any]:
    values = {
        "means": d.normal(n, 3),
        "quaternions": d.normal(n, 4),
        "scales": 0.4 * torch.exp(0.7 * d.normal(n, scales)),
        "opacities": d.uniform(n),
        "sh_dc": d.normal(n, 3),
    }
    degree = d.integer(3)
    if degree:
        values["sh_rest"] = 0.3 * d.normal(n, (degree + 1) ** 2 - 1, 3)
    if d.integer(2):
        values["features"] = d.normal(n, 2)
    return {**{name: d.spoiled(name, value) for name, value in values.items()}, "sh_degree": degree}


def gaussian(d: Draws, n: int) -> GaussianDrawable:
    return GaussianDrawable(
        **_splat(d, n, 3), compensated=bool(d.integer(2)), filter_variance=d.choice((0.3, 0.0, 0.1))
    )


def ray_gaussian(d: Draws, n: int) -> RayGaussianDrawable:
    return RayGaussianDrawable(**_splat(d, n, 3), response=d.choice(("maximum", "integral")))


def surfel(d: Draws, n: int) -> SurfelDrawable:
    return SurfelDrawable(**_splat(d, n, 2))


def neural(d: Draws, n: int) -> NeuralDrawable:
    values, width = _splat(d, n, 3), d.choice((8, 16))
    del values["opacities"]
    network = {
        "frequencies": d.normal(n, width, 3) / 15,
        "phases": d.normal(n, width) / 15,
        "amplitudes": 0.3 * d.normal(n, width),
        "offsets": 0.6 + d.normal(n),
    }
    values |= {name: d.spoiled(name, value) for name, value in network.items()}
    options = {"cap": bool(d.integer(2)), "leak": d.choice((0.0, 0.1)), "frame": d.choice(("world", "local"))}
    return NeuralDrawable(**values, **options, omega=d.choice((30.0, 1.0, 1e10)))


def triangle(d: Draws, n: int) -> TriangleDrawable:
    values = {"corners": d.normal(n, 1, 3) + 0.7 * d.normal(n, 3, 3), "opacities": d.uniform(n)}
    if d.integer(2):
        size = d.choice(((1, 1), (2, 3), (5, 4)))
        values |= {"texture": d.uniform(*size, d.choice((3, 4))), "uvs": d.normal(n, 3, 2)}
        if d.integer(2) and size != (1, 1):
            values["mipmaps"] = mipmaps(values["texture"], 1 + d.integer(2))
    else:
        values["colors"] = d.uniform(n, 3, 3)
    if d.integer(2):
        values["features"] = d.normal(n, 3, 2)
    if d.integer(2):
        values["normals"] = d.normal(n, 3, 3)
    ready = {name: d.spoiled(name, value) for name, value in values.items()}
    neighbours = None
    if d.integer(2):
        neighbours = torch.randint(-1, n, (n, 3), generator=d.generator, dtype=torch.int32)
    options = {"edges": d.choice(("hard", "antialiased", "soft")), "wrap": bool(d.integer(2))}
    sigma = d.choice((1e-4, 1e-2, 1e-12, 10.0))
    return TriangleDrawable(
        **ready, neighbours=neighbours, sigma=sigma, detach_barycentrics=bool(d.integer(2)), **options
    )


def box(d: Draws, n: int) -> BoxDrawable:
    size = d.choice(((1, 1, 1), (2, 1, 3), (3, 4, 2)))
    values = {
        "centres": d.normal(n, 3),
        "quaternions": d.normal(n, 4),
        "half_extents": 0.5 * torch.exp(0.5 * d.normal(n, 3)),
        "payload": d.normal(n, *size, 4),
    }
    if d.integer(2):
        values["warp"] = 0.6 * d.normal(n, 2, 1, 2, 3)
    window = {"fade_scale": d.choice((0.0, 8.0, 1e3)), "fade_exponent": d.choice((1.0, 8.0, 64.0))}
    return BoxDrawable(**{name: d.spoiled(name, value) for name, value in values.items()}, step=0.125, **window)


PRECISIONS = (torch.float32, torch.float64)
MAKERS: tuple[Callable[[Draws, int], Any], ...] = (gaussian, ray_gaussian, surfel, neural, triangle, box)


def camera_of(d: Draws) -> Camera:
    """Before, beside or amid the scene."""
    position = d.normal(3) * d.choice((0.05, 1.0, 4.0)) + torch.tensor([0.0, 0, -0.01], dtype=torch.float64)
    width, height = d.choice(((9, 7), (17, 16), (1, 1), (33, 5)))
    up = torch.tensor([0.1, -1.0, 0.2], dtype=torch.float64)
    return Camera.look_at(position, 0.3 * d.normal(3), up, d.choice((0.3, 0.9, 2.5)), (width, height))


def settings_of(d: Draws) -> RenderSettings:
    flag = lambda: bool(d.integer(2))  # noqa: E731
    return RenderSettings(
        order=d.choice(("ray", "centre")),
        near=d.choice((0.0, 0.01, 0.5)),
        transmittance_min=d.choice((1e-4, 0.0)),
        depth=flag(),
        normals=flag(),
        statistics=flag(),
        absolute_gradient=flag(),
        smooth_cutoff=flag(),
    )


def _leaves(drawable: Any) -> dict[str, Tensor]:
    found = {field.name: getattr(drawable, field.name) for field in fields(drawable)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor) and value.is_floating_point()}


def faults_of(seed: int, precisions: tuple[torch.dtype, ...] = PRECISIONS) -> tuple[list[str], int]:
    """What is wrong with scene `seed`, and how many primitives were skipped and counted."""
    d = Draws(seed, precisions[seed % len(precisions)])
    drawables = [d.choice(MAKERS)(d, d.choice((0, 1, 3, 6))) for _ in range(1 + d.integer(4))]
    if all(isinstance(drawable, BoxDrawable) for drawable in drawables) and d.integer(2):
        drawables = [replace(drawable, accumulation="additive") for drawable in drawables]
    camera, settings = camera_of(d), settings_of(d)
    names = [type(drawable).__name__.removesuffix("Drawable") for drawable in drawables]
    faults: list[str] = []
    try:
        frame = render(drawables, camera, settings=settings, backend="cpu")
    except (EngineError, ValueError) as error:
        return ([] if str(error) else ["an error without words"]), 0
    planes = {name: getattr(frame, name) for name in PLANES}
    faults += [f"{name} of {names}" for name, plane in planes.items() if plane is not None and not _finite(plane)]
    taken = [planes[name] for name in PLANES[:5] if planes[name] is not None]
    _backward(taken, d)
    first = 0
    for k, drawable in enumerate(drawables):
        leaves = _leaves(drawable)
        for name, leaf in leaves.items():
            if leaf.grad is not None and not _finite(leaf.grad):
                faults.append(f"gradient of {names[k]}.{name}")
            leaf.grad = None
        rows = torch.zeros(len(drawable), dtype=torch.bool)
        for name in PLACED:
            if name in leaves and len(drawable):
                rows |= ~leaves[name].detach().isfinite().reshape(len(drawable), -1).all(1)
        if bool(frame.visibility.visible[first : first + len(drawable)][rows].any()):
            faults.append(f"a row of {names[k]} that is no place is visible")
        first += len(drawable)
    if seed % 4 == 0 and settings.order == "ray":
        faults += _fragments(drawables, camera, settings, d)
    return faults, frame.visibility.skipped


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.detach().isfinite().all())


def _backward(planes: list[Tensor], d: Draws) -> None:
    weights = [torch.randn(plane.shape, generator=d.generator).to(plane) for plane in planes]
    total = torch.stack([(plane * weight).sum() for plane, weight in zip(planes, weights, strict=True)]).sum()
    if total.requires_grad:
        total.backward()


def _fragments(drawables: list[Any], camera: Camera, settings: RenderSettings, d: Draws) -> list[str]:
    if any(getattr(drawable, "accumulation", "") == "additive" for drawable in drawables):
        return []
    try:
        found = fragments(drawables, camera, d.choice((1, 4, 40)), settings=settings)
        color, _ = composite(found, found.colors[..., :3])
    except (EngineError, ValueError) as error:
        return [] if str(error) else ["fragments: an error without words"]
    faults = [] if _finite(color) else ["colour of fragments"]
    _backward([color], d)
    for drawable in drawables:
        for name, leaf in _leaves(drawable).items():
            if leaf.grad is not None and not _finite(leaf.grad):
                faults.append(f"gradient of {type(drawable).__name__}.{name} through fragments")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Print what failed; 0 if nothing did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--precision", choices=("single", "double", "both"), default="both")
    parser.add_argument("--json", action="store_true", help="print one object")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    precisions = {"single": PRECISIONS[:1], "double": PRECISIONS[1:], "both": PRECISIONS}[options.precision]
    failed: dict[int, list[str]] = {}
    skipped = 0
    for seed in range(options.seed, options.seed + options.scenes):
        faults, count = faults_of(seed, precisions)
        skipped += count
        if faults:
            failed[seed] = faults
            print(f"scene {seed}: {'; '.join(faults)}", file=sys.stderr, flush=True)
    result = {"scenes": options.scenes, "failed": len(failed), "skipped_and_counted": skipped, "faults": failed}
    words = f"{options.scenes} scenes, {len(failed)} failed, {skipped} primitives skipped and counted"
    print(json.dumps(result, indent=1) if options.json else words)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
