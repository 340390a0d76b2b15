from __future__ import annotations

from pathlib import Path

import numpy as np
import small_sets
import torch

from smalti.configs.resolve import resolve
from smalti.datasets.images import ImageCache
from smalti.trainers.evaluation import target_of
from smalti.trainers.run import Run
from smalti.trainers.views import ViewSource


def test_masks_are_for_what_the_configuration_says(tmp_path: Path) -> None:
    """For alpha, a picture is its foreground over the background, and all of it counts."""
    root = small_sets.write_transforms(tmp_path / "capture", small_sets.cameras(3))
    mask = np.zeros((small_sets.HEIGHT, small_sets.WIDTH), np.uint8)
    mask[:, 24:] = 255
    for row in range(3):
        small_sets.write_picture(root / "masks" / f"view_{row:02d}.png", mask)
    shown = torch.from_numpy(small_sets.picture(0)).float() / 255.0
    for purpose in ("loss", "alpha", "none"):
        stated = {"data.path": str(root), "data.masks": purpose, "data.background": "white"}
        run = Run.planned(tmp_path / purpose, resolve("gaussians-fast", stated))
        with ImageCache(run.dataset()) as cache:
            source = ViewSource(run.dataset(), [0], cache, run.config.data.background)
            view = source.plain(0, torch.device("cpu"))
            truth, counted = target_of(cache.get(0), source.color)
        expected = shown.clone()
        if purpose == "alpha":
            expected[:, :24] = 1.0
        torch.testing.assert_close(view.target, expected)
        torch.testing.assert_close(truth, expected)
        if purpose == "loss":
            assert view.mask is not None
            assert counted is not None
            assert view.mask[:, 23:25].unique(dim=0).tolist() == [[0.0, 1.0]]
            assert counted[:, 23:25].unique(dim=0).tolist() == [[False, True]]
        else:
            assert view.mask is None
            assert counted is None
