"""Superquadrics as meshes or as implicit surfaces: how far the mesh is from the surface, and what each costs.

    python bench/superquadrics.py --json

The truth is the implicit surface, hit by rays in float64. Meshes of icosphere levels 1 to 4 are drawn by the engine.
The implicit surface is priced by what a ray needs (samples along its chord until it misses no surface that the mesh
would hit, then bisection to the error of the mesh) times what one evaluation of the function costs, vectorised, in
float32. That leaves out the implicit surface's derivative, texture coordinates and soft silhouette.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from timing import cpu_milliseconds
from torch import Tensor

import smalti
from smalti.primitives.superquadric_shape import implicit, surface_points, template

EXPONENTS = [(1.0, 1.0), (0.1, 0.1), (0.5, 1.5), (1.9, 0.3)]
SIZE, DISTANCE = 128, 4.0
LEVELS = (1, 2, 3, 4)


def camera() -> smalti.Camera:
    """Looks at the origin from an oblique direction."""
    forward = torch.nn.functional.normalize(torch.tensor([-0.5, -0.6, -1.0], dtype=torch.float64), dim=0)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(torch.tensor([0.0, -1, 0], dtype=torch.float64), forward), dim=0
    )
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    translation = -rotation @ (-DISTANCE * forward)
    intrinsics = torch.tensor([1.2 * SIZE, 1.2 * SIZE, SIZE / 2, SIZE / 2], dtype=torch.float64)
    return smalti.Camera(rotation, translation, intrinsics, SIZE, SIZE)


def rays(view: smalti.Camera) -> tuple[Tensor, Tensor]:
    """Origin and directions per unit of camera z, [h, w, 3]."""
    fx, fy, cx, cy = view.intrinsics
    y, x = torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float64) + 0.5] * 2, indexing="ij")
    local = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)], dim=-1)
    return view.centre, local @ view.rotation


def implicit_hits(view: smalti.Camera, exponents: Tensor, samples: int, halvings: int) -> Tensor:
    """Camera z of the first hit, infinite where there is none, by `samples` steps over the chord and bisection."""
    origin, direction = rays(view)
    a, b = (direction**2).sum(-1), (direction * origin).sum(-1)
    # The unit superquadric lies inside the ball of radius sqrt(3).
    root = (b**2 - a * ((origin**2).sum() - 3)).clamp_min(0).sqrt()
    near, far = (-b - root) / a, (-b + root) / a
    share = torch.linspace(0, 1, samples + 1, dtype=torch.float64)
    z = near[..., None] + (far - near)[..., None] * share
    inside = implicit(origin + z[..., None] * direction[..., None, :], exponents) < 1
    first = inside.byte().argmax(-1).clamp_min(1)
    low, high = (z.gather(-1, (first - k)[..., None])[..., 0] for k in (1, 0))
    for _ in range(halvings):
        middle = (low + high) / 2
        within = implicit(origin + middle[..., None] * direction, exponents) < 1
        low, high = torch.where(within, low, middle), torch.where(within, middle, high)
    return torch.where(inside.any(-1), high, torch.inf)


def mesh(level: int, exponents: Tensor, edges: str = "hard") -> smalti.TriangleDrawable:
    """The unit superquadric on an icosphere."""
    shape = template(level)
    vertices = surface_points(shape.directions.double(), exponents[None])[0].float()
    corners = vertices[shape.faces]
    ones = torch.ones(len(corners))
    return smalti.TriangleDrawable(corners, ones, colors=torch.ones(len(corners), 3, 3), edges=edges)  # pyright: ignore[reportArgumentType]


def compare(exponents: tuple[float, float]) -> list[dict[str, Any]]:
    """One row per level."""
    view, powers = camera(), torch.tensor(exponents, dtype=torch.float64)
    truth = implicit_hits(view, powers, 512, 40)
    settings = smalti.RenderSettings(order="ray", statistics=True)
    rows: list[dict[str, Any]] = []
    for level in LEVELS:
        drawable = mesh(level, powers)
        frame = smalti.render([drawable], view, settings=settings)
        assert frame.depth_first is not None
        hit, real = frame.alpha > 0.5, truth.isfinite()
        both = hit & real
        error = (frame.depth_first.double() - truth)[both].square().mean().sqrt()
        samples = next((n for n in (4, 8, 16, 32, 64, 128) if misses(view, powers, n, truth) <= 0.005), 256)
        chord = 2 * 3**0.5 / samples
        halvings = max(0, int(torch.log2(torch.tensor(chord) / error).ceil()))
        soft = mesh(level, powers, "soft")
        soft.corners.requires_grad_()
        times = cpu_milliseconds({"soft": lambda soft=soft: smalti.render([soft], view).alpha.sum().backward()}, 5)
        rows.append(
            {
                "exponents": exponents,
                "level": level,
                "faces": len(drawable),
                "silhouette_iou": round(float((hit & real).sum() / (hit | real).sum()), 4),
                "depth_error": round(float(error), 5),
                "mesh_ms_soft_forward_backward": round(times["soft"], 2),
                "implicit_evaluations_per_ray": samples + halvings,
                "rays": int(real.sum()),
            }
        )
    return rows


def misses(view: smalti.Camera, exponents: Tensor, samples: int, truth: Tensor) -> float:
    """Share of the true hits that so few samples do not find."""
    return float(
        (truth.isfinite() & ~implicit_hits(view, exponents, samples, 0).isfinite()).sum() / truth.isfinite().sum()
    )


def nanoseconds_per_evaluation() -> float:
    """Process CPU time of one evaluation of the implicit function, float32, one thread, vectorised."""
    points, exponents = torch.rand(1 << 18, 3), torch.tensor([0.5, 1.5])
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        implicit(points, exponents)
        best = min(best, time.process_time() - start)
    return 1e9 * best / len(points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cost = nanoseconds_per_evaluation()
    rows = [row for exponents in EXPONENTS for row in compare(exponents)]
    for row in rows:
        row["implicit_ms_hits_alone"] = round(1e-6 * cost * row["rays"] * row["implicit_evaluations_per_ray"], 2)
    if arguments.json:
        print(json.dumps({"nanoseconds_per_evaluation": round(cost, 1), "rows": rows}, indent=2))
        return
    print(f"one evaluation of the implicit function: {cost:.1f} ns")
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
