"""What every kind costs in the general compositor, alone and mixed: `python bench/kinds.py --json`.

Milliseconds are process CPU time of a whole `render`, forward and backward to every tensor, through torch; jobs that
are compared take turns within one run. `--only` picks parts of it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import kind_scenes as scenes
import torch
from raster import cloud
from timing import best_wall_milliseconds, cpu_milliseconds
from torch import Tensor

import smalti
from smalti import Camera, Frame, RenderSettings
from smalti.renderers.drawables import Drawable, RayGaussianDrawable
from smalti.renderers.engine import library
from smalti.renderers.engine.exact import ExactEngine
from smalti.renderers.engine.request import Request, render_with
from smalti.renderers.fragments import fragments

RAY, CENTRE = RenderSettings(order="ray"), RenderSettings(order="centre")
PYTORCH3D = {1280: (1100.0, 8800.0), 5120: (2600.0, 15700.0)}
"""Milliseconds of its 0.7.9, one CPU thread, 256 x 256, soft faces (sigma 1e-4, 20 layers): forward, backward."""
PYTORCH3D_HARD = {1280: 480.0, 5120: 1900.0}


def general(drawables: Sequence[Drawable], camera: Camera, settings: RenderSettings) -> Frame:
    """As `smalti.render`, but EWA Gaussians alone go through the general compositor, too."""
    request = Request(drawables, camera, settings)
    return render_with(ExactEngine(request.dtype), request, None)


Door = Callable[[Sequence[Drawable], Camera, RenderSettings], Frame]


def fused(drawables: Sequence[Drawable], camera: Camera, settings: RenderSettings) -> Frame:
    return smalti.render(drawables, camera, settings=settings)


def oracle(drawables: Sequence[Drawable], camera: Camera, settings: RenderSettings) -> Frame:
    return smalti.render(drawables, camera, settings=settings, backend="oracle")


class Job:
    """One scene through one door: `forward` alone, and `both` ways."""

    def __init__(
        self, make: Callable[[], Sequence[Drawable]], camera: Camera, settings: RenderSettings = RAY, door: Door = fused
    ) -> None:
        self.make, self.camera, self.settings, self.door = make, camera, settings, door
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(camera.height, camera.width, 3, generator=generator)

    def forward(self) -> Frame:
        with torch.no_grad():
            return self.door(self.make(), self.camera, self.settings)

    def both(self) -> None:
        self.door(self.make(), self.camera, self.settings).color.backward(self.weight)


def job(drawables: Sequence[Drawable], camera: Camera, settings: RenderSettings = RAY, door: Door = fused) -> Job:
    """Of drawables whose tensors are made leaves."""
    ready = [scenes.learnable(drawable) for drawable in drawables]
    return Job(lambda: ready, camera, settings, door)


def times(jobs: dict[str, Job], repeats: int) -> dict[str, dict[str, float]]:
    """Forward, backward and both of each, the jobs taking turns."""
    calls: dict[str, Callable[[], object]] = {}
    for name, one in jobs.items():
        calls |= {f"{name} forward": one.forward, f"{name} both": one.both}
    found = cpu_milliseconds(calls, repeats)
    rows = {}
    for name in jobs:
        forward, both = found[f"{name} forward"], found[f"{name} both"]
        rows[name] = {"forward_ms": forward, "backward_ms": both - forward, "both_ms": both}
    return rows


def covered(drawables: Sequence[Drawable], camera: Camera) -> int:
    """(pixel, event) pairs that rays met before they ended."""
    with torch.no_grad():
        counts: Tensor = fragments(drawables, camera, 1).counts
    return int(counts.sum())


def against_oracle(repeats: int) -> list[dict[str, Any]]:
    """Every kind against the float32 oracle: 300 bodies of 8 pixels at 96 x 96."""
    rows = []
    camera = scenes.camera_of(96)
    for name, make in scenes.KINDS.items():
        drawable = make(scenes.Cloud(20 if name == "box" else 300, 96, 8))
        ours = times({"ours": job([drawable], camera)}, repeats)["ours"]
        theirs = times({"oracle": job([drawable], camera, RAY, oracle)}, 1)["oracle"]
        row = {"kind": name, "primitives": len(drawable), "events": covered([drawable], camera)}
        rows.append(
            {**row, **ours, "oracle_ms": theirs["both_ms"], "times_faster": theirs["both_ms"] / ours["both_ms"]}
        )
    return rows


def scaling(repeats: int) -> list[dict[str, Any]]:
    """Every kind against pixels, primitives and covered pixels; one of the three grows, where the others can stay."""
    rows: list[dict[str, Any]] = []
    for name, make in scenes.KINDS.items():
        few = 100 if name == "box" else 2000
        sweeps: dict[str, list[tuple[int, int, float]]] = {
            # Bodies grow with the picture, so that each pixel has as many events.
            "pixels": [(few, size, size / 40) for size in (64, 128, 256, 512)],
            # Bodies shrink as they become more, so that the events stay as many.
            "primitives": [(few * n // 8, 256, 6.4 * (8 / n) ** 0.5) for n in (1, 4, 16, 64)],
            "covered": [(few, 256, radius) for radius in (1.6, 3.2, 6.4, 12.8, 25.6)],
        }
        for sweep, points in sweeps.items():
            for count, size, radius in points:
                drawable, camera = make(scenes.Cloud(count, size, radius)), scenes.camera_of(size)
                spent = times({"ours": job([drawable], camera)}, repeats)["ours"]
                events = covered([drawable], camera)
                row = {"kind": name, "sweep": sweep, "primitives": count, "pixels": size * size, "events": events}
                rows.append({**row, **spent, "ns_per_event": 1e6 * spent["both_ms"] / max(events, 1)})
    return rows


def meshes(repeats: int) -> dict[str, Any]:
    """Icospheres with vertex colours against pytorch3d's published times on one CPU thread; Blocks World's case."""
    result: dict[str, Any] = {}
    camera = scenes.camera_of(256, angle=1.0472, distance=2.7)
    for level, faces in ((3, 1280), (4, 5120)):
        for edges in ("soft", "antialiased", "hard"):
            drawable = scenes.sphere(level, edges)
            row: dict[str, Any] = times({"ours": Job(lambda make=drawable: [make()], camera)}, repeats)["ours"]
            if edges == "soft":
                forward, backward = PYTORCH3D[faces]
                row |= {"forward_times_faster": forward / row["forward_ms"]}
                row |= {"backward_times_faster": backward / row["backward_ms"]}
            elif edges == "hard":
                row |= {"forward_times_faster": PYTORCH3D_HARD[faces] / row["forward_ms"]}
            with torch.no_grad():
                row["events"] = covered([drawable()], camera)
            result[f"{edges} {faces}"] = row
    drawn, camera = scenes.blocks(), scenes.camera_of(400, 300)
    result["blocks"] = times({"ours": job([drawn], camera)}, repeats)["ours"]
    with torch.no_grad():
        found = fragments([drawn], camera, 1)
    result["blocks"] |= {"events": int(found.counts.sum()), "deepest": int(found.counts.max())}
    return result


def mixed(repeats: int) -> dict[str, Any]:
    """A picture of every kind against the sum of its parts, each drawn alone."""
    size = 400
    camera = scenes.camera_of(size)
    parts: dict[str, Drawable] = {
        "gaussian": scenes.gaussian(scenes.Cloud(20_000, size, 10, 1), 0.3),
        "gaussian_ray": scenes.gaussian_ray(scenes.Cloud(5_000, size, 10, 2), 0.3),
        "surfel": scenes.surfel(scenes.Cloud(5_000, size, 10, 3), 0.3),
        "neural": scenes.neural(scenes.Cloud(1_000, size, 10, 4)),
        "triangle": scenes.triangle(scenes.Cloud(2_000, size, 10, 5), "antialiased", 0.3),
        "box": scenes.box(scenes.Cloud(50, size, 30, 6)),
    }
    pairs = [("gaussian", "triangle"), ("gaussian", "box"), ("gaussian_ray", "triangle"), ("neural", "box")]
    mixes = {" + ".join(pair): [parts[name] for name in pair] for pair in pairs} | {"all": list(parts.values())}
    jobs = {name: job([part], camera) for name, part in parts.items()}
    jobs |= {"gaussian general": job([parts["gaussian"]], camera, RAY, general)}
    jobs |= {name: job(drawables, camera) for name, drawables in mixes.items()}
    spent = times(jobs, repeats)
    result: dict[str, Any] = {"parts": {name: spent[name] for name in [*parts, "gaussian general"]}, "mixes": {}}
    for name, drawables in mixes.items():
        own = [key for key, part in parts.items() if any(part is d for d in drawables)]
        row: dict[str, Any] = dict(spent[name])
        row["sum_ms"] = sum(spent[key]["both_ms"] for key in own)
        row["sum_general_ms"] = row["sum_ms"]
        if "gaussian" in own:
            row["sum_general_ms"] += spent["gaussian general"]["both_ms"] - spent["gaussian"]["both_ms"]
        row["ratio"], row["ratio_general"] = row["both_ms"] / row["sum_ms"], row["both_ms"] / row["sum_general_ms"]
        with torch.no_grad():
            row["fallback_share"] = fused(drawables, camera, RAY).visibility.fallback
        result["mixes"][name] = row
    return result


def order(repeats: int) -> dict[str, Any]:
    """100 k Gaussians at 800 x 800, ray-exact along the ray, with one key each, and by EWA.

    `even`: sizes about alike; `wide`: raster.py's cloud, whose largest reach through the whole scene.
    """
    found: dict[str, Any] = {}
    wide, camera = cloud(100_000, 800)
    for name, flat in (("even", scenes.gaussian(scenes.Cloud(100_000, 800, 10))), ("wide", wide)):
        shared = (flat.means, flat.quaternions, flat.scales, flat.opacities, flat.sh_dc, flat.sh_rest, 3)
        rays = RayGaussianDrawable(*shared)
        jobs = {"ray": job([rays], camera), "centre": job([rays], camera, CENTRE)}
        jobs |= {"ewa fast": job([flat], camera), "ewa general": job([flat], camera, RAY, general)}
        row: dict[str, Any] = times(jobs, repeats)
        row |= {"fallback_share": jobs["ray"].forward().visibility.fallback, "window": 64}
        for other in ("centre", "ewa fast", "ewa general"):
            row[f"ray_over_{other.replace(' ', '_')}"] = row["ray"]["both_ms"] / row[other]["both_ms"]
        row["general_over_fast"] = row["ewa general"]["both_ms"] / row["ewa fast"]["both_ms"]
        found[name] = row
    return found


def boxes(repeats: int) -> dict[str, Any]:
    """256 boxes of 32^3 at 400 x 300, about 128 steps to a ray."""
    camera, drawable = scenes.camera_of(400, 300, 0.6), scenes.box_grid()
    one = job([drawable], camera)
    row: dict[str, Any] = times({"ours": one}, repeats)["ours"]
    frame = one.forward()
    hit = float((frame.alpha > 0).sum())
    row |= {"lookups": frame.visibility.lookups, "lookups_per_ray": frame.visibility.lookups / (400 * 300)}
    row |= {"lookups_per_ray_that_hits": frame.visibility.lookups / hit, "mean_alpha": float(frame.alpha.mean())}
    return row | {"events": covered([drawable], camera), "fallback_share": frame.visibility.fallback}


def neural(repeats: int) -> dict[str, Any]:
    """Neural splats of width 8 and 16 against Gaussians, per covered pixel."""
    camera = scenes.camera_of(400)
    bodies = lambda: scenes.Cloud(5_000, 400, 10)  # noqa: E731
    parts: dict[str, tuple[Drawable, Door]] = {
        "neural 8": (scenes.neural(bodies(), 8), fused),
        "neural 16": (scenes.neural(bodies(), 16), fused),
        "gaussian_ray": (scenes.gaussian_ray(bodies()), fused),
        "ewa general": (scenes.gaussian(bodies()), general),
        "ewa fast": (scenes.gaussian(bodies()), fused),
    }
    spent: dict[str, Any] = times({k: job([part], camera, RAY, door) for k, (part, door) in parts.items()}, repeats)
    for name, (part, _) in parts.items():
        spent[name]["events"] = covered([part], camera)
        spent[name]["ns_per_event"] = 1e6 * spent[name]["both_ms"] / spent[name]["events"]
    for name in list(parts)[2:]:
        spent[f"over_{name.replace(' ', '_')}"] = spent["neural 8"]["ns_per_event"] / spent[name]["ns_per_event"]
    return spent


def threads(_: int) -> dict[str, Any]:
    """Wall-clock speed-up of all threads over one, best of 5, and CPU time of all over one."""
    count = os.cpu_count() or 1
    camera = scenes.camera_of(400)
    result: dict[str, Any] = {"threads": count}
    for name, make in scenes.KINDS.items():
        one = job([make(scenes.Cloud(200 if name == "box" else 5_000, 400, 10))], camera)
        walls, spent = [], []
        for wanted in (1, count):
            library.set_threads(wanted)
            walls.append(best_wall_milliseconds(one.both, 5))
            spent.append(cpu_milliseconds({"both": one.both}, 5)["both"])
        library.set_threads(1)
        result[name] = {"wall_speed_up": walls[0] / walls[1], "cpu_ratio": spent[1] / spent[0]}
    return result


PARTS: dict[str, Callable[[int], Any]] = {
    "oracle": against_oracle,
    "scaling": scaling,
    "meshes": meshes,
    "mixed": mixed,
    "order": order,
    "boxes": boxes,
    "neural": neural,
    "threads": threads,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    library.set_threads(1)
    result: dict[str, Any] = {"cores": os.cpu_count(), "library": library.chosen()}
    for name in arguments.only:
        result[name] = PARTS[name](arguments.repeats)
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
