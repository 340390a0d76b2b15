"""The picture on docs/viewer-panels.md: every mode of the viewer on a trained run.

smalti train demo && python bench/viewer_modes.py runs/demo-... docs/viewer-modes.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smalti.datasets.images import ImageCache
from smalti.scene import sphere, split, where
from smalti.trainers.run import Run
from smalti.viewer.fitting import fitted
from smalti.viewer.look import Look
from smalti.viewer.modes import paint
from smalti.viewer.stage import Stage, Views

WIDTH, HEIGHT = 300, 220


def main(run_folder: str, out: str) -> None:
    """Draws eight looks at one view of the run, and prints how to read them."""
    run = Run.open(run_folder)
    scene, dataset = run.load_scene(run.latest_step()), run.dataset()
    train, test = run.split(dataset)
    views = Views(dataset, ImageCache(dataset, downscale=run.config.data.downscale), train, test)
    stage = Stage(scene, views=views)
    row = train[1]
    camera = fitted(views.cache.camera(row), WIDTH, HEIGHT)
    middle = next(iter(scene)).family.positions().detach().mean(dim=0)
    print("layers:", split(scene, where("z", ">", float(middle[2]) + 0.25), "upper"))
    around = sphere(middle.tolist(), 0.45)
    looks = [Look(camera, mode=mode) for mode in ("color", "depth", "normal", "family", "contribution", "error")]
    pictures = [paint(stage, look) for look in looks]
    pictures += [paint(stage, Look(camera, truth_row=row)), paint(stage, Look(camera), around)]
    for picture in pictures:
        print(picture.legend)
    tiles = [picture.pixels for picture in pictures]
    whole = np.concatenate([np.concatenate(tiles[k : k + 4], axis=1) for k in (0, 4)], axis=0)
    Image.fromarray(whole).quantize(255).save(Path(out), optimize=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
