"""`--data-format nerfstudio` with nerfstudio's own parsers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import MISSING, POINTS
from smalti.datasets.dataset import Dataset
from smalti.datasets.open import open_dataset

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "nerfstudio is there")


def by_name(dataset: Dataset) -> dict[str, object]:
    return {Path(view.camera.name).name: view.camera for view in dataset.views}


def assert_same_cameras(ours: Dataset, theirs: Dataset) -> None:
    first, second = by_name(ours), by_name(theirs)
    assert sorted(first) == sorted(second)
    for name, camera in first.items():
        other = second[name]
        for field in ("rotation", "translation", "intrinsics"):
            ours_values, values = (getattr(each, field).numpy() for each in (camera, other))
            np.testing.assert_allclose(values, ours_values, atol=2e-5, err_msg=f"{name} {field}")


def test_the_frame_is_that_of_the_file(capture: Path) -> None:
    theirs = open_dataset(capture, format="nerfstudio")
    assert_same_cameras(open_dataset(capture), theirs)
    assert {view.split for view in theirs.views} == {"train", "test"}
    assert theirs.background == (1.0, 1.0, 1.0)


def test_options_reach_the_parser(capture: Path) -> None:
    found = open_dataset(capture, format="nerfstudio:nerfstudio-data,eval_mode=interval,eval_interval=4")
    held_out = [Path(view.camera.name).name for view in found.views if view.split == "test"]
    assert held_out == ["view_00.png", "view_04.png", "view_08.png"]


def test_another_parser_with_its_points(colmap_model: Path) -> None:
    theirs = open_dataset(colmap_model, format="nerfstudio:colmap,colmap_path=sparse/0")
    assert_same_cameras(open_dataset(colmap_model), theirs)
    assert theirs.points is not None
    rows = np.argsort(theirs.points.colors[:, 0])
    np.testing.assert_allclose(theirs.points.positions[rows], [point[:3] for point in POINTS], atol=2e-6)
    assert theirs.points.colors[rows].tolist() == [[point[3], 20, 30] for point in POINTS]
