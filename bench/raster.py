"""The compositor beside the prototype on its own lists; the whole render: `python bench/raster.py --json`."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from typing import Any

import numpy as np
import torch
from prototype import FOLDER, Prototype
from timing import best_wall_milliseconds, cpu_milliseconds

import smalti
from smalti.renderers.drawables import GaussianDrawable
from smalti.renderers.engine import library


class ListsDoor:
    """Our compositor on the prototype's finished 2D Gaussians and lists."""

    def __init__(self, prototype: Prototype, isa: str) -> None:
        self.lib = library.load_named(isa).lib
        self.plan = ctypes.c_void_p(self.lib.smalti_plan_new())
        d, n = prototype.data, prototype.count
        address = lambda a: a.ctypes.data_as(ctypes.c_void_p)  # noqa: E731
        arrays = [address(d[k]) for k in ("mean", "conic", "opac", "rgb", "start", "ids")]
        code = self.lib.smalti_plan_from_lists(self.plan, n, prototype.width, prototype.height, *arrays)
        library.check(code)
        self.picture = np.zeros((prototype.height, prototype.width, 3), np.float32)
        self.alpha = np.zeros((prototype.height, prototype.width), np.float32)
        self.sums = np.zeros((n, 12), np.float32)
        out = [address(self.picture), address(self.alpha)]
        self.forward = lambda: self.lib.smalti_lists_forward(self.plan, *out)
        self.backward = lambda: self.lib.smalti_lists_backward(
            self.plan, address(d["v_rgb"]), address(d["v_alpha"]), address(self.sums)
        )


def lists_against_prototype(isa: str, count: int, repeats: int) -> dict[str, Any]:
    """CPU milliseconds of both, one thread, and how far the pictures are apart."""
    library.set_threads(1)
    prototype = Prototype(count, isa)
    ours = ListsDoor(prototype, isa)
    jobs = {
        "prototype_forward": prototype.forward,
        "ours_forward": ours.forward,
        "prototype_backward": prototype.backward,
        "ours_backward": ours.backward,
    }
    row: dict[str, Any] = {"isa": isa, "gaussians": count, **cpu_milliseconds(jobs, repeats)}
    row["ratio_forward"] = row["ours_forward"] / row["prototype_forward"]
    row["ratio_backward"] = row["ours_backward"] / row["prototype_backward"]
    mine, theirs = row["ours_forward"] + row["ours_backward"], row["prototype_forward"] + row["prototype_backward"]
    row["ratio"] = mine / theirs
    # Theirs drops the event that ends a ray, ours keeps it: at most 0.01 of a colour (decision 2).
    row["largest_picture_difference"] = float(np.abs(ours.picture - prototype.picture).max())
    colour = prototype.gradient[:, 6:]
    row["relative_colour_gradient_difference"] = float(
        np.linalg.norm(ours.sums[:, 6:9] - colour) / np.linalg.norm(colour)
    )

    def both() -> None:
        ours.forward()
        ours.backward()

    one = best_wall_milliseconds(both)
    library.set_threads(2)
    ours.forward()
    row["wall_speed_up_two_threads"] = one / best_wall_milliseconds(both)
    library.set_threads(1)
    return row


def cloud(count: int, size: int) -> tuple[GaussianDrawable, smalti.Camera]:
    """A 3D scene whose projection resembles the prototype's: same sizes on the screen, same opacities, SH degree 3."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    uniform = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    eye, origin, up = torch.tensor([0.0, 0.0, -4.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0])
    camera = smalti.Camera.look_at(eye, origin, up, 0.8, (size, size))
    focal = float(camera.intrinsics[0])
    depth = 3 + 3 * uniform(count)
    centres = size * uniform(max(20, count // 500), 2)
    near = centres[torch.randint(len(centres), (count,), generator=generator)] + 60 * normal(count, 2)
    pixels = torch.where(uniform(count, 1) < 0.5, near, size * uniform(count, 2))
    means = (
        torch.stack([(pixels[:, 0] - size / 2) / focal, (pixels[:, 1] - size / 2) / focal, torch.ones(count)], 1)
        * depth[:, None]
    )
    spread = torch.exp(0.75 * normal(count, 1) + np.log(6.0)) * torch.exp(0.45 * normal(count, 3))
    scales = spread.clamp(0.6, 120) / focal * depth[:, None]
    opacities = torch.sigmoid(1.6 * normal(count) - 1.6).clamp(0.005, 0.999)
    drawable = GaussianDrawable(
        means=(means - torch.tensor([0.0, 0.0, 4.0])).requires_grad_(),
        quaternions=normal(count, 4).requires_grad_(),
        scales=scales.requires_grad_(),
        opacities=opacities.requires_grad_(),
        sh_dc=normal(count, 3).requires_grad_(),
        sh_rest=(0.2 * normal(count, 15, 3)).requires_grad_(),
        sh_degree=3,
    )
    return drawable, camera


def whole_render(isa: str, count: int, repeats: int) -> dict[str, Any]:
    """Project, SH, sort, bin, composite and all of it back, against the prototype's compositor."""
    library.set_threads(1)
    torch.set_num_threads(1)
    prototype = Prototype(count, isa)
    drawable, camera = cloud(count, 800)
    weight = torch.randn(800, 800, 3, generator=torch.Generator().manual_seed(1))

    def ours() -> None:
        with library.use_isa(isa):
            frame = smalti.render([drawable], camera)
            frame.color.backward(weight)

    def both() -> None:
        prototype.forward()
        prototype.backward()

    row: dict[str, Any] = {
        "isa": isa,
        "gaussians": count,
        **cpu_milliseconds({"prototype": both, "ours": ours}, repeats),
    }
    row["ratio"] = row["ours"] / row["prototype"]
    with torch.no_grad():
        frame = smalti.render([drawable], camera)
        row["intersections"], row["mean_alpha"] = frame.visibility.intersections, float(frame.alpha.mean())
    return row


def against_torch(count: int, tiles: int) -> dict[str, Any]:
    """The prototype folder's plain-torch reference in float32 on some tiles, scaled to all, against our compositor."""
    sys.path.insert(0, str(FOLDER))
    import ref64  # pyright: ignore[reportMissingImports]

    library.set_threads(1)
    prototype = Prototype(count, library.chosen())
    ours = ListsDoor(prototype, library.chosen())
    lists = np.diff(prototype.data["start"])
    chosen = np.linspace(0, len(lists) - 1, tiles).astype(int)
    share = lists[chosen].sum() / lists.sum()
    mine = cpu_milliseconds({"f": ours.forward, "b": ours.backward}, 5)
    reference = cpu_milliseconds({"r": lambda: ref64.run(prototype.data, torch.float32, tiles=chosen)}, 3)["r"] / share
    total = mine["f"] + mine["b"]
    return {"gaussians": count, "ours": total, "plain_torch_float32": reference, "times_faster": reference / total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=["lists", "whole", "torch"], default=None)
    parser.add_argument("--isa", nargs="*", default=[name for name in library.available() if name != "double"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {"cores": os.cpu_count(), "library": library.chosen()}
    if arguments.only in (None, "lists"):
        result["compositor_on_prototype_lists"] = [
            lists_against_prototype(i, arguments.count, arguments.repeats) for i in arguments.isa
        ]
    if arguments.only in (None, "whole"):
        result["whole_render"] = [
            whole_render(i, arguments.count, arguments.repeats) for i in arguments.isa if i != "baseline"
        ]
    if arguments.only in (None, "torch"):
        result["against_plain_torch"] = against_torch(arguments.count, 60)
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
