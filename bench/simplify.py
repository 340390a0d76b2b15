"""What is left of a trained scene's picture when it is simplified: merged, with and without cameras, against pruned.

    python bench/simplify.py RUN --out docs/simplify

RUN is a run of one layer of splats (`smalti train --data demo`). Decibels are PSNR against the whole scene's own
pictures at the held-out views; with cameras, those are the training views. Writes OUT.json and OUT.png.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.cameras.camera import Camera
from smalti.scene import Scene, crop, everything, index, simplify
from smalti.trainers.pictures import write_png
from smalti.trainers.run import Run

SHARES = (0.5, 0.25, 0.1)


def views_of(run: Run, rows: list[int]) -> list[Camera]:
    """Cameras of a run, at most 400 pixels wide."""
    dataset = run.dataset()
    cameras = [dataset.views[row].camera for row in rows]
    return [
        each if each.width <= 400 else each.scaled_to(400, round(400 * each.height / each.width)) for each in cameras
    ]


@torch.no_grad()
def pictures(scene: Scene, views: list[Camera]) -> list[Tensor]:
    """Colours at the views."""
    return [scene.render(view).color.clamp(0, 1) for view in views]


def decibels(first: list[Tensor], second: list[Tensor]) -> float:
    """Mean PSNR."""
    errors = [float((a - b).square().mean()) for a, b in zip(first, second, strict=True)]
    return sum(-10 * math.log10(max(error, 1e-12)) for error in errors) / len(errors)


def ways(scene: Scene, cameras: list[Camera]) -> dict[str, Callable[[int], object]]:
    """What is compared, as edits to a number of primitives."""
    (held,) = scene
    weights = held.family.importance()

    def prune(count: int) -> object:
        return crop(scene, index(held.name, weights.argsort(descending=True, stable=True)[:count]))

    return {
        "pruned by opacity x area": prune,
        "simplify": lambda count: simplify(scene, everything(), count=count),
        "simplify, cameras": lambda count: simplify(scene, everything(), count=count, cameras=cameras),
    }


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--out", default="simplify")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(arguments.run)
    scene = run.load_scene()
    training, held_out = run.split()
    judges, total = views_of(run, held_out), len(scene)
    whole = pictures(scene, judges)
    rows: list[dict[str, Any]] = []
    shown: list[list[Tensor]] = [[whole[0]] * len(SHARES)]
    for name, reduce in ways(scene, views_of(run, training)).items():
        shown.append([])
        for share in SHARES:
            start = time.perf_counter()
            reduce(int(total * share))
            seconds = time.perf_counter() - start
            now = pictures(scene, judges)
            row = {"way": name, "share": share, "primitives": len(scene), "psnr": round(decibels(whole, now), 2)}
            rows.append({**row, "seconds": round(seconds, 1)})
            print(rows[-1], flush=True)
            shown[-1].append(now[0])
            scene.undo()
    sheet = torch.cat([torch.cat(line, dim=1) for line in shown], dim=0)
    write_png(Path(f"{arguments.out}.png"), (sheet * 255).round().byte().numpy())
    Path(f"{arguments.out}.json").write_text(json.dumps({"primitives": total, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
